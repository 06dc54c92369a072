//! Status of the Gateway that is served and of GatewayClasses of ours (specs/istio-waypoint.md 1.4). Addresses are
//! for who makes the Service.

use super::{CONTROLLER, Condition, Facts, ListenerStatus, Status, sentences};
use crate::diagnostics::Severity;
use crate::origin::Origin;
use crate::resources::gateway_api::{GatewayClassSpec, GatewaySpec};
use crate::resources::{Loaded, Object};

pub(super) fn statuses(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    let mut found = Vec::new();
    let classes = facts.resources.gateway_classes.values();
    for class in classes.filter_map(Loaded::object) {
        if class.spec.controller_name == CONTROLLER {
            let status = Status {
                conditions: vec![of_class(class)],
                ..Status::default()
            };
            found.push((class.origin.clone(), status));
        }
    }
    let gateway = facts
        .gateway
        .and_then(|key| facts.resources.gateways.get(key));
    if let Some(gateway) = gateway.and_then(Loaded::object) {
        let blocked = match &facts.snapshot.waypoint {
            Some(waypoint) => waypoint.blocked.as_deref(),
            None => Some("it has no listener of protocol HBONE"),
        };
        found.push((gateway.origin.clone(), of_gateway(gateway, blocked, facts)));
    }
    found
}

/// The API asks for InvalidParameters where parameters are of a kind that is not supported, as all are
/// (specs/gateway-api.md 1.4). Gateways of the class are served as without them.
fn of_class(class: &Object<GatewayClassSpec>) -> Condition {
    let generation = class.meta.generation;
    match class.spec.parameters_ref {
        None => {
            let message = "Gateways of this class are waypoints";
            Condition::new("Accepted", true, "Accepted", message, generation)
        }
        Some(_) => {
            let message = "parametersRef of a GatewayClass is not read: write spec.infrastructure.parametersRef of each Gateway; until then Gateways of this class are waypoints as without it";
            Condition::new("Accepted", false, "InvalidParameters", message, generation)
        }
    }
}

fn of_gateway(gateway: &Object<GatewaySpec>, blocked: Option<&str>, facts: &Facts<'_>) -> Status {
    let generation = gateway.meta.generation;
    let errors = || {
        let all = facts.of(&gateway.origin).iter().copied();
        all.filter(|f| f.severity == Severity::Error)
    };
    let accepted = match errors().next() {
        None => Condition::new("Accepted", true, "Accepted", "it is a waypoint", generation),
        Some(_) => Condition::new(
            "Accepted",
            false,
            "Invalid",
            sentences(errors()),
            generation,
        ),
    };
    let programmed = match blocked {
        None => Condition::new("Programmed", true, "Programmed", "it serves", generation),
        Some(reason) => {
            let message = format!("every tunnel is refused: {reason}");
            Condition::new("Programmed", false, "Invalid", message, generation)
        }
    };
    let programs = blocked.is_none();
    let listeners = gateway.spec.listeners.iter().enumerate();
    let listeners = listeners.map(|(index, listener)| {
        let path = format!("spec.listeners[{index}]");
        let spoken = listener.protocol == "HBONE";
        let said = sentences(facts.at(&gateway.origin, &path));
        let (reason, message) = match spoken {
            true => ("Accepted", "clients' tunnels arrive here".to_owned()),
            false => ("UnsupportedProtocol", said),
        };
        let condition = |kind, holds, reason, message: &str| {
            Condition::new(kind, holds, reason, message, generation)
        };
        let works = spoken && programs;
        let programmed = if works { "Programmed" } else { "Invalid" };
        ListenerStatus {
            name: listener.name.as_str().into(),
            supported_kinds: [],
            attached_routes: 0,
            conditions: vec![
                condition("Accepted", spoken, reason, &message),
                condition("Conflicted", false, "NoConflicts", ""),
                condition("Programmed", works, programmed, ""),
                condition("ResolvedRefs", true, "ResolvedRefs", ""),
            ],
        }
    });
    Status {
        conditions: vec![accepted, programmed],
        listeners: listeners.collect(),
        ..Status::default()
    }
}
