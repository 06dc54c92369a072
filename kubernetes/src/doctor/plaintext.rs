//! Whether a pod takes connections in plain text: by the PeerAuthentications of Istio for one that is in the mesh,
//! and by the NetworkPolicies of Kubernetes for every one. Cairn itself reads no PeerAuthentication.

use cairn_authz::cni::{Connection, End};
use cairn_config_schema::snapshot::{Direction, Snapshot, Transport, Truth, Workload};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::objects::{name_of, namespace_of, text};

/// The PeerAuthentication by which a pod takes nothing in plain text, if there is one.
pub(super) fn strict(cluster: &Cluster, snapshot: &Snapshot, pod: &Workload) -> Option<String> {
    let all: Vec<&Value> = cluster.objects("PeerAuthentication").collect();
    let root = &*snapshot.mesh.root_namespace;
    let own = &*pod.key.namespace;
    let of_pod = all
        .iter()
        .filter(|p| namespace_of(p) == own && selects(p, pod) == Some(true));
    let of_namespace = all
        .iter()
        .filter(|p| namespace_of(p) == own && selects(p, pod).is_none());
    let of_mesh = all
        .iter()
        .filter(|p| namespace_of(p) == root && selects(p, pod).is_none());
    let levels: [Vec<&&Value>; 3] = [of_pod.collect(), of_namespace.collect(), of_mesh.collect()];
    // A port goes by what is said of it, also in one that says nothing of the others.
    if !levels.iter().flatten().all(|p| ports_agree(p)) {
        return None;
    }
    // The nearest level that says something decides.
    for level in levels {
        let mut said = level.into_iter().filter(|p| mode(p).is_some()).peekable();
        let Some(first) = said.peek().copied() else {
            continue;
        };
        // Of several the oldest counts; all of them must agree.
        let is_strict = said.all(|p| mode(p) == Some("STRICT"));
        let (namespace, name) = (namespace_of(first), name_of(first));
        return is_strict.then(|| format!("PeerAuthentication/{namespace}/{name}"));
    }
    None
}

fn mode(policy: &Value) -> Option<&str> {
    text(policy, "/spec/mtls/mode").filter(|mode| *mode != "UNSET")
}

fn ports_agree(policy: &Value) -> bool {
    let ports = policy
        .pointer("/spec/portLevelMtls")
        .and_then(Value::as_object);
    let mut modes = ports.into_iter().flat_map(|ports| ports.values());
    modes.all(|port| matches!(text(port, "/mode"), None | Some("STRICT" | "UNSET")))
}

/// Whether its selector selects the pod. `None`: it has none.
fn selects(policy: &Value, pod: &Workload) -> Option<bool> {
    let labels = policy.pointer("/spec/selector/matchLabels")?.as_object()?;
    if labels.is_empty() {
        return None;
    }
    let has = |(key, value): (&String, &Value)| pod.label(key).map(|v| &**v) == value.as_str();
    Some(labels.iter().all(has))
}

/// Whether NetworkPolicies close these ports of a pod to every pod there is but the waypoint's, and to those
/// of whom nothing is known. What is not known counts as open.
pub(super) fn shut(snapshot: &Snapshot, pod: &Workload, ports: &[u16]) -> bool {
    let of_namespace = |p: &&std::sync::Arc<cairn_config_schema::snapshot::KubeNetworkPolicy>| {
        p.origin.key.namespace == pod.key.namespace
    };
    let policies: Vec<_> = snapshot.kube_network.iter().filter(of_namespace).collect();
    if policies.is_empty() || ports.is_empty() {
        return false;
    }
    let waypoint = cairn_authz::waypoint::pods(snapshot);
    let is_waypoint = |w: &Workload| waypoint.iter().any(|own| own.key == w.key);
    let others = snapshot.workloads.values().filter(|w| !is_waypoint(w));
    let strangers = others.map(|w| End::of(w)).chain([End::default()]);
    strangers.into_iter().all(|from| {
        ports.iter().all(|port| {
            let connection = Connection {
                from,
                to: End::of(pod),
                port: *port,
                transport: Transport::Tcp,
            };
            let policies = policies.iter().map(|policy| &***policy);
            connection.passage(policies, Direction::Ingress).passes == Truth::No
        })
    })
}
