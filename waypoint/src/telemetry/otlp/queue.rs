//! From the workers to the exporting thread: a queue that never makes a worker wait.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
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
    room: Room,
}

impl Ended {
    /// Wall clock at its end.
    pub fn ended_at(&self) -> SystemTime {
        self.exchange.started_at + self.elapsed
    }

    /// About how many bytes it is, here and encoded.
    pub(super) fn bytes(&self) -> usize {
        self.room.bytes
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

/// Exchanges that wait for collectors, and about how many bytes they are.
pub fn waiting() -> (usize, usize) {
    OUTLET.get().map_or((0, 0), |outlet| {
        let waiting = outlet.records.max_capacity() - outlet.records.capacity();
        (waiting, outlet.bytes.load(Relaxed))
    })
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

    pub(super) fn take(&self, mut exchange: Exchange, elapsed: Duration, lines: Vec<Line>) {
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
        let_go(&mut exchange);
        place.send(Arc::new(Ended {
            exchange,
            elapsed,
            lines,
            room,
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

/// Lets go of the header block that the values lie in, which the next request of the connection could use again.
fn let_go(exchange: &mut Exchange) {
    let own = |value: &mut Option<HeaderValue>| {
        *value = value
            .as_ref()
            .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    };
    if let Some(http) = &mut exchange.http {
        let values = [
            &mut http.user_agent,
            &mut http.request_id,
            &mut http.forwarded_for,
        ];
        values.into_iter().for_each(own);
    }
    exchange.trace.values().for_each(own);
}

/// About what an exchange holds that nobody else does: the parts that clients can make large, and the rest
/// as a round number.
fn bytes_of(exchange: &Exchange) -> usize {
    const REST: usize = 1_024;
    const OF_ATTEMPT: usize = 256;
    let header = |value: &Option<HeaderValue>| value.as_ref().map_or(0, |v| v.len());
    let http = exchange.http.as_ref().map_or(0, |http| {
        let headers = [&http.user_agent, &http.request_id, &http.forwarded_for];
        let headers: usize = headers.into_iter().map(header).sum();
        // The method too: clients may make up one of any length.
        http.method.as_str().len() + http.path.len() + http.authority.len() + headers
    });
    let recording = exchange.trace.recording().map_or(0, |recording| {
        let tags: usize = recording.tags.iter().map(header).sum();
        let texts = recording.attempts.iter().map(|attempt| {
            let texts = [&attempt.url, &attempt.reason].into_iter().flatten();
            texts.map(|text| text.len()).sum::<usize>()
        });
        let texts: usize = texts.sum();
        recording.attempts.len() * OF_ATTEMPT + texts + tags + header(&recording.state)
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
    fn a_method_that_a_client_made_up_counts_by_its_length() {
        let mut exchange = fixtures::sampled();
        let before = bytes_of(&exchange);
        let http = exchange.http.as_mut().unwrap();
        let was = http.method.as_str().len();
        http.method = "X".repeat(55_000).parse().unwrap();
        assert_eq!(bytes_of(&exchange), before + 55_000 - was);
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
