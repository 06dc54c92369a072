//! What is to be done, and when: each thing once at a time, again if it was asked for meanwhile, later and later
//! while it fails. Does nothing by itself and has no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first wait after a failure.
const FIRST: Duration = Duration::from_millis(200);

/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Well.
    Well,
    /// Well, and it is to be looked at again after this time.
    Again(Duration),
    /// Not.
    Failed,
}

/// The queue. Holds no more than the things that there are.
#[derive(Debug)]
pub struct Queue<K> {
    entries: BTreeMap<K, Entry>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    is_running: bool,
    failures: u32,
}

impl<K: Ord + Clone> Queue<K> {
    /// To be done now. What failed before waits no longer: something has changed.
    pub fn add(&mut self, key: K, now: Instant) {
        let entry = self.entries.entry(key).or_default();
        entry.due = Some(entry.due.map_or(now, |due| due.min(now)));
    }

    /// The longest due, which is running from now on.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.is_running);
        let due = waiting.filter_map(|(key, entry)| Some((entry.due?, key)));
        let (due, key) = due.min_by_key(|(due, _)| *due)?;
        if due > now {
            return None;
        }
        let key = key.clone();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = None;
            entry.is_running = true;
        }
        Some(key)
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter(|entry| !entry.is_running);
        waiting.filter_map(|entry| entry.due).min()
    }

    /// It ended. `chance` is from 0 to 1.
    pub fn done(&mut self, key: &K, how: Done, now: Instant, chance: f64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.is_running = false;
        let later = match how {
            Done::Well => {
                entry.failures = 0;
                None
            }
            Done::Again(after) => {
                entry.failures = 0;
                Some(now + after)
            }
            Done::Failed => {
                let doubled = FIRST.saturating_mul(1 << entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                Some(
                    now + doubled
                        .min(LONGEST)
                        .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0),
                )
            }
        };
        entry.due = match (entry.due, later) {
            (Some(due), Some(later)) => Some(due.min(later)),
            (due, later) => due.or(later),
        };
        if entry.due.is_none() {
            self.entries.remove(key);
        }
    }

    /// Things that wait or are being done.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_done_once_at_a_time_and_again_if_it_was_asked_for_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!(queue.take(now), None, "it is running");
        queue.done(&"a", Done::Well, now, 0.0);
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a", Done::Well, now, 0.0);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_fails_waits_longer_each_time_unless_something_changes() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now);
        let mut waits = Vec::new();
        let mut at = now;
        for _ in 0..12 {
            assert_eq!(queue.take(at), Some("a"));
            queue.done(&"a", Done::Failed, at, 1.0);
            let due = queue.next().unwrap();
            waits.push((due - at).as_millis());
            at = due;
        }
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits[11], 60_000);
        queue.take(at);
        queue.done(&"a", Done::Failed, at, 0.0);
        assert_eq!(queue.take(at), None);
        queue.add("a", at);
        assert_eq!(queue.take(at), Some("a"));
    }

    #[test]
    fn the_longest_due_comes_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("late", now + Duration::from_secs(1));
        queue.add("early", now);
        assert_eq!(queue.next(), Some(now));
        assert_eq!(queue.take(now), Some("early"));
        assert_eq!(queue.take(now), None);
        queue.done(&"early", Done::Again(Duration::from_secs(2)), now, 0.0);
        assert_eq!(queue.take(now + Duration::from_secs(3)), Some("late"));
    }
}
