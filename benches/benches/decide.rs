//! Time of a verdict over 50 rules, by where in them it falls.

#![allow(clippy::unwrap_used)] // a panic is a benchmark that measures nothing

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cairn_authz::{Attestation, Facts, HttpFacts, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, Operation, PathPattern, PathTemplate, Policy, PolicyRule, Source, StringMatch, Values,
};
use divan::{Bencher, black_box};
use http::HeaderMap;

fn main() {
    divan::main();
}

const RULES: usize = 50;

fn values<T>(any_of: Vec<T>) -> Values<T> {
    Values {
        any_of,
        none_of: Vec::new(),
    }
}

/// Rule `n` lets `caller-n` GET and POST `/team-n/...`.
fn rule(n: usize, path: PathPattern) -> PolicyRule {
    let principal = format!("cluster.local/ns/bench/sa/caller-{n}");
    PolicyRule {
        from: vec![Source {
            principals: values(vec![StringMatch::Exact(principal.into())]),
            ..Source::default()
        }],
        to: vec![Operation {
            methods: values(vec![StringMatch::parse("GET"), StringMatch::parse("POST")]),
            paths: values(vec![path]),
            ..Operation::default()
        }],
        ..PolicyRule::default()
    }
}

fn policies(action: Action, path: impl Fn(usize) -> PathPattern) -> PolicySet {
    let policy = Policy {
        origin: Origin {
            kind: Kind::AuthorizationPolicy,
            key: ObjectKey::new("bench", "callers"),
        },
        action,
        dry_run: false,
        rules: (0..RULES).map(|n| rule(n, path(n))).collect(),
        broken: None,
    };
    PolicySet::compile(&[Arc::new(policy)])
}

fn prefix(n: usize) -> PathPattern {
    PathPattern::Text(StringMatch::parse(&format!("/team-{n}/*")))
}

fn template(n: usize) -> PathPattern {
    PathPattern::Template(PathTemplate::parse(&format!("/team-{n}/{{*}}/orders/{{**}}")).unwrap())
}

fn decide(bencher: Bencher<'_, '_>, set: &PolicySet, caller: usize, expect_allowed: bool) {
    let account = format!("caller-{caller}");
    let peer = Identity::of_workload("cluster.local", "bench", &account).unwrap();
    let path = format!("/team-{caller}/shop/orders/42");
    let headers = HeaderMap::new();
    let facts = Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        remote_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        destination_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
        destination_port: 80,
        backends: &[],
        http: Some(HttpFacts {
            method: "GET",
            host: "app.bench.svc.cluster.local",
            path: &path,
            query: None,
            headers: &headers,
            token: None,
        }),
    };
    assert_eq!(set.decide(&facts).allowed, expect_allowed);
    bencher.bench_local(|| set.decide(black_box(&facts)));
}

#[divan::bench(args = [0, 24, 49])]
fn allowed_by_rule(bencher: Bencher<'_, '_>, n: usize) {
    decide(bencher, &policies(Action::Allow, prefix), n, true);
}

#[divan::bench(args = [0, 24, 49])]
fn allowed_by_template_of_rule(bencher: Bencher<'_, '_>, n: usize) {
    decide(bencher, &policies(Action::Allow, template), n, true);
}

#[divan::bench]
fn denied_by_default(bencher: Bencher<'_, '_>) {
    decide(bencher, &policies(Action::Allow, prefix), RULES, false);
}

#[divan::bench]
fn past_all_deny_rules(bencher: Bencher<'_, '_>) {
    decide(bencher, &policies(Action::Deny, prefix), RULES, true);
}

#[divan::bench]
fn no_policy(bencher: Bencher<'_, '_>) {
    decide(bencher, &PolicySet::compile(&[]), 0, true);
}
