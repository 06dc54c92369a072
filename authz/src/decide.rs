//! The order of decision (specs/istio-waypoint.md 4.8). Does not match clauses itself.

use std::sync::Arc;

use cairn_config_schema::snapshot::{Action, Policy};

use crate::facts::Facts;
use crate::policy::{Group, PolicySet};
use crate::policy_list::PolicyList;
use crate::verdict::{Shadow, Verdict};

impl PolicySet {
    /// Decides one HTTP request (`facts.http` set) or one TCP stream. Allocates nothing unless a
    /// dry-run policy applies.
    pub fn decide(&self, facts: &Facts<'_>) -> Verdict {
        let mut verdict = enforce(&self.enforced, facts);
        if !self.dry_run.is_empty() {
            verdict.shadow = shadow(&self.dry_run, facts);
        }
        // A denial anywhere wins across surfaces (specs/policies.md 2.4).
        if verdict.allowed
            && let Some(network) = &self.network
        {
            verdict.network = network.decide(facts);
            verdict.allowed = verdict.network.as_ref().is_none_or(|n| n.allowed);
        }
        verdict
    }
}

fn enforce(group: &Group, facts: &Facts<'_>) -> Verdict {
    // What could not be understood may have been a DENY: it denies, before anything may allow.
    if let Some(policy) = group.broken.first() {
        return verdict(false, Some(policy), None);
    }
    // No external provider can be asked, and Istio denies what an unknown provider should judge.
    if let Some((policy, rule)) = first_match(&group.custom, facts) {
        return verdict(false, Some(policy), Some(rule));
    }
    if let Some((policy, rule)) = first_match(&group.deny, facts) {
        return verdict(false, Some(policy), Some(rule));
    }
    if group.allow.is_empty() {
        return verdict(true, None, None);
    }
    match first_match(&group.allow, facts) {
        Some((policy, rule)) => verdict(true, Some(policy), Some(rule)),
        None => verdict(false, None, None),
    }
}

fn verdict(allowed: bool, policy: Option<&Arc<Policy>>, rule: Option<usize>) -> Verdict {
    Verdict {
        allowed,
        policy: policy.cloned(),
        rule,
        shadow: Vec::new(),
        network: None,
    }
}

fn first_match<'a>(
    policies: &'a PolicyList,
    facts: &Facts<'_>,
) -> Option<(&'a Arc<Policy>, usize)> {
    let (compiled, rule) = policies.first_match(facts)?;
    Some((&compiled.policy, rule))
}

/// Each action is a shadow engine of its own, as in Istio: the dry-run ALLOW policies do not see
/// the dry-run DENY ones.
fn shadow(group: &Group, facts: &Facts<'_>) -> Vec<Shadow> {
    let mut shadows = Vec::new();
    for (action, policies) in [
        (Action::Custom, &group.custom),
        (Action::Deny, &group.deny),
        (Action::Allow, &group.allow),
    ] {
        let broken = group.broken.iter().find(|p| p.action == action);
        if broken.is_none() && policies.is_empty() {
            continue;
        }
        let matched = if broken.is_some() {
            None
        } else {
            first_match(policies, facts)
        };
        let would = match action {
            _ if broken.is_some() => false,
            Action::Allow => matched.is_some(),
            Action::Deny | Action::Custom => matched.is_none(),
        };
        shadows.push(Shadow {
            action,
            policy: broken.or(matched.map(|(policy, _)| policy)).cloned(),
            rule: matched.map(|(_, rule)| rule),
            would,
        });
    }
    shadows
}
