//! From an exchange to its series, in well under a microsecond: each thread keeps its own counts,
//! found by the addresses of the objects the exchange points to. Writes no text.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError};
use std::time::Duration;

use cairn_config_schema::snapshot::{Service, Workload};
use rustc_hash::{FxHashMap, FxHashSet};

use super::exchange::{Exchange, HttpExchange, Peer, StreamOrigin};
use super::labels::{Baggage, DestinationLabels, ServiceLabels, SourceLabels, source_workload};
use super::policies::PolicyCounts;
use super::series::{HttpKey, HttpSeries, Registry, TcpKey, UNKNOWN_ID};
use crate::limits::{METRIC_BAGGAGE_CLIENTS_MAX, METRIC_SERIES_MAX};

/// Objects a thread remembers the label sets of. Beyond, it starts over: nothing is lost, for
/// counts are kept by label set.
const REMEMBERED_MAX: usize = 8_192;

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

/// The registry of this process.
pub fn registry() -> &'static Arc<Registry> {
    &REGISTRY
}

/// Counts an exchange that ended, into the series of this thread. `elapsed` is its duration.
pub fn record(exchange: &Exchange, elapsed: Duration) {
    with_shard(|shard| shard.record(exchange, elapsed));
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
    /// This thread's part of the series `other`.
    other: Option<Arc<HttpSeries>>,
    /// Label sets known to belong there.
    overflowed: FxHashSet<HttpKey>,
    sources: FxHashMap<(usize, usize), (u32, Client)>,
    destinations: FxHashMap<usize, (u32, Arc<Workload>)>,
    services: FxHashMap<usize, (u32, Arc<Service>)>,
    snapshot: u64,
}

/// What the labels of a client were made from; held for its address.
#[allow(dead_code)] // held, never read
enum Client {
    Known(Arc<Peer>, Arc<Workload>),
    Stream(Arc<StreamOrigin>),
}

impl Shard {
    /// A shard that counts into a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            policies: PolicyCounts::new(registry.clone()),
            registry,
            http: FxHashMap::default(),
            other: None,
            overflowed: FxHashSet::default(),
            sources: FxHashMap::default(),
            destinations: FxHashMap::default(),
            services: FxHashMap::default(),
            snapshot: 0,
        }
    }

    /// Counts an exchange that ended. Its TCP numbers are counted by [`super::tcp::TcpMeter`].
    pub fn record(&mut self, exchange: &Exchange, elapsed: Duration) {
        if let Some(verdict) = &exchange.verdict {
            self.policies.count(verdict);
        }
        let Some(http) = &exchange.http else {
            return;
        };
        let key = self.http_key(exchange, http);
        let (series, overflowed) = match self.http.get(&key) {
            Some(series) => (&**series, false),
            None => self.http_series(key),
        };
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let received = http.request_header_bytes + exchange.bytes_received;
        let sent = http.response_header_bytes + exchange.bytes_sent;
        series.requests.add(1);
        series.duration.record(micros as f64 / 1_000.0, micros);
        series.request_bytes.record(received as f64, received);
        series.response_bytes.record(sent as f64, sent);
        if overflowed {
            self.registry.overflow.add(1);
        }
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
        let join = |counts: &mut Vec<Arc<HttpSeries>>| {
            let series = Arc::new(HttpSeries::default());
            counts.push(series.clone());
            series
        };
        if !self.overflowed.contains(&key) {
            if let Some(series) = table.enter(key, HttpKey::OTHER, join) {
                return (self.http.entry(key).or_insert(series), false);
            }
            // No room, and there never will be: the table does not shrink. Remembering it spares
            // the lock next time.
            if self.overflowed.len() < table.max() {
                self.overflowed.insert(key);
            }
        }
        let join_other = || table.enter(HttpKey::OTHER, HttpKey::OTHER, join);
        // It can not be missing: `other` always has room.
        let other = || join_other().unwrap_or_default();
        (self.other.get_or_insert_with(other), true)
    }

    fn source(&mut self, exchange: &Exchange) -> u32 {
        self.forget_if_due(exchange.snapshot);
        let (origin, workload) = (&exchange.origin, source_workload(exchange));
        let key = match workload {
            Some(workload) => (address(&origin.peer), address(workload)),
            None => (address(origin), 0),
        };
        if let Some((id, _)) = self.sources.get(&key) {
            return *id;
        }
        let (labels, held) = match workload {
            Some(workload) => (
                SourceLabels::of_workload(&origin.peer.identity, workload, &self.registry.cluster),
                Client::Known(origin.peer.clone(), workload.clone()),
            ),
            None => (self.baggage_labels(origin), Client::Stream(origin.clone())),
        };
        let id = self.registry.sources.id(labels);
        self.sources.insert(key, (id, held));
        id
    }

    /// Labels of a client that no Pod describes. What it says of itself is bounded, for any client
    /// could make up a new name in every stream.
    fn baggage_labels(&self, origin: &StreamOrigin) -> SourceLabels {
        let peer = &origin.peer.identity;
        let labels = SourceLabels::of_baggage(peer, &Baggage::parse(origin.baggage.as_ref()));
        let plain = SourceLabels::of_baggage(peer, &Baggage::default());
        if labels == plain {
            return plain;
        }
        let clients = &self.registry.baggage_clients;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.contains(&labels) {
            labels
        } else if clients.len() < METRIC_BAGGAGE_CLIENTS_MAX {
            clients.insert(labels.clone());
            labels
        } else {
            self.registry.baggage_overflow.add(1);
            plain
        }
    }

    fn destination(&mut self, exchange: &Exchange) -> u32 {
        let endpoint = exchange.endpoint.as_ref();
        let Some(workload) = endpoint.and_then(|e| e.workload.as_ref()) else {
            return UNKNOWN_ID;
        };
        if let Some((id, _)) = self.destinations.get(&address(workload)) {
            return *id;
        }
        let labels = DestinationLabels::of_workload(workload, &self.registry.cluster);
        let id = self.registry.destinations.id(labels);
        self.destinations
            .insert(address(workload), (id, workload.clone()));
        id
    }

    fn service(&mut self, exchange: &Exchange) -> u32 {
        let Some(service) = &exchange.service else {
            return UNKNOWN_ID;
        };
        if let Some((id, _)) = self.services.get(&address(service)) {
            return *id;
        }
        let id = self
            .registry
            .services
            .id(ServiceLabels::of_service(service));
        self.services
            .insert(address(service), (id, service.clone()));
        id
    }

    /// Lets go of the objects of the old configuration when a new one shows up, and of too many
    /// clients. Counts are not touched.
    fn forget_if_due(&mut self, snapshot: u64) {
        let newer = snapshot > self.snapshot;
        if newer || self.sources.len() >= REMEMBERED_MAX {
            self.sources.clear();
        }
        if newer || self.destinations.len() >= REMEMBERED_MAX {
            self.destinations.clear();
        }
        if newer || self.services.len() >= REMEMBERED_MAX {
            self.services.clear();
        }
        self.snapshot = self.snapshot.max(snapshot);
    }
}

fn address<T>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}

#[cfg(test)]
mod tests;
