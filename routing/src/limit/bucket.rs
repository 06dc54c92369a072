//! A token bucket in one word, so that all workers share it without a lock: the time at which it is full
//! again (the generic cell rate algorithm, ITU-T I.371).

use std::sync::atomic::{AtomicU64, Ordering};

const NS_PER_MS: u64 = 1_000_000;

/// How fast a bucket fills, and how much is in it at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds in which one token comes back.
    every_ns: u64,
    /// Tokens of a full bucket.
    burst: u64,
}

impl Rate {
    /// `requests` in `per_ms` milliseconds, and `burst` at once. Zero counts as one.
    pub fn new(requests: u32, per_ms: u64, burst: u32) -> Self {
        let per_ns = per_ms.max(1).saturating_mul(NS_PER_MS);
        Self {
            // Rounded up, for never more than what was asked for may pass.
            every_ns: per_ns.div_ceil(u64::from(requests.max(1))),
            burst: u64::from(burst.max(1)),
        }
    }

    /// Nanoseconds that an empty bucket takes to be full.
    fn fill_ns(&self) -> u64 {
        self.every_ns.saturating_mul(self.burst)
    }
}

/// A bucket; a new one is full.
#[derive(Debug, Default)]
pub struct Bucket {
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Takes a token. `now_ns` is on any clock that does not go back.
    ///
    /// # Errors
    /// Nanoseconds until there is a token, when there is none.
    pub fn take(&self, rate: &Rate, now_ns: u64) -> Result<(), u64> {
        let mut full_at = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now_ns).saturating_add(rate.every_ns);
            let latest = now_ns.saturating_add(rate.fill_ns());
            if next > latest {
                return Err(next - latest);
            }
            let swapped = self.full_at_ns.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(now) => full_at = now,
            }
        }
    }

    /// Whether it is as good as new.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.full_at_ns.load(Ordering::Relaxed) <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 1_000, 3));
        for _ in 0..3 {
            assert_eq!(bucket.take(&rate, SECOND), Ok(()));
        }
        assert_eq!(bucket.take(&rate, SECOND), Err(SECOND / 10));
        assert_eq!(bucket.take(&rate, SECOND + SECOND / 10), Ok(()));
        assert!(!bucket.is_full(SECOND));
        assert!(bucket.is_full(2 * SECOND));
    }

    /// The oracle: tokens counted in nanoseconds of filling.
    struct Naive {
        level_ns: u64,
        at_ns: u64,
    }

    impl Naive {
        fn take(&mut self, rate: &Rate, now_ns: u64) -> Result<(), u64> {
            let came = now_ns - self.at_ns;
            self.level_ns = (self.level_ns + came).min(rate.fill_ns());
            self.at_ns = now_ns;
            match self.level_ns.checked_sub(rate.every_ns) {
                Some(left) => {
                    self.level_ns = left;
                    Ok(())
                }
                None => Err(rate.every_ns - self.level_ns),
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_bucket_of_tokens(
            requests in 1..2_000u32,
            per_ms in 1..5_000u64,
            burst in 1..20u32,
            steps in prop::collection::vec(0..3_000_000_000u64, 1..100),
        ) {
            let rate = Rate::new(requests, per_ms, burst);
            let bucket = Bucket::default();
            let mut naive = Naive { level_ns: rate.fill_ns(), at_ns: 0 };
            let mut now = 0;
            for step in steps {
                // Short and long pauses beside each other.
                now += step % (rate.every_ns * 2);
                prop_assert_eq!(bucket.take(&rate, now), naive.take(&rate, now));
            }
        }
    }

    #[test]
    fn workers_share_it() {
        let (bucket, rate) = (Bucket::default(), Rate::new(1, 3_600_000, 1_000));
        let passed: usize = std::thread::scope(|scope| {
            let takes = || (0..1_000).filter(|_| bucket.take(&rate, 1).is_ok()).count();
            let workers = [scope.spawn(takes), scope.spawn(takes)];
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(passed, 1_000);
    }
}
