//! What spans say of the same objects again and again, encoded once: a worker keeps it by where an object is in memory,
//! and holds the object, so that no other can take its place there meanwhile. Knows no request.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{HttpRoute, Policy, Workload};
use rustc_hash::FxHashMap;

use super::conventions::{self, DESTINATION, SOURCE};
use super::pairs::Pairs;
use crate::limits::OTLP_KNOWN_MAX;
use crate::telemetry::access_log::UpstreamCluster;
use crate::telemetry::alike::{AttemptKey, Objects, RequestKey, VerdictKey, place, verdict_key};

/// How many objects all workers keep, and the bytes of what is said of them.
#[derive(Debug, Default)]
pub(super) struct Size {
    objects: AtomicUsize,
    bytes: AtomicUsize,
}

impl Size {
    pub(super) fn get(&self) -> (usize, usize) {
        (self.objects.load(Relaxed), self.bytes.load(Relaxed))
    }
}

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

/// One object among all, as long as it is kept.
#[derive(Debug)]
struct Counted {
    bytes: usize,
    of: Arc<Size>,
}

impl Counted {
    fn new(bytes: usize, of: &Arc<Size>) -> Self {
        of.objects.fetch_add(1, Relaxed);
        of.bytes.fetch_add(bytes, Relaxed);
        let of = of.clone();
        Self { bytes, of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.objects.fetch_sub(1, Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Relaxed);
    }
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
mod tests {
    use super::*;
    use crate::telemetry::access_log::upstream_cluster;
    use crate::telemetry::fixtures;

    fn bytes(write: impl FnOnce(&mut Pairs)) -> Vec<u8> {
        let mut pairs = Pairs::default();
        write(&mut pairs);
        pairs.bytes().to_vec()
    }

    fn workload(name: &str) -> Arc<Workload> {
        let endpoint = fixtures::http().endpoint.unwrap();
        let mut workload = Arc::unwrap_or_clone(endpoint.workload.unwrap());
        workload.workload_name = name.into();
        Arc::new(workload)
    }

    fn tags(known: &mut Known, workload: &Arc<Workload>) -> Vec<u8> {
        bytes(|to| known.destination(workload, "Kubernetes", to))
    }

    fn written(workload: &Workload) -> Vec<u8> {
        bytes(|to| conventions::peer(to, DESTINATION, workload, "Kubernetes"))
    }

    /// Were an object not held, the next one would be put where it was, and be taken for it.
    #[test]
    fn what_is_said_is_the_objects_own_whatever_was_in_its_place() {
        let mut known = Known::default();
        for n in 0..100 {
            let workload = workload(&format!("w-{n}"));
            let expected = written(&workload);
            assert_eq!(tags(&mut known, &workload), expected, "the first time");
            assert_eq!(tags(&mut known, &workload), expected, "from memory");
        }
    }

    #[test]
    fn both_sides_of_a_workload_are_told_apart() {
        let (mut known, workload) = (Known::default(), workload("w"));
        let asked = bytes(|to| known.destination(&workload, "Kubernetes", to));
        let asks = bytes(|to| known.source(&workload, "Kubernetes", to));
        assert_ne!(asked, asks);
    }

    /// Also of events, whose attributes have another number.
    #[test]
    fn verdicts_are_told_apart_by_all_that_is_said_of_them() {
        let mut known = Known::default();
        let mut denied = fixtures::denied();
        denied.dry_run = None;
        let mut other_rule = denied.clone();
        other_rule.rule = Some(1);
        let allowed = Verdict {
            allowed: true,
            ..denied.clone()
        };
        let by_default = Verdict {
            policy: None,
            rule: None,
            ..denied.clone()
        };
        let tried = fixtures::denied();
        for _ in 0..2 {
            for verdict in [&denied, &other_rule, &allowed, &by_default, &tried] {
                let expected = bytes(|to| conventions::verdict(to, verdict));
                assert_eq!(bytes(|to| known.verdict(verdict, to)), expected);
                let expected = bytes(|to| {
                    to.event(1, "e", |to| conventions::verdict(to, verdict));
                });
                let found = bytes(|to| {
                    to.event(1, "e", |to| known.verdict_of_event(verdict, to));
                });
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn no_more_is_kept_than_the_limit_and_nothing_of_an_older_snapshot() {
        let mut known = Known::default();
        known.of_snapshot(7);
        let first = workload("first");
        tags(&mut known, &first);
        let others: Vec<_> = (0..OTLP_KNOWN_MAX).map(|_| workload("other")).collect();
        for other in &others {
            tags(&mut known, other);
            assert!(known.destinations.0.len() <= OTLP_KNOWN_MAX);
        }
        let last = others.last().unwrap();
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(Arc::strong_count(last), 2);
        // A stream that began under an older one ends.
        known.of_snapshot(6);
        assert_eq!(Arc::strong_count(last), 2);
        known.of_snapshot(8);
        assert_eq!(Arc::strong_count(last), 1);
    }

    /// Each of its connections has another port.
    #[test]
    fn a_client_is_kept_once_whatever_its_port() {
        let mut known = Known::default();
        for port in [1_025, 1_026, 65_535] {
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            let mut expected = Pairs::default();
            let names = ["client.address", "network.peer.address"];
            expected.display_as(names, address.ip());
            expected.number("client.port", port);
            expected.number("network.peer.port", port);
            assert_eq!(bytes(|to| known.client(address, to)), expected.bytes());
        }
        assert_eq!(known.clients.0.len(), 1);
    }

    /// Not the whole service with all its endpoints.
    #[test]
    fn of_a_service_its_name_is_kept() {
        let mut known = Known::default();
        let exchange = fixtures::http();
        let service = exchange.service.clone().unwrap();
        let before = Arc::strong_count(&service);
        let cluster = upstream_cluster(&exchange).unwrap();
        let names = Arc::strong_count(&service.hostname);
        let expected = bytes(|to| to.display("upstream_cluster", &cluster));
        for _ in 0..2 {
            assert_eq!(bytes(|to| known.cluster(&cluster, to)), expected);
        }
        assert_eq!(Arc::strong_count(&service), before);
        assert_eq!(Arc::strong_count(&service.hostname), names + 1);
    }

    #[test]
    fn what_is_kept_is_counted_until_it_is_let_go() {
        let size = Arc::<Size>::default();
        let mut workers = [(); 2].map(|()| Known::new(size.clone()));
        let (asked, mut denied) = (workload("w"), fixtures::denied());
        denied.dry_run = None;
        for known in &mut workers {
            tags(known, &asked);
            tags(known, &asked);
            bytes(|to| known.verdict(&denied, to));
        }
        let (objects, bytes) = size.get();
        assert_eq!((objects, Arc::strong_count(&asked)), (4, 3));
        assert!(bytes > 2 * written(&asked).len());
        workers[0].let_go();
        assert_eq!((size.get().0, Arc::strong_count(&asked)), (2, 2));
        workers[1].of_snapshot(1);
        assert_eq!((size.get(), Arc::strong_count(&asked)), ((0, 0), 1));
    }
}
