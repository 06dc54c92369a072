//! The access log: a line on stdout for every request and every TCP stream, in Cairn's JSON (`line`) or in
//! a format with Envoy's operators (`template`). How lines get to stdout without holding up a worker is
//! in `queue`.

mod address;
mod line;
mod member;
mod names;
mod operator;
mod queue;
pub mod template;
mod time;
mod written;

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use super::exchange::Seen;
use line::Line;
pub(super) use line::method;
pub(super) use member::Members;
pub(super) use names::{UpstreamCluster, route_name, upstream_cluster};
pub(super) use operator::{Given, Operator};
pub use queue::Writer;
use queue::{Lines, Queue};
pub(super) use time::TimeText;
use written::Written;

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// What a thread needs to write lines.
struct Worker {
    lines: Arc<Lines>,
    time: TimeText,
    written: Written,
}

/// Switches the access log on, for the rest of the process. Lines go to stdout from a thread of
/// their own; dropping the writer writes what is left. `None` when it is on already.
///
/// # Errors
/// When the thread can not be started.
pub fn start_on_stdout() -> std::io::Result<Option<Writer>> {
    start(Box::new(std::io::stdout()))
}

/// [`start_on_stdout`], to somewhere else.
///
/// # Errors
/// When the thread can not be started.
pub fn start(to: Box<dyn std::io::Write + Send>) -> std::io::Result<Option<Writer>> {
    let queue = Arc::new(Queue::default());
    if QUEUE.set(queue.clone()).is_err() {
        return Ok(None);
    }
    Writer::start(queue, to).map(Some)
}

/// Tells of the members of the JSON line of an exchange that are there.
pub(super) fn tell(seen: &Seen<'_>, time: &mut TimeText, to: &mut impl Members) {
    let started_at = time.text(seen.exchange.started_at);
    Line::new(seen.exchange, started_at, seen.elapsed).tell(to);
}

/// The members of the JSON line of an exchange: the oracle of what is told one by one.
#[cfg(test)]
pub(super) fn members(
    exchange: &super::exchange::Exchange,
    elapsed: std::time::Duration,
) -> serde_json::Map<String, serde_json::Value> {
    let mut time = TimeText::default();
    let line = Line::new(exchange, time.text(exchange.started_at), elapsed);
    match serde_json::to_value(&line) {
        Ok(serde_json::Value::Object(members)) => members,
        // A line is always an object of texts and numbers.
        _ => serde_json::Map::new(),
    }
}

/// Kinds of lines of which workers keep what they have in common, and how many bytes that is.
pub fn kept() -> (usize, usize) {
    QUEUE.get().map_or((0, 0), |queue| queue.kept.get())
}

/// Lets go of the objects of which this thread keeps what lines say of them.
pub(super) fn let_go() {
    of_this_thread(Written::let_go);
}

/// Lets go of those of older snapshots, for this one is in force now.
pub fn of_snapshot(version: u64) {
    of_this_thread(|written| written.of_snapshot(version));
}

fn of_this_thread(change: impl Fn(&mut Written)) {
    let _ = WORKER.try_with(|worker| {
        if let Ok(mut worker) = worker.try_borrow_mut() {
            worker.iter_mut().for_each(|of| change(&mut of.written));
        }
    });
}

/// Writes the lines of an exchange, if the access log is on. Never blocks.
pub fn write(seen: &Seen<'_>) {
    let Some(queue) = QUEUE.get() else {
        return;
    };
    // The thread-local is gone only while the thread is being torn down: no exchange ends then.
    let _ = WORKER.try_with(|worker| {
        let mut worker = worker.borrow_mut();
        let worker = worker.get_or_insert_with(|| Worker {
            lines: queue.join(),
            time: TimeText::default(),
            written: Written::new(queue.kept.clone()),
        });
        let Some(settings) = &seen.exchange.settings else {
            write_cairn(queue, worker, seen);
            return;
        };
        for log in &settings.logs {
            if log
                .filter
                .as_ref()
                .is_some_and(|filter| !filter.is_true(seen))
            {
                continue;
            }
            if log.format.is_cairn() {
                write_cairn(queue, worker, seen);
            } else {
                let Worker { lines, time, .. } = &mut *worker;
                queue.push_with(lines, |to| {
                    log.format.write(seen, time, to);
                    true
                });
            }
        }
    });
}

fn write_cairn(queue: &Queue, worker: &mut Worker, seen: &Seen<'_>) {
    let Worker {
        lines,
        time,
        written,
    } = worker;
    let started_at = time.text(seen.exchange.started_at);
    let line = Line::new(seen.exchange, started_at, seen.elapsed);
    let alike = written.alike(seen.exchange, &line);
    queue.push_with(lines, |to| {
        let done = match alike {
            Some(alike) => line.write_around(alike, to),
            None => line.write(to),
        };
        to.push(b'\n');
        done.is_ok()
    });
}
