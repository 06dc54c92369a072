//! The egress policies of clients, compiled once for all service ports, and which of them are for a
//! source. Decides nothing itself.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::{Destination, NetworkPolicies, NetworkSubject, World};
use rustc_hash::FxHashMap;

use super::party::Party;
use super::{Subject, trial};

/// The network policies of clients for what they send. Shared by all ports; immutable.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    in_force: Arc<Clients>,
    /// `None`: the same as in force.
    in_trial: Option<Arc<Clients>>,
}

impl Egress {
    /// Those of a snapshot.
    pub fn compile(policies: &NetworkPolicies) -> Self {
        let of = |world| Arc::new(Clients::compile(policies, world));
        let mut subjects = policies.egress.subjects();
        Self {
            in_force: of(World::InForce),
            in_trial: subjects
                .any(|subject| trial::differs(subject))
                .then(|| of(World::Trial)),
        }
    }

    /// What is in force, or what would be.
    pub(super) fn of(&self, world: World) -> &Arc<Clients> {
        match (&self.in_trial, world) {
            (Some(trial), World::Trial) => trial,
            _ => &self.in_force,
        }
    }

    /// Whether something is tried.
    pub(super) fn differs(&self) -> bool {
        self.in_trial.is_some()
    }
}

/// The policies of one world by what is known of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    by_address: FxHashMap<IpAddr, Arc<Subject>>,
    by_namespace: FxHashMap<Arc<str>, Option<Arc<Subject>>>,
    elsewhere: Option<Arc<Subject>>,
    unidentified: Option<Arc<Subject>>,
    /// The workloads that are served by their own addresses.
    workloads: FxHashMap<IpAddr, Destination>,
}

impl Clients {
    fn compile(policies: &NetworkPolicies, world: World) -> Self {
        let egress = &policies.egress;
        let mut shared: FxHashMap<*const NetworkSubject, Option<Arc<Subject>>> =
            FxHashMap::default();
        let mut compile = |subject: &Arc<NetworkSubject>| {
            let compiled = || Subject::compile(subject, world).map(Arc::new);
            let shared = shared.entry(Arc::as_ptr(subject));
            shared.or_insert_with(compiled).clone()
        };
        let mut clients = Self {
            elsewhere: egress.elsewhere.as_ref().and_then(&mut compile),
            unidentified: egress.unidentified.as_ref().and_then(&mut compile),
            workloads: egress.workloads.clone(),
            ..Self::default()
        };
        for (ip, subject) in &egress.clients {
            let compiled = compile(subject);
            clients.by_address.extend(compiled.map(|s| (*ip, s)));
        }
        for (namespace, subject) in &egress.namespaces {
            let compiled = subject.as_ref().and_then(&mut compile);
            clients.by_namespace.insert(namespace.clone(), compiled);
        }
        clients
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
            && self.by_namespace.values().all(Option::is_none)
            && self.elsewhere.is_none()
            && self.unidentified.is_none()
    }

    /// The policies of a source. `None`: there are none.
    pub(super) fn of_source(&self, source: &Party<'_>) -> Option<&Subject> {
        if source.workload.is_some() {
            return self.by_address.get(&source.ip()).map(|subject| &**subject);
        }
        let Some(namespace) = source.namespace() else {
            return self.unidentified.as_deref();
        };
        match self.by_namespace.get(namespace) {
            Some(subject) => subject.as_deref(),
            None => self.elsewhere.as_deref(),
        }
    }

    /// The workload at an address that is served by itself.
    pub(super) fn destination(&self, address: IpAddr) -> Option<&Destination> {
        self.workloads.get(&address)
    }
}
