//! The order of decision (specs/istio-waypoint.md 4.8). Does not match clauses itself.

use std::sync::Arc;

use cairn_config_schema::snapshot::{ExternalProvider, Policy, Provider, World};

use crate::facts::Facts;
use crate::network::Network;
use crate::policy::{Group, PolicySet};
use crate::policy_list::PolicyList;
use crate::trial::{self, DryRun};
use crate::verdict::Verdict;

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

    /// Why that is the verdict when it came up only after everybody had been asked.
    pub fn too_late(&self) -> String {
        format!(
            "{} rule {} matches since the request was changed, and provider {} was not asked",
            self.policy.origin, self.rule, self.provider.name
        )
    }
}

impl PolicySet {
    /// Whether any CUSTOM policy applies, so that [`PolicySet::questions`] may have some.
    pub fn asks(&self) -> bool {
        !self.enforced.custom.is_empty()
    }

    /// Whom to ask about it before it is decided, in the order of the policies and each provider once.
    /// Empty too when it is denied whatever they say. Policies that are only tried ask nobody.
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
    /// a CUSTOM policy matches is denied. Allocates nothing unless an AUDIT policy matches or a policy
    /// is tried.
    pub fn decide(&self, facts: &Facts<'_>) -> Verdict {
        self.decide_as(facts, Consulted::Unasked)
    }

    /// As [`PolicySet::decide`], for what no CUSTOM policy matches, or its provider has allowed. Whoever
    /// calls this has asked all of [`PolicySet::questions`].
    pub fn decide_settled(&self, facts: &Facts<'_>) -> Verdict {
        self.decide_as(facts, Consulted::Settled)
    }

    fn decide_as(&self, facts: &Facts<'_>, consulted: Consulted) -> Verdict {
        let mut verdict = self.decide_in_force(facts, consulted);
        if self.has_trial() {
            verdict.dry_run = Some(Box::new(self.try_out(facts, consulted)));
        }
        verdict
    }

    /// Decides by what is in force, and tries nothing.
    pub fn decide_in_force(&self, facts: &Facts<'_>, consulted: Consulted) -> Verdict {
        self.enforce(World::InForce, facts, consulted)
    }

    /// Whether a policy is tried here.
    pub fn has_trial(&self) -> bool {
        self.trial.is_some() || self.network.as_ref().is_some_and(Network::has_trial)
    }

    /// What would be decided if the policies that are tried were enforced, and the providers that they
    /// would ask allowed it. `facts` are those that would be, then.
    pub fn try_out(&self, facts: &Facts<'_>, consulted: Consulted) -> DryRun {
        let mut run = DryRun {
            verdict: self.enforce(World::Trial, facts, consulted),
            refused: None,
            outcomes: Vec::new(),
        };
        let (by_policy, by_network) = run.denied_by_default();
        if let Some(trial) = &self.trial {
            let tried = trial.tried.iter();
            let outcomes = tried.map(|tried| trial::outcome(tried, facts, by_policy));
            run.outcomes.extend(outcomes);
        }
        if let Some(network) = &self.network {
            network.try_out(facts, by_network, &mut run.outcomes);
        }
        run
    }

    fn enforce(&self, world: World, facts: &Facts<'_>, consulted: Consulted) -> Verdict {
        let group = self.group(world);
        let mut verdict = enforce(group, facts, consulted);
        verdict.audit = trial::audited(group, facts);
        // A denial anywhere wins across surfaces (specs/policies.md 2.4).
        if verdict.allowed
            && let Some(network) = &self.network
        {
            verdict.network = network.of(world).decide(facts);
            verdict.allowed = verdict.network.as_ref().is_none_or(|n| n.allowed);
        }
        verdict
    }
}

/// Whether the providers of CUSTOM policies have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consulted {
    /// Nobody was: what a CUSTOM policy matches is denied.
    Unasked,
    /// All of [`PolicySet::questions`] were, and allowed it.
    Settled,
}

impl Consulted {
    /// Whether a policy whose rule matches denies: always when it has nobody to ask, as at Istio. One
    /// that is only tried asks nobody; what its provider would say is unknown and taken for a yes.
    fn denies(self, policy: &Policy) -> bool {
        match policy.provider {
            Some(Provider::Ask(_)) => self == Self::Unasked && !policy.dry_run,
            Some(Provider::Unusable(_)) | None => true,
        }
    }
}

fn enforce(group: &Group, facts: &Facts<'_>, consulted: Consulted) -> Verdict {
    // What could not be understood may have been a DENY: it denies, before anything may allow.
    if let Some(policy) = group.broken.first() {
        return verdict(false, Some(policy), None);
    }
    // One question for most requests; which policy it is matters only if some match.
    if group.custom.first_match(facts).is_some() {
        let denying = group.custom.iter().filter(|c| consulted.denies(&c.policy));
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
        ..Verdict::default()
    }
}

fn first_match<'a>(
    policies: &'a PolicyList,
    facts: &Facts<'_>,
) -> Option<(&'a Arc<Policy>, usize)> {
    let (compiled, rule) = policies.first_match(facts)?;
    Some((&compiled.policy, rule))
}
