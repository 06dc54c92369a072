//! The queue of this process, and what each of its workers has to write records with.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use super::super::known::Known;
use super::super::pairs::Pairs;
use super::{Buffer, Queue};
use crate::telemetry::access_log::TimeText;
use crate::telemetry::exchange::Seen;

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

thread_local! {
    pub(super) static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// What a worker needs to write records.
pub(in super::super) struct Worker {
    pub(super) buffer: Arc<Buffer>,
    pub(super) room: Room,
}

/// Room for one record.
pub(in super::super) struct Room {
    pub span: Pairs,
    pub known: Known,
    pub record: Pairs,
    pub time: TimeText,
    /// Of a line that a provider's format makes.
    pub text: Vec<u8>,
}

/// Tells of an exchange that ended, if anybody wants to hear of it. Never waits.
pub fn tell(seen: &Seen<'_>) {
    let Some(queue) = QUEUE.get().filter(|queue| queue.is_wanted(seen)) else {
        return;
    };
    // The thread-local is gone only while the thread is being torn down: no exchange ends then.
    let _ = WORKER.try_with(|worker| {
        if let Ok(mut worker) = worker.try_borrow_mut() {
            queue.tell(worker.get_or_insert_with(|| queue.join()), seen);
        }
    });
}

/// Exchanges that wait for collectors, and the bytes of their records.
pub fn waiting() -> (usize, usize) {
    QUEUE.get().map_or((0, 0), |queue| queue.waiting())
}

/// Objects of which workers keep what spans say of them, and how many bytes that is.
pub fn known() -> (usize, usize) {
    QUEUE.get().map_or((0, 0), |queue| queue.known.get())
}

/// Lets go of the objects of which this thread keeps what spans say of them: those of an old configuration, too, if
/// nothing ended since.
pub fn let_go() {
    of_this_thread(Known::let_go);
}

/// Lets go of what this thread keeps of objects that only an older snapshot has: for a worker for which nothing comes, and
/// which would learn of a newer one from nobody.
pub fn of_snapshot(version: u64) {
    of_this_thread(|known| known.of_snapshot(version));
}

fn of_this_thread(change: impl Fn(&mut Known)) {
    let _ = WORKER.try_with(|worker| {
        if let Ok(mut worker) = worker.try_borrow_mut() {
            worker.iter_mut().for_each(|of| change(&mut of.room.known));
        }
    });
}

/// Opens the way for exchanges, for the rest of the process. `None` when it is open already.
pub(in super::super) fn open(queue: Queue) -> Option<Arc<Queue>> {
    let queue = Arc::new(queue);
    QUEUE.set(queue.clone()).ok().map(|()| queue)
}
