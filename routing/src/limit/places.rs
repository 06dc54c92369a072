//! How many requests are taken at once, and how they are shared: while there is room anybody may have
//! it; when there is none, whoever has less than an equal share may still come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Places, shared by all workers.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU32,
    /// Shares with a place.
    active: AtomicU32,
    refused: AtomicU64,
}

/// Those of one service.
#[derive(Debug, Default)]
pub struct Share {
    taken: AtomicU32,
}

/// A place, until dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    share: Option<Arc<Share>>,
}

impl Places {
    /// Takes a place of `most`. `None`: there is none left, which is counted.
    ///
    /// With a share, one that has fewer places than `most` divided by the shares in use comes in even
    /// then: a service that takes all there is can not keep the others out, and at most twice `most` are
    /// taken.
    pub fn take(self: &Arc<Self>, share: Option<&Arc<Share>>, most: u32) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let own = share.map(|share| {
            let own = share.taken.fetch_add(1, Ordering::Relaxed);
            if own == 0 {
                self.active.fetch_add(1, Ordering::Relaxed);
            }
            own
        });
        // Dropping it gives the place back.
        let place = Place {
            places: self.clone(),
            share: share.cloned(),
        };
        let has_less = |own: u32| {
            let active = self.active.load(Ordering::Relaxed).max(1);
            own < (most / active).max(1)
        };
        if before < most || own.is_some_and(has_less) {
            return Some(place);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Places taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How often there was none left.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(share) = &self.share
            && share.taken.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.places.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_service_can_not_keep_the_others_out() {
        let places = Arc::new(Places::default());
        let (hog, other) = (Arc::new(Share::default()), Arc::new(Share::default()));
        let all: Vec<_> = (0..10).map(|_| places.take(Some(&hog), 10)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(places.take(Some(&hog), 10).is_none());
        // Two in use: half of ten are the other's.
        let its: Vec<_> = (0..6).map(|_| places.take(Some(&other), 10)).collect();
        assert_eq!(its.iter().flatten().count(), 5);
        drop(all);
        // Alone again, it may have all of it.
        let more: Vec<_> = (0..6).map(|_| places.take(Some(&other), 10)).collect();
        assert_eq!(more.iter().flatten().count(), 5);
        assert_eq!(places.taken(), 10);
    }

    proptest! {
        /// The oracle: who has which place, in a list.
        #[test]
        fn places_are_counted_and_shared(
            most in 1..12u32,
            is_shared in any::<bool>(),
            steps in prop::collection::vec((0..4usize, prop::option::of(0..30usize)), 1..120),
        ) {
            let places = Arc::new(Places::default());
            let shares: Vec<Arc<Share>> = (0..4).map(|_| Arc::default()).collect();
            let mut held: Vec<(usize, Place)> = Vec::new();
            for (who, dropped) in steps {
                if let Some(at) = dropped {
                    if at < held.len() {
                        held.swap_remove(at);
                    }
                    continue;
                }
                let own = held.iter().filter(|(owner, _)| *owner == who).count();
                let mut using: Vec<usize> = held.iter().map(|(owner, _)| *owner).collect();
                using.push(who);
                using.sort_unstable();
                using.dedup();
                let fair = own < (most as usize / using.len()).max(1);
                let expected = held.len() < most as usize || is_shared && fair;
                let share = is_shared.then(|| &shares[who]);
                let place = places.take(share, most);
                prop_assert_eq!(place.is_some(), expected);
                held.extend(place.map(|place| (who, place)));
                prop_assert_eq!(places.taken() as usize, held.len());
                prop_assert!(held.len() <= 2 * most.max(4) as usize);
            }
        }
    }
}
