//! Series of Istio's metrics in numbers: what identifies one, what it counts, and the registry of
//! all of them. Which exchange belongs to which series is decided in `metrics`, their text in
//! `exposition`.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::IstioMetric;

use super::changes::LabelSet;
use super::instruments::Gauge;
use super::labels::{DestinationLabels, OTHER, ServiceLabels, SourceLabels, UNKNOWN};
use super::names::{self, BUCKETS};

/// A counter that only one thread writes and any thread reads: adding is a load and a store, not a
/// locked instruction.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds. Only the owning thread may call it, or counts are lost; `metrics::Shard` sees to it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts per bucket, the last for what is above every bound, and the sum in the unit chosen by
/// the caller.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Tally; BUCKETS.len() + 1],
    sum: Tally,
}

impl Histogram {
    /// Counts a value that adds `summand` to the sum. Only the owning thread may call it.
    pub fn record(&self, value: f64, summand: u64) {
        self.record_in(&BUCKETS, value, summand);
    }

    /// The same with other bounds, no more of them, which have to be the same each time.
    pub fn record_in(&self, bounds: &[f64], value: f64, summand: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.add(1);
        }
        self.sum.add(summand);
    }

    /// Adds what was counted here to a total.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (total, count) in total.counts.iter_mut().zip(&self.counts) {
            *total += count.get();
        }
        total.sum += self.sum.get();
    }
}

/// Histograms of several threads added together; counts are per bucket, not cumulative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotal {
    /// Per bucket, the last for what is above every bound.
    pub counts: [u64; BUCKETS.len() + 1],
    /// In the unit of the recording.
    pub sum: u64,
}

/// What one thread counts for one label set.
#[derive(Debug, Default)]
pub struct HttpSeries {
    /// Requests.
    pub requests: Tally,
    /// Values in milliseconds, sum in microseconds.
    pub duration: Histogram,
    /// Bytes.
    pub request_bytes: Histogram,
    /// Bytes.
    pub response_bytes: Histogram,
    /// Of gRPC.
    pub request_messages: Tally,
    /// Of gRPC.
    pub response_messages: Tally,
}

/// What one thread counts for one label set of a metric whose labels were changed: a counter, or a
/// histogram.
#[derive(Debug, Default)]
#[allow(missing_docs)] // one of them
pub struct ChangedSeries {
    pub counter: Tally,
    pub histogram: Histogram,
}

/// What one thread counts for one label set of Hubble's metrics.
#[derive(Debug, Default)]
pub struct HubbleSeries {
    /// Requests.
    pub requests: Tally,
    /// Seconds, in Hubble's buckets; sum in microseconds.
    pub duration: Histogram,
}

/// A label set of Hubble's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // as in HttpKey
pub struct HubbleKey {
    pub source: u32,
    pub destination: u32,
    /// A method that HTTP defines, else `other`.
    pub method: &'static str,
    pub status: u16,
}

impl HubbleKey {
    /// The series that takes what exceeds the limit.
    pub const OTHER: Self = Self {
        source: OTHER_ID,
        destination: OTHER_ID,
        method: OTHER,
        status: 0,
    };
}

/// What all threads count for one label set: TCP streams begin, end and report rarely enough.
#[derive(Debug, Default)]
#[allow(missing_docs)] // the metrics of the same names
pub struct TcpSeries {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    /// Something counts all four here; otherwise those that are 0 may be counted elsewhere.
    pub whole: std::sync::atomic::AtomicBool,
}

/// A label set of HTTP, in small numbers. Equal keys are equal label sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HttpKey {
    /// Index into [`Registry::sources`].
    pub source: u32,
    /// Index into [`Registry::destinations`].
    pub destination: u32,
    /// Index into [`Registry::services`].
    pub service: u32,
    /// Status, 0 when none was sent.
    pub status: u16,
    /// gRPC?
    pub grpc: bool,
    /// `grpc-status`, at most 16; gRPC only.
    pub grpc_status: Option<u8>,
    /// Envoy's flags, empty when none.
    pub flags: &'static str,
}

/// A label set of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // as in HttpKey
pub struct TcpKey {
    pub source: u32,
    pub destination: u32,
    pub service: u32,
    pub flags: &'static str,
}

/// Index of the label set that is `unknown` throughout.
pub const UNKNOWN_ID: u32 = 0;

/// Index of the label set that is `other` throughout.
pub const OTHER_ID: u32 = 1;

impl HttpKey {
    /// The series that takes what exceeds the limit.
    pub const OTHER: Self = Self {
        source: OTHER_ID,
        destination: OTHER_ID,
        service: OTHER_ID,
        status: 0,
        grpc: false,
        grpc_status: None,
        flags: OTHER,
    };
}

impl TcpKey {
    /// The series that takes what exceeds the limit.
    pub const OTHER: Self = Self {
        source: OTHER_ID,
        destination: OTHER_ID,
        service: OTHER_ID,
        flags: OTHER,
    };
}

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
    fn new(unknown: T, other: T, max: usize) -> Self {
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
    pub fn len(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(known.ids.len(), known.values.len());
        known.values.len()
    }

    /// Forgets the label sets that nobody held and no series named, both at the time before and now; who
    /// got the number of one in between has asked for it, and it stays. `used`: numbers that series name.
    fn forget(&self, used: &FxHashSet<u32>) -> Vec<Arc<T>> {
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
    fn new(max: usize) -> Self {
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
    fn size(&self) -> (usize, usize) {
        let (mut sets, mut bytes) = (0, 0);
        self.each(|_, counts| {
            sets += 1;
            bytes += 2 * size_of::<K>() + counts.len() * size_of::<S>();
        });
        (sets, bytes)
    }

    /// Forgets the label sets whose counts no thread has held for `idle`, and gives them back. One that is held, or
    /// was asked for since, stays, so that no count is lost.
    fn forget(&self, now: Instant, idle: Duration) -> Vec<Row<K, S>> {
        let (mut from, mut gone) = (0, Vec::new());
        loop {
            let mut table = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let Rows { index, rows, .. } = &mut *table;
            let (mut seen, mut unused) = (0, Vec::new());
            for (place, kept) in rows.range_mut(from..).take(ROWS_PER_STEP) {
                (from, seen) = (*place + 1, seen + 1);
                let is_held = kept.counts.iter_mut().any(|c| Arc::get_mut(c).is_none());
                if is_held {
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
    fn each(&self, mut see: impl FnMut(&K, &[Arc<S>])) {
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

/// What the dry run would have answered, as one thread counts it.
#[derive(Debug, Default)]
pub struct DryRunVerdicts {
    /// By what would have been answered (allow first), then by what was.
    pub counts: [[Tally; 2]; 2],
}

/// A label set of what policies decided or said: the policy, its rule, the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// The policy.
    pub policy: PolicyName,
    /// Its rule, from 0.
    pub rule: Option<usize>,
    /// A word; empty for metrics without it.
    pub outcome: &'static str,
}

/// The policy of a label set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PolicyName {
    /// None: it was decided by default.
    Default,
    /// This object.
    Object(Origin),
    /// What exceeds the limit.
    Other,
}

impl PolicyKey {
    /// The series that takes what exceeds the limit.
    pub const OTHER: Self = Self {
        policy: PolicyName::Other,
        rule: None,
        outcome: OTHER,
    };
}

/// Every series of one process. Those of exchanges are forgotten when nothing was counted in them for long
/// ([`Self::forget`]); those of policies stay, for a denial that happens once a week is to be seen as an increase.
pub struct Registry {
    /// Clients.
    pub sources: Labels<SourceLabels>,
    /// Endpoints.
    pub destinations: Labels<DestinationLabels>,
    /// Services.
    pub services: Labels<ServiceLabels>,
    /// HTTP.
    pub http: Table<HttpKey, HttpSeries>,
    /// TCP.
    pub tcp: Table<TcpKey, TcpSeries>,
    /// HTTP, as Hubble counts it.
    pub hubble: Table<HubbleKey, HubbleSeries>,
    /// Series whose labels were changed, by metric in the order of [`IstioMetric::ALL`].
    pub changed: [Table<LabelSet, ChangedSeries>; IstioMetric::ALL.len()],
    /// Verdicts.
    pub verdicts: Table<PolicyKey, Tally>,
    /// What policies that are tried say.
    pub dry_run: Table<PolicyKey, Tally>,
    /// Matches of AUDIT policies.
    pub audit: Table<PolicyKey, Tally>,
    /// What the dry run would have answered, one entry per thread.
    pub dry_run_verdicts: Mutex<Vec<Arc<DryRunVerdicts>>>,
    /// Exchanges that went to the series `other`.
    pub overflow: Gauge,
    /// Label sets that were forgotten.
    pub expired: Gauge,
    /// Clients whose baggage was not taken.
    pub baggage_overflow: Gauge,
    /// Label sets of clients that come from baggage.
    pub baggage_clients: Mutex<FxHashSet<SourceLabels>>,
    /// Labels `source_cluster` and `destination_cluster` of workloads that we know.
    pub cluster: Arc<str>,
}

/// How much there is of one kind of series.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Which kind.
    pub table: &'static str,
    /// Label sets.
    pub objects: usize,
    /// Of their counts, in all threads.
    pub bytes: usize,
}

impl Registry {
    /// A registry of at most `series_max` label sets for HTTP, and as many for TCP.
    pub fn new(series_max: usize, cluster: &str) -> Self {
        let verdicts = Table::new(series_max);
        for outcome in ["allow", "deny"] {
            let (policy, rule) = (PolicyName::Default, None);
            let by_default = PolicyKey {
                policy,
                rule,
                outcome,
            };
            // Shown as 0 from the first scrape on: an alert on an increase needs it.
            verdicts.enter(by_default, PolicyKey::OTHER, |_| ());
        }
        Self {
            sources: Labels::new(
                SourceLabels::all(UNKNOWN),
                SourceLabels::all(OTHER),
                series_max,
            ),
            destinations: Labels::new(
                DestinationLabels::all(UNKNOWN),
                DestinationLabels::all(OTHER),
                series_max,
            ),
            services: Labels::new(
                ServiceLabels::all(UNKNOWN),
                ServiceLabels::all(OTHER),
                series_max,
            ),
            http: Table::new(series_max),
            tcp: Table::new(series_max),
            hubble: Table::new(series_max),
            changed: std::array::from_fn(|_| Table::new(series_max)),
            verdicts,
            dry_run: Table::new(series_max),
            audit: Table::new(series_max),
            dry_run_verdicts: Mutex::default(),
            overflow: Gauge::new(&names::SERIES_OVERFLOW),
            expired: Gauge::new(&names::SERIES_EXPIRED),
            baggage_overflow: Gauge::new(&names::SERIES_OVERFLOW),
            baggage_clients: Mutex::default(),
            cluster: cluster.into(),
        }
    }

    /// How much there is of each kind.
    pub fn sizes(&self) -> Vec<Size> {
        let policies = [self.verdicts.size(), self.dry_run.size(), self.audit.size()];
        let changed = self.changed.iter().map(Table::size);
        let of = |table, (objects, bytes)| Size {
            table,
            objects,
            bytes,
        };
        let sum = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        vec![
            of("http", self.http.size()),
            of("tcp", self.tcp.size()),
            of("hubble", self.hubble.size()),
            of("changed", changed.fold((0, 0), sum)),
            of("policy", policies.into_iter().fold((0, 0), sum)),
        ]
    }

    /// Forgets the series of exchanges in which no thread counted anything for `idle`, as Prometheus' clients
    /// may: one that comes back begins at 0. Then the labels that no series has any more.
    ///
    /// To be called from time to time, and never at once from two threads. A thread holds the series it
    /// counted in until it lets go of them ([`super::metrics::Shard::let_go`]).
    pub fn forget(&self, now: Instant, idle: Duration) {
        let mut gone = self.http.forget(now, idle).len();
        gone += self.tcp.forget(now, idle).len();
        gone += self.hubble.forget(now, idle).len();
        let changed = self.changed.iter();
        gone += changed.map(|t| t.forget(now, idle).len()).sum::<usize>();
        self.expired.add(i64::try_from(gone).unwrap_or(i64::MAX));
        self.forget_labels();
    }

    fn forget_labels(&self) {
        let mut used: [FxHashSet<u32>; 3] = Default::default();
        let [sources, destinations, services] = &mut used;
        self.http.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
            services.insert(key.service);
        });
        self.tcp.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
            services.insert(key.service);
        });
        self.hubble.each(|key, _| {
            sources.insert(key.source);
            destinations.insert(key.destination);
        });
        let clients = self.sources.forget(sources);
        self.destinations.forget(destinations);
        self.services.forget(services);
        let of_baggage = &self.baggage_clients;
        let mut of_baggage = of_baggage.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients {
            of_baggage.remove(&*client);
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_it() {
        let histogram = Histogram::default();
        for value in [0.0, 0.5, 0.6, 3_600_000.0, 3_600_001.0] {
            histogram.record(value, 1);
        }
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        let at = |bound: f64| BUCKETS.iter().position(|b| *b == bound).unwrap();
        assert_eq!(total.counts[at(0.5)], 2);
        assert_eq!(total.counts[at(1.0)], 1);
        assert_eq!(total.counts[at(3_600_000.0)], 1);
        assert_eq!(total.counts[BUCKETS.len()], 1);
        assert_eq!(total.sum, 5);
    }

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
