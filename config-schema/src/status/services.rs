//! The condition on Services and ServiceEntries that asked for a waypoint, by a label of their own or of their
//! namespace: who serves them, or why nobody does (specs/istio-waypoint.md 1.3, 1.4). What asks for another Gateway
//! that is there gets none here.

use std::collections::BTreeMap;

use super::{BOUND, Condition, Facts, Status};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::{Loaded, Meta};
use crate::snapshot::{Binding, Service};

const INGRESS: &str = "istio.io/ingress-use-waypoint";
const DIRECTLY: &str = "its clients reach it directly, past every policy and route of a waypoint";

pub(super) fn statuses(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    // A ServiceEntry is as many services as it has hosts; what keeps one back is told.
    let mut found: BTreeMap<(bool, &ObjectKey), (Origin, Condition)> = BTreeMap::new();
    for service in facts.snapshot.services.values() {
        let Some(condition) = bound(service, facts) else {
            continue;
        };
        let key = (service.is_entry(), &service.origin.key);
        let is_worse = condition.status == "False";
        if is_worse || !found.contains_key(&key) {
            found.insert(key, (service.origin.clone(), condition));
        }
    }
    let with_status = found.into_values().map(|(origin, condition)| {
        let status = Status {
            conditions: vec![condition],
            ..Status::default()
        };
        (origin, status)
    });
    with_status.collect()
}

/// `None`: no waypoint was asked for, or another one.
fn bound(service: &Service, facts: &Facts<'_>) -> Option<Condition> {
    let meta = meta(&service.origin, facts)?;
    let condition =
        |holds, reason, message| Condition::new(BOUND, holds, reason, message, meta.generation);
    let waypoint = facts.snapshot.waypoint.as_ref();
    match &service.binding {
        Binding::Unbound => None,
        Binding::Served => {
            let waypoint = waypoint?;
            if let Some(reason) = &waypoint.blocked {
                let message = format!(
                    "waypoint {} refuses every tunnel: {reason}",
                    waypoint.origin.key
                );
                return Some(condition(false, "WaypointIsNotReady", message));
            }
            let mut message = format!("attached to waypoint {}", waypoint.origin.key);
            if takes_ingress(service, meta, facts) {
                message += "; ingress gateways send to it, too";
            }
            Some(condition(true, "WaypointAccepted", message))
        }
        Binding::Other(key) if facts.gateway == Some(key) => {
            let message = format!("Gateway {key} serves nothing: {}", why_not(key, facts));
            Some(condition(false, "WaypointIsNotReady", message))
        }
        Binding::Other(key) if !facts.resources.gateways.contains_key(key) => {
            let message = format!("there is no Gateway {key}: {DIRECTLY}");
            Some(condition(false, "WaypointIsNotReady", message))
        }
        Binding::Other(_) => None,
        Binding::Refused(reason) => {
            let finding = refusal(service, reason, facts);
            let reason_word = match finding.map(|finding| finding.code) {
                Some(Code::AttachmentDenied) if is_about_export(finding) => {
                    "CrossNamespaceWaypointForbidden"
                }
                Some(Code::AttachmentDenied) => "AttachmentDenied",
                Some(Code::UnsupportedTrafficType) => "UnsupportedTrafficType",
                // Headless, or an ExternalName.
                Some(Code::NotAttached) => "NoVirtualIP",
                _ => "Invalid",
            };
            let message = format!("{reason}: {DIRECTLY}");
            Some(condition(false, reason_word, message))
        }
    }
}

fn meta<'a>(origin: &Origin, facts: &Facts<'a>) -> Option<&'a Meta> {
    let resources = facts.resources;
    match origin.kind {
        Kind::ServiceEntry => {
            let entry = resources.service_entries.get(&origin.key)?.object()?;
            Some(&entry.meta)
        }
        _ => Some(&resources.services.get(&origin.key)?.object()?.meta),
    }
}

/// By its own label, else by that of its namespace; those who are outside need a virtual IP to go by.
fn takes_ingress(service: &Service, meta: &Meta, facts: &Facts<'_>) -> bool {
    let namespace = ObjectKey::new("", &*service.origin.key.namespace);
    let namespace = facts.resources.namespaces.get(&namespace);
    let inherited = namespace
        .and_then(Loaded::object)
        .and_then(|namespace| namespace.meta.labels.get(INGRESS));
    let label = meta.labels.get(INGRESS).or(inherited);
    label.is_some_and(|value| &**value == "true") && !service.addresses.is_empty()
}

/// What was said of the Gateway that can not be served.
fn why_not(key: &ObjectKey, facts: &Facts<'_>) -> String {
    match facts.resources.gateways.get(key) {
        Some(Loaded::Broken(broken)) => format!("it can not be read: {}", broken.reason),
        _ => "it has no listener of protocol HBONE".to_owned(),
    }
}

/// The finding behind a refusal: on the service, or on the namespace that it got its label from.
fn refusal<'a>(service: &Service, reason: &str, facts: &Facts<'a>) -> Option<&'a Diagnostic> {
    let namespace = Origin {
        kind: Kind::Namespace,
        key: ObjectKey::new("", &*service.origin.key.namespace),
    };
    let own = facts.of(&service.origin).iter();
    let mut all = own.chain(facts.of(&namespace)).copied();
    all.find(|finding| finding.message == reason)
}

fn is_about_export(finding: Option<&Diagnostic>) -> bool {
    finding.is_some_and(|finding| finding.path == "spec.exportTo")
}
