//! Network policies that are only tried: annotated ones, and Calico's staged kinds (specs/policies.md
//! 2.5). What would be decided with them is decided by the same code as what is, on policies
//! compiled once more; here is what each of them says by itself.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{NetworkSubject, Standing, World};

use super::verdict::{NetworkVerdict, NetworkWhy};
use super::{Network, Subject};
use crate::facts::Facts;
use crate::trial::{TrialOutcome, Would};

/// A policy that is tried, on the workloads it selects.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    origin: Origin,
    /// What it says. `None`: that another one should go.
    alone: Option<Box<Subject>>,
}

impl Tried {
    /// Those that select a subject. One object may hold several policies (Cilium's `specs`).
    pub(super) fn of(subject: &NetworkSubject) -> Vec<Self> {
        let tried = subject.policies.iter().filter(|p| p.standing.is_trial());
        let mut found: Vec<Self> = Vec::new();
        for policy in tried {
            if found.iter().any(|t| t.origin == policy.origin) {
                continue;
            }
            let alone = (policy.standing == Standing::Tried).then(|| {
                let of_object = subject.policies.iter();
                let own: Vec<_> = of_object.filter(|p| p.origin == policy.origin).collect();
                Box::new(Subject::of(subject, &own))
            });
            found.push(Self {
                origin: policy.origin.clone(),
                alone,
            });
        }
        found
    }
}

/// Whether something else would be for a subject than what is.
pub(super) fn differs(subject: &NetworkSubject) -> bool {
    let mut policies = subject.policies.iter();
    subject.unknown != subject.unknown_in_trial || policies.any(|p| p.standing != Standing::InForce)
}

impl Network {
    /// Adds what would be, if that is different.
    pub(super) fn with_trial(mut self, differs: bool, trial: impl FnOnce() -> Self) -> Self {
        self.trial = differs.then(|| Box::new(trial()));
        self
    }

    /// Whether something is tried here.
    pub(crate) fn has_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// What is in force, or what would be.
    pub(crate) fn of(&self, world: World) -> &Self {
        match (&self.trial, world) {
            (Some(trial), World::Trial) => trial,
            _ => self,
        }
    }

    /// What each policy that is tried says. `by_default`: whether it would be denied for lack of a rule
    /// that allows it. Where several workloads may get a request, a denial for one of them counts.
    pub(crate) fn try_out(
        &self,
        facts: &Facts<'_>,
        by_default: bool,
        outcomes: &mut Vec<TrialOutcome>,
    ) {
        let Some(trial) = &self.trial else { return };
        let start = outcomes.len();
        for check in trial.checks(facts) {
            for tried in &check.subject.tried {
                let outcome = match &tried.alone {
                    Some(alone) => {
                        let alone = alone.decide(facts, &check.other, check.port);
                        said(tried, &alone, by_default)
                    }
                    None => self.said_by_removal(tried, facts),
                };
                let of_network = outcomes.iter_mut().skip(start);
                match of_network.into_iter().find(|o| o.policy == outcome.policy) {
                    Some(there) if there.would < outcome.would => *there = outcome,
                    Some(_) => {}
                    None => outcomes.push(outcome),
                }
            }
        }
    }

    /// What it would change that a policy goes.
    fn said_by_removal(&self, tried: &Tried, facts: &Facts<'_>) -> TrialOutcome {
        let allows = |world| self.of(world).decide(facts).is_none_or(|v| v.allowed);
        let would = match (allows(World::InForce), allows(World::Trial)) {
            (false, true) => Would::Allow,
            (true, false) => Would::Deny,
            _ => Would::Nothing,
        };
        TrialOutcome {
            policy: tried.origin.clone(),
            rule: None,
            would,
        }
    }
}

fn said(tried: &Tried, alone: &NetworkVerdict, by_default: bool) -> TrialOutcome {
    let would = match &alone.why {
        NetworkWhy::Allowed => Would::Allow,
        NetworkWhy::NothingDenies => Would::Nothing,
        NetworkWhy::NoRule if !by_default => Would::Nothing,
        NetworkWhy::NoRule
        | NetworkWhy::Denied
        | NetworkWhy::Authentication
        | NetworkWhy::Broken
        | NetworkWhy::Unknown(_) => Would::Deny,
    };
    TrialOutcome {
        policy: tried.origin.clone(),
        rule: alone.rule().map(|rule| rule.index),
        would,
    }
}
