//! The ways to a Service, one by one, and what becomes of its policies on each.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::Binding;
use serde_json::Value;

use super::ingress::{self, Edge};
use super::pods::{Arrival, Pods};
use super::{From, Outcome, Patient, Way, agents, policies, remedy};
use crate::attach::is_programmed;
use crate::enrolment;
use crate::objects::text;
use crate::status::any_ready;

/// Every way there is.
pub(super) fn all(patient: &Patient<'_>) -> Vec<Way> {
    let pods = Pods::of(patient);
    let in_mesh = pods.within_mesh(patient);
    let by_service = by_service(patient, &pods, &in_mesh);
    let plain = pods.in_plain_text(patient);
    let mut ways = vec![
        by_service.clone(),
        in_mesh.way(From::MeshByPod),
        plain.way(From::OutsideOfMesh),
    ];
    if let Some(gateway) = serving(patient) {
        ways.extend(agents::ways(patient, gateway, &pods, &plain));
    }
    if is_exposed(patient) {
        ways.push(plain.way(From::NodePort));
    }
    let reached = Reached {
        by_service: by_service.outcome,
        past: pods.past_waypoints(patient),
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

fn by_service(patient: &Patient<'_>, pods: &Pods<'_>, in_mesh: &Arrival) -> Way {
    let way = by_labels(patient, in_mesh);
    if let (Outcome::Enforced, Some(why)) = (way.outcome, pods.shut_out(patient)) {
        return Way::new(way.from, Outcome::NotReachable, why).closed_by(remedy::ADMIT);
    }
    match way.outcome {
        Outcome::Bypass => way,
        _ => canary(patient).unwrap_or(way),
    }
}

fn by_labels(patient: &Patient<'_>, in_mesh: &Arrival) -> Way {
    let from = From::MeshByService;
    let bypass = |why: String| Way::new(from, Outcome::Bypass, why);
    let key = &patient.service.key;
    let attach = format!("cairn attach -n {} --service {}", key.namespace, key.name);
    if patient.service.addresses.is_empty() {
        if in_mesh.outcome == Outcome::Enforced {
            return in_mesh.way(from);
        }
        let why = "it is headless: clients connect to its pods, and its waypoint is not asked";
        return bypass(why.to_owned()).closed_by(
            "give it a cluster IP, or target the policy at the Gateway and serve its pods (cairn attach --for all)",
        );
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
    by_waypoint(patient, from, &gateway)
}

/// What becomes of who is led to a waypoint of ours.
pub(super) fn by_waypoint(patient: &Patient<'_>, from: From, gateway: &ObjectKey) -> Way {
    let bypass = |why: String| Way::new(from, Outcome::Bypass, why);
    let object = patient.cluster.object("Gateway", gateway);
    let has_address = object.is_some_and(|g| {
        let addresses = g.pointer("/status/addresses").and_then(Value::as_array);
        addresses.is_some_and(|addresses| !addresses.is_empty())
    });
    if !has_address {
        let why = format!("Gateway {gateway} has no address yet: clients go to the pods directly");
        return bypass(why).closed_by(format!("see `cairn status -n {}`", gateway.namespace));
    }
    if let Some(lost) = unenforced(patient, from) {
        return lost;
    }
    if !any_ready(patient.cluster, gateway) {
        let why = format!("no pod of Gateway {gateway} is ready: connections fail");
        let close = format!("see `cairn status -n {}`", gateway.namespace);
        return Way::new(from, Outcome::NotReachable, why).closed_by(close);
    }
    let lagging = patient
        .answers
        .and_then(|answers| answers.lagging(patient.cluster, gateway, &policies::of(patient)));
    if let Some(why) = lagging {
        return bypass(why).closed_by("ask again; if it lasts, see the log of that pod");
    }
    let heard = patient
        .answers
        .map(|answers| answers.heard(patient.cluster, gateway));
    let why = match (object.is_some_and(is_programmed), heard) {
        (true, Some(pods)) if pods > 0 => {
            format!(
                "by Gateway {gateway}; ready pods that say that the policies are in force: {pods}"
            )
        }
        (true, _) => format!("by Gateway {gateway}"),
        (false, _) => format!(
            "by Gateway {gateway}, which is not programmed: the version before may be in force"
        ),
    };
    Way::new(from, Outcome::Enforced, why)
}

/// A policy of the Service that the waypoint does not enforce as it is written.
pub(super) fn unenforced(patient: &Patient<'_>, from: From) -> Option<Way> {
    let mut unenforced = patient.snapshot.unenforced.iter();
    let policy = unenforced.find(|u| u.services.contains(&patient.service.key))?;
    let why = format!("{} {}", policy.origin, policy.reason.words());
    let way = Way::new(from, Outcome::Bypass, why);
    Some(way.closed_by("mend the policy: `cairn status` says what is wrong"))
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

/// Another Gateway that a share of the connections goes to, of each by lot (specs/istio-waypoint.md 1.3).
fn canary(patient: &Patient<'_>) -> Option<Way> {
    let from = From::MeshByService;
    let key = &patient.service.key;
    let namespace = ObjectKey::new("", &*key.namespace);
    let objects = [("Service", key), ("Namespace", &namespace)];
    let mut objects = objects
        .into_iter()
        .filter_map(|(kind, key)| patient.cluster.object(kind, key));
    let gateway = objects.find_map(enrolment::share)?;
    if asked_for(patient).as_ref() == Some(&gateway) {
        return None;
    }
    let share = format!("a share of its connections ({})", enrolment::CANARY);
    let object = patient.cluster.object("Gateway", &gateway);
    let why = match object {
        Some(_) if patient.cluster.waypoints().contains(&gateway) => {
            format!("{share} is led to Gateway {gateway}: Cairn serves no shares")
        }
        Some(object) => {
            let class = text(object, "/spec/gatewayClassName").unwrap_or("");
            let why = format!("{share} goes by Gateway {gateway} of class {class}");
            return Some(Way::new(from, Outcome::Elsewhere, why));
        }
        None => format!("{share} is led to Gateway {gateway}, which does not exist"),
    };
    let close = format!("remove the label {}", enrolment::CANARY);
    Some(Way::new(from, Outcome::Bypass, why).closed_by(close))
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

/// What is known of arriving, for those who come through a gateway.
struct Reached {
    by_service: Outcome,
    /// At the pods themselves: a gateway goes by no waypoint that serves their addresses.
    past: Arrival,
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
        let arrival = if edge.heeds { &self.past } else { &self.plain };
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
