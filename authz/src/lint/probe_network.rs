//! Probes of pods that network policies of Cilium or Calico deny to anybody: rules on HTTP that leave the
//! probe's path out. Whom they are for is not looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_config_schema::diagnostics::{Diagnostic, Severity};
use cairn_config_schema::snapshot::{
    CiliumHttpRule, ClusterKey, HttpRules, NetworkAction, NetworkPolicies, NetworkPolicy,
    NetworkRule, NetworkSubject, Peers, World,
};
use http::HeaderMap;

use super::probe::Asked;
use crate::network::{Egress, Network};
use crate::policy::PolicySet;

/// The policies of the pods behind a port as they would be for the client that they like best, whether
/// it is left to the next tier or not.
pub(super) struct Relaxed {
    /// How many rules they have.
    pub(super) rules: usize,
    sets: Vec<PolicySet>,
}

impl Relaxed {
    pub(super) fn of(key: &ClusterKey, subjects: &[NetworkSubject]) -> Self {
        // What can not be read, or selects nobody knows what, was told as an error.
        let is_told = |s: &NetworkSubject| {
            s.unknown.is_some() || s.policies.iter().any(|policy| policy.broken.is_some())
        };
        let subjects: Vec<_> = subjects.iter().filter(|s| !is_told(s)).collect();
        let of_each = |s: &&NetworkSubject| s.policies.iter().map(|p| p.rules.len()).sum::<usize>();
        let sets = [true, false].map(|passes| {
            let relaxed = subjects.iter().map(|subject| NetworkSubject {
                policies: (subject.policies.iter())
                    .filter(|policy| policy.standing.is_in(World::InForce))
                    .map(|policy| Arc::new(whoever_asks(policy, passes)))
                    .collect(),
                ..NetworkSubject::clone(subject)
            });
            let network = NetworkPolicies {
                clusters: BTreeMap::from([(key.clone(), relaxed.collect())]),
                ..NetworkPolicies::default()
            };
            let network = Network::of_port(&network, &Egress::default(), key, []);
            PolicySet::compile(&[]).with_network(network)
        });
        Self {
            rules: subjects.iter().map(of_each).sum(),
            sets: sets.into(),
        }
    }

    pub(super) fn judge(&self, asked: &Asked<'_>) -> Option<Diagnostic> {
        let headers = HeaderMap::new();
        let facts = asked.facts(&headers);
        let mut reason = None;
        for set in &self.sets {
            let verdict = set.decide(&facts);
            if verdict.allowed {
                return None;
            }
            reason.get_or_insert_with(|| verdict.reason(set, &facts));
        }
        let hint = format!("method GET, path {}", asked.path());
        Some(asked.denied(Severity::Warning, "anybody", &reason?, &hint))
    }
}

/// The policy with nothing asked of the client: an allow is for everybody, and a deny of some clients is
/// for nobody.
fn whoever_asks(policy: &NetworkPolicy, passes: bool) -> NetworkPolicy {
    let rules = policy.rules.iter().filter(|rule| match rule.action {
        NetworkAction::Allow | NetworkAction::Log => true,
        NetworkAction::Pass => passes,
        NetworkAction::Deny => rule.peers == Peers::Anybody,
    });
    let rules = rules.map(|rule| NetworkRule {
        peers: Peers::Anybody,
        authentication: None,
        http: whatever_it_says(&rule.http),
        ..rule.clone()
    });
    NetworkPolicy {
        rules: rules.collect(),
        ..policy.clone()
    }
}

/// The requests of a rule whatever host and headers they have, which are the client's choice, too.
fn whatever_it_says(http: &HttpRules) -> HttpRules {
    let HttpRules::Cilium(rules) = http else {
        return http.clone();
    };
    let rules = rules.iter().map(|rule| CiliumHttpRule {
        host: None,
        headers: Vec::new(),
        header_matches: Vec::new(),
        ..rule.clone()
    });
    HttpRules::Cilium(rules.collect())
}
