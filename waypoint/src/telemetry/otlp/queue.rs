//! From the workers to the exporting thread: a queue that never makes a worker wait.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::endpoint::Signal;
use super::logs::Line;
use crate::limits::OTLP_QUEUE_BYTES_MAX;
use crate::telemetry::counters;
use crate::telemetry::exchange::Exchange;

static OUTLET: OnceLock<Outlet> = OnceLock::new();

/// An exchange that ended and is to be told of.
#[derive(Debug)]
pub struct Ended {
    /// What happened.
    pub exchange: Exchange,
    /// How long it took.
    pub elapsed: Duration,
    /// What collectors of access logs are told of it.
    pub lines: Vec<Line>,
    _room: Room,
}

impl Ended {
    /// Wall clock at its end.
    pub fn ended_at(&self) -> SystemTime {
        self.exchange.started_at + self.elapsed
    }
}

/// The workers' end.
#[derive(Debug)]
pub(super) struct Outlet {
    records: mpsc::Sender<Arc<Ended>>,
    bytes: Arc<AtomicUsize>,
    /// The access log goes this way.
    logs: bool,
}

/// Bytes of a record, as long as anybody holds it.
#[derive(Debug)]
struct Room {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Relaxed);
    }
}

/// Whether anybody is to be told of an exchange that ended.
pub fn wants(exchange: &Exchange, lines: &[Line]) -> bool {
    (OUTLET.get()).is_some_and(|outlet| exchange.trace.is_recorded() || outlet.logged(lines))
}

/// Takes an exchange that ended, if anybody wants it. Never waits.
pub fn take(exchange: Exchange, elapsed: Duration, lines: Vec<Line>) {
    if let Some(outlet) = OUTLET.get() {
        outlet.take(exchange, elapsed, lines);
    }
}

/// Opens the way for exchanges, for the rest of the process. `None` when it is open already.
pub(super) fn open(records_max: usize, logs: bool) -> Option<mpsc::Receiver<Arc<Ended>>> {
    let (outlet, records) = Outlet::new(records_max, logs);
    OUTLET.set(outlet).ok().map(|()| records)
}

impl Outlet {
    pub(super) fn new(records_max: usize, logs: bool) -> (Self, mpsc::Receiver<Arc<Ended>>) {
        let (sender, records) = mpsc::channel(records_max.max(1));
        let outlet = Self {
            records: sender,
            bytes: Arc::default(),
            logs,
        };
        (outlet, records)
    }

    pub(super) fn take(&self, exchange: Exchange, elapsed: Duration, lines: Vec<Line>) {
        let traced = exchange.trace.is_recorded();
        let logged = self.logged(&lines);
        if !traced && !logged {
            return;
        }
        let record = match self.records.try_reserve() {
            Ok(place) => self.room(&exchange, &lines).map(|room| (place, room)),
            Err(_) => None,
        };
        let Some((place, room)) = record else {
            if traced {
                counters::OTLP_DROPPED.inc(Signal::Traces.as_str());
            }
            if logged {
                counters::OTLP_DROPPED.inc(Signal::Logs.as_str());
            }
            return;
        };
        place.send(Arc::new(Ended {
            exchange,
            elapsed,
            lines,
            _room: room,
        }));
    }

    fn logged(&self, lines: &[Line]) -> bool {
        self.logs || !lines.is_empty()
    }

    fn room(&self, exchange: &Exchange, lines: &[Line]) -> Option<Room> {
        let lines: usize = lines.iter().map(Line::bytes).sum();
        let bytes = bytes_of(exchange) + lines;
        let before = self.bytes.fetch_add(bytes, Relaxed);
        // Gives the bytes back when it is dropped here.
        let room = Room {
            bytes,
            of: self.bytes.clone(),
        };
        (before + bytes <= OTLP_QUEUE_BYTES_MAX).then_some(room)
    }

    /// Bytes of all records that are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

/// About what an exchange holds that nobody else does: the parts that clients can make large, and the rest
/// as a round number.
fn bytes_of(exchange: &Exchange) -> usize {
    const REST: usize = 1_024;
    const OF_ATTEMPT: usize = 256;
    let header = |value: &Option<http::HeaderValue>| value.as_ref().map_or(0, |v| v.len());
    let http = exchange.http.as_ref().map_or(0, |http| {
        let headers = [&http.user_agent, &http.request_id, &http.forwarded_for];
        let headers: usize = headers.into_iter().map(header).sum();
        http.path.len() + http.authority.len() + headers
    });
    let recording = exchange.trace.recording().map_or(0, |recording| {
        let tags: usize = recording.tags.iter().map(header).sum();
        recording.attempts.len() * OF_ATTEMPT + tags + header(&recording.state)
    });
    let reason = exchange.reason.as_ref().map_or(0, String::len);
    REST + http + recording + reason
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn only_what_is_wanted_is_taken() {
        let (outlet, mut records) = Outlet::new(8, false);
        outlet.take(crate::telemetry::fixtures::http(), Duration::ZERO, vec![]);
        assert!(
            records.try_recv().is_err(),
            "not sampled, and no access log"
        );
        outlet.take(fixtures::sampled(), Duration::ZERO, vec![]);
        assert!(records.try_recv().is_ok());
        let (outlet, mut records) = Outlet::new(8, true);
        outlet.take(crate::telemetry::fixtures::http(), Duration::ZERO, vec![]);
        assert!(records.try_recv().is_ok());
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let before = counters::OTLP_DROPPED.value("traces");
        let (outlet, mut records) = Outlet::new(2, false);
        for _ in 0..5 {
            outlet.take(fixtures::sampled(), Duration::ZERO, vec![]);
        }
        assert_eq!(records.len(), 2);
        assert!(counters::OTLP_DROPPED.value("traces") >= before + 3);
        drop(records.try_recv().unwrap());
        outlet.take(fixtures::sampled(), Duration::ZERO, vec![]);
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn long_paths_fill_the_queue_by_their_bytes_and_leave_it_with_their_record() {
        let (outlet, mut records) = Outlet::new(1_000_000, false);
        let large = || {
            let mut exchange = fixtures::sampled();
            exchange.http.as_mut().unwrap().path = "x".repeat(60 * 1024);
            exchange
        };
        let fit = OTLP_QUEUE_BYTES_MAX / (60 * 1024) + 10;
        (0..fit).for_each(|_| outlet.take(large(), Duration::ZERO, vec![]));
        assert!(records.len() < fit);
        assert!(outlet.bytes() <= OTLP_QUEUE_BYTES_MAX);
        while records.try_recv().is_ok() {}
        assert_eq!(outlet.bytes(), 0);
    }
}
