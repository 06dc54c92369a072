//! What spans say of the same objects again and again, encoded once: a worker keeps it by where an object is in memory,
//! and holds the object, so that no other can take its place there meanwhile. Knows no request.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{HttpRoute, Policy, Workload};
use rustc_hash::FxHashMap;

use super::conventions::{self, DESTINATION, SOURCE};
use super::pairs::Pairs;
use crate::limits::OTLP_KNOWN_MAX;
use crate::telemetry::access_log::UpstreamCluster;
use crate::telemetry::alike::{AttemptKey, Objects, RequestKey, VerdictKey, place, verdict_key};
use crate::telemetry::kept::{Counted, Size};

/// Attributes of objects.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where they are counted.
    size: Arc<Size>,
    /// The latest snapshot seen.
    snapshot: u64,
    sources: Table<usize, Arc<Workload>>,
    destinations: Table<usize, Arc<Workload>>,
    clients: Table<IpAddr, ()>,
    endpoints: Table<SocketAddr, ()>,
    /// By the service's name, which is all that is said of it.
    clusters: Table<(usize, u16, &'static str), Arc<str>>,
    routes: Table<(usize, usize), Arc<HttpRoute>>,
    verdicts: Table<VerdictKey, Option<Arc<Policy>>>,
    verdicts_of_events: Table<VerdictKey, Option<Arc<Policy>>>,
    requests: Table<RequestKey, Objects>,
    attempts: Table<AttemptKey, Objects>,
}

impl Known {
    /// Without an object. `size`: of all workers.
    pub(super) fn new(size: Arc<Size>) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// To be called before each exchange: what only an older snapshot has is let go with the first of a newer one.
    pub(super) fn of_snapshot(&mut self, snapshot: u64) {
        if snapshot > self.snapshot {
            self.let_go();
            self.snapshot = snapshot;
        }
    }

    /// Lets go of all objects: a worker for which nothing comes learns of no newer snapshot.
    pub(super) fn let_go(&mut self) {
        // New tables, for empty ones would keep their memory.
        *self = Self {
            snapshot: self.snapshot,
            ..Self::new(self.size.clone())
        };
    }

    /// Istio's tags of who asks.
    pub(super) fn source(&mut self, workload: &Arc<Workload>, cluster: &str, to: &mut Pairs) {
        let key = place(workload);
        self.sources.say(key, workload, &self.size, to, |to| {
            conventions::peer(to, SOURCE, workload, cluster);
        });
    }

    /// Istio's tags of who is asked.
    pub(super) fn destination(&mut self, workload: &Arc<Workload>, cluster: &str, to: &mut Pairs) {
        let key = place(workload);
        self.destinations.say(key, workload, &self.size, to, |to| {
            conventions::peer(to, DESTINATION, workload, cluster);
        });
    }

    /// Where the client of a request is. Its port is another with each connection.
    pub(super) fn client(&mut self, address: SocketAddr, to: &mut Pairs) {
        let ip = address.ip();
        self.clients.say(ip, &(), &self.size, to, |to| {
            conventions::client_address(to, ip);
        });
        conventions::client_port(to, address.port());
    }

    /// Where an endpoint is.
    pub(super) fn endpoint(&mut self, address: SocketAddr, to: &mut Pairs) {
        self.endpoints.say(address, &(), &self.size, to, |to| {
            conventions::endpoint(to, address);
        });
    }

    /// A service and its port, as istiod names clusters.
    pub(super) fn cluster(&mut self, cluster: &UpstreamCluster<'_>, to: &mut Pairs) {
        let hostname = &cluster.service.hostname;
        let key = (place(hostname), cluster.port, cluster.protocol);
        self.clusters.say(key, hostname, &self.size, to, |to| {
            to.display("upstream_cluster", cluster);
        });
    }

    /// The rule of a route.
    pub(super) fn route(&mut self, route: &Arc<HttpRoute>, rule: usize, to: &mut Pairs) {
        let key = (place(route), rule);
        self.routes.say(key, route, &self.size, to, |to| {
            conventions::route_rule(to, route, rule);
        });
    }

    /// What policy decided, of a span.
    pub(super) fn verdict(&mut self, verdict: &Verdict, to: &mut Pairs) {
        said_of(&mut self.verdicts, verdict, &self.size, to);
    }

    /// The same of an event.
    pub(super) fn verdict_of_event(&mut self, verdict: &Verdict, to: &mut Pairs) {
        said_of(&mut self.verdicts_of_events, verdict, &self.size, to);
    }

    /// Adds what all requests with a key say, if it is kept.
    pub(super) fn say_request(&self, key: &RequestKey, to: &mut Pairs) -> bool {
        self.requests.said(key, to)
    }

    /// Keeps it; `objects`: those of the key.
    pub(super) fn keep_request(&mut self, key: RequestKey, objects: &Objects, said: &[u8]) {
        self.requests.keep(key, objects, &self.size, said);
    }

    /// Adds what all attempts with a key say, if it is kept.
    pub(super) fn say_attempt(&self, key: &AttemptKey, to: &mut Pairs) -> bool {
        self.attempts.said(key, to)
    }

    /// Keeps it; `objects`: those of the key.
    pub(super) fn keep_attempt(&mut self, key: AttemptKey, objects: &Objects, said: &[u8]) {
        self.attempts.keep(key, objects, &self.size, said);
    }
}

fn said_of(
    table: &mut Table<VerdictKey, Option<Arc<Policy>>>,
    verdict: &Verdict,
    size: &Arc<Size>,
    to: &mut Pairs,
) {
    let Some(key) = verdict_key(verdict) else {
        return conventions::verdict(to, verdict);
    };
    table.say(key, &verdict.policy, size, to, |to| {
        conventions::verdict(to, verdict);
    });
}

/// Attributes by their object, up to [`OTLP_KNOWN_MAX`] of them.
#[derive(Debug)]
struct Table<K, H>(FxHashMap<K, Said<H>>);

#[derive(Debug)]
struct Said<H> {
    bytes: Box<[u8]>,
    /// Keeps the place of the object taken.
    _held: H,
    _counted: Counted,
}

impl<K, H> Default for Table<K, H> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<K: Eq + Hash, H: Clone> Table<K, H> {
    /// Adds the attributes of an object, which `write` writes the first time.
    fn say(
        &mut self,
        key: K,
        object: &H,
        size: &Arc<Size>,
        to: &mut Pairs,
        write: impl FnOnce(&mut Pairs),
    ) {
        if self.said(&key, to) {
            return;
        }
        let begin = to.bytes().len();
        write(to);
        self.keep(
            key,
            object,
            size,
            to.bytes().get(begin..).unwrap_or_default(),
        );
    }

    /// Adds what is kept of an object, if it is.
    fn said(&self, key: &K, to: &mut Pairs) -> bool {
        let said = self.0.get(key);
        if let Some(said) = said {
            to.extend(&said.bytes);
        }
        said.is_some()
    }

    /// Keeps what is said of an object.
    fn keep(&mut self, key: K, object: &H, size: &Arc<Size>, said: &[u8]) {
        let bytes: Box<[u8]> = said.into();
        if self.0.len() >= OTLP_KNOWN_MAX {
            self.0.clear();
        }
        let said = Said {
            _counted: Counted::new(bytes.len() + size_of::<(K, Said<H>)>(), size),
            bytes,
            _held: object.clone(),
        };
        self.0.insert(key, said);
    }
}

#[cfg(test)]
mod tests;
