//! Cilium's rules of combination (specs/policies.md 2.1.3, 2.1.4): a deny anywhere, then an allow
//! anywhere, then the default.

use std::sync::Arc;

use cairn_config_schema::snapshot::{
    AuthenticationMode, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, Truth,
};

use super::http::Request;
use super::source::Source;
use super::verdict::{NetworkVerdict, NetworkWhy};
use super::{RuleRef, has_port};
use crate::facts::Facts;

/// The rules of all policies that select one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// All of them, for explanations.
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
    deny: Vec<RuleRef>,
    pub(super) allow: Vec<RuleRef>,
    default_deny: bool,
    /// A match does not settle it: other rules may change headers, or ask for authentication.
    thorough: bool,
}

impl Rules {
    /// Only rules for the port, where it is known.
    pub(super) fn compile<'a>(
        policies: impl Iterator<Item = &'a Arc<NetworkPolicy>>,
        port: Option<u16>,
    ) -> Self {
        let mut rules = Self::default();
        for policy in policies {
            rules.policies.push(policy.clone());
            rules.default_deny |= policy.default_deny;
            for (at, rule) in policy.rules.iter().enumerate() {
                if port.is_some_and(|port| !has_port(rule.ports.as_deref(), port)) {
                    continue;
                }
                let reference = RuleRef {
                    policy: policy.clone(),
                    at,
                };
                match rule.action {
                    NetworkAction::Deny => rules.deny.push(reference),
                    _ => {
                        rules.thorough |= rule.authentication.is_some() || changes_headers(rule);
                        rules.allow.push(reference);
                    }
                }
            }
        }
        rules
    }

    pub(super) fn decide(
        &self,
        facts: &Facts<'_>,
        source: &Source<'_>,
        port: u16,
        verdict: impl Fn(NetworkWhy) -> NetworkVerdict,
    ) -> NetworkVerdict {
        for reference in &self.deny {
            let denies = reference.rule().is_none_or(|r| denies(r, source, port));
            if denies {
                return verdict(NetworkWhy::Denied).by(&reference.policy, Some(reference.at));
            }
        }
        let mut request = facts.http.as_ref().map(Request::new);
        let mut matched: Option<&RuleRef> = None;
        let mut authentication: Option<(AuthenticationMode, &RuleRef)> = None;
        let mut has_l7 = false;
        for reference in &self.allow {
            let Some(rule) = reference.rule() else {
                continue;
            };
            has_l7 |= may_be_on_l7(rule, source, port);
            let is_for = is_for(rule, source, port);
            if is_for == Truth::No {
                continue;
            }
            // The strictest of those that say something (specs/policies.md 2.1.6), those that may be
            // for this peer among them.
            if let Some(mode) = rule.authentication
                && authentication.is_none_or(|(strictest, _)| mode > strictest)
            {
                authentication = Some((mode, reference));
            }
            if is_for == Truth::Yes && matches_http(rule, request.as_mut()) && matched.is_none() {
                matched = Some(reference);
            }
            if matched.is_some() && !self.thorough {
                break;
            }
        }
        // `enableDefaultDeny: false` is not for L7 rules: where they are, what none of them allows is
        // denied all the same (specs/policies.md 2.1.4).
        if matched.is_none() && (self.default_deny || has_l7) {
            return verdict(NetworkWhy::NoRule);
        }
        // Asked of a peer, authentication is asked even if nothing else needs a rule.
        if let Some((mode, by)) = authentication
            && !is_satisfied(mode, source)
        {
            return verdict(NetworkWhy::Authentication).by(&by.policy, Some(by.at));
        }
        let Some(matched) = matched else {
            return verdict(NetworkWhy::NothingDenies);
        };
        let mut verdict = verdict(NetworkWhy::Allowed).by(&matched.policy, Some(matched.at));
        verdict.edits = request.map(Request::into_edits).unwrap_or_default();
        verdict
    }
}

fn changes_headers(rule: &NetworkRule) -> bool {
    match &rule.http {
        HttpRules::Cilium(rules) => rules.iter().any(|rule| !rule.header_matches.is_empty()),
        _ => false,
    }
}

/// Whether a deny rule denies: what is not known of the source may be what it denies.
pub(super) fn denies(rule: &NetworkRule, source: &Source<'_>, port: u16) -> bool {
    has_port(rule.ports.as_deref(), port)
        && (rule.broken.is_some() || source.is_among(&rule.from) != Truth::No)
}

/// Whether an allow rule is for this peer on this port, whatever it asks of the request.
pub(super) fn is_for(rule: &NetworkRule, source: &Source<'_>, port: u16) -> Truth {
    match rule.broken.is_none() && has_port(rule.ports.as_deref(), port) {
        true => source.is_among(&rule.from),
        false => Truth::No,
    }
}

/// Whether an allow rule that may be for this peer on this port has L7 rules, among them those that
/// can not be evaluated: an allow is broken by nothing but its L7 part.
fn may_be_on_l7(rule: &NetworkRule, source: &Source<'_>, port: u16) -> bool {
    (rule.broken.is_some() || rule.http != HttpRules::NotAsked)
        && has_port(rule.ports.as_deref(), port)
        && source.is_among(&rule.from) != Truth::No
}

/// Whether the request is one that the rule allows; what is not HTTP is none.
pub(super) fn matches_http(rule: &NetworkRule, request: Option<&mut Request<'_>>) -> bool {
    match (&rule.http, request) {
        (HttpRules::NotAsked, _) => true,
        (HttpRules::Cilium(rules), Some(request)) => request.matches(rules),
        (HttpRules::Cilium(_) | HttpRules::Calico(_), _) => false,
    }
}

fn is_satisfied(mode: AuthenticationMode, source: &Source<'_>) -> bool {
    match mode {
        AuthenticationMode::Disabled => true,
        AuthenticationMode::Required => source.authenticated,
        AuthenticationMode::TestAlwaysFail => false,
    }
}
