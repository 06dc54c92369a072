//! How often something happened lately: two counters, of the present interval and the one before. Without
//! locks; the caller has the clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts events of the last interval, which slides: of the interval before counts as much as is still
/// within. All of one [`Rate`]'s callers mean the same interval; after a change of it the first interval
/// may be counted wrongly.
#[derive(Debug, Default)]
pub struct Rate {
    /// Number of the interval in the upper half, events in the lower one.
    present: AtomicU64,
    before: AtomicU64,
}

impl Rate {
    /// Counts one event.
    pub fn add(&self, now_ms: u64, interval_ms: u64) {
        let number = number(now_ms, interval_ms);
        let mut seen = self.present.load(Relaxed);
        loop {
            let (of, count) = parts(seen);
            let (next, left) = match of == number {
                true => (pack(number, count.saturating_add(1)), None),
                false => (pack(number, 1), Some(seen)),
            };
            match self
                .present
                .compare_exchange_weak(seen, next, Relaxed, Relaxed)
            {
                // Who looks in between misses the events of the interval before, once in an interval.
                Ok(_) => {
                    return left
                        .into_iter()
                        .for_each(|left| self.before.store(left, Relaxed));
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Events of the last interval.
    pub fn count(&self, now_ms: u64, interval_ms: u64) -> u64 {
        let number = number(now_ms, interval_ms);
        let within = interval_ms - now_ms % interval_ms.max(1);
        let older = |count: u32| u64::from(count) * within / interval_ms.max(1);
        let (of, count) = parts(self.present.load(Relaxed));
        if of.wrapping_add(1) == number {
            return older(count);
        }
        if of != number {
            return 0;
        }
        let (of_before, before) = parts(self.before.load(Relaxed));
        let before = match of_before.wrapping_add(1) == number {
            true => older(before),
            false => 0,
        };
        u64::from(count) + before
    }
}

/// Which interval it is; wraps around after 2^32 of them.
fn number(now_ms: u64, interval_ms: u64) -> u32 {
    // From 1 on: a counter that counted nothing yet is of interval 0.
    (now_ms / interval_ms.max(1)).wrapping_add(2) as u32
}

fn pack(number: u32, count: u32) -> u64 {
    u64::from(number) << 32 | u64::from(count)
}

fn parts(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_older_than_an_interval_does_not_count() {
        let rate = Rate::default();
        assert_eq!(rate.count(0, 1_000), 0);
        (0..10).for_each(|n| rate.add(n * 100, 1_000));
        assert_eq!(rate.count(999, 1_000), 10);
        assert_eq!(rate.count(1_500, 1_000), 5);
        assert_eq!(rate.count(1_999, 1_000), 0);
        rate.add(2_000, 1_000);
        assert_eq!(rate.count(2_000, 1_000), 1);
        assert_eq!(rate.count(100_000, 1_000), 0);
    }

    proptest! {
        /// Against a list: as many as of this interval, and of the one before the part that is still
        /// within, evenly spread.
        #[test]
        fn it_counts_as_a_list_would(
            steps in prop::collection::vec(0..700u64, 0..80),
            interval_ms in 1..1_000u64,
            later_ms in 0..2_500u64,
        ) {
            let rate = Rate::default();
            let (mut now_ms, mut list) = (0, Vec::new());
            for step in steps {
                now_ms += step;
                rate.add(now_ms, interval_ms);
                list.push(now_ms / interval_ms);
            }
            now_ms += later_ms;
            let present = now_ms / interval_ms;
            let of = |wanted: u64| list.iter().filter(|i| **i == wanted).count() as u64;
            let within = interval_ms - now_ms % interval_ms;
            let before = present.checked_sub(1).map_or(0, of);
            prop_assert_eq!(rate.count(now_ms, interval_ms), of(present) + before * within / interval_ms);
        }
    }
}
