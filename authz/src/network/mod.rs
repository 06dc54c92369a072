//! Network policies of Cilium and Calico, compiled and evaluated (specs/policies.md 2.1, 2.4, 2.5).
//! What they select was resolved before: here are, for each service port, the workloads behind it.

mod calico;
mod cilium;
mod explain;
mod http;
mod rule_list;
mod source;
mod trial;
mod verdict;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    BackendTarget, ClusterKey, NetworkPolicies, NetworkPolicy, NetworkSubject, PortSet, Surface,
    Workload, World,
};
use rustc_hash::FxHashMap;

use crate::facts::Facts;
use source::Source;

pub use explain::{NetworkExplanation, NetworkPolicyOutcome, NetworkRuleOutcome};
pub use verdict::{BackendEdit, HeaderEdit, NetworkVerdict, NetworkWhy};

/// The network policies that apply to requests to one service port, or to the addresses of
/// workloads, compiled. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Behind the port itself.
    own: Box<[Subject]>,
    /// Behind the ports that routes lead to.
    routed: Vec<(ClusterKey, Box<[Subject]>)>,
    /// By the address that was dialled.
    workloads: FxHashMap<IpAddr, Subject>,
    sources: Arc<FxHashMap<IpAddr, Arc<Workload>>>,
    /// What would be, where something is tried.
    trial: Option<Box<Network>>,
}

/// Workloads with the same policies on the same port.
#[derive(Clone, Debug)]
struct Subject {
    workload: ObjectKey,
    /// `None`: the one that was dialled.
    port: Option<u16>,
    unknown: Option<Arc<str>>,
    broken: Option<Arc<NetworkPolicy>>,
    cilium: cilium::Rules,
    calico: Vec<calico::Tier>,
    /// Policies that are tried, each by itself; only in what would be.
    tried: Vec<trial::Tried>,
}

impl Network {
    /// The policies of a service port, `own`, and of the ports `routed` that its routes lead to.
    pub fn of_port<'a>(
        policies: &NetworkPolicies,
        own: &'a ClusterKey,
        routed: impl IntoIterator<Item = &'a ClusterKey> + Clone,
    ) -> Self {
        let of = |world| Self::of_port_in(world, policies, own, routed.clone());
        let keys = std::iter::once(own).chain(routed.clone());
        let subjects = keys.filter_map(|key| policies.clusters.get(key));
        let subjects = subjects.flat_map(|subjects| subjects.iter());
        of(World::InForce).with_trial(|| of(World::Trial), subjects)
    }

    fn of_port_in<'a>(
        world: World,
        policies: &NetworkPolicies,
        own: &ClusterKey,
        routed: impl IntoIterator<Item = &'a ClusterKey>,
    ) -> Self {
        let subjects = |key: &ClusterKey| -> Box<[Subject]> {
            let subjects = policies.clusters.get(key).into_iter();
            let subjects = subjects.flat_map(|subjects| subjects.iter());
            subjects
                .filter_map(|subject| Subject::compile(subject, world))
                .collect()
        };
        let mut network = Self {
            own: subjects(own),
            sources: policies.sources.clone(),
            ..Self::default()
        };
        for key in routed {
            if !network.routed.iter().any(|(there, _)| there == key) {
                network.routed.push((key.clone(), subjects(key)));
            }
        }
        network
    }

    /// The policies of the workloads that are served by their own addresses.
    pub fn of_workloads(policies: &NetworkPolicies) -> Self {
        let of = |world| Self::of_workloads_in(world, policies);
        of(World::InForce).with_trial(|| of(World::Trial), policies.workloads.values())
    }

    fn of_workloads_in(world: World, policies: &NetworkPolicies) -> Self {
        let workloads = policies.workloads.iter();
        Self {
            workloads: workloads
                .filter_map(|(ip, s)| Some((*ip, Subject::compile(s, world)?)))
                .collect(),
            sources: policies.sources.clone(),
            ..Self::default()
        }
    }

    /// Whether no policy applies, wherever a request may go.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
            && self.workloads.is_empty()
            && self.routed.iter().all(|(_, subjects)| subjects.is_empty())
            && self.trial.is_none()
    }

    /// Decides a request or stream: all workloads it may go to must allow it. `None`: no policy
    /// applies.
    pub(crate) fn decide(&self, facts: &Facts<'_>) -> Option<NetworkVerdict> {
        let source = Source::of(facts, &self.sources);
        let mut decided: Option<NetworkVerdict> = None;
        for (backend, subject) in self.subjects(facts) {
            let verdict = subject.decide(facts, &source).for_backend(backend);
            match &mut decided {
                _ if !verdict.allowed => return Some(verdict),
                None => decided = Some(verdict),
                Some(first) => first.take_edits(verdict),
            }
        }
        decided
    }

    /// The workloads a request may go to: those behind the backends of its rule, each with its
    /// backend, else those behind the port itself.
    fn subjects<'a>(
        &'a self,
        facts: &Facts<'a>,
    ) -> impl Iterator<Item = (Option<&'a ClusterKey>, &'a Subject)> {
        let dialled = self.workloads.get(&facts.destination_ip.to_canonical());
        let is_cluster = |target: &BackendTarget| matches!(target, BackendTarget::Cluster(_));
        let is_routed = facts.backends.iter().any(|b| is_cluster(&b.target));
        let own = if is_routed { &[][..] } else { &self.own };
        let routed = facts.backends.iter().filter_map(|backend| {
            let BackendTarget::Cluster(key) = &backend.target else {
                return None;
            };
            self.routed.iter().find(|(there, _)| there == key)
        });
        let routed =
            routed.flat_map(|(key, subjects)| subjects.iter().map(move |s| (Some(key), s)));
        let unrouted = dialled.into_iter().chain(own).map(|s| (None, s));
        unrouted.chain(routed)
    }
}

impl Subject {
    /// What applies in a world. `None`: nothing does.
    fn compile(subject: &NetworkSubject, world: World) -> Option<Self> {
        let unknown = match world {
            World::InForce => &subject.unknown,
            World::Trial => &subject.unknown_in_trial,
        };
        let policies = subject.policies.iter();
        let policies: Vec<_> = policies.filter(|p| p.standing.is_in(world)).collect();
        let tried = match world {
            World::InForce => Vec::new(),
            World::Trial => trial::Tried::of(subject),
        };
        let applies = !policies.is_empty() || unknown.is_some() || !tried.is_empty();
        applies.then(|| Self {
            unknown: unknown.clone(),
            tried,
            ..Self::of(subject, &policies)
        })
    }

    /// These policies of a subject.
    fn of(subject: &NetworkSubject, policies: &[&Arc<NetworkPolicy>]) -> Self {
        let policies = policies.iter().copied();
        let broken = policies.clone().find(|p| p.broken.is_some());
        let of_cilium = policies.clone().filter(|p| p.surface == Surface::Cilium);
        Self {
            workload: subject.workload.clone(),
            port: subject.port,
            unknown: None,
            broken: broken.cloned(),
            cilium: cilium::Rules::compile(of_cilium, subject.port),
            calico: calico::tiers(policies, subject.port),
            tried: Vec::new(),
        }
    }

    /// The port of the workload that the request goes to.
    fn port(&self, facts: &Facts<'_>) -> u16 {
        self.port.unwrap_or(facts.destination_port)
    }

    fn decide(&self, facts: &Facts<'_>, source: &Source<'_>) -> NetworkVerdict {
        let verdict = |why| NetworkVerdict::new(why, &self.workload);
        if let Some(reason) = &self.unknown {
            return verdict(NetworkWhy::Unknown(reason.clone()));
        }
        // What could not be understood may have been a deny.
        if let Some(policy) = &self.broken {
            return verdict(NetworkWhy::Broken).by(policy, None);
        }
        let port = self.port(facts);
        let of_cilium = self.cilium.decide(facts, source, port, verdict);
        if !of_cilium.allowed || self.calico.is_empty() {
            return of_cilium;
        }
        let asked = calico::Asked::new(facts, source, port);
        let of_calico = calico::decide(&self.calico, &asked, verdict);
        match of_calico.allowed && of_cilium.policy.is_some() {
            true => of_cilium,
            // Without a Cilium rule that allows there is nothing to change.
            false => of_calico,
        }
    }
}

/// Whether a port is among these; `None` is any.
fn has_port(ports: Option<&[PortSet]>, port: u16) -> bool {
    ports.is_none_or(|ports| ports.iter().any(|set| is_in(set, port)))
}

fn is_in(set: &PortSet, port: u16) -> bool {
    match set {
        PortSet::Range(first, last) => (*first..=*last).contains(&port),
        // Names were replaced by numbers when the workload was known.
        PortSet::Named(_) => false,
        PortSet::Not(sets) => !sets.iter().any(|set| is_in(set, port)),
    }
}
