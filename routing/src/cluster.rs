//! The endpoints of one service port, replaced as a whole, and the choice of one. Does not
//! discover endpoints and does not connect to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::{ClusterKey, ClusterSettings, Endpoint, SessionPersistence};
use rustc_hash::FxHashMap;

use crate::balance::{Choice, EndpointSet, mix};
use crate::breaker::{Breaker, Limited, Permit};
use crate::budget::{Budget, InFlight};
use crate::ejection::{self, AnswerKind, EjectionEvent, Ejections};
use crate::endpoint::LiveEndpoint;
use crate::session::{self, Session};

/// How often endpoints that nobody judges are looked through: ten thousand of them cost too much for four times a
/// second.
const UNJUDGED_SWEEP_MS: u64 = 10_000;

/// How much a cluster has to do with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Nothing, or nobody is there to go on with it.
    None,
    /// It began here; its endpoint is gone, and another one may go on with it.
    Backend,
    /// Its endpoint is here, ejected perhaps.
    Endpoint,
}

/// A service port as a load-balancing target.
#[derive(Debug)]
pub struct Cluster {
    key: ClusterKey,
    set: ArcSwap<EndpointSet>,
    active: Arc<AtomicU32>,
    breaker: Arc<Breaker>,
    ejections: Ejections,
    /// When the last sweep was.
    swept_ms: AtomicU64,
    budget: Arc<Budget>,
    absence: ArcSwap<Option<Arc<str>>>,
    session_id: u32,
}

impl Cluster {
    /// A cluster whose endpoints have served nothing yet. `now_ms` is in milliseconds of a clock
    /// that never goes back, here and in every other call.
    pub fn new(
        key: ClusterKey,
        endpoints: &[Endpoint],
        settings: Arc<ClusterSettings>,
        now_ms: u64,
    ) -> Self {
        let active = Arc::default();
        let live = merge(&[], endpoints, &active, now_ms);
        let start = rotation_start(&key);
        let session_id = session::backend_id(&key);
        Self {
            set: ArcSwap::from_pointee(EndpointSet::new(live, settings, active.clone(), start)),
            key,
            active,
            breaker: Arc::default(),
            ejections: Ejections::default(),
            swept_ms: AtomicU64::new(now_ms),
            budget: Arc::default(),
            absence: ArcSwap::default(),
            session_id,
        }
    }

    /// Service and port.
    pub fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// Counts a request to this cluster, whatever endpoints it will try, until the guard is dropped.
    pub fn enter(&self, now_ms: u64) -> InFlight {
        self.budget
            .enter(&self.set.load().settings.retry_budget, now_ms)
    }

    /// How many requests and retries are in flight.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Replaces the endpoints and the settings; load and health of the endpoints that stay are kept.
    /// One caller at a time: of two concurrent updates one may be lost.
    pub fn update(&self, endpoints: &[Endpoint], settings: Arc<ClusterSettings>, now_ms: u64) {
        let before = self.set.load();
        let live = merge(&before.all, endpoints, &self.active, now_ms);
        if before.settings == settings && same(&before.all, &live) {
            return;
        }
        // The rotation begins anywhere: no update may favour the first endpoint.
        let start = mix(rotation_start(&self.key) ^ now_ms);
        if before.settings.outlier_detection.is_none() && settings.outlier_detection.is_some() {
            // The first judgement is of a whole interval, too.
            self.swept_ms.store(now_ms, Ordering::Relaxed);
        }
        let set = EndpointSet::new(live, settings, self.active.clone(), start);
        self.put_in_force(set);
    }

    /// Who was ejected while the set was made told the set of before.
    fn put_in_force(&self, set: EndpointSet) {
        self.set.store(Arc::new(set));
        self.health_changed();
    }

    /// To be called after an ejection or a return: tells the set in force, which need not be the one that was judged.
    fn health_changed(&self) {
        // Either whoever ejects sees the new set, or whoever stored that sees the ejection.
        fence(Ordering::SeqCst);
        self.set.load().health_changed();
    }

    /// Says why there is no endpoint, to whoever finds none.
    pub fn explain_absence(&self, reason: Option<Arc<str>>) {
        if **self.absence.load() != reason {
            self.absence.store(Arc::new(reason));
        }
    }

    /// Why there is no endpoint, if somebody said.
    pub fn absence(&self) -> Option<Arc<str>> {
        Option::clone(&self.absence.load())
    }

    /// Picks an endpoint, avoiding those tried before unless no other is left. `None`: there is no
    /// endpoint, or all are ejected.
    pub fn pick(&self, choice: &Choice<'_>) -> Option<Arc<LiveEndpoint>> {
        self.set.load().pick(choice).cloned()
    }

    /// What sessions call it.
    pub fn session_id(&self) -> u32 {
        self.session_id
    }

    /// The sessions of requests whose rule has none.
    pub fn sessions(&self) -> Option<Arc<SessionPersistence>> {
        self.set.load().settings.session.clone()
    }

    /// How much this cluster has to do with a session.
    pub fn hold(&self, session: &Session) -> Hold {
        let set = self.set.load();
        if session.backend != self.session_id || !set.has_healthy() {
            Hold::None
        } else if set.find(session.endpoint).is_some() {
            Hold::Endpoint
        } else {
            Hold::Backend
        }
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> Arc<Vec<Arc<LiveEndpoint>>> {
        self.set.load().all.clone()
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<ClusterSettings> {
        self.set.load().settings.clone()
    }

    /// Takes a place under the cluster's limits. `None`: there is none left.
    pub fn admit(&self, kind: Limited) -> Option<Permit> {
        self.breaker.take(kind, &self.set.load().settings.limits)
    }

    /// What is in flight, and how often there was no room.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Puts the end of an attempt to the record of its endpoint. `Some`: to be logged and counted.
    pub fn record(
        &self,
        endpoint: &Arc<LiveEndpoint>,
        answer: AnswerKind,
        now_ms: u64,
    ) -> Option<EjectionEvent> {
        self.judge(&self.set.load(), endpoint, answer, now_ms)
    }

    /// [`Cluster::record`] by the rules of a set that was in force just now.
    fn judge(
        &self,
        set: &EndpointSet,
        endpoint: &Arc<LiveEndpoint>,
        answer: AnswerKind,
        now_ms: u64,
    ) -> Option<EjectionEvent> {
        let rules = set.settings.outlier_detection.as_ref()?;
        let event = ejection::record(rules, &set.all, endpoint, answer, now_ms);
        if let Some(event) = &event {
            self.ejections.count(event);
            self.health_changed();
        }
        event
    }

    /// Lets endpoints come back and judges success rates, if an interval of the outlier detection has passed since the
    /// last time, or since detection was switched on. Without detection whoever is ejected comes back at once, and all
    /// are looked through every ten seconds. To be called now and then, by one caller at a time.
    pub fn sweep(&self, now_ms: u64) -> Vec<EjectionEvent> {
        let set = self.set.load();
        let since_ms = now_ms.saturating_sub(self.swept_ms.load(Ordering::Relaxed));
        let events = match &set.settings.outlier_detection {
            Some(rules) if since_ms < rules.interval_ms => return Vec::new(),
            Some(rules) => ejection::sweep(rules, &set.all, now_ms),
            // Nobody judges them, so that nobody is out but who was ejected while detection was switched off.
            None if since_ms < UNJUDGED_SWEEP_MS && !set.has_ejected() => return Vec::new(),
            None => ejection::readmit_all(&set.all, now_ms),
        };
        self.swept_ms.store(now_ms, Ordering::Relaxed);
        if !events.is_empty() {
            events.iter().for_each(|event| self.ejections.count(event));
            self.health_changed();
        }
        events
    }

    /// How often endpoints were ejected.
    pub fn ejections(&self) -> &Ejections {
        &self.ejections
    }
}

/// The next set of endpoints, each address once; what stays keeps its state.
fn merge(
    old: &[Arc<LiveEndpoint>],
    next: &[Endpoint],
    active: &Arc<AtomicU32>,
    now_ms: u64,
) -> Vec<Arc<LiveEndpoint>> {
    let known: FxHashMap<SocketAddr, &Arc<LiveEndpoint>> =
        old.iter().map(|e| (e.endpoint.address, e)).collect();
    let mut seen = rustc_hash::FxHashSet::default();
    next.iter()
        .filter(|e| seen.insert(e.address))
        .map(|e| match known.get(&e.address) {
            Some(live) if live.endpoint == *e => (*live).clone(),
            Some(live) if same_pod(&live.endpoint, e) => Arc::new(live.renewed(e.clone())),
            _ => Arc::new(LiveEndpoint::new(e.clone(), active.clone(), now_ms)),
        })
        .collect()
}

fn same(old: &[Arc<LiveEndpoint>], new: &[Arc<LiveEndpoint>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| Arc::ptr_eq(old, new))
}

/// Whether an address still belongs to the pod it belonged to. An address that passed to another
/// pod starts afresh: the load was the old pod's.
fn same_pod(old: &Endpoint, new: &Endpoint) -> bool {
    old.workload.as_ref().map(|w| &w.key) == new.workload.as_ref().map(|w| &w.key)
}

/// Where round robin begins: not at the same endpoint for all clusters.
fn rotation_start(key: &ClusterKey) -> u64 {
    use std::hash::BuildHasher;
    mix(rustc_hash::FxBuildHasher.hash_one(key))
}

#[cfg(test)]
mod tests;
