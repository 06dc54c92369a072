//! Status of policies: one condition for all targets of Istio's and ours (specs/istio-waypoint.md 1.4); one ancestor
//! for each target of the Gateway API's.

use std::collections::BTreeSet;

use serde_json::json;

use super::{AncestorStatus, CONTROLLER, Condition, Facts, POLICY_ACCEPTED, Status, sentences};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::gateway_api::{BackendTlsPolicySpec, XBackendTrafficPolicySpec};
use crate::resources::{Loaded, Object, TargetRef};
use crate::snapshot::{BackendTarget, Binding, Snapshot};

pub(super) fn statuses(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    let resources = facts.resources;
    let mut found = Vec::new();
    for object in resources
        .authorization_policies
        .values()
        .filter_map(Loaded::object)
    {
        let (one, several) = (&object.spec.target_ref, &object.spec.target_refs);
        found.extend(in_one_condition(
            object,
            one.as_ref(),
            several.as_deref(),
            facts,
        ));
    }
    for object in resources
        .request_authentications
        .values()
        .filter_map(Loaded::object)
    {
        let (one, several) = (&object.spec.target_ref, &object.spec.target_refs);
        found.extend(in_one_condition(
            object,
            one.as_ref(),
            several.as_deref(),
            facts,
        ));
    }
    for object in resources
        .traffic_policies
        .values()
        .filter_map(Loaded::object)
    {
        let targets: Vec<TargetRef> = object
            .spec
            .target_refs
            .iter()
            .map(TargetRef::from)
            .collect();
        found.extend(in_one_condition(object, None, Some(&targets), facts));
    }
    found.extend(backend_traffic(facts));
    let tls = resources.backend_tls_policies.values();
    found.extend(
        tls.filter_map(Loaded::object)
            .filter_map(|object| backend_tls(object, facts)),
    );
    found
}

/// One ancestor for each target that is ours, and whether its certificates were found (GEP-1897).
fn backend_tls(
    object: &Object<BackendTlsPolicySpec>,
    facts: &Facts<'_>,
) -> Option<(Origin, Status)> {
    facts.snapshot.waypoint.as_ref()?;
    let origin = &object.origin;
    let condition = |kind, holds, reason, message: String| {
        Condition::new(kind, holds, reason, message, object.meta.generation)
    };
    let refs = "spec.validation.caCertificateRefs";
    let unusable = facts.at(origin, "spec.validation").find(|finding| {
        finding.severity == Severity::Error && finding.code != Code::BackendNotFound
    });
    let missing: Vec<&Diagnostic> = facts
        .at(origin, refs)
        .filter(|finding| finding.code == Code::BackendNotFound)
        .collect();
    let resolved = match missing.first() {
        None => (
            true,
            "ResolvedRefs",
            "every reference leads to a certificate".to_owned(),
        ),
        Some(first) => {
            let reason = match first.path.ends_with(".kind") {
                true => "InvalidKind",
                false => "InvalidCACertificateRef",
            };
            (false, reason, sentences(missing.iter().copied()))
        }
    };
    let targets = object.spec.target_refs.iter().enumerate();
    let ancestors = targets.filter_map(|(index, target)| {
        let path = format!("spec.targetRefs[{index}]");
        let of_target = facts.at(origin, &path).next();
        let (holds, reason, message) = match (of_target, unusable) {
            (Some(finding), _) => {
                let reason = match finding.code {
                    Code::NotForWaypoint => return None,
                    Code::Conflict => "Conflicted",
                    Code::TargetNotFound => "TargetNotFound",
                    _ => "Invalid",
                };
                (false, reason, finding.message.clone())
            }
            (None, Some(finding)) => {
                let reason = match finding.path == refs {
                    true => "NoValidCACertificate",
                    false => "Invalid",
                };
                (false, reason, finding.message.clone())
            }
            (None, None) => (true, "Accepted", "in force".to_owned()),
        };
        let (found, why, said) = resolved.clone();
        let (group, kind, name) = (&target.group, &target.kind, &target.name);
        let namespace = &*origin.key.namespace;
        let mut ancestor =
            json!({"group": group, "kind": kind, "name": name, "namespace": namespace});
        if let (Some(section), Some(fields)) = (&target.section_name, ancestor.as_object_mut()) {
            fields.insert("sectionName".to_owned(), json!(section));
        }
        Some(AncestorStatus {
            ancestor_ref: ancestor,
            controller_name: CONTROLLER,
            conditions: vec![
                condition("Accepted", holds, reason, message),
                condition("ResolvedRefs", found, why, said),
            ],
        })
    });
    let status = Status {
        ancestors: ancestors.collect(),
        ..Status::default()
    };
    (!status.ancestors.is_empty()).then(|| (origin.clone(), status))
}

/// All targets in one condition. `None`: it is not for a waypoint, or for another one.
fn in_one_condition<T>(
    object: &Object<T>,
    one: Option<&TargetRef>,
    several: Option<&[TargetRef]>,
    facts: &Facts<'_>,
) -> Option<(Origin, Status)> {
    let origin = &object.origin;
    let paths: Vec<String> = match several.filter(|targets| !targets.is_empty()) {
        Some(targets) => (0..targets.len())
            .map(|n| format!("spec.targetRefs[{n}]"))
            .collect(),
        None => one
            .map(|_| "spec.targetRef".to_owned())
            .into_iter()
            .collect(),
    };
    let mut bound = false;
    let mut refused: Vec<&Diagnostic> = Vec::new();
    for path in &paths {
        let said: Vec<&Diagnostic> = facts.at(origin, path).collect();
        match said
            .iter()
            .find(|finding| finding.severity > Severity::Info)
        {
            Some(finding) => refused.push(finding),
            None => bound |= !said.iter().any(|f| f.code == Code::NotForWaypoint),
        }
    }
    let broken = || {
        let rules = facts.of(origin).iter().copied();
        rules.filter(|f| f.severity == Severity::Error && !f.path.starts_with("spec.targetRef"))
    };
    let waypoint = facts.snapshot.waypoint.as_ref()?;
    let here = format!("bound to {}", waypoint.origin.key);
    let (holds, reason, message) = match (bound, refused.first()) {
        (false, None) => return None,
        (false, Some(first)) => (false, reason_of(first), sentences(refused.iter().copied())),
        (true, _) if broken().next().is_some() => (false, "Invalid", sentences(broken())),
        (true, Some(_)) => {
            let lost = sentences(refused.iter().copied());
            (true, "PartiallyInvalid", format!("{here}; {lost}"))
        }
        (true, None) => (true, "Accepted", here),
    };
    let generation = object.meta.generation;
    let status = Status {
        conditions: vec![Condition::new(
            POLICY_ACCEPTED,
            holds,
            reason,
            message,
            generation,
        )],
        ..Status::default()
    };
    Some((origin.clone(), status))
}

fn reason_of(finding: &Diagnostic) -> &'static str {
    match finding.code {
        Code::TargetNotFound => "TargetNotFound",
        Code::NotEnforced => "AncestorNotBound",
        _ => "Invalid",
    }
}

/// Statuses of XBackendTrafficPolicies. Where nothing passes this waypoint none is in force, and nothing is said.
fn backend_traffic(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    let policies = &facts.resources.backend_traffic_policies;
    if facts.snapshot.waypoint.is_none() || policies.is_empty() {
        return Vec::new();
    }
    let reached = reached(facts.snapshot);
    let with_status = policies
        .values()
        .filter_map(Loaded::object)
        .filter_map(|object| {
            let status = of_targets(object, &reached, facts);
            (!status.ancestors.is_empty()).then(|| (object.origin.clone(), status))
        });
    with_status.collect()
}

/// Services that are served, and those that routes of these lead to.
fn reached(snapshot: &Snapshot) -> BTreeSet<&ObjectKey> {
    let mut reached = BTreeSet::new();
    let served = snapshot.services.values();
    for service in served.filter(|service| service.binding == Binding::Served) {
        reached.insert(&service.key);
        for port in &service.ports {
            let rules = port.routes.iter().flat_map(|route| &route.rules);
            let streams = port.stream_routes.iter().flat_map(|route| &route.rules);
            let backends = rules.flat_map(|rule| &rule.backends);
            let backends = backends.chain(streams.flat_map(|rule| &rule.backends));
            reached.extend(backends.filter_map(|backend| match &backend.target {
                BackendTarget::Cluster(cluster) => Some(&cluster.service),
                BackendTarget::Invalid(_) | BackendTarget::Unknown(_) => None,
            }));
        }
    }
    reached
}

/// One ancestor for each target but Services that are not among `reached`.
fn of_targets(
    object: &Object<XBackendTrafficPolicySpec>,
    reached: &BTreeSet<&ObjectKey>,
    facts: &Facts<'_>,
) -> Status {
    let origin = &object.origin;
    let is_elsewhere = |group: &str, kind: &str, name: &str| {
        let key = ObjectKey::new(origin.key.namespace.clone(), name);
        matches!((group, kind), ("" | "core", "Service"))
            && facts.snapshot.services.contains_key(&key)
            && !reached.contains(&key)
    };
    let targets = object.spec.target_refs.iter().enumerate();
    let targets = targets.map(|(index, t)| (index, &*t.group, &*t.kind, &*t.name));
    let targets = targets.filter(|(_, group, kind, name)| !is_elsewhere(group, kind, name));
    let generation = object.meta.generation;
    let invalid = facts
        .of(origin)
        .iter()
        .find(|f| f.severity == Severity::Error && !f.path.starts_with("spec.targetRefs"));
    let ancestors = targets.map(|(index, group, kind, name)| {
        let path = format!("spec.targetRefs[{index}]");
        let finding = facts.at(origin, &path).next().or(invalid.copied());
        let (holds, reason, message) = match finding {
            None => (true, "Accepted", "in force".to_owned()),
            Some(finding) => {
                let reason = match finding.code {
                    Code::Conflict => "Conflicted",
                    Code::TargetNotFound => "TargetNotFound",
                    _ => "Invalid",
                };
                (false, reason, finding.message.clone())
            }
        };
        let namespace = &*origin.key.namespace;
        AncestorStatus {
            ancestor_ref: json!({"group": group, "kind": kind, "name": name, "namespace": namespace}),
            controller_name: CONTROLLER,
            conditions: vec![Condition::new("Accepted", holds, reason, message, generation)],
        }
    });
    Status {
        ancestors: ancestors.collect(),
        ..Status::default()
    }
}
