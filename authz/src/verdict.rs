//! The outcome of a decision and how it is named in Envoy's terms. Decides nothing itself.

use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{Policy, World};

use crate::facts::Facts;
use crate::network::NetworkVerdict;
use crate::policy::PolicySet;
use crate::trial::DryRun;

/// What was decided, and by which rule. The default is a denial by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether the request or stream may pass.
    pub allowed: bool,
    /// The policy that decided. `None`: decided by default, that is allowed because no ALLOW policy
    /// applies, or denied because no ALLOW rule matched.
    pub policy: Option<Arc<Policy>>,
    /// The rule of `policy` that matched, from 0. `None` with a policy: the policy as a whole is
    /// broken.
    pub rule: Option<usize>,
    /// AUDIT policies with a rule that matched. They never change the answer.
    pub audit: Vec<Audited>,
    /// What would have been decided if the policies that are only tried were enforced. `None`:
    /// nothing is tried here. Never changes the answer.
    pub dry_run: Option<Box<DryRun>>,
    /// What network policies decided, if they were asked and one applies: after all others allowed.
    pub network: Option<NetworkVerdict>,
}

/// An AUDIT policy with a rule that matched (specs/istio-waypoint.md 4.8: "AUDIT: only tags; never
/// denies").
#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its first rule that matched, from 0. `None`: the policy as a whole is broken.
    pub rule: Option<usize>,
}

impl Verdict {
    /// Whether network policy denied it, after all other policies allowed.
    pub fn denied_by_network(&self) -> bool {
        self.network
            .as_ref()
            .is_some_and(|network| !network.allowed)
    }

    /// The network policies' part, where it is what decided: they denied, or they alone have a rule.
    fn deciding_network(&self) -> Option<&NetworkVerdict> {
        let network = self.network.as_ref()?;
        (!network.allowed || self.policy.is_none()).then_some(network)
    }

    /// The object that decided, of whatever kind. `None`: decided by default.
    pub fn origin(&self) -> Option<&Origin> {
        match self.deciding_network() {
            Some(network) => network.origin(),
            None => self.policy.as_ref().map(|policy| &policy.origin),
        }
    }

    /// The number of its rule, from 0 in its list.
    pub fn rule_index(&self) -> Option<usize> {
        match self.deciding_network() {
            Some(network) => network.rule().map(|rule| rule.index),
            None => self.rule,
        }
    }

    /// Whether the reason is one of network policy.
    pub(crate) fn is_by_network(&self) -> bool {
        self.deciding_network()
            .is_some_and(|network| !network.allowed || network.policy.is_some())
    }

    /// Takes over what another verdict recorded of the same request, and what it would have been
    /// denied for. Decides nothing.
    pub fn take_records(&mut self, other: Self) {
        for audited in other.audit {
            if !self.audit.contains(&audited) {
                self.audit.push(audited);
            }
        }
        match (&self.dry_run, other.dry_run) {
            (Some(own), Some(others)) if own.allowed() && !others.allowed() => {
                self.dry_run = Some(others);
            }
            _ => {}
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%` of a denial:
    /// `rbac_access_denied_matched_policy[ns[NS]-policy[NAME]-rule[N]]`, or `[none]` by default.
    /// A policy broken as a whole has `rule[broken]`. `None` when allowed.
    pub fn response_code_details(&self) -> Option<String> {
        if self.allowed {
            return None;
        }
        if let Some(network) = self.network.as_ref().filter(|n| !n.allowed) {
            return network.response_code_details();
        }
        let Some(policy) = &self.policy else {
            return Some("rbac_access_denied_matched_policy[none]".to_owned());
        };
        let key = &policy.origin.key;
        let rule = self
            .rule
            .map_or_else(|| "broken".to_owned(), |n| n.to_string());
        Some(format!(
            "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
            key.namespace, key.name
        ))
    }

    /// The reason in words, one clause, for the access log. Cold path: allocates. `set` and `facts`
    /// are those the verdict came from.
    pub fn reason(&self, set: &PolicySet, facts: &Facts<'_>) -> String {
        crate::explain::reason(self, set, World::InForce, facts)
    }
}
