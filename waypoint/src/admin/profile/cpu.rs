//! Where the process spends its time: a timer interrupts whoever uses a processor some hundred times a second,
//! and the stack is noted. On a thread of its own, for the names of functions take long to find.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use pprof::{Frames, ProfilerGuardBuilder, Symbol};
use tokio::sync::oneshot;

use super::messages::{Builder, Frame};

/// Samples in a second of processor time; no divisor of what timers usually run at.
const FREQUENCY_HZ: i32 = 99;

/// Code in which no sample is taken: a stack can not be followed out of it in every version.
const NOT_IN: [&str; 2] = ["libgcc", "vdso"];

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

/// Begins to take a profile.
///
/// # Errors
/// When the thread can not be started.
pub fn start(turn: Turn, seconds: u64) -> io::Result<Taken> {
    let (tell, done) = oneshot::channel();
    let (goes_on, is_over) = mpsc::channel();
    let work = move || {
        let profile = sample(Duration::from_secs(seconds), &is_over);
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

fn sample(limit: Duration, is_over: &mpsc::Receiver<()>) -> io::Result<Vec<u8>> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HZ)
        .blocklist(&NOT_IN)
        .build()
        .map_err(io::Error::other)?;
    let began = SystemTime::now();
    if is_over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected) {
        return Err(io::Error::other("the client left"));
    }
    let took = began.elapsed().unwrap_or(limit);
    let noted = guard.report().build_unresolved();
    // Nothing is interrupted any more while names are looked up.
    drop(guard);
    let noted = noted.map_err(io::Error::other)?.data;
    let stacks = noted
        .into_iter()
        .map(|(stack, count)| (stack.into(), count));
    encode(stacks.collect(), began, took)
}

fn encode(
    stacks: HashMap<Frames, isize>,
    began: SystemTime,
    took: Duration,
) -> io::Result<Vec<u8>> {
    let every = 1_000_000_000 / i64::from(FREQUENCY_HZ);
    let mut builder = Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
    builder.period(("cpu", "nanoseconds"), every, began, took);
    for (stack, count) in stacks {
        let count = i64::try_from(count).unwrap_or_default();
        let places: Vec<Vec<Frame>> = stack.frames.iter().map(|p| place(p)).collect();
        let thread = stack.thread_name_or_id();
        let values = vec![count, count.saturating_mul(every)];
        builder.sample(&places, values, &[("thread", &thread)]);
    }
    builder.finish()
}

fn place(symbols: &[Symbol]) -> Vec<Frame> {
    let frame = |symbol: &Symbol| Frame {
        function: symbol.name(),
        file: symbol.filename().into_owned(),
        line: symbol.lineno(),
    };
    symbols.iter().map(frame).collect()
}
