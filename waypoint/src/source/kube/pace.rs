//! When changes are put in force: at once when it is quiet, and with pauses in proportion to what it costs when
//! they never end. Changes nothing itself.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come together are one: a Service, its EndpointSlice and its Pods do.
const TOGETHER: Duration = Duration::from_millis(5);

/// Pause after putting changes of endpoints in force, as a multiple of how long that took: with it, putting
/// in force takes at most a thirty-first part of a core, whatever the number of changes.
const ENDPOINTS_PAUSE: u32 = 30;

/// The same when something else than endpoints changed, a policy say: a fifth of a core while that lasts.
const OTHERS_PAUSE: u32 = 4;

/// The longest pause for endpoints. One that is gone meanwhile is not answering, and another is tried.
const ENDPOINTS_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The longest for the rest.
const OTHERS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the last time cost.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::source) struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Something was put in force: it took so long, until now.
    pub fn done(&mut self, now: Instant, took: Duration) {
        self.last = Some((now, took));
    }

    /// How long changes wait after the last time.
    pub fn pause(&self, is_of_endpoints: bool) -> Duration {
        let took = self.last.map_or(Duration::ZERO, |(_, took)| took);
        match is_of_endpoints {
            true => (took * ENDPOINTS_PAUSE).min(ENDPOINTS_PAUSE_MAX),
            false => (took * OTHERS_PAUSE).min(OTHERS_PAUSE_MAX),
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

    #[test]
    fn when_quiet_a_change_waits_for_those_that_come_with_it_only() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.due(start, true), start + TOGETHER);
        pace.done(start, 100 * MS);
        let later = start + 60_000 * MS;
        assert_eq!(pace.due(later, true), later + TOGETHER);
    }

    #[test]
    fn under_churn_endpoints_wait_for_a_multiple_of_what_it_takes_and_policy_for_less() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.done(start, 50 * MS);
        let next = start + MS;
        assert_eq!(pace.due(next, true), start + 1500 * MS);
        assert_eq!(pace.due(next, false), start + 200 * MS);
    }

    #[test]
    fn no_pause_is_endless() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.done(start, 60_000 * MS);
        assert_eq!(pace.pause(true), ENDPOINTS_PAUSE_MAX);
        assert_eq!(pace.pause(false), OTHERS_PAUSE_MAX);
    }
}
