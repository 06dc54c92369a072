//! Cilium's rules of combination (specs/policies.md 2.1.3, 2.1.4): a deny anywhere, then an allow
//! anywhere, then the default.

use std::borrow::Cow;
use std::sync::Arc;

use cairn_config_schema::snapshot::{
    AuthenticationMode, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, Truth,
};

use super::Port;
use super::http::{self, Request};
use super::party::Party;
use super::rule_list::{About, RuleList, RuleRef, Seeking, rules_on};
use super::verdict::{NetworkVerdict, NetworkWhy};
use crate::facts::Facts;

/// The rules of all policies that select one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// All of them, for explanations.
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
    deny: RuleList,
    allow: RuleList,
    /// Those of `allow` that ask for authentication, whatever request it is.
    authenticating: RuleList,
    /// Those of `allow` on L7. Empty where nothing depends on them: what they do not allow is denied
    /// by default anyway.
    on_l7: RuleList,
    default_deny: bool,
    /// A match does not settle it: other rules may change headers.
    changes_headers: bool,
}

impl Rules {
    /// Only rules for the port, where it is known.
    pub(super) fn compile<'a>(
        policies: impl Iterator<Item = &'a Arc<NetworkPolicy>>,
        port: Option<u16>,
    ) -> Self {
        let policies: Vec<Arc<NetworkPolicy>> = policies.cloned().collect();
        let rules = rules_on(&policies, port);
        let default_deny = policies.iter().any(|policy| policy.default_deny);
        let list = |about, is_in: &dyn Fn(&NetworkRule) -> bool| {
            let rules = rules.iter().filter(|r| r.rule().is_some_and(is_in));
            RuleList::new(rules.cloned().collect(), about)
        };
        let allows = |rule: &NetworkRule| rule.action != NetworkAction::Deny;
        Self {
            deny: list(About::Peers, &|rule| !allows(rule)),
            allow: list(About::Requests, &allows),
            authenticating: list(About::Peers, &|rule| {
                allows(rule) && rule.authentication.is_some()
            }),
            on_l7: list(About::Peers, &|rule| {
                !default_deny && allows(rule) && is_on_l7(rule)
            }),
            default_deny,
            changes_headers: rules
                .iter()
                .filter_map(RuleRef::rule)
                .any(|rule| allows(rule) && changes_headers(rule)),
            policies,
        }
    }

    pub(super) fn decide(
        &self,
        facts: &Facts<'_>,
        party: &Party<'_>,
        port: Port<'_>,
        verdict: impl Fn(NetworkWhy) -> NetworkVerdict,
    ) -> NetworkVerdict {
        let maybe = Seeking::Possible;
        let denying = |rule: &NetworkRule| denies(rule, party, port);
        if let Some(by) = self.deny.first(party, None, maybe, denying) {
            return verdict(NetworkWhy::Denied).by(&by.policy, Some(by.at));
        }
        let target = facts.http.as_ref().map(http::target);
        let mut request = match (&facts.http, &target) {
            (Some(http), Some(target)) => Some(Request::of_target(http, Cow::Borrowed(target))),
            _ => None,
        };
        let matched = self.matching(party, port, target.as_deref(), request.as_mut());
        // `enableDefaultDeny: false` is not for L7 rules: where they are, what none of them allows is
        // denied all the same (specs/policies.md 2.1.4).
        let on_l7 = |rule: &NetworkRule| may_be_for(rule, party, port);
        if matched.is_none()
            && (self.default_deny || self.on_l7.first(party, None, maybe, on_l7).is_some())
        {
            return verdict(NetworkWhy::NoRule);
        }
        // Asked of a peer, authentication is asked even if nothing else needs a rule.
        if let Some((mode, by)) = self.authentication(party, port)
            && !is_satisfied(mode, party)
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

    /// The first rule that allows.
    fn matching(
        &self,
        party: &Party<'_>,
        port: Port<'_>,
        path: Option<&str>,
        mut request: Option<&mut Request<'_>>,
    ) -> Option<&RuleRef> {
        let is_http = request.is_some();
        let mut allows = |rule: &NetworkRule| {
            is_for(rule, party, port) == Truth::Yes && matches_http(rule, request.as_deref_mut())
        };
        if !self.changes_headers {
            return self.allow.first(party, path, Seeking::Certain, allows);
        }
        // All of them, for the sake of what they change. One that may be for this peer or not leaves in
        // doubt what the others see of the request: then none of them is certain to match.
        let mut matched = None;
        for reference in self.allow.all(party, path, Seeking::Possible) {
            let Some(rule) = reference.rule() else {
                continue;
            };
            if is_http && changes_headers(rule) && is_for(rule, party, port) == Truth::Unknown {
                return None;
            }
            if allows(rule) {
                matched.get_or_insert(reference);
            }
        }
        matched
    }

    /// The strictest mode that is asked of the peer, by rules that may be for it among others
    /// (specs/policies.md 2.1.6).
    fn authentication(
        &self,
        party: &Party<'_>,
        port: Port<'_>,
    ) -> Option<(AuthenticationMode, &RuleRef)> {
        if self.authenticating.is_empty() {
            return None;
        }
        let mut strictest: Option<(AuthenticationMode, &RuleRef)> = None;
        for reference in self.authenticating.all(party, None, Seeking::Possible) {
            let asks = |rule: &&NetworkRule| is_for(rule, party, port) != Truth::No;
            let mode = reference.rule().filter(asks).and_then(|r| r.authentication);
            if let Some(mode) = mode
                && strictest.is_none_or(|(other, _)| mode > other)
            {
                strictest = Some((mode, reference));
            }
        }
        strictest
    }
}

fn changes_headers(rule: &NetworkRule) -> bool {
    match &rule.http {
        HttpRules::Cilium(rules) => rules.iter().any(|rule| !rule.header_matches.is_empty()),
        _ => false,
    }
}

/// Whether a deny rule denies: what is not known of the source may be what it denies.
pub(super) fn denies(rule: &NetworkRule, party: &Party<'_>, port: Port<'_>) -> bool {
    port.is_among(rule.ports.as_deref())
        && (rule.broken.is_some() || party.is_among(&rule.peers) != Truth::No)
}

/// Whether an allow rule is for this peer on this port, whatever it asks of the request.
pub(super) fn is_for(rule: &NetworkRule, party: &Party<'_>, port: Port<'_>) -> Truth {
    match rule.broken.is_none() && port.is_among(rule.ports.as_deref()) {
        true => party.is_among(&rule.peers),
        false => Truth::No,
    }
}

/// Whether an allow rule has L7 rules, among them those that can not be evaluated: an allow is broken
/// by nothing but its L7 part.
fn is_on_l7(rule: &NetworkRule) -> bool {
    rule.broken.is_some() || rule.http != HttpRules::NotAsked
}

/// Whether a rule may be for this peer on this port, broken or not.
fn may_be_for(rule: &NetworkRule, party: &Party<'_>, port: Port<'_>) -> bool {
    port.is_among(rule.ports.as_deref()) && party.is_among(&rule.peers) != Truth::No
}

/// Whether the request is one that the rule allows; what is not HTTP is none.
pub(super) fn matches_http(rule: &NetworkRule, request: Option<&mut Request<'_>>) -> bool {
    match (&rule.http, request) {
        (HttpRules::NotAsked, _) => true,
        (HttpRules::Cilium(rules), Some(request)) => request.matches(rules),
        (HttpRules::Cilium(_) | HttpRules::Calico(_), _) => false,
    }
}

fn is_satisfied(mode: AuthenticationMode, party: &Party<'_>) -> bool {
    match mode {
        AuthenticationMode::Disabled => true,
        AuthenticationMode::Required => party.authenticated,
        AuthenticationMode::TestAlwaysFail => false,
    }
}
