//! A bucket for each of those who ask. As many as there is room for; the others share one.

use std::sync::atomic::{AtomicU64, Ordering};

use papaya::HashMap;

use super::bucket::{Bucket, Rate};

/// Buckets by a hash of the key. With 128 bits and a secret seed nobody finds two keys of one bucket.
#[derive(Debug)]
pub struct KeyedBuckets {
    buckets: HashMap<u128, Bucket>,
    most: usize,
    others: Bucket,
    shared: AtomicU64,
}

/// What became of a request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was one; else nanoseconds until there is.
    pub token: Result<(), u64>,
    /// There was no room for a bucket of its own.
    pub is_shared: bool,
}

impl KeyedBuckets {
    /// Room for so many buckets.
    pub fn new(most: usize) -> Self {
        Self {
            buckets: HashMap::new(),
            most,
            others: Bucket::default(),
            shared: AtomicU64::new(0),
        }
    }

    /// Takes a token from the bucket of a key.
    pub fn take(&self, key: u128, rate: &Rate, now_ns: u64) -> Taken {
        let buckets = self.buckets.pin();
        if let Some(bucket) = buckets.get(&key) {
            return Taken {
                token: bucket.take(rate, now_ns),
                is_shared: false,
            };
        }
        if buckets.len() >= self.most {
            self.shared.fetch_add(1, Ordering::Relaxed);
            return Taken {
                token: self.others.take(rate, now_ns),
                is_shared: true,
            };
        }
        let bucket = buckets.get_or_insert_with(key, Bucket::default);
        Taken {
            token: bucket.take(rate, now_ns),
            is_shared: false,
        }
    }

    /// Drops the buckets that are full: they are as good as new ones. To be called now and then, by one
    /// thread. A request that takes from a bucket while it is dropped takes one token too many.
    pub fn sweep(&self, now_ns: u64) {
        self.buckets
            .pin()
            .retain(|_, bucket| !bucket.is_full(now_ns));
    }

    /// Buckets there are.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Requests that had to share a bucket.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_without_room_share_a_bucket_until_there_is_room() {
        let (buckets, rate) = (KeyedBuckets::new(2), Rate::new(1, 1_000, 1));
        for key in 0..2 {
            assert!(!buckets.take(key, &rate, 0).is_shared);
        }
        let taken = [2, 3].map(|key| buckets.take(key, &rate, 0));
        assert!(taken.iter().all(|taken| taken.is_shared));
        assert_eq!(taken[0].token, Ok(()));
        assert_eq!(taken[1].token, Err(1_000_000_000));
        assert_eq!((buckets.len(), buckets.shared()), (2, 2));

        buckets.sweep(1_000_000_000);
        assert!(buckets.is_empty());
        assert!(!buckets.take(3, &rate, 1_000_000_000).is_shared);
    }

    proptest! {
        /// The oracle: a bucket for everybody who ever asked, none of them ever dropped.
        #[test]
        fn everybody_has_a_bucket_and_sweeping_changes_nothing(
            steps in prop::collection::vec((0..5u128, 0..2_000_000_000u64, any::<bool>()), 1..100),
        ) {
            let rate = Rate::new(1, 1_000, 2);
            let buckets = KeyedBuckets::new(5);
            let mut naive: BTreeMap<u128, Bucket> = BTreeMap::new();
            let mut now = 0;
            for (key, step, sweep) in steps {
                now += step;
                if sweep {
                    buckets.sweep(now);
                }
                let expected = naive.entry(key).or_default().take(&rate, now);
                prop_assert_eq!(buckets.take(key, &rate, now).token, expected);
            }
        }
    }
}
