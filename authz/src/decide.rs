//! The order of decision (specs/istio-waypoint.md 4.8). Does not match clauses itself.

use std::sync::Arc;

use cairn_config_schema::snapshot::{Policy, World};

use crate::facts::Facts;
use crate::network::Network;
use crate::policy::{Group, PolicySet};
use crate::policy_list::PolicyList;
use crate::trial::{self, DryRun};
use crate::verdict::Verdict;

impl PolicySet {
    /// Decides one HTTP request (`facts.http` set) or one TCP stream. Allocates nothing unless an
    /// AUDIT policy matches or a policy is tried.
    pub fn decide(&self, facts: &Facts<'_>) -> Verdict {
        let mut verdict = self.enforce(World::InForce, facts);
        if self.has_trial() {
            verdict.dry_run = Some(Box::new(self.try_out(facts)));
        }
        verdict
    }

    /// Decides by what is in force, and tries nothing.
    pub fn decide_in_force(&self, facts: &Facts<'_>) -> Verdict {
        self.enforce(World::InForce, facts)
    }

    /// Whether a policy is tried here.
    pub fn has_trial(&self) -> bool {
        self.trial.is_some() || self.network.as_ref().is_some_and(Network::has_trial)
    }

    /// What would be decided if the policies that are tried were enforced. `facts` are those that
    /// would be, then.
    pub fn try_out(&self, facts: &Facts<'_>) -> DryRun {
        let mut run = DryRun {
            verdict: self.enforce(World::Trial, facts),
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

    fn enforce(&self, world: World, facts: &Facts<'_>) -> Verdict {
        let group = self.group(world);
        let mut verdict = enforce(group, facts);
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
