//! AuthorizationPolicies whose rules differ by one thing alone: a header, a claim, a block of addresses
//! or a namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cairn_authz::{Attestation, Facts, HttpFacts, PolicySet, Token};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{Action, Condition, Policy, PolicyRule, StringMatch, Values};
use http::{HeaderMap, HeaderName};

use super::RULES;

/// What rules differ by.
#[derive(Clone, Copy)]
pub enum Shape {
    Header,
    Claim,
    Block,
    Namespace,
}

/// Of no rule.
pub const NOBODY: usize = 60_000;

const HEADER: HeaderName = HeaderName::from_static("x-team");

/// Ten rules each, every one for what no other is for.
pub fn allowing(shape: Shape, policies: usize) -> PolicySet {
    let policy = |p: usize| {
        let rules = (0..RULES).map(|r| PolicyRule {
            when: vec![condition(shape, p * RULES + r)],
            ..PolicyRule::default()
        });
        Arc::new(Policy {
            origin: Origin {
                kind: Kind::AuthorizationPolicy,
                key: ObjectKey::new("bench", format!("policy-{p:04}")),
            },
            action: Action::Allow,
            dry_run: false,
            provider: None,
            rules: rules.collect(),
            broken: None,
        })
    };
    let policies: Vec<Arc<Policy>> = (0..policies).map(policy).collect();
    PolicySet::compile(&policies)
}

fn condition(shape: Shape, n: usize) -> Condition {
    let values = Values {
        any_of: vec![StringMatch::Exact(name(n).into())],
        none_of: Vec::new(),
    };
    match shape {
        Shape::Header => Condition::RequestHeader {
            name: HEADER,
            values,
        },
        Shape::Claim => Condition::Claim {
            path: Arc::from(["team".into()]),
            values,
        },
        Shape::Block => Condition::SourceIp(Values {
            any_of: vec![format!("{}/24", address(n)).parse().unwrap()],
            none_of: Vec::new(),
        }),
        Shape::Namespace => Condition::SourceNamespace(values),
    }
}

fn name(n: usize) -> String {
    format!("team-{n}")
}

fn address(n: usize) -> IpAddr {
    let [_, _, high, low] = (n as u32).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, low, 7))
}

/// Runs a closure on the facts of what rule `n` is for, whatever rules differ by.
pub fn with<T>(n: usize, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let peer = Identity::of_workload("cluster.local", &name(n), "web").unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("accept", "*/*"),
        ("user-agent", "bench"),
        ("x-request-id", "8b1f2c9e-3f1c-4b52-9a55-0f9d8f1d2a11"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    headers.insert(HEADER, name(n).parse().unwrap());
    let mut token = Token {
        issuer: "https://issuer.bench".to_owned(),
        subject: Some("somebody".to_owned()),
        ..Token::default()
    };
    token.claims.insert("team".to_owned(), name(n).into());
    f(&Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: address(n),
        remote_ip: address(n),
        destination_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
        destination_port: 80,
        backends: &[],
        http: Some(HttpFacts {
            method: "GET",
            host: "app.bench",
            path: "/orders/42",
            query: None,
            headers: &headers,
            token: Some(&token),
        }),
    })
}
