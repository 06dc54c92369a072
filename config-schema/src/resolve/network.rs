//! Network policies of Cilium and Calico: which of them select the workloads that this waypoint
//! forwards to (specs/policies.md 2.1.8). What a policy says is read in `network_cilium` and
//! `network_calico`; whom egress is about is found in `network_egress`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::unenforced::Outdated;
use super::workloads::Pods;
use super::{Findings, dry_run, network_calico, network_cilium, network_egress, network_elsewhere};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::{Loaded, Resources};
use crate::snapshot::{
    Binding, ClusterKey, Direction, Discovery, Endpoint, LabelView, NetworkPolicies, NetworkPolicy,
    NetworkSubject, PortSet, Truth, Workload, World,
};

pub(super) use crate::snapshot::Selecting;

/// Finds the policies of every workload that may be forwarded to. Those that are `outdated` deny what
/// they select.
pub(super) fn resolve(
    resources: &Resources,
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    discoveries: &BTreeMap<ClusterKey, Arc<Discovery>>,
    pods: &Pods,
    outdated: &Outdated,
    findings: &mut Findings,
) -> NetworkPolicies {
    let mut policies = network_cilium::read_all(resources, findings);
    policies.extend(network_calico::read_all(resources, findings));
    if policies.is_empty() {
        return NetworkPolicies::default();
    }
    for selecting in &mut policies {
        outdated.refuse(&mut selecting.policy);
    }
    let all = policies.iter().cloned().collect();
    let is_egress = |s: &Selecting| s.policy.direction == Direction::Egress;
    let (egress, policies): (Vec<_>, Vec<_>) = policies.into_iter().partition(is_egress);
    network_elsewhere::leave_out(&policies, &egress, clusters, findings);
    let mut network = NetworkPolicies {
        all,
        sources: Arc::new(pods.here().collect()),
        egress: network_egress::resolve(resources, &egress, clusters, discoveries, pods),
        ..NetworkPolicies::default()
    };
    let mut selected: FxHashMap<*const Workload, Selected> = FxHashMap::default();
    for (key, endpoints) in &*clusters {
        let mut subjects: Vec<NetworkSubject> = Vec::new();
        for endpoint in endpoints.iter() {
            let subject = match &endpoint.workload {
                Some(workload) => {
                    let selected = selected
                        .entry(Arc::as_ptr(workload))
                        .or_insert_with(|| Selected::of(workload, &policies));
                    selected.subject(&workload.key, endpoint.target_port())
                }
                None => nameless(key, resources, &policies, findings),
            };
            let Some(subject) = subject else { continue };
            let same = |other: &NetworkSubject| {
                other.port == subject.port
                    && other.unknown == subject.unknown
                    && other.unknown_in_trial == subject.unknown_in_trial
                    && same_policies(&other.policies, &subject.policies)
            };
            if !subjects.iter().any(same) {
                subjects.push(subject);
            }
        }
        if !subjects.is_empty() {
            network.clusters.insert(key.clone(), subjects.into());
        }
    }
    for (address, workload) in &pods.by_address {
        if workload.binding == Binding::Served
            && let Some(subject) = Selected::of(workload, &policies).subject(&workload.key, None)
        {
            network.workloads.insert(*address, subject);
        }
    }
    let subjects = network.clusters.values().flat_map(|s| s.iter());
    let subjects = subjects.chain(network.workloads.values());
    tell_of_idle(
        &policies,
        subjects,
        "workload that this waypoint forwards to",
        findings,
    );
    let clients = network.egress.subjects().map(|subject| &**subject);
    tell_of_idle(&egress, clients, "Pod of the configuration", findings);
    network
}

pub(super) fn same_policies(one: &[Arc<NetworkPolicy>], other: &[Arc<NetworkPolicy>]) -> bool {
    let same = |(a, b): (&Arc<NetworkPolicy>, &Arc<NetworkPolicy>)| Arc::ptr_eq(a, b) || a == b;
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// The policies that select a workload.
#[derive(Default, PartialEq)]
pub(super) struct Selected {
    policies: Vec<Arc<NetworkPolicy>>,
    /// Why that is not known.
    unknown: Option<Arc<str>>,
    /// Why it is not known of those that would be in force.
    unknown_in_trial: Option<Arc<str>>,
}

impl Selected {
    /// Of policies for ingress. None selects a pod in the network of its node: to Cilium it is the
    /// host, to Calico no workload endpoint (specs/policies.md 2.1.2).
    fn of(workload: &Workload, policies: &[Selecting]) -> Self {
        if workload.host_network {
            return Self::default();
        }
        let mut selected = Self::by_view(&view(workload), policies);
        for policy in &mut selected.policies {
            *policy = with_named_ports(policy, workload);
        }
        selected
    }

    /// Of what is known of a workload.
    pub(super) fn by_view<'p>(
        view: &LabelView<'_>,
        policies: impl IntoIterator<Item = &'p Selecting>,
    ) -> Self {
        let mut selected = Self::default();
        for selecting in policies {
            match selecting.selects(view) {
                Truth::Yes => selected.policies.push(selecting.policy.clone()),
                Truth::No => {}
                Truth::Unknown => {
                    let policy = &selecting.policy;
                    if policy.standing.is_in(World::InForce) {
                        selected.unknown = Some(unknown(policy));
                    }
                    if policy.standing.is_in(World::Trial) {
                        selected.unknown_in_trial = Some(unknown(policy));
                    }
                }
            }
        }
        selected
    }

    /// Those that select it for certain.
    pub(super) fn policies(&self) -> &[Arc<NetworkPolicy>] {
        &self.policies
    }

    /// Why it is not known which of those in force do.
    pub(super) fn doubt(&self) -> Option<Arc<str>> {
        self.unknown.clone()
    }

    /// The workload with these policies. `None`: there are none.
    pub(super) fn subject(
        &self,
        workload: &ObjectKey,
        port: Option<u16>,
    ) -> Option<NetworkSubject> {
        (*self != Self::default()).then(|| NetworkSubject {
            workload: workload.clone(),
            port,
            policies: self.policies.clone(),
            unknown: self.unknown.clone(),
            unknown_in_trial: self.unknown_in_trial.clone(),
        })
    }
}

/// What is known of a workload.
pub(crate) fn view(workload: &Workload) -> LabelView<'_> {
    LabelView {
        pod: workload.labels.as_deref(),
        namespace: Some(&workload.key.namespace),
        namespace_labels: workload.namespace_labels.as_deref(),
        service_account: workload.account(),
    }
}

fn unknown(policy: &NetworkPolicy) -> Arc<str> {
    format!("it is not known whether {} selects it", policy.origin).into()
}

/// An endpoint of which no Pod is known. Behind a Service without a selector it is none of the
/// cluster's, and no policy selects it; behind any other nobody knows which do.
fn nameless(
    key: &ClusterKey,
    resources: &Resources,
    policies: &[Selecting],
    findings: &mut Findings,
) -> Option<NetworkSubject> {
    let service = resources.services.get(&key.service)?.object()?;
    if !service.spec.has_selector() {
        return None;
    }
    let namespace = resources.namespaces.values().filter_map(Loaded::object);
    let mut namespace = namespace.filter(|n| n.origin.key.name == key.service.namespace);
    let view = LabelView {
        namespace: Some(&key.service.namespace),
        namespace_labels: namespace.next().map(|n| &*n.meta.labels),
        ..LabelView::default()
    };
    let may_select = |world| {
        let mut of_world = policies.iter().filter(|p| p.policy.standing.is_in(world));
        let found = of_world.find(|p| p.selects(&view) != Truth::No)?;
        Some(unknown(&found.policy))
    };
    let in_force = may_select(World::InForce);
    let in_trial = may_select(World::Trial);
    let reason = in_force.as_ref().or(in_trial.as_ref())?;
    let message = format!(
        "an endpoint of Service {} is no Pod of the configuration: {reason}",
        key.service
    );
    let denied = format!("everything for {} is denied", key.service);
    let finding = Diagnostic::error(Code::NoEndpoints, message)
        .with_effect(dry_run::effect(in_force.is_none(), denied))
        .with_hint("network policies select workloads by their labels: have the Pods, too");
    findings.push(service.mark(finding, ""));
    Some(NetworkSubject {
        workload: key.service.clone(),
        port: None,
        policies: Vec::new(),
        unknown: in_force,
        unknown_in_trial: in_trial,
    })
}

/// Whether a policy speaks of ports.
pub(super) fn has_ports(policy: &NetworkPolicy) -> bool {
    policy.rules.iter().any(|rule| rule.ports.is_some())
}

/// Whether a policy speaks of ports by their names.
pub(super) fn has_named_ports(policy: &NetworkPolicy) -> bool {
    fn has_name(port: &PortSet) -> bool {
        match port {
            PortSet::Range(..) => false,
            PortSet::Named(_) => true,
            PortSet::Not(ports) => ports.iter().any(has_name),
        }
    }
    let mut ports = policy.rules.iter().filter_map(|rule| rule.ports.as_ref());
    ports.any(|ports| ports.iter().any(has_name))
}

/// The policy with names of ports replaced by this workload's numbers. A name that the workload has
/// not is no port of it.
fn with_named_ports(policy: &Arc<NetworkPolicy>, workload: &Workload) -> Arc<NetworkPolicy> {
    fn numbers(ports: &[PortSet], workload: &Workload) -> Vec<PortSet> {
        let mut found = Vec::new();
        for port in ports {
            match port {
                PortSet::Range(..) => found.push(port.clone()),
                PortSet::Not(ports) => found.push(PortSet::Not(numbers(ports, workload))),
                PortSet::Named(name) => {
                    let named = workload.named_ports.iter().filter(|(n, _)| n == name);
                    found.extend(named.map(|(_, port)| PortSet::Range(*port, *port)));
                }
            }
        }
        found
    }
    if !has_named_ports(policy) {
        return policy.clone();
    }
    let mut own = NetworkPolicy::clone(policy);
    for rule in &mut own.rules {
        rule.ports = rule.ports.as_ref().map(|ports| numbers(ports, workload));
    }
    Arc::new(own)
}

/// A policy that selects nothing here is enforced by others, or by nobody.
fn tell_of_idle<'a>(
    policies: &[Selecting],
    subjects: impl Iterator<Item = &'a NetworkSubject>,
    what: &str,
    findings: &mut Findings,
) {
    let mut doubtful = false;
    let mut selecting: FxHashSet<&Origin> = FxHashSet::default();
    for subject in subjects {
        doubtful |= subject.unknown.is_some() || subject.unknown_in_trial.is_some();
        selecting.extend(subject.policies.iter().map(|policy| &policy.origin));
    }
    for policy in policies.iter().map(|selecting| &selecting.policy) {
        let selects = doubtful || selecting.contains(&policy.origin);
        let speaks = policy.default_deny || !policy.rules.is_empty();
        // Of one that is broken an error was told.
        if !selects && speaks && policy.broken.is_none() {
            let origin = &policy.origin;
            let rules = match policy.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            };
            let message = format!("for {rules}, {origin} selects no {what}");
            let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message)
                .with_effect("nothing of it is enforced here")
                .of(origin.clone(), "");
            findings.push(finding);
        }
    }
}
