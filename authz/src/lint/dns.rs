//! Policies that deny what their pods send and forget DNS: nothing that is written with a name works any
//! more (specs/policies.md 1.7, Y18 to Y21). What a rule lets through is read in `dns_rules`.

use std::ops::BitOr;
use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::origin::Origin;
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{KubeNetworkPolicy, Truth, Workload};
use rustc_hash::FxHashMap;

use super::budget::Budget;
use super::dns_rules;
use super::ground::Ground;
use crate::cni::{self, End};

/// What of DNS may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dns {
    /// Questions by UDP.
    pub udp: bool,
    /// Questions by TCP, to which a client turns when an answer is too long.
    pub tcp: bool,
}

impl Dns {
    /// Both.
    pub const ALL: Self = Self {
        udp: true,
        tcp: true,
    };
}

impl BitOr for Dns {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            udp: self.udp || other.udp,
            tcp: self.tcp || other.tcp,
        }
    }
}

/// What one policy says of egress.
pub(super) struct Egress<'a> {
    /// The policy.
    pub origin: &'a Origin,
    /// Where it speaks of egress.
    pub path: String,
    /// The pods it is for, in words that are equal for equal selectors. `None`: all of its namespace.
    pub selector: Option<String>,
    /// What no rule allows is denied.
    pub isolates: bool,
    /// It allows names by DNS that it must have seen answered.
    pub fqdns: bool,
    /// What it lets through.
    pub dns: Dns,
    /// A NetworkPolicy of Kubernetes: its pods can be looked up.
    pub kube: Option<&'a KubeNetworkPolicy>,
}

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let policies = dns_rules::read(ground);
    let mut by_namespace: FxHashMap<&str, Vec<&Egress<'_>>> = FxHashMap::default();
    for policy in &policies {
        let namespace = &policy.origin.key.namespace;
        by_namespace.entry(namespace).or_default().push(policy);
    }
    let pods = Pods::of(ground);
    let of_cluster = by_namespace.get("").cloned().unwrap_or_default();
    let mut budget = Budget::new("egress-without-dns");
    for policy in policies.iter().filter(|policy| policy.isolates) {
        let namespace = &*policy.origin.key.namespace;
        let own = by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        let others = if namespace.is_empty() {
            &[][..]
        } else {
            &of_cluster
        };
        let selected = pods.selected(policy);
        if !budget.take((own.len() + others.len()) * (1 + selected.len())) {
            findings.push(budget.exhausted());
            return;
        }
        let covering = own.iter().chain(others);
        let covering = covering.filter(|other| covers(other, policy, &selected));
        let dns = covering.fold(Dns::default(), |found, other| found | other.dns);
        if dns != Dns::ALL {
            findings.push(finding(policy, dns, ground.resources));
        }
    }
}

/// Whether one policy is for all pods that another one is for.
fn covers(wide: &Egress<'_>, narrow: &Egress<'_>, selected: &[&Workload]) -> bool {
    if wide.selector.is_none() || wide.selector == narrow.selector {
        return true;
    }
    let selects = |kube: &KubeNetworkPolicy| {
        let by = |pod: &&Workload| cni::selects(kube, &End::of(pod)) == Truth::Yes;
        !selected.is_empty() && selected.iter().all(by)
    };
    wide.kube.is_some_and(selects)
}

fn finding(policy: &Egress<'_>, dns: Dns, resources: &Resources) -> Diagnostic {
    let origin = policy.origin;
    let (message, effect) = match (dns.udp, dns.tcp) {
        (true, _) => (
            format!("{origin} denies DNS by TCP to the pods it is for"),
            "answers too long for UDP are not had; names with many addresses fail",
        ),
        (false, _) if policy.fqdns => (
            format!("{origin} allows names, and no rule allows its pods to ask for them"),
            "no name is ever resolved, so that toFQDNs allows nothing",
        ),
        (false, _) => (
            format!("{origin} denies what its pods send, and no policy allows them DNS"),
            "no name is resolved there, so that every call by name fails",
        ),
    };
    let finding = Diagnostic::warning(Code::EgressWithoutDns, message)
        .with_effect(effect)
        .with_hint("allow port 53 to kube-system, by UDP and by TCP");
    mark(resources, origin, finding, &policy.path)
}

fn mark(resources: &Resources, origin: &Origin, finding: Diagnostic, path: &str) -> Diagnostic {
    use cairn_config_schema::origin::Kind;
    macro_rules! marked {
        ($objects:expr) => {
            $objects
                .get(&origin.key)
                .and_then(|loaded| loaded.object())
                .map(|object| object.mark(finding.clone(), path))
        };
    }
    let marked = match origin.kind {
        Kind::KubeNetworkPolicy => marked!(resources.kube_network_policies),
        Kind::CiliumNetworkPolicy => marked!(resources.cilium_policies),
        Kind::CiliumClusterwideNetworkPolicy => marked!(resources.cilium_clusterwide_policies),
        Kind::NetworkPolicy => marked!(resources.calico_policies),
        Kind::GlobalNetworkPolicy => marked!(resources.calico_global_policies),
        _ => None,
    };
    marked.unwrap_or_else(|| finding.of(origin.clone(), path))
}

/// Pods by namespace, one of each set of labels.
struct Pods<'a>(FxHashMap<&'a str, Vec<&'a Workload>>);

impl<'a> Pods<'a> {
    fn of(ground: &Ground<'a>) -> Self {
        let mut seen = FxHashMap::default();
        for workload in ground.snapshot.workloads.values() {
            let key = (
                &*workload.key.namespace,
                workload.labels.as_ref().map(Arc::as_ptr),
            );
            seen.entry(key).or_insert(&**workload);
        }
        let mut pods: FxHashMap<&str, Vec<&Workload>> = FxHashMap::default();
        for ((namespace, _), workload) in seen {
            pods.entry(namespace).or_default().push(workload);
        }
        Self(pods)
    }

    /// Those that a NetworkPolicy of Kubernetes selects.
    fn selected(&self, policy: &Egress<'_>) -> Vec<&'a Workload> {
        let Some(kube) = policy.kube else {
            return Vec::new();
        };
        let of_namespace = self.0.get(&*policy.origin.key.namespace);
        let of_namespace = of_namespace.map_or(&[][..], Vec::as_slice);
        let selects = |pod: &&&Workload| cni::selects(kube, &End::of(pod)) == Truth::Yes;
        of_namespace.iter().filter(selects).copied().collect()
    }
}
