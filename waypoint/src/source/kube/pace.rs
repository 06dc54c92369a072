//! When changes are put in force: at once when it is quiet, and with pauses in proportion to what it costs when
//! they never end. Changes nothing itself.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come together are one: a Service, its EndpointSlice and its Pods do.
const TOGETHER: Duration = Duration::from_millis(5);

/// Pause after putting changes of endpoints in force, as a multiple of how long that took: with it, putting
/// in force takes at most a sixty-first part of a core, whatever the number of changes. Reading 200 of them a
/// second takes about as much again.
const ENDPOINTS_PAUSE: u32 = 60;

/// The same when something else than endpoints changed, a policy say: a fifth of a core while that lasts.
const OTHERS_PAUSE: u32 = 4;

/// The longest pause for endpoints, while nobody is allowed anything by what his Pod is. One that is gone meanwhile is
/// not answering, and another is tried.
const ENDPOINTS_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The longest for the rest; and for endpoints while labels of callers decide: whoever gets the address of a Pod that
/// is gone, or loses a label, is taken for what that one was for as long.
const OTHERS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What was put in force.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct Done {
    /// How long that took.
    pub took: Duration,
    /// Nothing but Pods and EndpointSlices changed.
    pub is_of_endpoints: bool,
    /// Labels of callers decide who may do what.
    pub callers_count: bool,
}

/// What the last time cost.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::source) struct Pace {
    last: Option<(Instant, Done)>,
    /// The last time that only endpoints changed: a first time, or one after an outage, takes many times as long.
    of_endpoints: Option<Duration>,
}

impl Pace {
    /// Something was put in force, until now.
    pub fn done(&mut self, now: Instant, done: Done) {
        self.last = Some((now, done));
        if done.is_of_endpoints {
            self.of_endpoints = Some(done.took);
        }
    }

    /// How long changes wait after the last time.
    pub fn pause(&self, is_of_endpoints: bool) -> Duration {
        let Some((_, last)) = self.last else {
            return Duration::ZERO;
        };
        let as_others = (last.took * OTHERS_PAUSE).min(OTHERS_PAUSE_MAX);
        match self.of_endpoints.filter(|_| is_of_endpoints) {
            Some(took) => (took * ENDPOINTS_PAUSE).min(match last.callers_count {
                true => OTHERS_PAUSE_MAX,
                false => ENDPOINTS_PAUSE_MAX,
            }),
            None => as_others,
        }
    }

    /// When changes are to be put in force of which the first was noticed at `since`.
    pub fn due(&self, since: Instant, is_of_endpoints: bool) -> Instant {
        let together = since + TOGETHER;
        match self.last {
            Some((at, _)) => together.max(at + self.pause(is_of_endpoints)),
            None => together,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn endpoints(took: Duration) -> Done {
        Done {
            took,
            is_of_endpoints: true,
            callers_count: false,
        }
    }

    fn others(took: Duration) -> Done {
        Done {
            is_of_endpoints: false,
            ..endpoints(took)
        }
    }

    #[test]
    fn when_quiet_a_change_waits_for_those_that_come_with_it_only() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.due(start, true), start + TOGETHER);
        pace.done(start, endpoints(100 * MS));
        let later = start + 60_000 * MS;
        assert_eq!(pace.due(later, true), later + TOGETHER);
    }

    #[test]
    fn under_churn_endpoints_wait_for_a_multiple_of_what_it_takes_and_policy_for_less() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.done(start, endpoints(50 * MS));
        let next = start + MS;
        assert_eq!(pace.due(next, true), start + 3000 * MS);
        assert_eq!(pace.due(next, false), start + 200 * MS);
    }

    #[test]
    fn no_pause_is_endless() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.done(start, endpoints(60_000 * MS));
        assert_eq!(pace.pause(true), ENDPOINTS_PAUSE_MAX);
        assert_eq!(pace.pause(false), OTHERS_PAUSE_MAX);
    }

    /// Else the first time, which reads everything, would keep the first endpoint that goes away for ten seconds.
    #[test]
    fn endpoints_go_by_what_endpoints_took() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.done(start, others(5_000 * MS));
        assert_eq!(pace.pause(true), OTHERS_PAUSE_MAX);
        pace.done(start, endpoints(10 * MS));
        pace.done(start, others(5_000 * MS));
        assert_eq!(pace.pause(true), 600 * MS);
    }

    /// The address of a Pod that is gone may be another's by now.
    #[test]
    fn where_labels_of_callers_count_no_pod_waits_longer_than_a_policy() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let done = Done {
            callers_count: true,
            ..endpoints(1_000 * MS)
        };
        pace.done(start, done);
        assert_eq!(pace.pause(true), OTHERS_PAUSE_MAX);
    }
}
