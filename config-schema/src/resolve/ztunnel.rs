//! AuthorizationPolicies without `targetRefs`, in the form that ztunnel gets of them
//! (specs/policies.md 2.8, specs/istio-waypoint.md 4.8 last paragraph). For `explain` and lints only:
//! what is wrong with them was told when they were found not to be for a waypoint.

use std::sync::Arc;

use super::policy_rules::{self, Reading, Terms};
use super::trust_domains::TrustDomains;
use crate::resources::istio::AuthorizationPolicySpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{
    Action, Condition, LabelExpression, Mesh, Operation, Policy, PolicyRule, Source, Values,
    ZtunnelPolicy,
};

/// Every policy that ztunnel has.
pub(super) fn resolve(resources: &Resources, mesh: &Mesh) -> Vec<ZtunnelPolicy> {
    let terms = Terms {
        trust_domains: TrustDomains::of(mesh),
        path_normalization: mesh.path_normalization,
    };
    let readable = resources.authorization_policies.values();
    let readable = readable.filter_map(Loaded::object);
    readable
        .filter_map(|object| policy(object, mesh, &terms))
        .collect()
}

fn policy(
    object: &Object<AuthorizationPolicySpec>,
    mesh: &Mesh,
    terms: &Terms<'_>,
) -> Option<ZtunnelPolicy> {
    let spec = &object.spec;
    if spec.target_ref.is_some() || spec.target_refs.as_ref().is_some_and(|t| !t.is_empty()) {
        return None;
    }
    let action = match spec.action.as_deref() {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        // ztunnel knows no other action.
        Some(_) => return None,
    };
    let mut reduced = false;
    let mut rules = Vec::new();
    for (index, written) in spec.rules.iter().flatten().flatten().enumerate() {
        let mut reading = Reading {
            object,
            action,
            dry_run: false,
            scope: "",
            terms,
            broken: None,
            findings: &mut Vec::new(),
        };
        let rule = policy_rules::read(written, &format!("spec.rules[{index}]"), &mut reading);
        let (rule, changed) = at_l4(rule, action);
        reduced |= changed;
        rules.extend(rule);
    }
    let namespace = &object.origin.key.namespace;
    let labels = spec.selector.iter().flat_map(|s| &s.match_labels);
    let labels = labels.map(|(k, v)| LabelExpression::equals(k.as_str(), v.as_str()));
    Some(ZtunnelPolicy {
        policy: Arc::new(Policy {
            origin: object.origin.clone(),
            action,
            dry_run: false,
            rules,
            broken: None,
        }),
        namespace: (*namespace != mesh.root_namespace).then(|| namespace.clone()),
        selector: LabelExpression::All(labels.collect()),
        reduced,
    })
}

/// What is left of a rule, and whether that is less than it says: an ALLOW rule with something on
/// HTTP is dropped, a DENY rule keeps its other parts; one of which nothing is left denies nothing.
fn at_l4(rule: PolicyRule, action: Action) -> (Option<PolicyRule>, bool) {
    if rule.broken.is_some() {
        return (Some(rule), false);
    }
    let has_http = rule.from.iter().any(|source| *source != l4_source(source))
        || rule.to.iter().any(Operation::has_http_fields)
        || !rule.when.iter().all(is_l4);
    if !has_http {
        return (Some(rule), false);
    }
    if action == Action::Allow {
        return (None, true);
    }
    let from: Vec<Source> = rule.from.iter().map(l4_source).collect();
    let to: Vec<Operation> = rule.to.iter().map(l4_operation).collect();
    // An item of which nothing is left is any, and then the whole list says nothing.
    let from = match from.contains(&Source::default()) {
        true => Vec::new(),
        false => from,
    };
    let to = match to.contains(&Operation::default()) {
        true => Vec::new(),
        false => to,
    };
    let when: Vec<Condition> = rule.when.into_iter().filter(is_l4).collect();
    let left = !(from.is_empty() && to.is_empty() && when.is_empty());
    let rule = PolicyRule {
        from,
        to,
        when,
        broken: None,
    };
    (left.then_some(rule), true)
}

fn l4_source(source: &Source) -> Source {
    Source {
        request_principals: Values::default(),
        remote_ip_blocks: Values::default(),
        ..source.clone()
    }
}

fn l4_operation(operation: &Operation) -> Operation {
    Operation {
        ports: operation.ports.clone(),
        ..Operation::default()
    }
}

fn is_l4(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::SourceIp(_)
            | Condition::SourceNamespace(_)
            | Condition::SourcePrincipal(_)
            | Condition::DestinationIp(_)
            | Condition::DestinationPort(_)
    )
}
