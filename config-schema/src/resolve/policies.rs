//! AuthorizationPolicies and what they are attached to (specs/istio-waypoint.md 4.0). Where a target
//! leads is in `policy_targets`, what a rule says in `policy_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policy_rules::{self, Reading, Terms};
use super::policy_targets::{Reach, Targets, scope, target_refs};
use super::providers::Providers;
use super::trust_domains::TrustDomains;
use super::{Findings, dry_run};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::istio::{AuthorizationPolicySpec, Rule};
use crate::resources::{Broken, Loaded, Object, Resources};
use crate::snapshot::{Action, Binding, Mesh, Policy, PolicyRule, Provider, Service, Waypoint};

type Services = BTreeMap<ObjectKey, Service>;

/// Attaches every AuthorizationPolicy to the waypoint or to services; at the end each served
/// service has all that apply to it.
pub(super) fn attach(
    resources: &Resources,
    mesh: &Mesh,
    providers: &Providers,
    mut waypoint: Option<&mut Waypoint>,
    services: &mut Services,
    findings: &mut Findings,
) {
    let terms = Terms {
        trust_domains: TrustDomains::of(mesh),
        path_normalization: mesh.path_normalization,
    };
    for loaded in resources.authorization_policies.values() {
        let attached = {
            let targets = Targets {
                resources,
                mesh,
                waypoint: waypoint.as_deref(),
                services,
            };
            match loaded {
                Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                    attached(object, &targets, &terms, providers, findings)
                }
                Loaded::Broken(broken) => attached_broken(broken, &targets, findings),
            }
        };
        for (policy, reaches) in attached {
            for reach in reaches {
                match reach {
                    Reach::Waypoint => {
                        let waypoint = waypoint.as_deref_mut();
                        push(waypoint.map(|waypoint| &mut waypoint.policies), &policy);
                    }
                    Reach::Service(_) | Reach::Entry(..) => {
                        for key in reach.services() {
                            let service = services.get_mut(key);
                            push(service.map(|service| &mut service.policies), &policy);
                        }
                    }
                }
            }
        }
    }
    let of_waypoint = waypoint.map_or(&[][..], |waypoint| waypoint.policies.as_slice());
    for service in services.values_mut() {
        if service.binding == Binding::Served {
            let own = std::mem::take(&mut service.policies);
            service.policies = of_waypoint.to_vec();
            for policy in own {
                push(Some(&mut service.policies), &policy);
            }
        }
    }
}

/// Adds a policy once, though several targets may lead to the same list.
fn push(list: Option<&mut Vec<Arc<Policy>>>, policy: &Arc<Policy>) {
    if let Some(list) = list
        && !list.iter().any(|there| Arc::ptr_eq(there, policy))
    {
        list.push(policy.clone());
    }
}

/// A policy, and what it reaches.
type Attached = Vec<(Arc<Policy>, Vec<Reach>)>;

fn attached(
    object: &Object<AuthorizationPolicySpec>,
    targets: &Targets<'_>,
    terms: &Terms<'_>,
    providers: &Providers,
    findings: &mut Findings,
) -> Attached {
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
    let is_tried = is_tried(object, findings);
    for (path, reach) in &limited {
        let finding = Diagnostic::error(Code::Unsupported, NO_SECTIONS)
            .with_effect(broken_effect(object, is_tried, &reach.to_string()))
            .with_hint("write ports in the rules instead");
        findings.push(object.mark(finding, &format!("{path}.sectionName")));
    }
    if !limited.is_empty() {
        let reaches = limited.into_iter().map(|(_, reach)| reach).collect();
        let policy = broken_policy(object, is_tried, NO_SECTIONS);
        attached.push((Arc::new(policy), reaches));
    }
    if !whole.is_empty() {
        let policy = compile(object, is_tried, &whole, terms, providers, findings);
        attached.push((Arc::new(policy), whole));
    }
    attached
}

const NO_SECTIONS: &str = "sectionName is not supported for an AuthorizationPolicy";

/// Reads the policy for these places.
fn compile(
    object: &Object<AuthorizationPolicySpec>,
    is_tried: bool,
    reaches: &[Reach],
    terms: &Terms<'_>,
    providers: &Providers,
    findings: &mut Findings,
) -> Policy {
    let spec = &object.spec;
    let scope = scope(reaches);
    let mut refuse = |code, path: &str, reason: String, hint: &str| {
        let finding = Diagnostic::error(code, reason.clone())
            .with_effect(broken_effect(object, is_tried, &scope))
            .with_hint(hint);
        findings.push(object.mark(finding, path));
        broken_policy(object, is_tried, &reason)
    };
    if spec.selector.is_some() {
        let reason = "a policy has either a selector or targetRefs".to_owned();
        return refuse(
            Code::Conflict,
            "spec.selector",
            reason,
            "remove the selector",
        );
    }
    let Some(action) = action(spec) else {
        let reason = format!(
            "unknown action '{}'",
            spec.action.as_deref().unwrap_or_default()
        );
        let hint = "ALLOW, DENY, CUSTOM or AUDIT";
        return refuse(Code::BadValue, "spec.action", reason, hint);
    };
    tell_of_action(object, action, findings);
    let provider =
        (action == Action::Custom).then(|| provider(object, is_tried, &scope, providers, findings));
    let rules = rules(object, action, is_tried, &scope, terms, findings);
    Policy {
        origin: object.origin.clone(),
        action,
        dry_run: is_tried,
        provider,
        rules,
        broken: None,
    }
}

fn action(spec: &AuthorizationPolicySpec) -> Option<Action> {
    Some(match spec.action.as_deref() {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some("CUSTOM") => Action::Custom,
        Some("AUDIT") => Action::Audit,
        Some(_) => return None,
    })
}

/// Whether the policy is only tried. One that only records is the same either way.
fn is_tried(object: &Object<AuthorizationPolicySpec>, findings: &mut Findings) -> bool {
    let is_tried = dry_run::is_tried(&object.origin, &object.meta, &object.place, findings);
    if is_tried && action(&object.spec) == Some(Action::Audit) {
        let message = "AUDIT changes no answer, so that there is nothing to try";
        let finding = Diagnostic::new(Severity::Info, Code::BadValue, message)
            .with_effect("what it matches is recorded as without the annotation");
        findings.push(object.mark(finding, "metadata.annotations"));
        return false;
    }
    is_tried
}

/// What is to be said of an action, whatever the rules.
fn tell_of_action(
    object: &Object<AuthorizationPolicySpec>,
    action: Action,
    findings: &mut Findings,
) {
    if action != Action::Custom && object.spec.provider.is_some() {
        let finding = Diagnostic::warning(
            Code::BadValue,
            "a provider means nothing but with action CUSTOM",
        )
        .with_effect("it is asked nothing");
        findings.push(object.mark(finding, "spec.provider"));
    }
    match action {
        Action::Deny => warn_of_no_rules(object, "DENY", "it denies nothing", findings),
        Action::Audit => warn_of_no_rules(object, "AUDIT", "it records nothing", findings),
        Action::Allow | Action::Custom => {}
    }
}

/// Whom a CUSTOM policy asks. Without a provider that can be asked, what it matches is denied, as by
/// Istio (specs/istio-waypoint.md 4.8).
fn provider(
    object: &Object<AuthorizationPolicySpec>,
    is_tried: bool,
    scope: &str,
    providers: &Providers,
    findings: &mut Findings,
) -> Provider {
    let written = object.spec.provider.as_ref().map(|p| p.name.as_str());
    let (named, path) = match written.filter(|name| !name.is_empty()) {
        Some(name) => (providers.named(name), "spec.provider.name"),
        None => {
            let reason = "a CUSTOM policy has to name its provider";
            (Provider::Unusable(reason.into()), "spec.provider")
        }
    };
    if let Provider::Unusable(reason) = &named {
        let known = match providers.names().as_slice() {
            [] => "there is none in the mesh configuration".to_owned(),
            names => format!("the mesh configuration has: {}", names.join(", ")),
        };
        let finding = Diagnostic::error(Code::BackendNotFound, &**reason)
            .with_effect(dry_run::effect(
                is_tried,
                format!("requests to {scope} that its rules match are denied"),
            ))
            .with_hint(format!(
                "define it in extensionProviders of the ConfigMap istio; {known}"
            ));
        findings.push(object.mark(finding, path));
    }
    named
}

/// As in Istio, such a policy without rules matches nothing (specs/istio-waypoint.md 4.8).
fn warn_of_no_rules(
    object: &Object<AuthorizationPolicySpec>,
    action: &str,
    effect: &str,
    findings: &mut Findings,
) {
    if object.spec.rules.as_ref().is_none_or(Vec::is_empty) {
        let message = format!("a policy with action {action} and without rules matches nothing");
        let finding = Diagnostic::warning(Code::MissingField, message)
            .with_effect(effect)
            .with_hint("a rule that matches everything is written rules: [{}]");
        findings.push(object.mark(finding, "spec.rules"));
    }
}

fn rules(
    object: &Object<AuthorizationPolicySpec>,
    action: Action,
    dry_run: bool,
    scope: &str,
    terms: &Terms<'_>,
    findings: &mut Findings,
) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for (index, rule) in object.spec.rules.iter().flatten().enumerate() {
        let path = format!("spec.rules[{index}]");
        let Some(rule) = rule else {
            let finding = Diagnostic::warning(Code::MissingField, "an empty item is no rule")
                .with_effect("it is skipped; the rules after it are numbered one lower in logs")
                .with_hint("a rule that matches everything is written {}");
            findings.push(object.mark(finding, &path));
            continue;
        };
        let mut reading = Reading {
            object,
            action,
            dry_run,
            scope,
            terms,
            broken: None,
            findings: &mut *findings,
        };
        rules.push(policy_rules::read(rule, &path, &mut reading));
    }
    rules
}

/// A policy that could not be understood: it denies everything in its scope, or would if it is only
/// tried. One that is known to do nothing but record records everything.
fn broken_policy(object: &Object<AuthorizationPolicySpec>, is_tried: bool, reason: &str) -> Policy {
    let action = match action(&object.spec) {
        Some(Action::Audit) => Action::Audit,
        _ => Action::Deny,
    };
    Policy {
        origin: object.origin.clone(),
        action,
        dry_run: is_tried,
        provider: None,
        rules: Vec::new(),
        broken: Some(reason.into()),
    }
}

/// What becomes of a scope by a policy that could not be understood.
fn broken_effect(object: &Object<AuthorizationPolicySpec>, is_tried: bool, scope: &str) -> String {
    match action(&object.spec) {
        Some(Action::Audit) => format!("everything for {scope} is recorded"),
        _ => dry_run::effect(is_tried, format!("everything for {scope} is denied")),
    }
}

/// The most common error of users (4.0): ztunnel takes these policies, a waypoint does not.
fn not_for_waypoint(object: &Object<AuthorizationPolicySpec>) -> Diagnostic {
    let spec = &object.spec;
    let (what, path) = match spec.selector {
        Some(_) => ("a policy with a selector", "spec.selector"),
        None => ("a policy without targetRefs", ""),
    };
    let http = policy_rules::uses_http(spec);
    let message = match http {
        true => format!("{what} is not for a waypoint, yet its rules are on HTTP"),
        false => format!("{what} is not for a waypoint"),
    };
    // What ztunnel makes of a rule on HTTP: specs/istio-waypoint.md 4.8, last paragraph.
    let effect = match (http, spec.action.as_deref().unwrap_or("ALLOW")) {
        (true, "ALLOW") => {
            "only ztunnel enforces it, at L4: rules on HTTP allow nothing there, so what they would allow is denied"
        }
        (true, "DENY") => {
            "only ztunnel enforces it, at L4: without their HTTP fields its rules deny more than written"
        }
        (_, "ALLOW" | "DENY") => "ztunnel enforces it, at L4 only; nothing of it is enforced here",
        _ => "nothing enforces it: ztunnel knows ALLOW and DENY only",
    };
    // One with rules on L4 alone is as it should be: it is how a pod is locked to its waypoint.
    let asks_who = |rule: &Rule| rule.from.as_ref().is_some_and(|from| !from.is_empty());
    let at_l4 = !http && spec.rules.iter().flatten().flatten().any(asks_who);
    let severity = match (at_l4, spec.action.as_deref().unwrap_or("ALLOW")) {
        (true, "ALLOW" | "DENY") => Severity::Info,
        _ => Severity::Warning,
    };
    let finding = Diagnostic::new(severity, Code::NotForWaypoint, message)
        .with_effect(effect)
        .with_hint("to enforce it here use targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: ...}] or [{kind: Service, group: \"\", name: ...}]");
    object.mark(finding, path)
}

/// A policy that can not be read denies everything in its scope, whatever its action was. If its
/// annotation could be read all the same it is tried only.
fn attached_broken(broken: &Broken, targets: &Targets<'_>, findings: &mut Findings) -> Attached {
    let denied = |scope: &str| format!("everything for {scope} is denied");
    let (object, reaches) = targets.follow_broken(broken, denied, findings);
    let policy = broken_policy(&object, broken.dry_run, &broken.reason);
    vec![(Arc::new(policy), reaches)]
}
