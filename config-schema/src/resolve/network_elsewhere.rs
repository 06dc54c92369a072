//! Endpoints of other clusters under network policies of this one, which are about labels that nobody tells of
//! them. Where it can not be known what a policy makes of one, the endpoint is left out rather than the service closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Findings;
use super::elsewhere::{counted, is_elsewhere};
use super::network::{Selected, Selecting, has_named_ports, has_ports, view};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::snapshot::{
    ClusterKey, Endpoint, Entity, LabelView, NetworkPolicy, Peer, Peers, Truth, Workload, World,
};

/// Takes away endpoints of other clusters of which policies in force can not be judged: those of `ingress` that may
/// select them, and those of `egress` that ask of them what is not known; and all that speak of ports by names, or at all
/// where the port is not known.
pub(super) fn leave_out(
    ingress: &[Selecting],
    egress: &[Selecting],
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    findings: &mut Findings,
) {
    let in_force = |s: &&Selecting| s.policy.standing.is_in(World::InForce);
    let ingress: Vec<&Selecting> = ingress.iter().filter(in_force).collect();
    let egress: Vec<&Selecting> = egress.iter().filter(in_force).collect();
    // A workload may have one endpoint of which the port is known, and one of which it is not.
    let mut judged: FxHashMap<(*const Workload, bool), Option<Arc<str>>> = FxHashMap::default();
    let mut told: BTreeMap<ObjectKey, (usize, Arc<str>)> = BTreeMap::new();
    for (key, endpoints) in clusters {
        if !endpoints.iter().any(is_elsewhere) {
            continue;
        }
        let mut kept = Vec::with_capacity(endpoints.len());
        let (mut gone, mut why) = (0, None);
        for endpoint in endpoints.iter() {
            let workload = endpoint
                .workload
                .as_ref()
                .filter(|_| is_elsewhere(endpoint));
            let reason = workload.and_then(|workload| {
                let knows_port = endpoint.target_port().is_some();
                let reason = judged.entry((Arc::as_ptr(workload), knows_port));
                let judge = || {
                    let by_ingress = doubt(workload, knows_port, &ingress);
                    by_ingress.or_else(|| asked(workload, knows_port, &egress))
                };
                reason.or_insert_with(judge).clone()
            });
            match reason {
                Some(reason) => {
                    gone += 1;
                    why = Some(reason);
                }
                None => kept.push(endpoint.clone()),
            }
        }
        if let Some(why) = why {
            *endpoints = kept.into();
            let most = told.entry(key.service.clone()).or_insert((0, why));
            most.0 = most.0.max(gone);
        }
    }
    findings.extend(told.into_iter().map(finding));
}

/// Why it is not known what policies for ingress make of it.
fn doubt(workload: &Workload, knows_port: bool, ingress: &[&Selecting]) -> Option<Arc<str>> {
    // As for a pod of this cluster in the network of its node: none selects it.
    if workload.host_network {
        return None;
    }
    let selected = Selected::by_view(&view(workload), ingress.iter().copied());
    selected.doubt().or_else(|| {
        let mut policies = selected.policies().iter();
        policies.find_map(|policy| of_ports(policy, knows_port))
    })
}

/// Why it is not known whether its port is one of those that a policy speaks of.
fn of_ports(policy: &NetworkPolicy, knows_port: bool) -> Option<Arc<str>> {
    let origin = &policy.origin;
    if has_named_ports(policy) {
        return Some(format!("{origin} speaks of its ports by their names").into());
    }
    let words = "speaks of ports, and istiod tells no port that all behind the gateway have";
    (!knows_port && has_ports(policy)).then(|| format!("{origin} {words}").into())
}

/// Why it is not known whether it is what a client may send to. Which clients there will be nobody knows: every
/// policy may be one's.
fn asked(workload: &Workload, knows_port: bool, egress: &[&Selecting]) -> Option<Arc<str>> {
    let view = view(workload);
    let asks = |policy: &NetworkPolicy| -> Option<Arc<str>> {
        let mut rules = policy.rules.iter();
        if rules.any(|rule| among(&rule.peers, &view) == Truth::Unknown) {
            let origin = &policy.origin;
            let words = "judges what is sent by the labels of whom it is sent to";
            return Some(format!("{origin} {words}").into());
        }
        of_ports(policy, knows_port)
    };
    egress.iter().find_map(|selecting| asks(&selecting.policy))
}

/// Whether a workload of another cluster is among those of a rule for egress, as far as `cairn-authz` can say it:
/// selectors select it in no namespace but its own, and there nobody knows.
fn among(peers: &Peers, view: &LabelView<'_>) -> Truth {
    let is = |peer: &Peer| match peer {
        Peer::Entity(Entity::All) => Truth::Yes,
        Peer::Entity(Entity::None) => Truth::No,
        Peer::Endpoints(labels) => labels.holds(&|key| view.of_pod(key)).and(Truth::Unknown),
        Peer::Entity(_)
        | Peer::Cidr { .. }
        | Peer::Name(_)
        | Peer::Services(_)
        | Peer::Unknowable(_) => Truth::Unknown,
    };
    match peers {
        Peers::Anybody => Truth::Yes,
        Peers::AnyOf(peers) => Truth::any(peers.iter().map(is)),
        Peers::Criteria(_) => Truth::Unknown,
    }
}

fn finding((service, (count, why)): (ObjectKey, (usize, Arc<str>))) -> Diagnostic {
    let message = format!(
        "{} of Service {service} in other clusters are left out: {why}",
        counted(count, "endpoint")
    );
    let origin = Origin {
        kind: Kind::Service,
        key: service,
    };
    Diagnostic::warning(Code::NoEndpoints, message)
        .with_effect("they receive nothing; endpoints of this cluster do")
        .with_hint(
            "istiod tells no labels of workloads: policies of the Istio and Gateway APIs need none",
        )
        .of(origin, "")
}
