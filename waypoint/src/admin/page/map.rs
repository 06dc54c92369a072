//! `/api/map`: who asked which service, and which workloads answered, over the last minute or as far as the
//! flow records, and the newest that are looked at, reach back; with rates, errors and latencies.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::admin::state::AdminState;
use crate::limits::{PAGE_EDGES_MAX, PAGE_MAP_RECORDS_MAX};
use crate::telemetry::flow::{Part, Read, Record, Ring};
use crate::telemetry::labels::Baggage;

/// What rates are averages over.
const SPAN: Duration = Duration::from_secs(60);

/// Rates over less would jump.
const SPAN_MIN: Duration = Duration::from_millis(100);

/// A node: what it is and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Node {
    kind: &'static str,
    name: String,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    streams: u64,
    denied: u64,
    failed: u64,
    latencies_us: Vec<u64>,
}

#[derive(Serialize)]
struct Edge {
    from: Node,
    to: Node,
    requests: u64,
    streams: u64,
    /// Requests and streams a second.
    rate: f64,
    /// Kept out by policy.
    denied: u64,
    /// Statuses of 500 and more, and what got no answer.
    failed: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Serialize)]
struct Map {
    /// Seconds that the numbers are of.
    span_s: f64,
    edges: Vec<Edge>,
    /// There is more than what is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// Renders the map.
///
/// # Errors
/// Never in practice: all of it has a JSON form.
pub fn map(state: &AdminState) -> Result<Vec<u8>, serde_json::Error> {
    let (mut tallies, mut cut) = (BTreeMap::<(Node, Node), Tally>::new(), false);
    let ring = state.flows.as_ref().map(|(ring, _)| &**ring);
    let span = ring.map_or(SPAN, |ring| {
        walk(ring, |record| tally(record, &mut tallies, &mut cut))
    });
    let edges = tallies.into_iter();
    let edges = edges.map(|(edge, tally)| tally.edge(edge, span));
    serde_json::to_vec(&Map {
        span_s: span.as_secs_f64(),
        edges: edges.collect(),
        cut,
    })
}

/// Adds a record to its edges; `cut`: there are too many.
fn tally(record: &Record, tallies: &mut BTreeMap<(Node, Node), Tally>, cut: &mut bool) {
    for edge in edges(record) {
        if tallies.len() >= PAGE_EDGES_MAX && !tallies.contains_key(&edge) {
            *cut = true;
            continue;
        }
        tallies.entry(edge).or_default().add(record);
    }
}

/// Shows the newest records of the span; returns how long it really is.
fn walk(ring: &Ring, mut show: impl FnMut(&Record)) -> Duration {
    let now = SystemTime::now();
    let mut reached = Duration::ZERO;
    let next = ring.next();
    let first = ring.oldest().max(next.saturating_sub(PAGE_MAP_RECORDS_MAX));
    for number in (first..next).rev() {
        let Read::Record(kept) = ring.read(number) else {
            continue;
        };
        let record = &kept.record;
        let ended = record.started_at.checked_add(record.elapsed);
        let age = ended.and_then(|ended| now.duration_since(ended).ok());
        let age = age.unwrap_or_default();
        if age > SPAN {
            return SPAN;
        }
        reached = reached.max(age);
        show(record);
    }
    // Nothing was overwritten or left out: there was no more within the span.
    if first == 0 {
        SPAN
    } else {
        reached.max(SPAN_MIN)
    }
}

/// From the client to the service, and from the service to who answered.
fn edges(record: &Record) -> Vec<(Node, Node)> {
    // A stream counts once, when it opens.
    if record.part == Part::Closed {
        return Vec::new();
    }
    let Some(service) = &record.service else {
        return Vec::new();
    };
    let service = Node {
        kind: "service",
        name: format!("{}/{}", service.key.namespace, service.key.name),
    };
    let mut edges = vec![(client(record), service.clone())];
    if let Some((address, workload)) = &record.endpoint {
        let name = match workload {
            Some(workload) => format!("{}/{}", workload.key.namespace, workload.workload_name),
            None => address.to_string(),
        };
        let kind = "workload";
        edges.push((service, Node { kind, name }));
    }
    edges
}

fn client(record: &Record) -> Node {
    let identity = &record.peer.identity;
    let namespace = identity.namespace().unwrap_or("unknown");
    let baggage = Baggage::parse(record.baggage.as_ref());
    let name = match &record.source {
        Some(workload) => &*workload.workload_name,
        None => baggage
            .workload
            .or(identity.service_account())
            .unwrap_or("unknown"),
    };
    Node {
        kind: "client",
        name: format!("{namespace}/{name}"),
    }
}

impl Tally {
    fn add(&mut self, record: &Record) {
        let status = record.http.as_ref().and_then(|http| http.status);
        let failed = match (&record.http, record.part) {
            (Some(_), _) => status.is_none_or(|status| status.is_server_error()),
            (None, Part::Refused) => true,
            (None, _) => false,
        };
        match record.http {
            Some(_) => self.requests += 1,
            None => self.streams += 1,
        }
        self.denied += u64::from(record.is_denied());
        self.failed += u64::from(failed && !record.is_denied());
        if record.http.is_some() {
            let micros = u64::try_from(record.elapsed.as_micros()).unwrap_or(u64::MAX);
            self.latencies_us.push(micros);
        }
    }

    fn edge(mut self, (from, to): (Node, Node), span: Duration) -> Edge {
        self.latencies_us.sort_unstable();
        let at = |part: f64| {
            let last = self.latencies_us.len().checked_sub(1)?;
            let micros = self
                .latencies_us
                .get((last as f64 * part).round() as usize)?;
            Some(*micros as f64 / 1_000.0)
        };
        Edge {
            from,
            to,
            requests: self.requests,
            streams: self.streams,
            rate: (self.requests + self.streams) as f64 / span.as_secs_f64(),
            denied: self.denied,
            failed: self.failed,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures;

    /// The thread that makes the map answers readiness, too: it does not look at a million records.
    #[test]
    fn the_map_is_of_the_newest_records_alone() {
        let ring = Ring::new(16_384);
        let ended = SystemTime::now() - Duration::from_secs(7);
        for n in 0..10_000 {
            let mut exchange = fixtures::http();
            exchange.started_at = ended - Duration::from_secs(if n < 1_000 { 20 } else { 0 });
            ring.push(Record::ended(&mut exchange, Duration::ZERO, false));
        }
        let mut shown = 0;
        let span = walk(&ring, |_| shown += 1);
        assert_eq!(shown, 8_192);
        let seconds = span.as_secs();
        assert!((7..20).contains(&seconds), "as far as it looked: {span:?}");
    }
}
