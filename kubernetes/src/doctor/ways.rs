//! The ways to a Service, one by one, and what becomes of its policies on each.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Binding, ClusterKey, Workload};
use rustc_hash::FxHashSet;
use serde_json::Value;

use super::ingress::{self, Edge};
use super::lock::{self, Lock};
use super::{From, Outcome, Patient, Way, plaintext};
use crate::attach::is_programmed;
use crate::objects::text;
use crate::status::any_ready;

/// Every way there is.
pub(super) fn all(patient: &Patient<'_>) -> Vec<Way> {
    let by_service = by_service(patient);
    let pods = Pods::of(patient);
    let in_mesh = pods.within_mesh(patient);
    let plain = pods.in_plain_text(patient);
    let mut ways = vec![
        by_service.clone(),
        in_mesh.way(From::MeshByPod),
        plain.way(From::OutsideOfMesh),
    ];
    if is_exposed(patient) {
        ways.push(plain.way(From::NodePort));
    }
    let reached = Reached {
        by_service: by_service.outcome,
        in_mesh,
        plain,
    };
    if let Some(edge) = ingress::edge(patient) {
        ways.push(reached.through(From::Ingress, &edge, patient));
    }
    if let Some(edge) = ingress::east_west(patient) {
        ways.push(reached.through(From::OtherNetwork, &edge, patient));
    }
    ways
}

/// The Gateway that the labels ask for, whether it serves or not.
pub(super) fn asked_for(patient: &Patient<'_>) -> Option<ObjectKey> {
    match &patient.service.binding {
        Binding::Served | Binding::Refused(_) => patient
            .snapshot
            .waypoint
            .as_ref()
            .map(|w| w.origin.key.clone()),
        Binding::Other(key) => Some(key.clone()),
        Binding::Unbound => None,
    }
}

/// The waypoint of ours that serves the Service.
pub(super) fn serving<'a>(patient: &Patient<'a>) -> Option<&'a ObjectKey> {
    let served = patient.service.binding == Binding::Served;
    let waypoint = patient.snapshot.waypoint.as_ref().filter(|_| served)?;
    Some(&waypoint.origin.key)
}

fn by_service(patient: &Patient<'_>) -> Way {
    let from = From::MeshByService;
    let bypass = |why: String| Way::new(from, Outcome::Bypass, why);
    let key = &patient.service.key;
    let attach = format!("cairn attach -n {} --service {}", key.namespace, key.name);
    if patient.service.addresses.is_empty() {
        let why = "it is headless: clients connect to its pods, and no waypoint is asked";
        return bypass(why.to_owned())
            .closed_by("give it a cluster IP, or serve its pods (cairn attach --for all)");
    }
    let gateway = match &patient.service.binding {
        Binding::Unbound => {
            return bypass("its labels ask for no waypoint".to_owned()).closed_by(attach);
        }
        Binding::Refused(why) => {
            return bypass(why.to_string()).closed_by("see the finding in `cairn status`");
        }
        Binding::Other(other) => return elsewhere(patient, other),
        Binding::Served => match &patient.snapshot.waypoint {
            Some(waypoint) => waypoint.origin.key.clone(),
            None => return bypass("its Gateway can not be served".to_owned()),
        },
    };
    let object = patient.cluster.object("Gateway", &gateway);
    let has_address = object.is_some_and(|g| {
        let addresses = g.pointer("/status/addresses").and_then(Value::as_array);
        addresses.is_some_and(|addresses| !addresses.is_empty())
    });
    if !has_address {
        let why = format!("Gateway {gateway} has no address yet: clients go to the pods directly");
        return bypass(why).closed_by(format!("see `cairn status -n {}`", gateway.namespace));
    }
    let unenforced = &patient.snapshot.unenforced;
    if let Some(policy) = unenforced.iter().find(|u| u.services.contains(key)) {
        let why = format!("{} {}", policy.origin, policy.reason.words());
        return bypass(why).closed_by("mend the policy: `cairn status` says what is wrong");
    }
    if !any_ready(patient.cluster, &gateway) {
        let why = format!("no pod of Gateway {gateway} is ready: connections fail");
        return Way::new(from, Outcome::NotReachable, why);
    }
    let why = match object.is_some_and(is_programmed) {
        true => format!("by Gateway {gateway}"),
        false => format!(
            "by Gateway {gateway}, which is not programmed: the version before may be in force"
        ),
    };
    Way::new(from, Outcome::Enforced, why)
}

/// The labels name a Gateway that is not Cairn's, or none that is there.
fn elsewhere(patient: &Patient<'_>, gateway: &ObjectKey) -> Way {
    let from = From::MeshByService;
    match patient.cluster.object("Gateway", gateway) {
        Some(object) => {
            let class = text(object, "/spec/gatewayClassName").unwrap_or("");
            let why = format!("by Gateway {gateway} of class {class}");
            Way::new(from, Outcome::Elsewhere, why)
        }
        None => {
            let why = format!(
                "its labels name Gateway {gateway}, which does not exist: clients go to the pods directly"
            );
            let close = format!(
                "cairn attach -n {} --name {}",
                gateway.namespace, gateway.name
            );
            Way::new(from, Outcome::Bypass, why).closed_by(close)
        }
    }
}

/// Node port, load balancer or external addresses.
fn is_exposed(patient: &Patient<'_>) -> bool {
    let object = patient.cluster.object("Service", &patient.service.key);
    object.is_some_and(|service| {
        let external = service
            .pointer("/spec/externalIPs")
            .and_then(Value::as_array);
        matches!(
            text(service, "/spec/type"),
            Some("NodePort" | "LoadBalancer")
        ) || external.is_some_and(|addresses| !addresses.is_empty())
    })
}

/// What becomes of a kind of connection that arrives at the pods.
#[derive(Clone, Debug)]
struct Arrival {
    outcome: Outcome,
    why: String,
    close: Option<String>,
}

impl Arrival {
    fn way(&self, from: From) -> Way {
        Way {
            from,
            outcome: self.outcome,
            why: self.why.clone(),
            close: self.close.clone(),
        }
    }
}

/// What is known of arriving, for those who come through a gateway.
struct Reached {
    by_service: Outcome,
    in_mesh: Arrival,
    plain: Arrival,
}

impl Reached {
    fn through(&self, from: From, edge: &Edge, patient: &Patient<'_>) -> Way {
        let gateway = &edge.gateway;
        if edge.heeds && ingress::goes_by_waypoint(patient) {
            let why = format!("{gateway} goes by the waypoint (istio.io/ingress-use-waypoint)");
            return match self.by_service {
                Outcome::Bypass => Way::new(
                    from,
                    Outcome::Bypass,
                    format!("{why}, which does not serve"),
                ),
                outcome => Way::new(from, outcome, why),
            };
        }
        let arrival = if edge.heeds {
            &self.in_mesh
        } else {
            &self.plain
        };
        let why = format!("{gateway} sends to the pods: {}", arrival.why);
        let way = Way::new(from, arrival.outcome, why);
        let key = &patient.service.key;
        match (arrival.outcome, edge.heeds) {
            (Outcome::Bypass, true) => way.closed_by(format!(
                "kubectl label service -n {} {} istio.io/ingress-use-waypoint=true",
                key.namespace, key.name
            )),
            (Outcome::Bypass, false) => way.closed_by(
                "have the gateway send to the Service's address from inside of the mesh, then apply the policy below",
            ),
            _ => way,
        }
    }
}

/// The pods of a Service, and the ports that they serve it on.
struct Pods<'a> {
    list: Vec<&'a Workload>,
    ports: Vec<u16>,
    principal: Option<String>,
}

impl<'a> Pods<'a> {
    fn of(patient: &Patient<'a>) -> Self {
        let (snapshot, service) = (patient.snapshot, patient.service);
        let selector = patient.cluster.object("Service", &service.key);
        let selector = selector.and_then(|s| s.pointer("/spec/selector")?.as_object());
        let mut seen = FxHashSet::default();
        let mut list = Vec::new();
        let mut ports = Vec::new();
        let keys = service
            .ports
            .iter()
            .map(|p| ClusterKey::new(service.key.clone(), p.number));
        for endpoint in keys
            .filter_map(|key| snapshot.clusters.get(&key))
            .flat_map(|e| e.iter())
        {
            if !ports.contains(&endpoint.address.port()) {
                ports.push(endpoint.address.port());
            }
            list.extend(endpoint.workload.as_deref());
        }
        // Those that are not ready can be reached by their addresses all the same.
        let selected = |w: &&Workload| {
            w.key.namespace == service.key.namespace
                && selector.is_some_and(|labels| {
                    !labels.is_empty()
                        && labels
                            .iter()
                            .all(|(k, v)| w.labels.get(k.as_str()).map(|l| &**l) == v.as_str())
                })
        };
        list.extend(snapshot.workloads.values().map(|w| &**w).filter(selected));
        list.retain(|w| seen.insert(&w.key));
        list.sort_by(|a, b| a.key.cmp(&b.key));
        let served = service.binding == Binding::Served;
        let identity = served
            .then(|| cairn_authz::waypoint::identity(snapshot))
            .flatten();
        Self {
            list,
            ports,
            principal: identity.map(|identity| identity.principal().to_owned()),
        }
    }

    fn within_mesh(&self, patient: &Patient<'_>) -> Arrival {
        self.each(|pod| {
            if pod.binding == Binding::Served {
                return Ok((
                    Outcome::Enforced,
                    "the waypoint serves the pods' addresses, too".to_owned(),
                ));
            }
            match pod.hbone {
                true => self.locked(patient, pod),
                false => self.bare(patient, pod),
            }
        })
    }

    fn in_plain_text(&self, patient: &Patient<'_>) -> Arrival {
        self.each(|pod| {
            if !pod.hbone {
                return self.bare(patient, pod);
            }
            let open = match self.locked(patient, pod) {
                Ok(closed) => return Ok(closed),
                Err(open) => open,
            };
            if let Some(policy) = plaintext::strict(patient.cluster, patient.snapshot, pod) {
                return Ok((
                    Outcome::NotReachable,
                    format!("{policy} refuses plain text"),
                ));
            }
            if plaintext::shut(patient.snapshot, pod, &self.ports) {
                return Ok((
                    Outcome::NotReachable,
                    "NetworkPolicies close its ports".to_owned(),
                ));
            }
            Err(open)
        })
    }

    /// Of a pod in the mesh, what its ztunnel lets in.
    fn locked(&self, patient: &Patient<'_>, pod: &Workload) -> Result<(Outcome, String), Open> {
        match lock::of(patient.snapshot, pod, self.principal.as_deref()) {
            Lock::Closed(origin) => Ok((
                Outcome::NotReachable,
                format!("{origin} lets in the waypoint alone"),
            )),
            Lock::Open(why) => Err(Open {
                why: format!("Pod {}: {why}", pod.key),
                close: match self.principal {
                    Some(_) => "apply the AuthorizationPolicy below".to_owned(),
                    None => "attach it first, then ask again".to_owned(),
                },
            }),
        }
    }

    /// Of a pod outside of the mesh, what the CNI lets in.
    fn bare(&self, patient: &Patient<'_>, pod: &Workload) -> Result<(Outcome, String), Open> {
        if plaintext::shut(patient.snapshot, pod, &self.ports) {
            return Ok((
                Outcome::NotReachable,
                "NetworkPolicies close its ports".to_owned(),
            ));
        }
        Err(Open {
            why: format!(
                "Pod {} is not in the mesh: nothing there asks who comes",
                pod.key
            ),
            close: format!(
                "kubectl label namespace {} istio.io/dataplane-mode=ambient, then the AuthorizationPolicy below",
                pod.key.namespace
            ),
        })
    }

    /// The worst of all pods; of pods that are alike the first is named.
    fn each(&self, judge: impl Fn(&Workload) -> Result<(Outcome, String), Open>) -> Arrival {
        let mut closed = None;
        for pod in &self.list {
            match judge(pod) {
                Err(open) => {
                    return Arrival {
                        outcome: Outcome::Bypass,
                        why: open.why,
                        close: Some(open.close),
                    };
                }
                Ok(found) => {
                    closed.get_or_insert(found);
                }
            }
        }
        let none = || {
            (
                Outcome::NotReachable,
                "it has no pod now; ask again when it has".to_owned(),
            )
        };
        let (outcome, why) = closed.unwrap_or_else(none);
        Arrival {
            outcome,
            why,
            close: None,
        }
    }
}

/// A way in that nothing closes.
struct Open {
    why: String,
    close: String,
}
