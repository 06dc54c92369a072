//! How many retries a destination bears at once: a share of the requests it is serving, and never
//! fewer than a few. Without it, retries multiply the load of whoever fails because of its load.
//!
//! Counts requests and retries with atomics; whether a request should be retried is `retry`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cairn_config_schema::snapshot::RetryBudget;

/// The retry budget of one destination. All counts are Relaxed: nothing is read through them.
#[derive(Debug, Default)]
pub struct Budget {
    active: AtomicU32,
    retrying: AtomicU32,
}

/// One request to the destination, from its first attempt to its end; counted until dropped.
#[derive(Debug)]
pub struct InFlight {
    budget: Arc<Budget>,
    retrying: bool,
}

impl Budget {
    /// Counts one request until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.active.fetch_add(1, Relaxed);
        InFlight {
            budget: self.clone(),
            retrying: false,
        }
    }

    /// Requests in flight, those that wait for a retry included.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Requests of those that are being retried.
    pub fn retrying(&self) -> u32 {
        self.retrying.load(Relaxed)
    }

    fn retries_max(&self, settings: RetryBudget) -> u32 {
        let share = u64::from(self.active()) * u64::from(settings.percent) / 100;
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        share.max(settings.concurrency_min)
    }
}

impl InFlight {
    /// Asks for leave to retry. Once given it counts as one retry until the request ends, however
    /// often it is tried again; it is asked again for each retry, so that a budget that has shrunk
    /// stops what it let begin.
    pub fn may_retry(&mut self, settings: RetryBudget) -> bool {
        self.release();
        let allowed = self.budget.retries_max(settings);
        let next = |retrying: u32| (retrying < allowed).then(|| retrying + 1);
        let taken = self.budget.retrying.fetch_update(Relaxed, Relaxed, next);
        self.retrying = taken.is_ok();
        self.retrying
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.retrying) {
            self.budget.retrying.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release();
        self.budget.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_destination_bears_three_retries() {
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..10).map(|_| budget.enter()).collect();
        let settings = RetryBudget::default();
        let allowed = requests
            .iter_mut()
            .filter_map(|r| r.may_retry(settings).then_some(()));
        assert_eq!(allowed.count(), 3);
        // The request that has leave may be tried again; another takes the place of one that ended.
        assert!(requests[0].may_retry(settings));
        assert!(!requests[9].may_retry(settings));
        drop(requests.remove(0));
        assert!(requests[8].may_retry(settings));
    }

    #[test]
    fn a_busy_one_bears_a_fifth_of_its_requests() {
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..100).map(|_| budget.enter()).collect();
        let mut allowed = 0;
        for request in &mut requests {
            allowed += u32::from(request.may_retry(RetryBudget::default()));
        }
        assert_eq!((allowed, budget.active(), budget.retrying()), (20, 100, 20));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter,
        Leave(usize),
        Retry(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Enter),
            2 => any::<usize>().prop_map(Step::Leave),
            4 => any::<usize>().prop_map(Step::Retry),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a list of flags, one for each request in flight.
        #[test]
        fn it_counts_as_a_list_would(
            steps in steps(),
            (percent, concurrency_min) in (0..=100u32, 0..5u32),
        ) {
            let settings = RetryBudget { percent, concurrency_min };
            let budget = Arc::new(Budget::default());
            let (mut requests, mut naive): (Vec<InFlight>, Vec<bool>) = Default::default();
            for step in steps {
                match step {
                    Step::Enter => {
                        requests.push(budget.enter());
                        naive.push(false);
                    }
                    Step::Leave(at) | Step::Retry(at) if requests.is_empty() => { let _ = at; }
                    Step::Leave(at) => {
                        let at = at % requests.len();
                        drop(requests.remove(at));
                        naive.remove(at);
                    }
                    Step::Retry(at) => {
                        let at = at % requests.len();
                        let others = naive.iter().enumerate().filter(|(i, on)| **on && *i != at).count();
                        let share = naive.len() * percent as usize / 100;
                        let expected = others < share.max(concurrency_min as usize);
                        prop_assert_eq!(requests[at].may_retry(settings), expected);
                        naive[at] = expected;
                    }
                }
                prop_assert_eq!(budget.active() as usize, naive.len());
                prop_assert_eq!(budget.retrying() as usize, naive.iter().filter(|on| **on).count());
            }
        }
    }
}
