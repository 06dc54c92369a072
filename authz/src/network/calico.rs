//! Calico's order (specs/policies.md 2.5): tier by tier, policy by policy, rule by rule, the first
//! rule that matches decides.

use std::sync::Arc;

use cairn_config_schema::snapshot::{
    CalicoHttp, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, NetworkTier, Surface, Truth,
    calico_path,
};

use super::has_port;
use super::source::Source;
use super::verdict::{NetworkVerdict, NetworkWhy};
use crate::facts::{Facts, HttpFacts};

/// The policies of one tier that select a workload, in order.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    tier: Arc<NetworkTier>,
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
}

/// The tiers of policies that come in their order.
pub(super) fn tiers<'a>(policies: impl Iterator<Item = &'a Arc<NetworkPolicy>>) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for policy in policies {
        let Surface::Calico(tier) = &policy.surface else {
            continue;
        };
        match tiers.last_mut().filter(|last| last.tier.name == tier.name) {
            Some(last) => last.policies.push(policy.clone()),
            None => tiers.push(Tier {
                tier: tier.clone(),
                policies: vec![policy.clone()],
            }),
        }
    }
    tiers
}

/// What a tier comes to.
enum Outcome<'a> {
    Allow(&'a Arc<NetworkPolicy>, usize),
    Deny(&'a Arc<NetworkPolicy>, usize),
    /// On to the next tier.
    Pass,
    /// No rule matched, and the tier denies then.
    NoRule,
}

/// Decides by all tiers. What none of them decides is allowed, as the profiles of namespaces do.
pub(super) fn decide(
    tiers: &[Tier],
    facts: &Facts<'_>,
    source: &Source<'_>,
    port: u16,
    verdict: impl Fn(NetworkWhy) -> NetworkVerdict,
) -> NetworkVerdict {
    for tier in tiers {
        match tier.decide(facts, source, port) {
            Outcome::Allow(policy, at) => {
                return verdict(NetworkWhy::Allowed).by(policy, Some(at));
            }
            Outcome::Deny(policy, at) => return verdict(NetworkWhy::Denied).by(policy, Some(at)),
            Outcome::NoRule => return verdict(NetworkWhy::NoRule),
            Outcome::Pass => {}
        }
    }
    verdict(NetworkWhy::NothingDenies)
}

impl Tier {
    fn decide(&self, facts: &Facts<'_>, source: &Source<'_>, port: u16) -> Outcome<'_> {
        for policy in &self.policies {
            for (at, rule) in policy.rules.iter().enumerate() {
                match (rule.action, matches(rule, facts, source, port)) {
                    (NetworkAction::Allow, Truth::Yes) => return Outcome::Allow(policy, at),
                    (NetworkAction::Pass, Truth::Yes) => return Outcome::Pass,
                    // To pass what should not, or not to pass what should: either may allow.
                    (NetworkAction::Deny | NetworkAction::Pass, Truth::Yes | Truth::Unknown) => {
                        return Outcome::Deny(policy, at);
                    }
                    (NetworkAction::Log | NetworkAction::Allow, _) | (_, Truth::No) => {}
                }
            }
        }
        match self.tier.passes_by_default {
            true => Outcome::Pass,
            false => Outcome::NoRule,
        }
    }
}

/// Whether a rule matches, as far as it is known.
pub(super) fn matches(
    rule: &NetworkRule,
    facts: &Facts<'_>,
    source: &Source<'_>,
    port: u16,
) -> Truth {
    if !has_port(rule.ports.as_deref(), port) {
        return Truth::No;
    }
    let of_rule = match &rule.broken {
        Some(_) => Truth::Unknown,
        None => source.is_among(&rule.from),
    };
    of_rule.and(match &rule.http {
        HttpRules::NotAsked => Truth::Yes,
        HttpRules::Calico(http) => match &facts.http {
            Some(request) => matches_http(http, request),
            // What is not HTTP can not be judged by its method and path.
            None => Truth::Unknown,
        },
        HttpRules::Cilium(_) => Truth::Unknown,
    })
}

fn matches_http(http: &CalicoHttp, request: &HttpFacts<'_>) -> Truth {
    Truth::from(has_method(http, request)).and(has_path(http, request))
}

pub(super) fn has_method(http: &CalicoHttp, request: &HttpFacts<'_>) -> bool {
    let is = |method: &Arc<str>| **method == *"*" || **method == *request.method;
    http.methods.is_empty() || http.methods.iter().any(is)
}

pub(super) fn has_path(http: &CalicoHttp, request: &HttpFacts<'_>) -> Truth {
    if http.paths.is_empty() {
        return Truth::Yes;
    }
    match calico_path(request.path) {
        Some(path) => http.paths.iter().any(|p| p.matches(&path)).into(),
        None => Truth::Unknown,
    }
}
