//! The order of decision (specs/istio-waypoint.md 4.8). Does not match clauses itself.

use std::sync::Arc;

use cairn_config_schema::snapshot::{Action, ExternalProvider, Policy, Provider};

use crate::facts::Facts;
use crate::policy::{Group, PolicySet};
use crate::policy_list::PolicyList;
use crate::verdict::{Shadow, Verdict};

/// What a CUSTOM policy wants to be asked: the rule that matches, and its provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its rule that matches, from 0.
    pub rule: usize,
    /// Whom to ask.
    pub provider: Arc<ExternalProvider>,
}

impl Question {
    /// The verdict when the answer is no, or when there is none.
    pub fn denied(&self) -> Verdict {
        verdict(false, Some(&self.policy), Some(self.rule))
    }
}

impl PolicySet {
    /// Whether any CUSTOM policy applies, so that [`PolicySet::questions`] may have some.
    pub fn asks(&self) -> bool {
        !self.enforced.custom.is_empty()
    }

    /// Whom to ask about it before it is decided, in the order of the policies and each provider once.
    /// Empty too when it is denied whatever they say.
    pub fn questions(&self, facts: &Facts<'_>) -> Vec<Question> {
        let group = &self.enforced;
        let mut questions: Vec<Question> = Vec::new();
        if !group.broken.is_empty() || group.custom.first_match(facts).is_none() {
            return questions;
        }
        for compiled in &group.custom {
            let Some(rule) = compiled.first_match(facts) else {
                continue;
            };
            let Some(Provider::Ask(provider)) = &compiled.policy.provider else {
                return Vec::new();
            };
            if !questions.iter().any(|q| q.provider == *provider) {
                questions.push(Question {
                    policy: compiled.policy.clone(),
                    rule,
                    provider: provider.clone(),
                });
            }
        }
        questions
    }

    /// Decides one HTTP request (`facts.http` set) or one TCP stream about which nobody was asked: what
    /// a CUSTOM policy matches is denied. Allocates nothing unless a dry-run policy applies.
    pub fn decide(&self, facts: &Facts<'_>) -> Verdict {
        self.decide_with(facts, Custom::Unasked)
    }

    /// Decides what no CUSTOM policy matches, or its provider has allowed. Whoever calls this has asked
    /// all of [`PolicySet::questions`].
    pub fn decide_settled(&self, facts: &Facts<'_>) -> Verdict {
        self.decide_with(facts, Custom::Settled)
    }

    fn decide_with(&self, facts: &Facts<'_>, custom: Custom) -> Verdict {
        let mut verdict = enforce(&self.enforced, facts, custom);
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

/// Whether providers have been asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Custom {
    Unasked,
    Settled,
}

impl Custom {
    /// Whether a policy whose rule matches denies: always when it has nobody to ask, as at Istio.
    fn denies(self, policy: &Policy) -> bool {
        self == Self::Unasked || !matches!(policy.provider, Some(Provider::Ask(_)))
    }
}

fn enforce(group: &Group, facts: &Facts<'_>, custom: Custom) -> Verdict {
    // What could not be understood may have been a DENY: it denies, before anything may allow.
    if let Some(policy) = group.broken.first() {
        return verdict(false, Some(policy), None);
    }
    // One question for most requests; which policy it is matters only if some match.
    if group.custom.first_match(facts).is_some() {
        let denying = group.custom.iter().filter(|c| custom.denies(&c.policy));
        let mut matching = denying.filter_map(|c| Some((&c.policy, c.first_match(facts)?)));
        if let Some((policy, rule)) = matching.next() {
            return verdict(false, Some(policy), Some(rule));
        }
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
