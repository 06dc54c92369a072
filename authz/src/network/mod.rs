//! Network policies of Cilium and Calico, compiled and evaluated (specs/policies.md 2.1, 2.4, 2.5).
//! What they select was resolved before: here are, for each service port, the workloads behind it.

mod calico;
mod cilium;
pub(crate) mod cni;
mod egress;
mod explain;
mod host;
mod http;
mod party;
mod rule_list;
mod trial;
mod verdict;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    BackendTarget, ClusterKey, Destination, Direction, NetworkPolicies, NetworkPolicy,
    NetworkSubject, PortSet, Surface, Workload, World,
};
use rustc_hash::FxHashMap;

use crate::facts::Facts;
use egress::Clients;
use party::Party;

pub use egress::Egress;
pub use explain::{NetworkExplanation, NetworkPolicyOutcome, NetworkRuleOutcome};
pub use verdict::{BackendEdit, HeaderEdit, NetworkVerdict, NetworkWhy};

/// The network policies that apply to requests to one service port, or to the addresses of
/// workloads, compiled. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Behind the port itself.
    own: Behind,
    /// Behind the ports that routes lead to.
    routed: Vec<(ClusterKey, Behind)>,
    /// By the address that was dialled.
    workloads: FxHashMap<IpAddr, Subject>,
    sources: Arc<FxHashMap<IpAddr, Arc<Workload>>>,
    /// The policies of clients.
    egress: Arc<Clients>,
    /// What would be, where something is tried.
    trial: Option<Box<Network>>,
}

/// What is behind a service port.
#[derive(Clone, Debug, Default)]
struct Behind {
    subjects: Box<[Subject]>,
    /// What clients whose egress is restricted may be after. Empty if there are no such clients.
    destinations: Arc<[Destination]>,
}

/// Workloads with the same policies on the same port; clients with the same policies for egress.
#[derive(Clone, Debug)]
struct Subject {
    workload: ObjectKey,
    direction: Direction,
    /// `None`: the one that was dialled.
    port: Option<u16>,
    unknown: Option<Arc<str>>,
    broken: Option<Arc<NetworkPolicy>>,
    cilium: cilium::Rules,
    calico: Vec<calico::Tier>,
    /// Policies that are tried, each by itself; only in what would be.
    tried: Vec<trial::Tried>,
}

/// A port of the workload that is called.
#[derive(Clone, Copy, Debug)]
struct Port<'a> {
    number: u16,
    /// Names of the workload's ports, where rules have names in them.
    names: &'a [(Arc<str>, u16)],
}

/// One check: whether the policies of one workload let this through to or from another.
#[derive(Clone, Copy)]
struct Check<'a> {
    /// The backend of the route that is behind it.
    backend: Option<&'a ClusterKey>,
    subject: &'a Subject,
    /// The other end.
    other: Party<'a>,
    port: Port<'a>,
}

impl Network {
    /// The policies of a service port, `own`, and of the ports `routed` that its routes lead to; of
    /// clients, those in `egress`.
    pub fn of_port<'a>(
        policies: &NetworkPolicies,
        egress: &Egress,
        own: &'a ClusterKey,
        routed: impl IntoIterator<Item = &'a ClusterKey> + Clone,
    ) -> Self {
        let of = |world| Self::of_port_in(world, policies, egress, own, routed.clone());
        let keys = std::iter::once(own).chain(routed.clone());
        let subjects = keys.filter_map(|key| policies.clusters.get(key));
        let subjects = subjects.flat_map(|subjects| subjects.iter());
        let differs = egress.differs() || subjects.into_iter().any(trial::differs);
        of(World::InForce).with_trial(differs, || of(World::Trial))
    }

    fn of_port_in<'a>(
        world: World,
        policies: &NetworkPolicies,
        egress: &Egress,
        own: &ClusterKey,
        routed: impl IntoIterator<Item = &'a ClusterKey>,
    ) -> Self {
        let behind = |key: &ClusterKey| -> Behind {
            let subjects = policies.clusters.get(key).into_iter();
            let subjects = subjects.flat_map(|subjects| subjects.iter());
            let destinations = policies.egress.destinations.get(key);
            Behind {
                subjects: subjects
                    .filter_map(|subject| Subject::compile(subject, world))
                    .collect(),
                destinations: destinations.cloned().unwrap_or_default(),
            }
        };
        let mut network = Self {
            own: behind(own),
            sources: policies.sources.clone(),
            egress: egress.of(world).clone(),
            ..Self::default()
        };
        for key in routed {
            if !network.routed.iter().any(|(there, _)| there == key) {
                network.routed.push((key.clone(), behind(key)));
            }
        }
        network
    }

    /// The policies of the workloads that are served by their own addresses; of clients, those in
    /// `egress`.
    pub fn of_workloads(policies: &NetworkPolicies, egress: &Egress) -> Self {
        let of = |world| Self::of_workloads_in(world, policies, egress);
        let differs = egress.differs() || policies.workloads.values().any(trial::differs);
        of(World::InForce).with_trial(differs, || of(World::Trial))
    }

    fn of_workloads_in(world: World, policies: &NetworkPolicies, egress: &Egress) -> Self {
        let workloads = policies.workloads.iter();
        Self {
            workloads: workloads
                .filter_map(|(ip, s)| Some((*ip, Subject::compile(s, world)?)))
                .collect(),
            sources: policies.sources.clone(),
            egress: egress.of(world).clone(),
            ..Self::default()
        }
    }

    /// Whether no policy applies, wherever a request may go and whoever sends it.
    pub fn is_empty(&self) -> bool {
        let behind = self.routed.iter().map(|(_, behind)| behind);
        let mut behind = behind.chain([&self.own]);
        behind.all(|behind| behind.subjects.is_empty())
            && self.workloads.is_empty()
            && self.egress.is_empty()
            && self.trial.is_none()
    }

    /// Decides a request or stream: the client's policies must allow all workloads it may go to, and
    /// all of theirs the client (specs/policies.md 2.4). `None`: no policy applies.
    pub(crate) fn decide(&self, facts: &Facts<'_>) -> Option<NetworkVerdict> {
        Some(self.settle(facts)?.1)
    }

    /// What settles it: the first that denies, else the first with a rule that allows, else the first
    /// of all; and the verdict with the changes that all ask for.
    fn settle<'a>(&'a self, facts: &Facts<'a>) -> Option<(Check<'a>, NetworkVerdict)> {
        let mut settled: Option<(Check<'a>, NetworkVerdict)> = None;
        for check in self.checks(facts) {
            let verdict = check.decide(facts).for_backend(check.backend);
            match &mut settled {
                _ if !verdict.allowed => return Some((check, verdict)),
                // Where no rule allows nothing is changed.
                Some((_, first)) if first.policy.is_some() || verdict.policy.is_none() => {
                    first.take_edits(verdict);
                }
                settled => *settled = Some((check, verdict)),
            }
        }
        settled
    }

    /// All checks: the policies of the client about each destination, then those of each
    /// destination about the client.
    fn checks<'a>(&'a self, facts: &Facts<'a>) -> impl Iterator<Item = Check<'a>> {
        let source = Party::source(facts, &self.sources);
        let dialled = facts.destination_port;
        let client = self.egress.of_source(&source);
        let behind = move |backend: Option<&'a ClusterKey>, behind: &'a Behind| {
            let to = client.map(|_| &behind.destinations[..]).unwrap_or_default();
            let to = to.iter().filter_map(move |destination| {
                Check::of_client(client?, destination, &source, facts, backend)
            });
            let of = behind.subjects.iter();
            to.chain(of.map(move |s| Check::of_destination(s, source, dialled, backend)))
        };
        let by_address = self.workloads.get(&facts.destination_ip.to_canonical());
        let by_address = by_address.map(|s| Check::of_destination(s, source, dialled, None));
        let to_address = self.egress.destination(facts.destination_ip.to_canonical());
        let to_address =
            to_address.and_then(|to| Check::of_client(client?, to, &source, facts, None));
        let is_cluster = |target: &BackendTarget| matches!(target, BackendTarget::Cluster(_));
        let is_routed = facts.backends.iter().any(|b| is_cluster(&b.target));
        let own = (!is_routed).then_some((None, &self.own));
        let routed = facts.backends.iter().filter_map(|backend| {
            let BackendTarget::Cluster(key) = &backend.target else {
                return None;
            };
            let (key, behind) = self.routed.iter().find(|(there, _)| there == key)?;
            Some((Some(key), behind))
        });
        let services = own.into_iter().chain(routed);
        let services = services.flat_map(move |(backend, to)| behind(backend, to));
        to_address.into_iter().chain(by_address).chain(services)
    }
}

impl<'a> Check<'a> {
    /// What the policies of a destination say of the source.
    fn of_destination(
        subject: &'a Subject,
        source: Party<'a>,
        dialled: u16,
        backend: Option<&'a ClusterKey>,
    ) -> Self {
        Self {
            backend,
            subject,
            other: source,
            port: Port {
                number: subject.port.unwrap_or(dialled),
                names: &[],
            },
        }
    }

    /// What the policies of a client say of a destination.
    fn of_client(
        subject: &'a Subject,
        destination: &'a Destination,
        source: &Party<'_>,
        facts: &Facts<'a>,
        backend: Option<&'a ClusterKey>,
    ) -> Option<Self> {
        let workload = destination.workload.as_ref();
        Some(Self {
            backend,
            subject,
            other: Party::destination(destination, source, facts),
            port: Port {
                number: destination.port.unwrap_or(facts.destination_port),
                names: workload.map(|w| &*w.named_ports).unwrap_or_default(),
            },
        })
    }

    fn decide(&self, facts: &Facts<'_>) -> NetworkVerdict {
        self.subject.decide(facts, &self.other, self.port)
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
        let direction = policies.clone().next().map(|policy| policy.direction);
        Self {
            workload: subject.workload.clone(),
            direction: direction.unwrap_or(Direction::Ingress),
            port: subject.port,
            unknown: None,
            broken: broken.cloned(),
            cilium: cilium::Rules::compile(of_cilium, subject.port),
            calico: calico::tiers(policies, subject.port),
            tried: Vec::new(),
        }
    }

    fn decide(&self, facts: &Facts<'_>, other: &Party<'_>, port: Port<'_>) -> NetworkVerdict {
        let verdict = |why| NetworkVerdict::new(why, &self.workload);
        if let Some(reason) = &self.unknown {
            return verdict(NetworkWhy::Unknown(reason.clone()));
        }
        // What could not be understood may have been a deny.
        if let Some(policy) = &self.broken {
            return verdict(NetworkWhy::Broken).by(policy, None);
        }
        let of_cilium = self.cilium.decide(facts, other, port, verdict);
        if !of_cilium.allowed || self.calico.is_empty() {
            return of_cilium;
        }
        let asked = calico::Asked::new(facts, other, port);
        let of_calico = calico::decide(&self.calico, &asked, verdict);
        match of_calico.allowed && of_cilium.policy.is_some() {
            true => of_cilium,
            // Without a Cilium rule that allows there is nothing to change.
            false => of_calico,
        }
    }
}

impl Port<'_> {
    /// Whether the port is among these; `None` is any.
    fn is_among(&self, ports: Option<&[PortSet]>) -> bool {
        ports.is_none_or(|ports| ports.iter().any(|set| self.is_in(set)))
    }

    fn is_in(&self, set: &PortSet) -> bool {
        match set {
            PortSet::Range(first, last) => (*first..=*last).contains(&self.number),
            // At ingress names were replaced by numbers when the workload was known.
            PortSet::Named(name) => {
                let mut names = self.names.iter();
                names.any(|(own, number)| own == name && *number == self.number)
            }
            PortSet::Not(sets) => !sets.iter().any(|set| self.is_in(set)),
        }
    }
}
