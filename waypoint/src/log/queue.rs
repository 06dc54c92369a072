//! From whoever logs to stderr: lines wait in one buffer, a thread of its own writes them. Nobody
//! waits for stderr, for a worker that did would answer nobody: when stderr does not keep up, lines
//! are dropped and counted.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use tracing_subscriber::fmt::MakeWriter;

use crate::limits::{LOG_FLUSH_TIMEOUT, LOG_QUEUE_BYTES};
use crate::telemetry::counters::LOG_DROPPED;

/// Room the buffer keeps after a burst.
const KEPT_BYTES: usize = 64 * 1024;

/// Lines that wait.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    lines: i64,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line, or drops and counts it if the buffer is full.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.text.len().saturating_add(line.len()) > LOG_QUEUE_BYTES {
            drop(state);
            return LOG_DROPPED.add(1);
        }
        state.text.extend_from_slice(line);
        state.lines = state.lines.saturating_add(1);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for text and swaps it for the empty `spare`: how many lines, and whether the queue is
    /// closed.
    fn take(&self, spare: &mut Vec<u8>) -> (i64, bool) {
        spare.clear();
        spare.shrink_to(KEPT_BYTES);
        let waited = self
            .changed
            .wait_while(self.lock(), |s| s.text.is_empty() && !s.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(spare, &mut state.text);
        (std::mem::take(&mut state.lines), state.closed)
    }
}

/// The thread that writes. Dropped, it writes what is left, as far as stderr takes it in time.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    ended: mpsc::Receiver<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it can not be started.
    pub fn start(sink: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let source = queue.clone();
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                run(&source, sink);
                // Tells the owner by being dropped, even when run panics.
                drop(end);
            })?;
        Ok(Self { queue, ended })
    }

    /// Where lines are put.
    pub fn lines(&self) -> Lines {
        Lines(self.queue.clone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        // If stderr takes no more there is nobody to be told of it.
        let _ = self.ended.recv_timeout(LOG_FLUSH_TIMEOUT);
    }
}

fn run(queue: &Queue, mut sink: Box<dyn Write + Send>) {
    let mut text = Vec::new();
    loop {
        let (lines, closed) = queue.take(&mut text);
        let written = sink.write_all(&text).and_then(|()| sink.flush());
        if written.is_err() {
            LOG_DROPPED.add(lines);
        }
        if closed {
            return;
        }
    }
}

/// Puts lines into the queue. Never blocks.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Queue>);

impl Write for Lines {
    /// A whole line: an event is formatted first and written at once.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands every write to the test, which can keep it waiting.
    struct Sink(mpsc::SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_and_closing_loses_none() {
        let (sender, receiver) = mpsc::sync_channel(1_000);
        let writer = Writer::start(Box::new(Sink(sender))).unwrap();
        let mut lines = writer.lines();
        for n in 0..100 {
            lines.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        drop(writer);
        let text = String::from_utf8(receiver.iter().flatten().collect()).unwrap();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn whoever_logs_does_not_wait_for_a_reader_that_stalls() {
        // The sink takes nothing until the test does.
        let (sender, receiver) = mpsc::sync_channel(0);
        let writer = Writer::start(Box::new(Sink(sender))).unwrap();
        let mut lines = writer.lines();
        let before = LOG_DROPPED.value();
        let line = [b"x".repeat(1023), vec![b'\n']].concat();
        // One buffer full is being written, one waits.
        let most = 2 * LOG_QUEUE_BYTES / line.len();
        for _ in 0..most + 10 {
            lines.write_all(&line).unwrap();
        }
        let dropped = LOG_DROPPED.value() - before;
        assert!(dropped >= 10, "{dropped}");
        let reader = std::thread::spawn(move || receiver.iter().flatten().count());
        drop((lines, writer));
        let written = reader.join().unwrap();
        assert_eq!(
            written + usize::try_from(dropped).unwrap() * line.len(),
            (most + 10) * line.len()
        );
    }
}
