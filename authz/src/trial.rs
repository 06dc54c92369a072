//! Dry run: what would be decided if the policies that are only tried were enforced, and what each of
//! them says (specs/istio-waypoint.md 4.8, dry-run; specs/policies.md 2.5, staged). Never changes an
//! answer: it is asked beside the verdict, of the same code.

use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{Action, Policy, Provider};
use serde::Serialize;

use crate::facts::Facts;
use crate::jwt;
use crate::network::NetworkWhy;
use crate::policy::{CompiledPolicy, Group, Tried};
use crate::verdict::{Audited, Verdict};

/// What would have been decided if everything that is tried were enforced beside what is.
#[derive(Clone, Debug, PartialEq)]
pub struct DryRun {
    /// The verdict of all policies together.
    pub verdict: Verdict,
    /// Why the token would have been refused before policy was asked.
    pub refused: Option<jwt::Failure>,
    /// What each policy that is tried says, by kind, namespace and name.
    pub outcomes: Vec<TrialOutcome>,
}

/// What one policy that is tried says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialOutcome {
    /// The policy.
    pub policy: Origin,
    /// The rule that matched, from 0 in its list. `None`: none did, or the policy as a whole is broken.
    pub rule: Option<usize>,
    /// What it says.
    pub would: Would,
}

/// What a policy that is tried says of a request or stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Would {
    /// Nothing: no rule matches, and it would not be denied for that.
    Nothing,
    /// A rule allows.
    Allow,
    /// An external provider would be asked. It is not.
    Ask,
    /// A rule denies, or nothing would allow it and that is on account of this policy, too.
    Deny,
}

impl Would {
    /// As in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

impl DryRun {
    /// Whether it would have been allowed.
    pub fn allowed(&self) -> bool {
        self.refused.is_none() && self.verdict.allowed
    }

    /// The object that would have decided. `None`: by default.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.refused {
            Some(failure) => failure.rule.as_ref().map(|(origin, _)| origin),
            None => self.verdict.origin(),
        }
    }

    /// The number of its rule, from 0 in its list.
    pub fn rule_index(&self) -> Option<usize> {
        match &self.refused {
            Some(failure) => failure.rule.as_ref()?.1,
            None => self.verdict.rule_index(),
        }
    }

    /// Whether it would be denied for lack of a rule that allows: by AuthorizationPolicy, by network
    /// policy.
    pub(crate) fn denied_by_default(&self) -> (bool, bool) {
        let verdict = &self.verdict;
        let network = verdict.network.as_ref().filter(|n| !n.allowed);
        let of_network = network.is_some_and(|n| n.why == NetworkWhy::NoRule);
        let of_policy = !verdict.allowed && verdict.policy.is_none() && network.is_none();
        (of_policy, of_network)
    }
}

/// What an AuthorizationPolicy says on its own; `by_default`: whether nothing allows it.
pub(crate) fn outcome(tried: &Tried, facts: &Facts<'_>, by_default: bool) -> TrialOutcome {
    let (policy, matched) = match tried {
        Tried::Broken(policy) => (policy, None),
        Tried::Whole(compiled) => (&compiled.policy, compiled.first_match(facts)),
    };
    let would = match (tried, policy.action, matched) {
        (Tried::Broken(_), _, _) => Would::Deny,
        (_, Action::Allow, Some(_)) => Would::Allow,
        (_, Action::Allow, None) if by_default => Would::Deny,
        (_, Action::Deny, Some(_)) => Would::Deny,
        (_, Action::Custom, Some(_)) => match policy.provider {
            Some(Provider::Ask(_)) => Would::Ask,
            Some(Provider::Unusable(_)) | None => Would::Deny,
        },
        // AUDIT is never tried, for it changes nothing.
        (_, Action::Allow | Action::Deny | Action::Custom, None) | (_, Action::Audit, _) => {
            Would::Nothing
        }
    };
    TrialOutcome {
        policy: policy.origin.clone(),
        rule: matched,
        would,
    }
}

/// The AUDIT policies that match. Allocates nothing when none does.
pub(crate) fn audited(group: &Group, facts: &Facts<'_>) -> Vec<Audited> {
    let hit = |compiled: &CompiledPolicy| {
        let policy: &Arc<Policy> = &compiled.policy;
        let rule = match policy.broken {
            Some(_) => None,
            None => Some(compiled.first_match(facts)?),
        };
        Some(Audited {
            policy: policy.clone(),
            rule,
        })
    };
    group.audit.iter().filter_map(hit).collect()
}
