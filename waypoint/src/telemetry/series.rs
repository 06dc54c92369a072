//! Series of Istio's metrics in numbers: what identifies one, what it counts, and the registry of
//! all of them. Which exchange belongs to which series is decided in `metrics`, their text in
//! `exposition`; how they are kept and forgotten is in `table`.

mod forget;
mod table;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustc_hash::FxHashSet;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::IstioMetric;

use super::changes::LabelSet;
use super::instruments::Gauge;
use super::labels::{DestinationLabels, OTHER, ServiceLabels, SourceLabels, UNKNOWN};
use super::names::{self, BUCKETS};
pub use table::{Held, Labels, Row, Table, own};

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
/// ([`Self::forget`]); those of policies stay as long as the policy is there, for a denial that happens once a week is to
/// be seen as an increase, and are forgotten like the others after it is gone ([`Self::forget_policies`]).
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
}
