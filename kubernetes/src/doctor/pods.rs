//! What becomes of connections that arrive at the pods of a Service: by a waypoint that serves their addresses, at
//! the ztunnel of a pod in the mesh, and where nobody asks.

use std::net::SocketAddr;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Binding, ClusterKey, Workload};
use rustc_hash::FxHashSet;

use super::lock::{self, Lock};
use super::{From, Outcome, Patient, Way, plaintext, policies, remedy, ways};

/// What becomes of a kind of connection that arrives at the pods.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) outcome: Outcome,
    pub(super) why: String,
    pub(super) close: Option<String>,
}

impl Arrival {
    pub(super) fn way(&self, from: From) -> Way {
        Way {
            from,
            outcome: self.outcome,
            why: self.why.clone(),
            close: self.close.clone(),
        }
    }
}

/// The pods of a Service, and the ports that they serve it on.
pub(super) struct Pods<'a> {
    list: Vec<&'a Workload>,
    /// An endpoint that is no pod's, if there is one.
    stranger: Option<SocketAddr>,
    ports: Vec<u16>,
    /// Of those who enforce: the waypoint first, then agents of nodes.
    principals: Vec<String>,
}

impl<'a> Pods<'a> {
    pub(super) fn of(patient: &Patient<'a>) -> Self {
        let (snapshot, service) = (patient.snapshot, patient.service);
        let selector = patient.cluster.object("Service", &service.key);
        let selector = selector.and_then(|s| s.pointer("/spec/selector")?.as_object());
        let mut seen = FxHashSet::default();
        let mut list = Vec::new();
        let mut ports = Vec::new();
        let mut stranger = None;
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
            match endpoint.workload.as_deref() {
                Some(workload) => list.push(workload),
                None => stranger = stranger.or(Some(endpoint.address)),
            }
        }
        // Those that are not ready can be reached by their addresses all the same.
        let selected = |w: &&Workload| {
            w.key.namespace == service.key.namespace
                && selector.is_some_and(|labels| {
                    !labels.is_empty()
                        && labels
                            .iter()
                            .all(|(k, v)| w.label(k).map(|l| &**l) == v.as_str())
                })
        };
        list.extend(snapshot.workloads.values().map(|w| &**w).filter(selected));
        list.retain(|w| seen.insert(&w.key));
        list.sort_by(|a, b| a.key.cmp(&b.key));
        let served = service.binding == Binding::Served;
        let principals = match served {
            true => remedy::principals(patient),
            false => Vec::new(),
        };
        Self {
            list,
            stranger,
            ports,
            principals,
        }
    }

    pub(super) fn within_mesh(&self, patient: &Patient<'_>) -> Arrival {
        self.each(|pod| match (&pod.binding, &patient.snapshot.waypoint) {
            (Binding::Served, Some(waypoint)) => served(patient, pod, &waypoint.origin.key),
            _ => self.at_pod(patient, pod),
        })
    }

    /// For who comes from a workload of the mesh that asks no waypoint.
    pub(super) fn past_waypoints(&self, patient: &Patient<'_>) -> Arrival {
        self.each(|pod| self.at_pod(patient, pod))
    }

    fn at_pod(&self, patient: &Patient<'_>, pod: &Workload) -> Result<(Outcome, String), Open> {
        match pod.hbone {
            true => self.locked(patient, pod),
            false => self.bare(patient, pod),
        }
    }

    pub(super) fn in_plain_text(&self, patient: &Patient<'_>) -> Arrival {
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

    /// Why what the waypoint sends is refused: the first pod whose policies do not let it in.
    pub(super) fn shut_out(&self, patient: &Patient<'_>) -> Option<String> {
        self.refused(patient, self.principals.get(..1)?)
    }

    /// The same of the agents of its Gateway.
    pub(super) fn agents_shut_out(&self, patient: &Patient<'_>) -> Option<String> {
        self.refused(patient, self.principals.get(1..)?)
    }

    fn refused(&self, patient: &Patient<'_>, principals: &[String]) -> Option<String> {
        let in_mesh = self.list.iter().filter(|pod| pod.hbone);
        let mut shut = in_mesh.filter_map(|pod| {
            let mut refused = principals.iter();
            let refused = refused.find(|p| !lock::admits(patient.snapshot, pod, p))?;
            Some(format!(
                "Pod {}: its policies do not let in {refused}, which enforces for it",
                pod.key
            ))
        });
        shut.next()
    }

    /// Of a pod in the mesh, what its ztunnel lets in.
    fn locked(&self, patient: &Patient<'_>, pod: &Workload) -> Result<(Outcome, String), Open> {
        match lock::of(patient.snapshot, pod, &self.principals) {
            Lock::Closed(origin) => Ok((
                Outcome::NotReachable,
                format!("{origin} lets in the waypoint alone"),
            )),
            Lock::Open(why) => Err(Open {
                why: format!("Pod {}: {why}", pod.key),
                close: match (self.principals.first(), &patient.service.binding) {
                    (Some(_), _) => "apply the AuthorizationPolicy below".to_owned(),
                    (None, Binding::Served) => remedy::DISPUTED.to_owned(),
                    (None, _) => "attach it first, then ask again".to_owned(),
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
        if let Some(address) = self.stranger {
            let why = format!("endpoint {address} is no Pod's: nothing there asks who comes");
            return Arrival {
                outcome: Outcome::Bypass,
                why,
                close: Some(
                    "what guards that address: a firewall, or the server itself".to_owned(),
                ),
            };
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

/// By the address of a pod that the waypoint serves: no lock closes this, for it is the waypoint that comes in.
fn served(
    patient: &Patient<'_>,
    pod: &Workload,
    gateway: &ObjectKey,
) -> Result<(Outcome, String), Open> {
    if let Some(policy) = policies::lost_at_pods(patient) {
        return Err(Open {
            why: format!(
                "Pod {}: the waypoint serves its address, and asks {policy} of the Service's alone",
                pod.key
            ),
            close: format!(
                "target the policy at Gateway {gateway}, or let it serve Services alone (cairn attach -n {} --name {} --for service)",
                gateway.namespace, gateway.name
            ),
        });
    }
    let way = ways::by_waypoint(patient, From::MeshByPod, gateway);
    match way.outcome {
        Outcome::Bypass => Err(Open {
            why: way.why,
            close: way.close.unwrap_or_default(),
        }),
        Outcome::Enforced => Ok((
            Outcome::Enforced,
            format!("the waypoint serves the pods' addresses, too: {}", way.why),
        )),
        outcome => Ok((outcome, way.why)),
    }
}

/// A way in that nothing closes.
struct Open {
    why: String,
    close: String,
}
