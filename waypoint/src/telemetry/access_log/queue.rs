//! From the workers to stdout: each worker writes its lines into a buffer of its own, a thread swaps
//! the buffers for empty ones a few times a second and writes them out. A worker never waits for
//! stdout and allocates nothing; when stdout does not keep up, lines are dropped and counted.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};

use crate::limits::{
    ACCESS_LOG_BATCH_INTERVAL, ACCESS_LOG_FLUSH_TIMEOUT, ACCESS_LOG_QUEUE_BYTES,
    ACCESS_LOG_QUEUE_LINES,
};
use crate::telemetry::counters::ACCESS_LOG_DROPPED;
use crate::telemetry::kept::Size;

/// Room a buffer keeps after a burst.
const KEPT_BYTES: usize = 256 * 1024;

/// Lines of one worker that wait. The lock is contended only while the buffers are swapped, which
/// is a few nanoseconds, some fifty times a second.
#[derive(Default)]
pub struct Lines {
    waiting: Mutex<Batch>,
}

#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: usize,
}

/// The lines of all workers.
#[derive(Default)]
pub struct Queue {
    workers: Mutex<Vec<Arc<Lines>>>,
    /// There is something to write; the writer need not be woken again.
    pending: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// What all workers keep of lines that are alike.
    pub kept: Arc<Size>,
}

#[derive(Default)]
struct State {
    wake: bool,
    closed: bool,
}

impl Queue {
    /// A buffer for a new worker.
    pub fn join(&self) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        lock(&self.workers).push(lines.clone());
        lines
    }

    /// Appends a line to a worker's buffer, or drops and counts it if the buffer is full. `write` appends it,
    /// its end included; `false` takes it back.
    pub fn push_with(&self, lines: &Lines, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        {
            let mut batch = lock(&lines.waiting);
            let end = batch.text.len();
            let full = batch.lines >= ACCESS_LOG_QUEUE_LINES || end >= ACCESS_LOG_QUEUE_BYTES;
            if full || !write(&mut batch.text) {
                batch.text.truncate(end);
                ACCESS_LOG_DROPPED.add(1);
                return;
            }
            batch.lines += 1;
        }
        // Mostly the writer is awake already, and workers share the flag without taking it from each other. One who
        // appended after the writer took this buffer sees that the flag was taken back before: by the lock.
        let asleep = !self.pending.load(Ordering::Acquire);
        if asleep && !self.pending.swap(true, Ordering::AcqRel) {
            lock(&self.state).wake = true;
            self.changed.notify_one();
        }
    }

    /// Moves all waiting text out, at most one buffer of it at a time. Returns lines and text of
    /// a worker to `write`.
    fn drain(&self, spare: &mut Batch, mut write: impl FnMut(&[u8], usize)) {
        // First the flag: a line pushed from here on wakes the writer again.
        self.pending.store(false, Ordering::Release);
        let workers: Vec<_> = lock(&self.workers).clone();
        for worker in workers {
            spare.text.clear();
            spare.text.shrink_to(KEPT_BYTES);
            spare.lines = 0;
            std::mem::swap(spare, &mut *lock(&worker.waiting));
            if spare.lines > 0 {
                write(&spare.text, spare.lines);
            }
        }
    }

    /// Waits until there is something to write. Whether the queue is closed.
    fn wait(&self) -> bool {
        let state = lock(&self.state);
        let waited = self.changed.wait_while(state, |s| !s.wake && !s.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.wake = false;
        // Lines that come right after the first go out with it.
        let gathered = self
            .changed
            .wait_timeout_while(state, ACCESS_LOG_BATCH_INTERVAL, |s| !s.closed);
        let (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        state.closed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes. Dropped, it writes what is left and ends; lines of exchanges that end
/// after that are lost, so it is the last thing to be dropped.
pub struct Writer {
    queue: Arc<Queue>,
    ended: mpsc::Receiver<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it can not be started.
    pub fn start(queue: Arc<Queue>, sink: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let source = queue.clone();
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                run(&source, sink);
                // Tells the owner by being dropped, even when run panics.
                drop(end);
            })?;
        Ok(Self { queue, ended })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.changed.notify_all();
        let ended = self.ended.recv_timeout(ACCESS_LOG_FLUSH_TIMEOUT);
        if ended == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("stdout takes no more; the last lines of the access log are lost");
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn run(queue: &Queue, mut sink: Box<dyn Write + Send>) {
    let mut spare = Batch::default();
    let mut broken = false;
    loop {
        let closed = queue.wait();
        queue.drain(&mut spare, |text, lines| {
            let outcome = sink.write_all(text).and_then(|()| sink.flush());
            if let Err(error) = &outcome {
                ACCESS_LOG_DROPPED.add(i64::try_from(lines).unwrap_or(i64::MAX));
                if !broken {
                    tracing::error!(%error, "the access log can not be written; lines are lost and counted");
                }
            }
            broken = outcome.is_err();
        });
        if closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Queue, lines: &Lines, line: &impl serde::Serialize) {
        queue.push_with(lines, |text| {
            serde_json::to_writer(&mut *text, line).unwrap();
            text.push(b'\n');
            true
        });
    }

    /// Hands every write to the test.
    struct Sink(mpsc::Sender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_all_workers_arrive_in_order_and_closing_loses_none() {
        let (sender, receiver) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let writer = Writer::start(queue.clone(), Box::new(Sink(sender))).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let queue = queue.clone();
                std::thread::spawn(move || {
                    let lines = queue.join();
                    (0..1_000).for_each(|n| push(&queue, &lines, &(worker, n)));
                })
            })
            .collect();
        workers.into_iter().for_each(|w| w.join().unwrap());
        drop(writer);
        let text = String::from_utf8(receiver.iter().flatten().collect()).unwrap();
        let mut next = [0; 4];
        for line in text.lines() {
            let (worker, n): (usize, u32) = serde_json::from_str(line).unwrap();
            assert_eq!(n, next[worker]);
            next[worker] += 1;
        }
        assert_eq!(next, [1_000; 4]);
    }

    #[test]
    fn a_line_is_written_without_waiting_for_the_end() {
        let (sender, receiver) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let _writer = Writer::start(queue.clone(), Box::new(Sink(sender))).unwrap();
        let lines = queue.join();
        for n in 0..3 {
            push(&queue, &lines, &n);
            assert_eq!(receiver.recv().unwrap(), format!("{n}\n").into_bytes());
        }
    }

    #[test]
    fn a_full_buffer_drops_and_counts_instead_of_growing() {
        let queue = Queue::default();
        let lines = queue.join();
        for _ in 0..ACCESS_LOG_QUEUE_LINES {
            push(&queue, &lines, &0);
        }
        let dropped = ACCESS_LOG_DROPPED.value();
        push(&queue, &lines, &1);
        assert!(ACCESS_LOG_DROPPED.value() > dropped);
        let mut written = Vec::new();
        queue.drain(&mut Batch::default(), |text, lines| {
            written.push((text.len(), lines))
        });
        assert_eq!(
            written,
            [(2 * ACCESS_LOG_QUEUE_LINES, ACCESS_LOG_QUEUE_LINES)]
        );
        push(&queue, &lines, &2);
        queue.drain(&mut Batch::default(), |text, _| assert_eq!(text, b"2\n"));
    }
}
