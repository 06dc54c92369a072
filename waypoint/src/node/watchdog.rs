//! Which workers are alive. A worker that hangs still listens, so the kernel would go on steering
//! connections to it that nobody answers (specs/kernel-redirect.md 1, fail modes): whoever watches
//! takes its listeners away until it comes back. Decides only; nothing is taken away here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a worker shows that it is alive.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// How often the watchdog looks.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Silence after which a worker counts as hung. With one look more its listeners are gone within the
/// 2 s that are promised.
pub const HUNG_AFTER: Duration = Duration::from_millis(1_500);

/// The time at which a worker was last alive.
#[derive(Debug)]
pub struct Beat {
    since: Instant,
    last_ms: AtomicU64,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl Beat {
    /// Beats for as long as the worker's runtime runs its tasks.
    pub async fn keep(&self) {
        loop {
            self.beat(Instant::now());
            tokio::time::sleep(BEAT_INTERVAL).await;
        }
    }

    pub(super) fn beat(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.since)
            .saturating_sub(last)
    }
}

/// What became of a worker since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The worker of this index answers no more.
    Hung(usize),
    /// It answers again.
    Back(usize),
}

/// Watches workers.
#[derive(Debug)]
pub struct Watchdog {
    workers: Vec<(Arc<Beat>, bool)>,
    looked: Instant,
}

impl Watchdog {
    /// A watchdog over workers that are alive.
    pub fn new(beats: impl IntoIterator<Item = Arc<Beat>>, now: Instant) -> Self {
        Self {
            workers: beats.into_iter().map(|beat| (beat, true)).collect(),
            looked: now,
        }
    }

    /// What has changed.
    pub fn look(&mut self, now: Instant) -> Vec<Change> {
        self.looked = now;
        let mut changes = Vec::new();
        for (index, (beat, alive)) in self.workers.iter_mut().enumerate() {
            let beats = beat.silence(now) < HUNG_AFTER;
            if beats != *alive {
                *alive = beats;
                changes.push(match beats {
                    true => Change::Back(index),
                    false => Change::Hung(index),
                });
            }
        }
        changes
    }

    /// Whether it is time to look.
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= LOOK_INTERVAL
    }

    /// Whether nobody looked for so long that the process itself must have stood still: another
    /// process may have taken its listeners away.
    pub fn overslept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= HUNG_AFTER / 2
    }

    /// Whether a worker was alive at the last look.
    pub fn is_alive(&self, worker: usize) -> bool {
        self.workers.get(worker).is_some_and(|(_, alive)| *alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at the watchdog every interval until it has something to say, with time as it says.
    fn look_until_news(watchdog: &mut Watchdog, steady: &Beat, now: &mut Instant) -> Vec<Change> {
        loop {
            *now += LOOK_INTERVAL;
            steady.beat(*now);
            let changes = watchdog.look(*now);
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    #[test]
    fn a_silent_worker_is_hung_within_two_seconds_and_comes_back() {
        let (steady, other) = (Arc::<Beat>::default(), Arc::<Beat>::default());
        let began = Instant::now();
        let mut now = began;
        other.beat(now);
        let mut watchdog = Watchdog::new([steady.clone(), other.clone()], now);
        let hung = look_until_news(&mut watchdog, &steady, &mut now);
        assert_eq!(hung, [Change::Hung(1)]);
        assert!(now - began <= Duration::from_secs(2), "{:?}", now - began);
        assert!(watchdog.is_alive(0) && !watchdog.is_alive(1));
        assert_eq!(watchdog.look(now), [], "said once");
        other.beat(now);
        assert_eq!(watchdog.look(now), [Change::Back(1)]);
    }

    #[test]
    fn a_watchdog_notices_that_it_slept_itself() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new([], began);
        assert!(!watchdog.overslept(began + LOOK_INTERVAL));
        watchdog.look(began + LOOK_INTERVAL);
        assert!(watchdog.overslept(began + LOOK_INTERVAL + HUNG_AFTER));
    }

    #[tokio::test]
    async fn a_worker_beats_while_its_tasks_run() {
        let beat = Arc::<Beat>::default();
        let keeps = beat.clone();
        let silent_from = Instant::now();
        tokio::spawn(async move { keeps.keep().await });
        tokio::time::sleep(BEAT_INTERVAL / 10).await;
        assert!(beat.silence(Instant::now()) < silent_from.elapsed());
    }
}
