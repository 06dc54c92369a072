//! Which policies of a Service only a waypoint enforces. Those that are only tried do not count.

use std::collections::BTreeSet;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::TargetRef;
use cairn_config_schema::snapshot::{Binding, ClusterKey, HttpRules, Standing};

use super::Patient;

/// `AuthorizationPolicy/shop/readers`, sorted. Of a Service that is not served those that name it; of
/// one that asks for a waypoint in vain those of the waypoint too.
pub(super) fn of(patient: &Patient<'_>) -> Vec<String> {
    let (snapshot, service) = (patient.snapshot, patient.service);
    let mut found = BTreeSet::new();
    let attached = service.policies.iter().filter(|p| !p.dry_run);
    found.extend(attached.map(|p| p.origin.to_string()));
    let tokens = snapshot.authentications.of_service(&service.key);
    found.extend(tokens.iter().map(|a| a.origin.to_string()));
    if let (Binding::Refused(_), Some(waypoint)) = (&service.binding, &snapshot.waypoint) {
        let lost = waypoint.policies.iter().filter(|p| !p.dry_run);
        found.extend(lost.map(|p| p.origin.to_string()));
    }
    found.extend(naming(patient));
    found.extend(of_network(patient));
    found.into_iter().collect()
}

/// The first that the waypoint does not ask of who goes by the address of a pod: there only its own
/// hold, and those of the network.
pub(super) fn lost_at_pods(patient: &Patient<'_>) -> Option<String> {
    let snapshot = patient.snapshot;
    let mut kept: BTreeSet<String> = of_network(patient).collect();
    let own = snapshot.waypoint.iter().flat_map(|w| &w.policies);
    kept.extend(own.map(|p| p.origin.to_string()));
    let tokens = &snapshot.authentications.waypoint;
    kept.extend(tokens.iter().map(|a| a.origin.to_string()));
    of(patient)
        .into_iter()
        .find(|policy| !kept.contains(policy))
}

/// Those of the network that read HTTP.
fn of_network<'p>(patient: &'p Patient<'_>) -> impl Iterator<Item = String> + 'p {
    let (snapshot, service) = (patient.snapshot, patient.service);
    service.ports.iter().flat_map(move |port| {
        let key = ClusterKey::new(service.key.clone(), port.number);
        let subjects = snapshot.network.clusters.get(&key);
        let all = subjects
            .into_iter()
            .flat_map(|s| s.iter())
            .flat_map(|s| &s.policies);
        let on_http = all.filter(|policy| {
            policy.standing != Standing::Tried
                && policy
                    .rules
                    .iter()
                    .any(|r| !matches!(r.http, HttpRules::NotAsked))
        });
        on_http.map(|policy| policy.origin.to_string())
    })
}

/// Policies of Istio that name the Service as a target, whether or not anybody enforces them.
fn naming(patient: &Patient<'_>) -> Vec<String> {
    let key = &patient.service.key;
    let resources = &patient.cluster.resources;
    let mut found = Vec::new();
    for loaded in resources.authorization_policies.values() {
        let Some(object) = loaded.object() else {
            continue;
        };
        let targets = object.spec.target_refs.iter().flatten();
        let mut targets = targets.chain(&object.spec.target_ref);
        let tried = is_tried(&object.meta.annotations);
        if !tried && targets.any(|t| is(t, &object.origin.key, key)) {
            found.push(object.origin.to_string());
        }
    }
    for loaded in resources.request_authentications.values() {
        let Some(object) = loaded.object() else {
            continue;
        };
        let targets = object.spec.target_refs.iter().flatten();
        let mut targets = targets.chain(&object.spec.target_ref);
        if targets.any(|t| is(t, &object.origin.key, key)) {
            found.push(object.origin.to_string());
        }
    }
    found
}

type Annotations = std::collections::BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>>;

fn is_tried(annotations: &Annotations) -> bool {
    ["istio.io/dry-run", "cairn.dev/dry-run"]
        .iter()
        .any(|name| {
            annotations
                .get(*name)
                .is_some_and(|value| **value == *"true")
        })
}

/// Whether a target is this Service; a policy reaches no other namespace.
fn is(target: &TargetRef, policy: &ObjectKey, service: &ObjectKey) -> bool {
    target.kind == "Service"
        && target.name == *service.name
        && policy.namespace == service.namespace
        && target
            .namespace
            .as_deref()
            .is_none_or(|n| *n == *service.namespace)
}
