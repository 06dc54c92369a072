//! One profile at a time, each taken on a thread of its own: the names of functions take long to find.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

static RUNNING: AtomicBool = AtomicBool::new(false);

/// The right to take a profile; there is one.
pub struct Turn(());

impl Turn {
    /// `None`: somebody has it.
    pub fn take() -> Option<Self> {
        // Made only when it is got: one that is made and dropped would end the turn of whoever has it.
        (!RUNNING.swap(true, Ordering::AcqRel)).then(|| Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Release);
    }
}

/// Who asked for a profile, as the thread that takes it sees them.
pub struct Asker(mpsc::Receiver<()>);

impl Asker {
    /// Waits for so long.
    ///
    /// # Errors
    /// When they leave meanwhile.
    pub fn waits(&self, time: Duration) -> io::Result<()> {
        match self.0.recv_timeout(time) {
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the client left")),
            _ => Ok(()),
        }
    }
}

/// A profile that is being taken. Dropped, it ends at once.
pub struct Taken {
    done: oneshot::Receiver<io::Result<Vec<u8>>>,
    _goes_on: mpsc::Sender<()>,
}

impl Taken {
    /// The profile, once it is there.
    pub async fn profile(self) -> io::Result<Vec<u8>> {
        let ended = |_| Err(io::Error::other("its thread ended; please report this"));
        self.done.await.unwrap_or_else(ended)
    }
}

/// Begins to take a profile for so many seconds.
///
/// # Errors
/// When the thread can not be started.
pub fn start(
    turn: Turn,
    seconds: u64,
    sample: fn(Duration, &Asker) -> io::Result<Vec<u8>>,
) -> io::Result<Taken> {
    let (tell, done) = oneshot::channel();
    let (goes_on, is_over) = mpsc::channel();
    let work = move || {
        let profile = sample(Duration::from_secs(seconds), &Asker(is_over));
        // Before it is told: who has it may ask for the next one.
        drop(turn);
        // Nobody listens any more if the client left.
        let _ = tell.send(profile);
    };
    std::thread::Builder::new()
        .name("profile".to_owned())
        .spawn(work)?;
    Ok(Taken {
        done,
        _goes_on: goes_on,
    })
}
