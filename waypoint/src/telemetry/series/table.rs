//! Label sets and what threads count for them, kept by number or in the order they appeared, and forgotten when
//! nobody uses them any more. Knows nothing of what a label set says.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::OTHER_ID;

/// Label sets by number, equal ones once. A number is never given to another label set, for a thread may
/// remember it.
#[derive(Debug)]
pub struct Labels<T> {
    known: Mutex<Known<T>>,
    max: usize,
}

#[derive(Debug)]
struct Known<T> {
    ids: FxHashMap<Arc<T>, u32>,
    values: BTreeMap<u32, Named<T>>,
    next: u32,
}

#[derive(Debug)]
struct Named<T> {
    labels: Arc<T>,
    /// No thread held it and no series named it the last time somebody looked, and nobody asked since.
    idle: bool,
}

/// The number of a label set, which stays its number as long as this is held or a series names it.
#[derive(Debug)]
pub struct Held<T> {
    /// The number.
    pub id: u32,
    _labels: Option<Arc<T>>,
}

/// Owners of a label set that nobody holds: the two maps.
const OWN_HOLDERS: usize = 2;

impl<T: Hash + Eq> Labels<T> {
    pub(super) fn new(unknown: T, other: T, max: usize) -> Self {
        let labels = Self {
            known: Mutex::new(Known {
                ids: FxHashMap::default(),
                values: BTreeMap::new(),
                next: 0,
            }),
            max: max.saturating_add(2),
        };
        labels.id(unknown);
        labels.id(other);
        labels
    }

    /// The number of a label set; [`OTHER_ID`] beyond the limit.
    pub fn id(&self, labels: T) -> Held<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { ids, values, next } = &mut *known;
        if let Some(id) = ids.get(&labels)
            && let Some(named) = values.get_mut(id)
        {
            named.idle = false;
            return Held {
                id: *id,
                _labels: Some(named.labels.clone()),
            };
        }
        // Numbers run out after years of new label sets.
        if values.len() >= self.max || *next == u32::MAX {
            return Held {
                id: OTHER_ID,
                _labels: None,
            };
        }
        let (id, labels) = (*next, Arc::new(labels));
        *next += 1;
        ids.insert(labels.clone(), id);
        let named = Named {
            labels: labels.clone(),
            idle: false,
        };
        values.insert(id, named);
        Held {
            id,
            _labels: Some(labels),
        }
    }

    /// The label set of a number that [`Self::id`] gave.
    pub fn get(&self, id: u32) -> Option<Arc<T>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values.get(&id).map(|named| named.labels.clone())
    }

    /// Label sets there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(known.ids.len(), known.values.len());
        known.values.len()
    }

    /// Forgets the label sets that nobody held and no series named, both at the time before and now; who
    /// got the number of one in between has asked for it, and it stays. `used`: numbers that series name.
    pub(super) fn forget(&self, used: &FxHashSet<u32>) -> Vec<Arc<T>> {
        let (mut from, mut gone) = (OTHER_ID + 1, Vec::new());
        loop {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let Known { ids, values, .. } = &mut *known;
            let (mut seen, mut idle) = (0, Vec::new());
            for (id, named) in values.range_mut(from..).take(ROWS_PER_STEP) {
                (from, seen) = (*id + 1, seen + 1);
                let is_idle = Arc::strong_count(&named.labels) <= OWN_HOLDERS && !used.contains(id);
                if is_idle && named.idle {
                    idle.push(*id);
                }
                named.idle = is_idle;
            }
            for named in idle.iter().filter_map(|id| values.remove(id)) {
                ids.remove(&named.labels);
                gone.push(named.labels);
            }
            if seen < ROWS_PER_STEP {
                return gone;
            }
        }
    }
}

/// Series of one kind, in the order they appeared, so that a scrape can walk them in pieces.
#[derive(Debug)]
pub struct Table<K, S> {
    rows: Mutex<Rows<K, S>>,
    max: usize,
}

/// A label set and the counts of each thread that has met it.
pub type Row<K, S> = (K, Vec<Arc<S>>);

/// Rows looked at under one lock, for a worker may wait for it.
const ROWS_PER_STEP: usize = 256;

#[derive(Debug)]
struct Rows<K, S> {
    index: FxHashMap<K, u64>,
    /// In the order they appeared; places are not used twice, so that a scrape can go on where it was.
    rows: BTreeMap<u64, Kept<K, S>>,
    next: u64,
}

#[derive(Debug)]
struct Kept<K, S> {
    key: K,
    counts: Vec<Arc<S>>,
    /// Since then no thread has held any of the counts, as far as somebody looked.
    unused_since: Option<Instant>,
}

/// This thread's own counts of a list: those that another thread let go, which nobody writes to any more, else
/// new ones.
pub fn own<S: Default>(counts: &mut Vec<Arc<S>>) -> Arc<S> {
    let free = counts.iter_mut().find_map(|count| {
        // Only the list holds it, and what its last writer wrote is seen here.
        Arc::get_mut(count)?;
        Some(count.clone())
    });
    free.unwrap_or_else(|| {
        let new = Arc::<S>::default();
        counts.push(new.clone());
        new
    })
}

impl<K: Hash + Eq + Clone, S> Table<K, S> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            rows: Mutex::new(Rows {
                index: FxHashMap::default(),
                rows: BTreeMap::new(),
                next: 0,
            }),
            max,
        }
    }

    /// Label sets it has room for, `other` not counted.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Gives `found` the list of the threads' counts for a label set, which is empty for a new one.
    /// `None` when there are too many label sets for a new one; `other` always has room.
    pub fn enter<R>(
        &self,
        key: K,
        other: K,
        found: impl FnOnce(&mut Vec<Arc<S>>) -> R,
    ) -> Option<R> {
        let mut table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let Rows { index, rows, next } = &mut *table;
        let at = match index.get(&key) {
            Some(at) => *at,
            None if rows.len() < self.max || key == other => {
                index.insert(key.clone(), *next);
                let kept = Kept {
                    key,
                    counts: Vec::new(),
                    unused_since: None,
                };
                rows.insert(*next, kept);
                *next += 1;
                *next - 1
            }
            None => return None,
        };
        rows.get_mut(&at).map(|kept| {
            kept.unused_since = None;
            found(&mut kept.counts)
        })
    }

    /// Up to `count` rows from place `start` on, and the place after them; none after the last.
    pub fn rows(&self, start: u64, count: usize) -> (Vec<Row<K, S>>, u64) {
        let table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = start;
        let rows = table.rows.range(start..).take(count).map(|(place, kept)| {
            next = place + 1;
            (kept.key.clone(), kept.counts.clone())
        });
        (rows.collect(), next)
    }

    /// Label sets there are, and the bytes of their counts, without texts.
    pub(super) fn size(&self) -> (usize, usize) {
        let (mut sets, mut bytes) = (0, 0);
        self.each(|_, counts| {
            sets += 1;
            bytes += 2 * size_of::<K>() + counts.len() * size_of::<S>();
        });
        (sets, bytes)
    }

    /// Forgets the label sets whose counts no thread has held for `idle`, and gives them back. One that is held, or
    /// was asked for since, stays, so that no count is lost.
    pub(super) fn forget(&self, now: Instant, idle: Duration) -> Vec<Row<K, S>> {
        self.forget_where(now, idle, |_| true)
    }

    /// The same of those that may go. One that may not is as if it were held.
    pub(super) fn forget_where(
        &self,
        now: Instant,
        idle: Duration,
        may_go: impl Fn(&K) -> bool,
    ) -> Vec<Row<K, S>> {
        let (mut from, mut gone) = (0, Vec::new());
        loop {
            let mut table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let Rows { index, rows, .. } = &mut *table;
            let (mut seen, mut unused) = (0, Vec::new());
            for (place, kept) in rows.range_mut(from..).take(ROWS_PER_STEP) {
                (from, seen) = (*place + 1, seen + 1);
                let is_held = kept.counts.iter_mut().any(|c| Arc::get_mut(c).is_none());
                if is_held || !may_go(&kept.key) {
                    kept.unused_since = None;
                    continue;
                }
                let since = *kept.unused_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= idle {
                    unused.push(*place);
                }
            }
            for kept in unused.iter().filter_map(|place| rows.remove(place)) {
                index.remove(&kept.key);
                gone.push((kept.key, kept.counts));
            }
            if seen < ROWS_PER_STEP {
                return gone;
            }
        }
    }

    /// Shows every label set and its counts.
    pub(super) fn each(&self, mut see: impl FnMut(&K, &[Arc<S>])) {
        let mut from = 0;
        loop {
            let table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let mut seen = 0;
            for (place, kept) in table.rows.range(from..).take(ROWS_PER_STEP) {
                (from, seen) = (*place + 1, seen + 1);
                see(&kept.key, &kept.counts);
            }
            if seen < ROWS_PER_STEP {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::{Tally, UNKNOWN_ID};
    use super::*;

    #[test]
    fn equal_label_sets_have_one_number_and_too_many_are_other() {
        let labels = Labels::new("unknown", "other", 1);
        let first = labels.id("a").id;
        assert_eq!(labels.id("a").id, first);
        assert_eq!(labels.id("b").id, OTHER_ID);
        assert_eq!(labels.id("unknown").id, UNKNOWN_ID);
        assert_eq!(labels.get(first).as_deref(), Some(&"a"));
    }

    #[test]
    fn a_label_set_is_forgotten_when_nobody_holds_it_and_no_series_has_it() {
        let labels = Labels::new("unknown", "other", 2);
        let (held, named) = (labels.id("held"), labels.id("named").id);
        let used = FxHashSet::from_iter([named]);
        for _ in 0..3 {
            assert!(labels.forget(&used).is_empty());
        }
        assert_eq!(labels.id("third").id, OTHER_ID, "there is no room");
        let id = held.id;
        drop(held);
        assert!(labels.forget(&used).is_empty(), "it may be asked for");
        drop(labels.id("held"));
        assert!(labels.forget(&used).is_empty(), "it was asked for");
        assert_eq!(labels.forget(&used), [Arc::new("held")]);
        assert_eq!(labels.get(id), None);
        let third = labels.id("third").id;
        assert!(third > id, "numbers are not given twice");
        assert_eq!(labels.get(named).as_deref(), Some(&"named"));
        for permanent in [UNKNOWN_ID, OTHER_ID] {
            assert!(labels.get(permanent).is_some());
        }
    }

    #[test]
    fn a_series_is_forgotten_after_its_time_and_not_while_it_is_held_or_asked_for() {
        let table: Table<&str, Tally> = Table::new(10);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let idle = Duration::from_secs(60);
        let mine = table.enter("a", "other", own).unwrap();
        mine.add(5);
        assert!(table.forget(at(1_000), idle).is_empty(), "it is held");
        drop(mine);
        assert!(table.forget(at(2_000), idle).is_empty(), "unused from here");
        assert!(table.forget(at(2_059), idle).is_empty());
        let again = table.enter("a", "other", own).unwrap();
        assert_eq!(again.get(), 5, "the counts that were let go");
        drop(again);
        assert!(table.forget(at(2_061), idle).is_empty(), "from the start");
        assert_eq!(table.forget(at(2_121), idle).len(), 1);
        assert_eq!(table.enter("a", "other", own).unwrap().get(), 0);
    }

    /// Prometheus takes what becomes smaller for a restart; no count may vanish with a series in use.
    #[test]
    fn what_threads_count_is_in_the_table_or_was_given_back_whole() {
        use std::sync::atomic::{AtomicBool, AtomicUsize};
        const ROUNDS: u64 = 2_000;
        let table: Table<u64, Tally> = Table::new(4);
        let (ended, mut given_back) = (AtomicUsize::new(0), 0);
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (table, ended, started) = (&table, &ended, &started);
                scope.spawn(move || {
                    while !started.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                    for round in 0..ROUNDS {
                        // Held for a few counts, then let go.
                        let key = (round + thread) % 4;
                        let mine = table.enter(key, 9, own).unwrap();
                        (0..3).for_each(|_| mine.add(1));
                    }
                    ended.fetch_add(1, Relaxed);
                });
            }
            started.store(true, Relaxed);
            while ended.load(Relaxed) < 3 {
                let gone = table.forget(Instant::now(), Duration::ZERO);
                let counts = gone.iter().flat_map(|(_, counts)| counts);
                given_back += counts.map(|count| count.get()).sum::<u64>();
            }
        });
        let (rows, _) = table.rows(0, 10);
        let left: u64 = rows.iter().flat_map(|(_, c)| c).map(|c| c.get()).sum();
        assert_eq!(given_back + left, 3 * 3 * ROUNDS);
        assert!(rows.iter().all(|(_, counts)| counts.len() <= 3));
    }
}
