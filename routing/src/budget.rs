//! How many retries a destination bears: a share of the requests it is serving, and never fewer than a few;
//! or a share of those of the last interval. Without it, retries multiply the load of whoever fails because
//! of its load.
//!
//! Counts requests and retries with atomics; whether a request should be retried is `retry`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cairn_config_schema::snapshot::{RetryBudget, RetryWindow};

use crate::rate::Rate;

/// The retry budget of one destination. All counts are Relaxed: nothing is read through them.
#[derive(Debug, Default)]
pub struct Budget {
    active: AtomicU32,
    retrying: AtomicU32,
    requests: Rate,
    retries: Rate,
    /// The same retries, by the interval of the least that is always allowed.
    retries_least: Rate,
}

/// One request to the destination, from its first attempt to its end; counted until dropped.
#[derive(Debug)]
pub struct InFlight {
    budget: Arc<Budget>,
    retrying: bool,
}

impl Budget {
    /// Counts one request until the guard is dropped. `now_ms` is in milliseconds of a clock that never
    /// goes back, here and in [`InFlight::may_retry`].
    pub fn enter(self: &Arc<Self>, settings: &RetryBudget, now_ms: u64) -> InFlight {
        self.active.fetch_add(1, Relaxed);
        if let Some(window) = &settings.window {
            self.requests.add(now_ms, window.interval_ms);
        }
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

    fn retries_max(&self, settings: &RetryBudget) -> u32 {
        let share = settings.share_of(u64::from(self.active()));
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        share.max(settings.concurrency_min)
    }

    /// Whether the last interval has room for one more retry, which is counted then. Workers that ask at
    /// the same instant may each get the last place.
    fn has_room(&self, settings: &RetryBudget, window: &RetryWindow, now_ms: u64) -> bool {
        let requests = self.requests.count(now_ms, window.interval_ms);
        let retries = self.retries.count(now_ms, window.interval_ms);
        let least = self.retries_least.count(now_ms, window.least_interval_ms);
        let room = retries < settings.share_of(requests) || least < u64::from(window.least_count);
        if room {
            self.retries.add(now_ms, window.interval_ms);
            self.retries_least.add(now_ms, window.least_interval_ms);
        }
        room
    }
}

impl InFlight {
    /// Asks for leave to retry. Once given it counts as one retry until the request ends, however
    /// often it is tried again; it is asked again for each retry, so that a budget that has shrunk
    /// stops what it let begin. A budget by interval counts every retry (GEP-3388); beyond it a few at
    /// once may be allowed all the same (`minRetryConcurrency` beside `budgetInterval`).
    pub fn may_retry(&mut self, settings: &RetryBudget, now_ms: u64) -> bool {
        self.release();
        let allowed = match &settings.window {
            None => self.budget.retries_max(settings),
            Some(window) if self.budget.has_room(settings, window, now_ms) => u32::MAX,
            Some(_) => settings.concurrency_min,
        };
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

    const SETTINGS: RetryBudget = RetryBudget::DEFAULT;

    #[test]
    fn a_quiet_destination_bears_three_retries() {
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..10).map(|_| budget.enter(&SETTINGS, 0)).collect();
        let settings = SETTINGS;
        let allowed = requests
            .iter_mut()
            .filter_map(|r| r.may_retry(&settings, 0).then_some(()));
        assert_eq!(allowed.count(), 3);
        // The request that has leave may be tried again; another takes the place of one that ended.
        assert!(requests[0].may_retry(&settings, 0));
        assert!(!requests[9].may_retry(&settings, 0));
        drop(requests.remove(0));
        assert!(requests[8].may_retry(&settings, 0));
    }

    #[test]
    fn a_busy_one_bears_a_fifth_of_its_requests() {
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..100).map(|_| budget.enter(&SETTINGS, 0)).collect();
        let mut allowed = 0;
        for request in &mut requests {
            allowed += u32::from(request.may_retry(&SETTINGS, 0));
        }
        assert_eq!((allowed, budget.active(), budget.retrying()), (20, 100, 20));
    }

    /// `budgetInterval` of a DestinationRule: a share of what was begun in it, and a few at once in any case.
    #[test]
    fn beyond_a_budget_by_interval_a_few_at_once_may_be_retried() {
        let settings = RetryBudget {
            basis_points: 1_000,
            concurrency_min: 1,
            window: Some(RetryWindow {
                interval_ms: 10_000,
                least_count: 0,
                least_interval_ms: 10_000,
            }),
        };
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..20).map(|_| budget.enter(&settings, 0)).collect();
        assert!(requests[0].may_retry(&settings, 1) && requests[1].may_retry(&settings, 1));
        assert!(
            !requests[2].may_retry(&settings, 1),
            "a tenth, and two at once"
        );
        requests.truncate(1);
        requests.push(budget.enter(&settings, 2));
        assert!(!requests[1].may_retry(&settings, 2), "one is being retried");
        drop(requests.remove(0));
        assert!(requests[0].may_retry(&settings, 3), "the only one at once");
    }

    /// GEP-3388: a share of the requests of an interval, each retry counted, and a few in any case.
    #[test]
    fn a_budget_by_interval_counts_what_was_begun_in_it() {
        let settings = RetryBudget {
            basis_points: 1_000,
            concurrency_min: 0,
            window: Some(RetryWindow {
                interval_ms: 10_000,
                least_count: 2,
                least_interval_ms: 1_000,
            }),
        };
        let budget = Arc::new(Budget::default());
        let mut requests: Vec<_> = (0..100).map(|_| budget.enter(&settings, 0)).collect();
        let mut allowed = |now_ms| {
            let all = requests.iter_mut();
            all.filter_map(|r| r.may_retry(&settings, now_ms).then_some(()))
                .count()
        };
        assert_eq!(allowed(0), 10);
        // Two seconds later the share is used up; what is always allowed is not.
        assert_eq!(allowed(2_000), 2);
        // The requests are old by now.
        assert_eq!(allowed(30_000), 2);
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
            let settings = RetryBudget { basis_points: percent * 100, concurrency_min, window: None };
            let budget = Arc::new(Budget::default());
            let (mut requests, mut naive): (Vec<InFlight>, Vec<bool>) = Default::default();
            for step in steps {
                match step {
                    Step::Enter => {
                        requests.push(budget.enter(&SETTINGS, 0));
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
                        prop_assert_eq!(requests[at].may_retry(&settings, 0), expected);
                        naive[at] = expected;
                    }
                }
                prop_assert_eq!(budget.active() as usize, naive.len());
                prop_assert_eq!(budget.retrying() as usize, naive.iter().filter(|on| **on).count());
            }
        }
    }
}
