//! AuthorizationPolicies and what they are attached to (specs/istio-waypoint.md 4.0). Where a target
//! leads is in `policy_targets`, what a rule says in `policy_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policy_rules::{self, Reading, Terms};
use super::policy_targets::{Reach, Targets};
use super::providers::Providers;
use super::trust_domains::TrustDomains;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::istio::{AuthorizationPolicySpec, Rule};
use crate::resources::{Broken, Loaded, Object, Place, Resources, TargetRef};
use crate::snapshot::{Action, Binding, Mesh, Policy, PolicyRule, Provider, Service, Waypoint};

const DRY_RUN: &str = "istio.io/dry-run";

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
    let refs = target_refs(&object.spec);
    if refs.is_empty() {
        findings.push(not_for_waypoint(object));
        return Vec::new();
    }
    let (mut whole, mut limited) = (Vec::new(), Vec::new());
    for (path, target) in refs {
        let Some(reach) = targets.follow(object, &path, target, findings) else {
            continue;
        };
        // sectionName names a part of the target that Cairn can not tell apart, so that what the
        // policy says for the part is unknown for the whole.
        if target.section_name.is_some() || target.port.is_some() {
            let finding = Diagnostic::error(
                Code::Unsupported,
                "sectionName is not supported for an AuthorizationPolicy",
            )
            .with_effect(format!("everything for {reach} is denied"))
            .with_hint("write ports in the rules instead");
            findings.push(object.mark(finding, &format!("{path}.sectionName")));
            limited.push(reach);
        } else {
            whole.push(reach);
        }
    }
    let mut attached = Vec::new();
    if !limited.is_empty() {
        let reason = "sectionName is not supported for an AuthorizationPolicy";
        attached.push((Arc::new(deny_all(object, reason)), limited));
    }
    // One that reaches nothing here is another waypoint's to judge.
    if !whole.is_empty()
        && let Some(policy) = compile(object, &whole, terms, providers, findings)
    {
        attached.push((Arc::new(policy), whole));
    }
    attached
}

/// `targetRefs` and the deprecated `targetRef`, each with its path.
fn target_refs(spec: &AuthorizationPolicySpec) -> Vec<(String, &TargetRef)> {
    let many = spec.target_refs.iter().flatten().enumerate();
    let many = many.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    let one = spec.target_ref.iter();
    many.chain(one.map(|target| ("spec.targetRef".to_owned(), target)))
        .collect()
}

/// Reads the policy for these places. `None`: it is not enforced anywhere.
fn compile(
    object: &Object<AuthorizationPolicySpec>,
    reaches: &[Reach],
    terms: &Terms<'_>,
    providers: &Providers,
    findings: &mut Findings,
) -> Option<Policy> {
    let spec = &object.spec;
    let scope = scope(reaches);
    let mut refuse = |code, path: &str, reason: String, hint: &str| {
        let finding = Diagnostic::error(code, reason.clone())
            .with_effect(format!("everything for {scope} is denied"))
            .with_hint(hint);
        findings.push(object.mark(finding, path));
        Some(deny_all(object, &reason))
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
    let action = match spec.action.as_deref() {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some("CUSTOM") => Action::Custom,
        Some("AUDIT") => {
            let finding = Diagnostic::warning(Code::Unsupported, "AUDIT is not supported yet")
                .with_effect("nothing is recorded; the policy allows and denies nothing");
            findings.push(object.mark(finding, "spec.action"));
            return None;
        }
        Some(unknown) => {
            let reason = format!("unknown action '{unknown}'");
            return refuse(
                Code::BadValue,
                "spec.action",
                reason,
                "ALLOW, DENY or CUSTOM",
            );
        }
    };
    tell_of_action(object, action, findings);
    let provider =
        (action == Action::Custom).then(|| provider(object, &scope, providers, findings));
    let dry_run = dry_run(object, findings);
    let rules = rules(object, action, dry_run, &scope, terms, findings);
    Some(Policy {
        origin: object.origin.clone(),
        action,
        dry_run,
        provider,
        rules,
        broken: None,
    })
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
    if action == Action::Deny {
        warn_of_no_rules(object, findings);
    }
}

/// Whom a CUSTOM policy asks. Without a provider that can be asked, what it matches is denied, as by
/// Istio (specs/istio-waypoint.md 4.8).
fn provider(
    object: &Object<AuthorizationPolicySpec>,
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
            .with_effect(format!(
                "requests to {scope} that its rules match are denied"
            ))
            .with_hint(format!(
                "define it in extensionProviders of the ConfigMap istio; {known}"
            ));
        findings.push(object.mark(finding, path));
    }
    named
}

/// As in Istio, a DENY policy without rules matches nothing (specs/istio-waypoint.md 4.8).
fn warn_of_no_rules(object: &Object<AuthorizationPolicySpec>, findings: &mut Findings) {
    if object.spec.rules.as_ref().is_none_or(Vec::is_empty) {
        let message = "a DENY policy without rules matches nothing";
        let finding = Diagnostic::warning(Code::MissingField, message)
            .with_effect("it denies nothing")
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

fn dry_run(object: &Object<AuthorizationPolicySpec>, findings: &mut Findings) -> bool {
    match object.meta.annotations.get(DRY_RUN).map(|value| &**value) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            let finding = Diagnostic::warning(
                Code::BadValue,
                format!("annotation {DRY_RUN} is '{other}', neither \"true\" nor \"false\""),
            )
            .with_effect("the policy is enforced");
            findings.push(object.mark(finding, "metadata.annotations[istio.io/dry-run]"));
            false
        }
    }
}

/// A policy that could not be understood: it denies everything in its scope, dry-run or not.
fn deny_all(object: &Object<AuthorizationPolicySpec>, reason: &str) -> Policy {
    Policy {
        origin: object.origin.clone(),
        action: Action::Deny,
        dry_run: false,
        provider: None,
        rules: Vec::new(),
        broken: Some(reason.into()),
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

/// A policy that can not be read denies everything in its scope. Its action and its dry-run
/// annotation are unknown, so that it is enforced.
fn attached_broken(broken: &Broken, targets: &Targets<'_>, findings: &mut Findings) -> Attached {
    let object = Object {
        origin: broken.origin.clone(),
        meta: Default::default(),
        spec: AuthorizationPolicySpec::default(),
        place: broken
            .location
            .as_ref()
            .map_or_else(Place::default, Place::of),
    };
    let reaches = match &broken.targets {
        None => targets.all_of_namespace(&broken.origin.key.namespace),
        Some(refs) => (refs.iter().enumerate())
            .filter_map(|(index, target)| {
                let path = format!("spec.targetRefs[{index}]");
                targets.follow(&object, &path, target, findings)
            })
            .collect(),
    };
    let effect = match reaches.as_slice() {
        [] => "this waypoint serves nothing that it is for".to_owned(),
        reaches => format!("everything for {} is denied", scope(reaches)),
    };
    findings.push(unreadable(broken, effect));
    vec![(Arc::new(deny_all(&object, &broken.reason)), reaches)]
}

/// Where a policy applies, in words for findings.
fn scope(reaches: &[Reach]) -> String {
    let words: Vec<String> = reaches.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [] => "its targets (none of them served here)".to_owned(),
        words => words.join(", "),
    }
}
