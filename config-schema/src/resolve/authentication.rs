//! RequestAuthentications and what they are attached to (specs/istio-waypoint.md 4.0, 4.9). What a
//! rule says is read in `authentication_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authentication_rules;
use super::policy_targets::{Reach, Targets, scope, target_refs};
use super::{Findings, dry_run};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::authentication::RequestAuthenticationSpec;
use crate::resources::{Broken, Loaded, Object, Resources};
use crate::snapshot::{Authentications, Binding, Mesh, RequestAuthentication, Service, Waypoint};

type Written = Object<RequestAuthenticationSpec>;

/// A policy, and what it reaches.
type Attached = Vec<(Arc<RequestAuthentication>, Vec<Reach>)>;

/// Attaches every RequestAuthentication to the waypoint or to services; at the end each served
/// service has all that apply to it.
pub(super) fn attach(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> Authentications {
    let targets = Targets {
        resources,
        mesh,
        waypoint,
        services,
    };
    let mut attached = Authentications::default();
    let mut of_services: Vec<(ObjectKey, Arc<RequestAuthentication>)> = Vec::new();
    for loaded in resources.request_authentications.values() {
        let found = match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                follow(object, &targets, findings)
            }
            Loaded::Broken(broken) => follow_broken(broken, &targets, findings),
        };
        for (authentication, reaches) in found {
            for reach in reaches {
                match reach {
                    Reach::Waypoint => push(&mut attached.waypoint, &authentication),
                    Reach::Service(_) | Reach::Entry(..) => {
                        let keys = reach.services().iter().cloned();
                        of_services.extend(keys.map(|key| (key, authentication.clone())));
                    }
                }
            }
        }
    }
    let served = services.values().filter(|s| s.binding == Binding::Served);
    if !attached.waypoint.is_empty() {
        for service in served {
            let all = attached.waypoint.clone();
            attached.services.insert(service.key.clone(), all);
        }
    }
    for (key, authentication) in of_services {
        push(attached.services.entry(key).or_default(), &authentication);
    }
    attached
}

/// Adds one once, though several targets may lead to the same list.
fn push(list: &mut Vec<Arc<RequestAuthentication>>, added: &Arc<RequestAuthentication>) {
    if !list.iter().any(|there| Arc::ptr_eq(there, added)) {
        list.push(added.clone());
    }
}

fn follow(object: &Written, targets: &Targets<'_>, findings: &mut Findings) -> Attached {
    let refs = target_refs(&object.spec.target_refs, &object.spec.target_ref);
    if refs.is_empty() {
        findings.push(not_for_waypoint(object));
        return Vec::new();
    }
    let (whole, limited) = targets.reached(object, refs, findings);
    let mut attached = Vec::new();
    // One that reaches nothing here is another waypoint's to judge.
    if whole.is_empty() && limited.is_empty() {
        return attached;
    }
    let is_tried = dry_run::is_tried(&object.origin, &object.meta, &object.place, findings);
    for (path, reach) in &limited {
        let refused = format!("every HTTP request to {reach} is refused");
        let finding = Diagnostic::error(Code::Unsupported, NO_SECTIONS)
            .with_effect(dry_run::effect(is_tried, refused))
            .with_hint("target the whole Service or Gateway");
        findings.push(object.mark(finding, &format!("{path}.sectionName")));
    }
    if !limited.is_empty() {
        let reaches = limited.into_iter().map(|(_, reach)| reach).collect();
        attached.push((Arc::new(refuse_all(object, is_tried, NO_SECTIONS)), reaches));
    }
    if !whole.is_empty() {
        let read = read(object, is_tried, &whole, findings);
        attached.push((Arc::new(read), whole));
    }
    attached
}

const NO_SECTIONS: &str = "sectionName is not supported for a RequestAuthentication";

/// Reads the object for these places.
fn read(
    object: &Written,
    is_tried: bool,
    reaches: &[Reach],
    findings: &mut Findings,
) -> RequestAuthentication {
    let scope = scope(reaches);
    if object.spec.selector.is_some() {
        let reason = "a RequestAuthentication has either a selector or targetRefs";
        let finding = Diagnostic::error(Code::Conflict, reason)
            .with_effect(dry_run::effect(
                is_tried,
                format!("every HTTP request to {scope} is refused"),
            ))
            .with_hint("remove the selector");
        findings.push(object.mark(finding, "spec.selector"));
        return refuse_all(object, is_tried, reason);
    }
    let written = object.spec.jwt_rules.as_deref().unwrap_or_default();
    if written.is_empty() {
        let message = "a RequestAuthentication without jwtRules looks at no token";
        let finding = Diagnostic::warning(Code::MissingField, message)
            .with_effect("it does nothing")
            .with_hint("jwtRules: [{issuer: ..., jwksUri: ...}]");
        findings.push(object.mark(finding, "spec.jwtRules"));
    }
    let rules = written.iter().enumerate().map(|(index, rule)| {
        let path = format!("spec.jwtRules[{index}]");
        authentication_rules::read(rule, &path, object, &scope, findings)
    });
    RequestAuthentication {
        origin: object.origin.clone(),
        dry_run: is_tried,
        rules: rules.collect(),
        broken: None,
    }
}

fn refuse_all(object: &Written, is_tried: bool, reason: &str) -> RequestAuthentication {
    RequestAuthentication {
        origin: object.origin.clone(),
        dry_run: is_tried,
        rules: Vec::new(),
        broken: Some(reason.into()),
    }
}

/// ztunnel knows nothing of tokens, so that nobody looks at them.
fn not_for_waypoint(object: &Written) -> Diagnostic {
    let (what, path) = match object.spec.selector {
        Some(_) => ("a RequestAuthentication with a selector", "spec.selector"),
        None => ("a RequestAuthentication without targetRefs", ""),
    };
    let finding = Diagnostic::warning(
        Code::NotForWaypoint,
        format!("{what} is not for a waypoint"),
    )
    .with_effect("nothing enforces it: no token is checked, and no request has a principal by it")
    .with_hint("to enforce it here use targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: ...}] or [{kind: Service, group: \"\", name: ...}]");
    object.mark(finding, path)
}

/// One that can not be read refuses every HTTP request in its scope, see
/// [`RequestAuthentication::broken`].
fn follow_broken(broken: &Broken, targets: &Targets<'_>, findings: &mut Findings) -> Attached {
    let refused = |scope: &str| format!("every HTTP request to {scope} is refused");
    let (object, reaches) = targets.follow_broken(broken, refused, findings);
    let read = refuse_all(&object, broken.dry_run, &broken.reason);
    vec![(Arc::new(read), reaches)]
}
