//! From an exchange to its series, in well under a microsecond: each thread keeps its own counts,
//! found by the addresses of the objects the exchange points to. Writes no text.

mod counts;
mod remembered;

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::{IstioMetric, Service, Snapshot, Workload};
use rustc_hash::{FxHashMap, FxHashSet};

use super::changed::ChangedCounts;
use super::changes::{Changes, Counted};
use super::exchange::{Exchange, Headers, HttpExchange, Seen};
use super::exposition;
use super::labels::{DestinationLabels, OTHER, ServiceLabels, SourceLabels};
use super::names::{HTTP_LABELS, HUBBLE_BUCKETS, TCP_LABELS};
use super::policies::{self, PolicyCounts};
use super::series::{
    ChangedSeries, Held, HttpKey, HttpSeries, HubbleKey, HubbleSeries, Registry, TcpKey, own,
};
use crate::limits::{METRIC_SERIES_MAX, METRIC_STEP_MAX, METRIC_STEP_MIN};
use counts::Counts;
use remembered::Client;

/// Istio's name for the only cluster of a mesh; Kiali drops series whose cluster it does not know.
const CLUSTER_DEFAULT: &str = "Kubernetes";

static CLUSTER: OnceLock<String> = OnceLock::new();

static REGISTRY: LazyLock<Arc<Registry>> = LazyLock::new(|| {
    let cluster = CLUSTER.get().map_or(CLUSTER_DEFAULT, String::as_str);
    Arc::new(Registry::new(METRIC_SERIES_MAX, cluster))
});

thread_local! {
    static SHARD: RefCell<Shard> = RefCell::new(Shard::new(REGISTRY.clone()));
}

/// Sets the name of the cluster in labels; without effect once something was counted.
pub fn set_cluster(name: &str) {
    // A second call would make labels change under way; the first one stays.
    let _ = CLUSTER.set(name.to_owned());
}

/// How often a thread lets go of its series, and how often idle ones are looked for, when they are forgotten after
/// `idle`.
fn step(idle: Duration) -> Duration {
    (idle / 4).clamp(METRIC_STEP_MIN, METRIC_STEP_MAX)
}

/// Lets go of this thread's series again and again, so that [`forget_idle`] can forget those that are idle, and of the
/// objects of which it keeps what spans and lines say of them; never ends. To be run on each thread that counts exchanges.
pub async fn let_go(idle: Duration) {
    loop {
        tokio::time::sleep(step(idle)).await;
        with_shard(Shard::let_go);
        super::otlp::let_go();
        super::access_log::let_go();
    }
}

/// Forgets series in which nothing was counted for `idle`, those of policies only when they are not in force any more;
/// never ends. To be run once. `snapshot`: what is in force, if something is.
pub async fn forget_idle(
    registry: Arc<Registry>,
    idle: Duration,
    snapshot: impl Fn() -> Option<Arc<Snapshot>>,
) {
    loop {
        tokio::time::sleep(step(idle)).await;
        let now = Instant::now();
        registry.forget(now, idle);
        if let Some(snapshot) = snapshot() {
            registry.forget_policies(now, idle, &policies::all(&snapshot));
        }
    }
}

/// The registry of this process.
pub fn registry() -> &'static Arc<Registry> {
    &REGISTRY
}

/// Counts an exchange that ended, into the series of this thread.
pub fn record(seen: &Seen<'_>) {
    with_shard(|shard| shard.record_seen(seen));
}

/// This thread's series of a TCP metric whose labels were changed.
pub(super) fn changed_tcp(
    seen: &Seen<'_>,
    key: TcpKey,
    changes: &Arc<Changes>,
    metric: IstioMetric,
) -> Option<Arc<ChangedSeries>> {
    with_shard(|shard| {
        let usual = exposition::tcp_labels(&shard.registry, &key)?;
        let usual = (&TCP_LABELS[..], &usual[..]);
        let values = changes.values(seen);
        let registry = shard.registry.clone();
        Some(
            shard
                .changed
                .series(&registry, changes, metric, usual, &values),
        )
    })?
}

/// The label set of a TCP stream.
pub(super) fn tcp_key(exchange: &Exchange) -> TcpKey {
    with_shard(|shard| shard.tcp_key(exchange)).unwrap_or(TcpKey::OTHER)
}

/// `None` only while the thread is being torn down.
fn with_shard<R>(f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
    SHARD
        .try_with(|shard| shard.try_borrow_mut().ok().map(|mut shard| f(&mut shard)))
        .ok()
        .flatten()
}

/// What one thread counts. The addresses are keys only as long as their objects are held here, so
/// that none can be taken by another object meanwhile.
pub struct Shard {
    registry: Arc<Registry>,
    policies: PolicyCounts,
    http: FxHashMap<HttpKey, Arc<HttpSeries>>,
    hubble: FxHashMap<HubbleKey, Arc<HubbleSeries>>,
    changed: ChangedCounts,
    /// This thread's part of the series `other`.
    other: Option<Arc<HttpSeries>>,
    /// Label sets known to belong there.
    overflowed: FxHashSet<HttpKey>,
    sources: FxHashMap<(usize, usize), (Held<SourceLabels>, Client)>,
    destinations: FxHashMap<usize, (Held<DestinationLabels>, Arc<Workload>)>,
    services: FxHashMap<usize, (Held<ServiceLabels>, Arc<Service>)>,
    snapshot: u64,
}

/// Istio's metrics of HTTP.
const HTTP_METRICS: [IstioMetric; 6] = [
    IstioMetric::RequestCount,
    IstioMetric::RequestDuration,
    IstioMetric::RequestSize,
    IstioMetric::ResponseSize,
    IstioMetric::GrpcRequestMessages,
    IstioMetric::GrpcResponseMessages,
];

/// Methods that HTTP defines; any other is of the client's making.
fn known_method(method: &http::Method) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT",
    ];
    let found = KNOWN.iter().find(|known| **known == method.as_str());
    found.copied().unwrap_or(OTHER)
}

impl Shard {
    /// A shard that counts into a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            policies: PolicyCounts::new(registry.clone()),
            registry,
            http: FxHashMap::default(),
            hubble: FxHashMap::default(),
            changed: ChangedCounts::default(),
            other: None,
            overflowed: FxHashSet::default(),
            sources: FxHashMap::default(),
            destinations: FxHashMap::default(),
            services: FxHashMap::default(),
            snapshot: 0,
        }
    }

    /// Counts an exchange that ended and has no headers to tell of.
    pub fn record(&mut self, exchange: &Exchange, elapsed: Duration) {
        self.record_seen(&Seen {
            exchange,
            elapsed,
            headers: Headers::default(),
        });
    }

    /// Counts an exchange that ended. Its TCP numbers are counted by [`super::tcp::TcpMeter`].
    pub fn record_seen(&mut self, seen: &Seen<'_>) {
        let exchange = seen.exchange;
        if let Some(verdict) = &exchange.verdict {
            self.policies.count(verdict);
        }
        let Some(http) = &exchange.http else {
            return;
        };
        let key = self.http_key(exchange, http);
        let counts = Counts::of(seen, http);
        self.hubble(&key, http, &counts);
        let changes = exchange.settings.as_ref().and_then(|s| s.metrics.as_ref());
        if let Some(changes) = changes {
            self.record_changed(seen, key, &counts, changes);
            return;
        }
        let (series, overflowed) = match self.http.get(&key) {
            Some(series) => (&**series, false),
            None => self.http_series(key),
        };
        HTTP_METRICS
            .iter()
            .for_each(|metric| counts.add(*metric, series));
        if overflowed {
            self.registry.overflow.add(1);
        }
    }

    /// The same where a Telemetry changed which metrics are counted, or their labels.
    fn record_changed(
        &mut self,
        seen: &Seen<'_>,
        key: HttpKey,
        counts: &Counts,
        changes: &Arc<Changes>,
    ) {
        let of = |wanted| {
            let metrics = HTTP_METRICS.iter().copied();
            metrics.filter(move |metric| changes.counted(*metric) == wanted)
        };
        if of(Counted::Usual).next().is_some() {
            let (series, overflowed) = match self.http.get(&key) {
                Some(series) => (&**series, false),
                None => self.http_series(key),
            };
            of(Counted::Usual).for_each(|metric| counts.add(metric, series));
            if overflowed {
                self.registry.overflow.add(1);
            }
        }
        let mut changed = of(Counted::Changed)
            .filter(|metric| counts.has(*metric))
            .peekable();
        if changed.peek().is_none() {
            return;
        }
        let Some(usual) = exposition::http_labels(&self.registry, &key) else {
            return;
        };
        let usual = (&HTTP_LABELS[..], &usual[..]);
        let values = changes.values(seen);
        for metric in changed {
            let series = self
                .changed
                .series(&self.registry, changes, metric, usual, &values);
            counts.add_changed(metric, &series);
        }
    }

    /// Counts it as Hubble does (specs/policies.md 3.5): once for each answer.
    fn hubble(&mut self, key: &HttpKey, http: &HttpExchange, counts: &Counts) {
        if key.status == 0 {
            return;
        }
        let key = HubbleKey {
            source: key.source,
            destination: key.destination,
            method: known_method(&http.method),
            status: key.status,
        };
        let series = match self.hubble.get(&key) {
            Some(series) => series,
            None => {
                let table = &self.registry.hubble;
                let entered = table.enter(key, HubbleKey::OTHER, own);
                let (key, series) = match entered {
                    Some(series) => (key, series),
                    None => {
                        let kept = self.hubble.get(&HubbleKey::OTHER).cloned();
                        let other = HubbleKey::OTHER;
                        let joined = kept.or_else(|| table.enter(other, other, own));
                        (HubbleKey::OTHER, joined.unwrap_or_default())
                    }
                };
                self.hubble.entry(key).or_insert(series)
            }
        };
        series.requests.add(1);
        let seconds = counts.micros as f64 / 1_000_000.0;
        series
            .duration
            .record_in(&HUBBLE_BUCKETS, seconds, counts.micros);
    }

    fn http_key(&mut self, exchange: &Exchange, http: &HttpExchange) -> HttpKey {
        // Codes above 16 mean UNKNOWN (2) to gRPC, and would let an application make label sets.
        let grpc_code = |code: u32| u8::try_from(code).ok().filter(|c| *c <= 16).unwrap_or(2);
        HttpKey {
            source: self.source(exchange),
            destination: self.destination(exchange),
            service: self.service(exchange),
            status: http.status.map_or(0, |s| s.as_u16()),
            grpc: http.grpc,
            grpc_status: http.grpc_status.filter(|_| http.grpc).map(grpc_code),
            flags: exchange.flags,
        }
    }

    /// The label set of a TCP stream.
    pub fn tcp_key(&mut self, exchange: &Exchange) -> TcpKey {
        TcpKey {
            source: self.source(exchange),
            destination: self.destination(exchange),
            service: self.service(exchange),
            flags: exchange.flags,
        }
    }

    /// The series of a label set this thread has not counted before, and whether it is `other`.
    fn http_series(&mut self, key: HttpKey) -> (&HttpSeries, bool) {
        let table = &self.registry.http;
        if !self.overflowed.contains(&key) {
            if let Some(series) = table.enter(key, HttpKey::OTHER, own) {
                return (self.http.entry(key).or_insert(series), false);
            }
            // No room, until this thread lets go the next time. Remembering it spares the lock till then.
            if self.overflowed.len() < table.max() {
                self.overflowed.insert(key);
            }
        }
        let join_other = || table.enter(HttpKey::OTHER, HttpKey::OTHER, own);
        // It can not be missing: `other` always has room.
        let other = || join_other().unwrap_or_default();
        (self.other.get_or_insert_with(other), true)
    }

    /// Lets go of all series and label sets, so that those that nobody counts in any more can be forgotten
    /// ([`Registry::forget`]); the others are found again with the next request, under a lock each. Counts are
    /// not touched.
    pub fn let_go(&mut self) {
        // New maps, for empty ones would keep their memory.
        self.policies.let_go();
        self.http = FxHashMap::default();
        self.hubble = FxHashMap::default();
        self.changed = ChangedCounts::default();
        self.other = None;
        self.overflowed = FxHashSet::default();
        self.sources = FxHashMap::default();
        self.destinations = FxHashMap::default();
        self.services = FxHashMap::default();
    }
}

#[cfg(test)]
mod tests;
