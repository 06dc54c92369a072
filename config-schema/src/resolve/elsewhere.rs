//! Workloads of other clusters, as istiod tells of them, beside what this cluster has (docs/kube-source.md has the
//! table of who is believed). What belongs to this cluster is believed about this cluster alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::discovered::{account, trust_domain};
use super::elsewhere_claims::Claims;
use super::elsewhere_endpoints::Elsewhere;
use super::elsewhere_gateways::{Gateways, is_far};
use super::elsewhere_left_out::LeftOut;
use super::workloads::Pods;
use super::{Findings, endpoints};
use crate::diagnostics::Diagnostic;
use crate::discovered::{Discovered, DiscoveredWorkload, Tunnel, is_network_gateway};
use crate::identity::Identity;
use crate::limits::LEFT_OUT_NAMED_MAX;
use crate::origin::ObjectKey;
use crate::resources::Resources;
use crate::snapshot::service::CLUSTER_MARK;
use crate::snapshot::{Binding, Endpoint, Mesh, Service, Workload, WorkloadType};

/// What this cluster has.
pub(super) struct Ground<'a> {
    pub mesh: &'a Mesh,
    pub resources: &'a Resources,
    pub services: &'a BTreeMap<ObjectKey, Service>,
}

/// Takes in the workloads of other clusters. Whatever has an address here keeps it: nobody gets the identity of
/// another workload by being told of at its address.
pub(super) fn join<'a>(
    told: Option<&'a Discovered>,
    ground: &Ground<'_>,
    pods: &mut Pods,
    findings: &mut Findings,
) -> Elsewhere<'a> {
    let Some(told) = told else {
        return Elsewhere::default();
    };
    let mut elsewhere = Elsewhere::default();
    let mut left_out: BTreeMap<LeftOut, Vec<String>> = BTreeMap::new();
    let mut closed: Vec<IpAddr> = Vec::new();
    let gateways = Gateways::of(told, ground.mesh);
    let judge = Judge {
        mesh: ground.mesh,
        claims: Claims::of(told),
        taken: taken(ground, pods),
    };
    for (uid, workload) in &told.workloads {
        if is_far(told, workload) {
            // An address there is somebody else's here: nothing is closed by what is left out.
            if !is_network_gateway(uid, workload) {
                let mut leave_out = |reason, detail: String| {
                    let list: &mut Vec<String> = left_out.entry(reason).or_default();
                    list.push(format!("{uid}{detail}"));
                };
                match gateways.reach(uid, workload) {
                    Ok(far) => elsewhere.add_far(&far, &gateways, &mut leave_out),
                    Err((reason, detail)) => leave_out(reason, detail),
                }
            }
            continue;
        }
        if told.is_own(workload) {
            continue;
        }
        let is_pod = told.is_pod(uid, workload);
        match judge.workload((uid, is_pod), workload, pods) {
            Ok(found) => elsewhere.add((workload, is_pod), Arc::new(found), pods),
            Err((reason, detail)) => {
                if reason.closes_addresses() {
                    let free = |ip: &&IpAddr| !judge.is_taken(**ip, pods);
                    closed.extend(workload.addresses.iter().filter(free));
                }
                let list = left_out.entry(reason).or_default();
                list.push(format!("{uid}{detail}"));
            }
        }
    }
    // What was left out takes nothing from a Pod that was taken in.
    closed.retain(|address| !pods.by_address.contains_key(address));
    pods.unknown_addresses.extend(closed);
    for (reason, workloads) in left_out {
        let (severity, code, what, hint) = reason.words();
        let message = format!(
            "{} that istiod tells of {what}: {}",
            counted(workloads.len(), "workload"),
            listed(&workloads)
        );
        let finding = Diagnostic::new(severity, code, message);
        findings.push(finding.with_effect("they receive nothing").with_hint(hint));
    }
    elsewhere.tell_of_strangers(ground, findings);
    elsewhere
}

/// Addresses of this cluster that are no known workload's own: of Services, of nodes with pods in their network, and
/// of pods that only EndpointSlices name.
fn taken(ground: &Ground<'_>, pods: &Pods) -> FxHashSet<IpAddr> {
    let services = ground.services.values();
    let of_services = services.flat_map(|service| service.addresses.iter().copied());
    let mut taken: FxHashSet<IpAddr> = of_services.map(|ip| ip.to_canonical()).collect();
    taken.extend(endpoints::unidentified(ground.resources, pods));
    let on_nodes = pods.by_key.values().filter(|pod| pod.host_network);
    taken.extend(on_nodes.flat_map(|pod| pod.addresses.iter().copied()));
    taken
}

struct Judge<'a> {
    mesh: &'a Mesh,
    claims: Claims<'a>,
    taken: FxHashSet<IpAddr>,
}

impl Judge<'_> {
    /// Whether an address is somebody's of this cluster.
    fn is_taken(&self, address: IpAddr, pods: &Pods) -> bool {
        let of_workload = pods.by_address.get(&address);
        self.taken.contains(&address) || of_workload.is_some_and(|w| w.labels.is_some())
    }

    /// The workload, or why it is left out, with a detail.
    fn workload(
        &self,
        (uid, is_pod): (&str, bool),
        told: &DiscoveredWorkload,
        pods: &Pods,
    ) -> Result<Workload, (LeftOut, String)> {
        if told.addresses.is_empty() {
            return Err((LeftOut::NoAddress, String::new()));
        }
        if told.wants_proxy_protocol {
            return Err((LeftOut::ProxyProtocol, String::new()));
        }
        if told.tunnel == Tunnel::LegacyMtls {
            return Err((LeftOut::LegacyMtls, String::new()));
        }
        for address in &told.addresses {
            if let Some(pod) = pods.by_address.get(address).filter(|w| w.labels.is_some()) {
                let detail = format!(" ({address} is that of {})", pod.key);
                return Err((LeftOut::Taken, detail));
            }
            if self.taken.contains(address) {
                let detail = format!(
                    " ({address} is that of a Service, of a node, or of a pod that is not known)"
                );
                return Err((LeftOut::Taken, detail));
            }
            if self.claims.is_contested(address, told, is_pod) {
                return Err((LeftOut::Shared, format!(" ({address})")));
            }
        }
        let identity =
            identity(self.mesh, told).map_err(|why| (LeftOut::Identity, format!(" ({why})")))?;
        Ok(workload(uid, told, identity))
    }
}

/// Who a workload is, if the mesh accepts that; else why not.
pub(super) fn identity(mesh: &Mesh, told: &DiscoveredWorkload) -> Result<Identity, String> {
    let trust_domain = trust_domain(told);
    if !mesh.accepts_trust_domain(trust_domain) {
        return Err(format!("trust domain {trust_domain}"));
    }
    let identity = Identity::of_workload(trust_domain, &told.namespace, account(told));
    identity.map_err(|error| error.to_string())
}

fn workload(uid: &str, told: &DiscoveredWorkload, identity: Identity) -> Workload {
    let name = match &*told.name {
        "" => uid.rsplit('/').next().unwrap_or(uid),
        name => name,
    };
    let or_name = |text: &Arc<str>| match &**text {
        "" => Arc::from(name),
        _ => text.clone(),
    };
    let name = &Arc::from(name);
    Workload {
        addresses: told.addresses.clone(),
        hbone: told.tunnel == Tunnel::Hbone,
        workload_name: or_name(&told.workload_name),
        canonical_name: or_name(&told.canonical_name),
        canonical_revision: match &*told.canonical_revision {
            "" => "latest".into(),
            _ => told.canonical_revision.clone(),
        },
        host_network: told.host_network,
        ..of_other_cluster(told, &told.namespace, name, identity)
    }
}

/// One of which nothing is known but whose it is: in a tunnel, without labels and addresses.
pub(super) fn of_other_cluster(
    told: &DiscoveredWorkload,
    namespace: &str,
    name: &Arc<str>,
    identity: Identity,
) -> Workload {
    Workload {
        key: ObjectKey::new(namespace, format!("{name}{CLUSTER_MARK}{}", told.cluster)),
        addresses: Vec::new(),
        identity,
        hbone: true,
        workload_name: name.clone(),
        workload_type: told.workload_type.unwrap_or(WorkloadType::Pod),
        canonical_name: name.clone(),
        canonical_revision: "latest".into(),
        app: "".into(),
        version: "".into(),
        // Nodes of two clusters may have one name.
        node: "".into(),
        labels: None,
        namespace_labels: None,
        named_ports: Default::default(),
        host_network: false,
        behind_gateway: false,
        binding: Binding::Unbound,
    }
}

/// Whether an endpoint is in another cluster.
pub(super) fn is_elsewhere(endpoint: &Endpoint) -> bool {
    let workload = endpoint.workload.as_ref();
    workload.is_some_and(|workload| workload.labels.is_none())
}

/// `1 workload`, `2 workloads`.
pub(super) fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The first of them, and how many there are beyond.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(LEFT_OUT_NAMED_MAX);
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    match names.len().saturating_sub(LEFT_OUT_NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
