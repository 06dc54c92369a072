//! Calico's order (specs/policies.md 2.5): tier by tier, policy by policy, rule by rule, the first
//! rule that matches decides.

use std::borrow::Cow;
use std::sync::Arc;

use cairn_config_schema::snapshot::{
    CalicoHttp, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, NetworkTier, Surface, Truth,
    calico_path,
};

use super::Port;
use super::party::Party;
use super::rule_list::{About, RuleList, RuleRef, Seeking, rules_on};
use super::verdict::{NetworkVerdict, NetworkWhy};
use crate::facts::{Facts, HttpFacts};

/// The policies of one tier that select a workload, in order.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    tier: Arc<NetworkTier>,
    pub(super) policies: Vec<Arc<NetworkPolicy>>,
    rules: RuleList,
}

/// The tiers of policies that come in their order, with the rules for the port, where it is known.
pub(super) fn tiers<'a>(
    policies: impl Iterator<Item = &'a Arc<NetworkPolicy>>,
    port: Option<u16>,
) -> Vec<Tier> {
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
                rules: RuleList::default(),
            }),
        }
    }
    for tier in &mut tiers {
        tier.rules = RuleList::new(rules_on(&tier.policies, port), About::Requests);
    }
    tiers
}

/// What is asked, as Calico's rules see it.
pub(super) struct Asked<'a> {
    party: &'a Party<'a>,
    port: Port<'a>,
    http: Option<&'a HttpFacts<'a>>,
    /// In the form that is compared. `None`: there is none, or nobody knows what it is taken for.
    path: Option<Cow<'a, str>>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, party: &'a Party<'a>, port: Port<'a>) -> Self {
        let http = facts.http.as_ref();
        Self {
            party,
            port,
            http,
            path: http.and_then(|http| calico_path(http.path)),
        }
    }
}

/// What a rule comes to that takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
    /// On to the next tier.
    Pass,
}

/// Decides by all tiers. What none of them decides is allowed, as the profiles of namespaces do.
pub(super) fn decide(
    tiers: &[Tier],
    asked: &Asked<'_>,
    verdict: impl Fn(NetworkWhy) -> NetworkVerdict,
) -> NetworkVerdict {
    for tier in tiers {
        match tier.decide(asked) {
            Some((Effect::Allow, by)) => {
                return verdict(NetworkWhy::Allowed).by(&by.policy, Some(by.at));
            }
            Some((Effect::Deny, by)) => {
                return verdict(NetworkWhy::Denied).by(&by.policy, Some(by.at));
            }
            Some((Effect::Pass, _)) => {}
            None if tier.tier.passes_by_default => {}
            None => return verdict(NetworkWhy::NoRule),
        }
    }
    verdict(NetworkWhy::NothingDenies)
}

/// The tier by which nothing is allowed, because no rule of it takes effect and it does not pass by
/// default.
pub(super) fn undecided<'t>(tiers: &'t [Tier], asked: &Asked<'_>) -> Option<&'t Tier> {
    for tier in tiers {
        match tier.decide(asked) {
            Some((Effect::Pass, _)) => {}
            Some(_) => return None,
            None if tier.tier.passes_by_default => {}
            None => return Some(tier),
        }
    }
    None
}

impl Tier {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.tier.name
    }

    /// The first rule that takes effect. `None`: none of them does.
    fn decide(&self, asked: &Asked<'_>) -> Option<(Effect, &RuleRef)> {
        let path = asked.path.as_deref();
        let takes_effect = |rule: &NetworkRule| effect(rule, asked).is_some();
        let (party, seeking) = (asked.party, Seeking::Possible);
        let by = self.rules.first(party, path, seeking, takes_effect)?;
        Some((effect(by.rule()?, asked)?, by))
    }
}

fn effect(rule: &NetworkRule, asked: &Asked<'_>) -> Option<Effect> {
    match (rule.action, matches(rule, asked)) {
        (NetworkAction::Allow, Truth::Yes) => Some(Effect::Allow),
        (NetworkAction::Pass, Truth::Yes) => Some(Effect::Pass),
        // To pass what should not, or not to pass what should: either may allow.
        (NetworkAction::Deny | NetworkAction::Pass, Truth::Yes | Truth::Unknown) => {
            Some(Effect::Deny)
        }
        (NetworkAction::Log | NetworkAction::Allow, _) | (_, Truth::No) => None,
    }
}

/// Whether a rule matches, as far as it is known.
pub(super) fn matches(rule: &NetworkRule, asked: &Asked<'_>) -> Truth {
    if !asked.port.is_among(rule.ports.as_deref()) {
        return Truth::No;
    }
    let of_rule = match &rule.broken {
        Some(_) => Truth::Unknown,
        None => asked.party.is_among(&rule.peers),
    };
    of_rule.and(match &rule.http {
        HttpRules::NotAsked => Truth::Yes,
        HttpRules::Calico(http) => match asked.http {
            Some(request) => Truth::from(has_method(http, request)).and(has_path(http, asked)),
            // What is not HTTP can not be judged by its method and path.
            None => Truth::Unknown,
        },
        HttpRules::Cilium(_) => Truth::Unknown,
    })
}

pub(super) fn has_method(http: &CalicoHttp, request: &HttpFacts<'_>) -> bool {
    let is = |method: &Arc<str>| **method == *"*" || **method == *request.method;
    http.methods.is_empty() || http.methods.iter().any(is)
}

pub(super) fn has_path(http: &CalicoHttp, asked: &Asked<'_>) -> Truth {
    match &asked.path {
        _ if http.paths.is_empty() => Truth::Yes,
        Some(path) => http.paths.iter().any(|p| p.matches(path)).into(),
        None => Truth::Unknown,
    }
}
