//! Which priority a request goes to, and whether endpoints that were ejected take part. Counts only;
//! picks no endpoint.

/// How many endpoints of one priority may be picked, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) healthy: usize,
    pub(super) all: usize,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the priority.
    pub(super) tier: usize,
    /// So few are left that ejected ones are picked as well.
    pub(super) panic: bool,
}

/// A priority with this many times its healthy share, in percent, still takes all its requests:
/// Envoy's overprovisioning factor.
const OVERPROVISION_PERCENT: usize = 140;

impl Count {
    /// The share of requests it can take, in percent.
    fn capacity(self) -> usize {
        match self.all {
            0 => 0,
            all => (self.healthy * OVERPROVISION_PERCENT / all).min(100),
        }
    }

    fn below(self, percent: u8) -> bool {
        self.healthy * 100 < self.all * usize::from(percent)
    }
}

/// Chooses as Envoy spreads load over priorities: the first takes what it can, the next one the rest.
/// `roll` is uniform below 100 times the capacity (any number will do). `None`: nobody is left.
pub(super) fn choose(counts: &[Count], panic_percent: u8, roll: usize) -> Option<Place> {
    let capacity: usize = counts.iter().map(|c| c.capacity()).sum();
    if capacity == 0 {
        let tier = counts.iter().position(|c| c.all > 0)?;
        return (panic_percent > 0).then_some(Place { tier, panic: true });
    }
    let mut left = roll % capacity.min(100);
    for (tier, count) in counts.iter().enumerate() {
        match left.checked_sub(count.capacity()) {
            Some(rest) => left = rest,
            None => {
                let panic = capacity < 100 && count.below(panic_percent);
                return Some(Place { tier, panic });
            }
        }
    }
    None
}
