//! CiliumNetworkPolicies.

use cairn_authz::PolicySet;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    CiliumHttpRule, Direction, HttpRules, LabelExpression, NetworkAction, NetworkPolicy, Pattern,
    Peer, Peers, Standing, Surface,
};

use super::{By, COMMON, RULES, network, rule};

/// Rule `n` is for GET and POST of one client to what is below one path.
pub fn allowing(by: By, policies: usize) -> PolicySet {
    network((0..policies).map(|p| policy(by, p)).collect())
}

/// Rules that deny one client each; what they leave is allowed, for nothing is denied by default.
pub fn denying(policies: usize) -> PolicySet {
    let denying = |p: usize| NetworkPolicy {
        rules: (0..RULES)
            .map(|r| {
                let from = client(&By::Client.names(p * RULES + r).0);
                rule(r, NetworkAction::Deny, from, HttpRules::NotAsked)
            })
            .collect(),
        default_deny: false,
        ..policy(By::Client, p)
    };
    network((0..policies).map(denying).collect())
}

fn policy(by: By, p: usize) -> NetworkPolicy {
    let rules = (0..RULES).map(|r| {
        let (name, segment) = by.names(p * RULES + r);
        let http = CiliumHttpRule {
            method: Some(Pattern::compile("GET|POST").unwrap()),
            path: Some(Pattern::compile(&format!("/{segment}/.*")).unwrap()),
            ..CiliumHttpRule::default()
        };
        rule(
            r,
            NetworkAction::Allow,
            client(&name),
            HttpRules::Cilium(vec![http]),
        )
    });
    NetworkPolicy {
        origin: Origin {
            kind: Kind::CiliumNetworkPolicy,
            key: ObjectKey::new("bench", format!("{COMMON}-{p:04}")),
        },
        direction: Direction::Ingress,
        surface: Surface::Cilium,
        standing: Standing::InForce,
        default_deny: true,
        rules: rules.collect(),
        broken: None,
    }
}

fn client(name: &str) -> Peers {
    let labels = vec![
        LabelExpression::equals("io.kubernetes.pod.namespace", "bench"),
        LabelExpression::All(vec![LabelExpression::equals("app", name)]),
    ];
    Peers::AnyOf(vec![Peer::Endpoints(LabelExpression::All(labels))])
}
