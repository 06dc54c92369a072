//! What the ring is as a whole: how many flows it keeps and has seen, how fast they come, between which
//! namespaces. Readers of single flows are `reader`'s.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::limits::HUBBLE_READ_SLICE;
use crate::telemetry::flow::{Kept, Read, Ring};

/// What the rate of flows is an average over.
const RATE_SPAN: Duration = Duration::from_secs(60);

/// A namespace that nothing came from or went to for this long is not listed.
const NAMESPACE_SPAN: Duration = Duration::from_secs(3_600);

/// Flows, not records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Those that are kept.
    pub kept: u64,
    /// Those that can be.
    pub max: u64,
    /// All since the start.
    pub seen: u64,
}

/// Counts them, without a walk.
pub fn counts(ring: &Ring) -> Counts {
    let seen = ring.flows_seen();
    let before = match ring.read(ring.oldest()) {
        Read::Record(kept) => kept.flows_before,
        Read::Overwritten | Read::NotYet => 0,
    };
    let kept = seen.saturating_sub(before);
    Counts {
        kept,
        // Three flows an exchange; it can be more.
        max: (ring.capacity() * 3).max(kept),
        seen,
    }
}

/// Flows a second, over the last minute or as far as the ring reaches back. Looks at a few records only:
/// records are added when their exchanges end, so that those of the last minute are the last ones.
pub fn rate(ring: &Ring, now: SystemTime, uptime: Duration) -> f64 {
    let (oldest, next) = (ring.oldest(), ring.next());
    let age = |number| match ring.read(number) {
        Read::Record(kept) => Some(now.duration_since(ended(&kept)?).unwrap_or_default()),
        Read::Overwritten => Some(Duration::MAX),
        Read::NotYet => Some(Duration::ZERO),
    };
    let (mut first, mut end) = (oldest, next);
    while first < end {
        let middle = first + (end - first) / 2;
        match age(middle) {
            Some(age) if age <= RATE_SPAN => end = middle,
            _ => first = middle + 1,
        }
    }
    let before = match ring.read(first) {
        Read::Record(kept) => kept.flows_before,
        Read::Overwritten | Read::NotYet => ring.flows_seen(),
    };
    let flows = ring.flows_seen().saturating_sub(before);
    let span = match first == oldest && oldest > 0 {
        true => age(first).unwrap_or(RATE_SPAN).min(RATE_SPAN),
        false => RATE_SPAN.min(uptime),
    };
    match span.as_secs_f64() {
        seconds if seconds > 0.0 => flows as f64 / seconds,
        _ => 0.0,
    }
}

/// Where flows came from and went to, as far as the ring reaches back. Others get their turns meanwhile.
pub async fn namespaces(ring: &Ring, now: SystemTime) -> BTreeSet<String> {
    let since = now.checked_sub(NAMESPACE_SPAN);
    let mut found = BTreeSet::new();
    for (looked_at, number) in (ring.oldest()..ring.next()).enumerate() {
        if looked_at % HUBBLE_READ_SLICE == HUBBLE_READ_SLICE - 1 {
            tokio::task::yield_now().await;
        }
        let Read::Record(kept) = ring.read(number) else {
            continue;
        };
        if ended(&kept) < since {
            continue;
        }
        let record = &kept.record;
        let workload = record.endpoint.as_ref().and_then(|(_, w)| w.as_ref());
        let names = [
            record.peer.identity.namespace(),
            record.service.as_ref().map(|s| &*s.key.namespace),
            workload.map(|w| &*w.key.namespace),
        ];
        for name in names.into_iter().flatten() {
            // A name for each of a million records would be made for nothing.
            if !found.contains(name) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

fn ended(kept: &Kept) -> Option<SystemTime> {
    let record = &kept.record;
    record.started_at.checked_add(record.elapsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::fixtures;
    use crate::telemetry::flow::Record;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Exchanges that ended at these seconds.
    fn ring(capacity: usize, ends: &[u64]) -> Ring {
        let ring = Ring::new(capacity);
        for end in ends {
            let mut exchange = fixtures::http();
            exchange.started_at = at(*end);
            ring.push(Record::ended(&mut exchange, Duration::ZERO, false));
        }
        ring
    }

    proptest! {
        /// As one who looks at every record.
        #[test]
        fn the_rate_is_that_of_the_last_minute(
            gaps in prop::collection::vec(0_u64..20, 0..40), capacity in 1_usize..30, after in 0_u64..80,
        ) {
            let mut end = 1_000;
            let ends: Vec<u64> = gaps.iter().map(|gap| { end += gap; end }).collect();
            let now = end + after;
            let ring = ring(capacity, &ends);
            let kept = ends.get(ends.len().saturating_sub(capacity)..).unwrap();
            let recent = kept.iter().filter(|end| now - **end <= 60).count();
            let overwritten = ends.len() > capacity;
            let span = match kept.first() {
                Some(first) if overwritten => (now - first).min(60),
                _ => 60,
            };
            let naive = if span == 0 { 0.0 } else { recent as f64 * 3.0 / span as f64 };
            let rate = rate(&ring, at(now), Duration::from_secs(600));
            prop_assert!((rate - naive).abs() < 1e-9, "{rate} {naive}");
        }
    }

    #[tokio::test]
    async fn a_namespace_is_forgotten_after_an_hour() {
        let ring = ring(4, &[10]);
        let found = namespaces(&ring, at(3_600)).await;
        assert!(found.contains("shop"), "{found:?}");
        assert!(namespaces(&ring, at(3_611)).await.is_empty());
    }

    /// A ring of a million records must not keep the other clients of the API waiting.
    #[tokio::test]
    async fn a_walk_through_the_ring_gives_way() {
        let ring = ring(HUBBLE_READ_SLICE * 3, &vec![10; HUBBLE_READ_SLICE * 3]);
        let walk = namespaces(&ring, at(20));
        tokio::pin!(walk);
        let mut turns = 0;
        while futures::poll!(&mut walk).is_pending() {
            turns += 1;
        }
        assert_eq!(turns, 3);
    }
}
