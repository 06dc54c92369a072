//! Calico's NetworkPolicies, in one tier.

use std::sync::Arc;

use cairn_authz::PolicySet;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    CalicoHttp, CalicoPath, Criteria, Direction, HttpRules, LabelExpression, NetworkAction,
    NetworkPolicy, NetworkTier, Peers, Standing, Surface,
};

use super::{By, RULES, network, rule};

/// Rule `n` is for GET and POST of one client to one path and those below it.
pub fn allowing(by: By, policies: usize) -> PolicySet {
    set(by, policies, NetworkAction::Allow, false)
}

/// Rules that deny one client each, in a tier that passes what they leave.
pub fn denying(policies: usize) -> PolicySet {
    set(By::Client, policies, NetworkAction::Deny, true)
}

fn set(by: By, policies: usize, action: NetworkAction, passes_by_default: bool) -> PolicySet {
    let tier = Arc::new(NetworkTier {
        name: "default".into(),
        order: Some(1_000_000.0),
        passes_by_default,
    });
    let policy = |p: usize| {
        let rules = (0..RULES).map(|r| {
            let (name, segment) = by.names(p * RULES + r);
            let http = CalicoHttp {
                methods: vec!["GET".into(), "POST".into()],
                paths: vec![CalicoPath::Prefix(format!("/{segment}").into())],
            };
            rule(r, action, client(&name), HttpRules::Calico(http))
        });
        NetworkPolicy {
            origin: Origin {
                kind: Kind::NetworkPolicy,
                key: ObjectKey::new("bench", format!("policy-{p:04}")),
            },
            direction: Direction::Ingress,
            surface: Surface::Calico(tier.clone()),
            standing: Standing::InForce,
            default_deny: true,
            rules: rules.collect(),
            broken: None,
        }
    };
    network((0..policies).map(policy).collect())
}

fn client(name: &str) -> Peers {
    let own = LabelExpression::equals("projectcalico.org/namespace", "bench");
    let selector = LabelExpression::All(vec![own, LabelExpression::equals("app", name)]);
    Peers::Criteria(Box::new(Criteria {
        selector: Some(selector),
        ..Criteria::default()
    }))
}
