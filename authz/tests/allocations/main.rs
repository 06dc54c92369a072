//! What a decision takes from the heap: nothing, unless something is tried, and then the same however
//! much is. An allocation for each policy would make a dry run cost what it is to find out.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use allocation_counter::measure;
use cairn_authz::{Attestation, Egress, Facts, HttpFacts, Network, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Action, CiliumHttpRule, ClusterKey, Direction, HttpRules, NetworkAction, NetworkPolicies,
    NetworkPolicy, NetworkRule, NetworkSubject, Operation, PathPattern, Pattern, Peers, Policy,
    PolicyRule, Standing, StringMatch, Surface, Values,
};
use http::HeaderMap;

const SOURCE: [u8; 4] = [10, 0, 2, 1];

fn origin(kind: Kind, number: usize) -> Origin {
    Origin {
        kind,
        key: ObjectKey::new("shop", format!("p-{number}")),
    }
}

/// A policy that is enforced or tried, of which the last of ten rules is for this path.
fn policy(number: usize, action: Action, dry_run: bool, path: &str) -> Arc<Policy> {
    let rule = |path: String| PolicyRule {
        to: vec![Operation {
            paths: Values {
                any_of: vec![PathPattern::Text(StringMatch::Exact(path.into()))],
                none_of: vec![],
            },
            ..Operation::default()
        }],
        ..PolicyRule::default()
    };
    let mut rules: Vec<PolicyRule> = (0..9).map(|n| rule(format!("/{number}/{n}"))).collect();
    rules.push(rule(path.to_owned()));
    Arc::new(Policy {
        origin: origin(Kind::AuthorizationPolicy, number),
        action,
        dry_run,
        rules,
        broken: None,
        provider: None,
    })
}

fn network_policy(number: usize, standing: Standing, path: &str) -> Arc<NetworkPolicy> {
    Arc::new(NetworkPolicy {
        origin: origin(Kind::CiliumNetworkPolicy, number),
        direction: Direction::Ingress,
        surface: Surface::Cilium,
        standing,
        default_deny: true,
        rules: vec![NetworkRule {
            index: 0,
            path: "spec.ingress[0]".into(),
            action: NetworkAction::Allow,
            peers: Peers::Anybody,
            ports: None,
            http: HttpRules::Cilium(vec![CiliumHttpRule {
                path: Some(Pattern::compile(path).unwrap()),
                ..CiliumHttpRule::default()
            }]),
            authentication: None,
            broken: None,
        }],
        broken: None,
    })
}

fn set(policies: &[Arc<Policy>], network: Vec<Arc<NetworkPolicy>>) -> PolicySet {
    let key = ClusterKey::new(ObjectKey::new("shop", "api"), 80);
    let subject = NetworkSubject {
        workload: ObjectKey::new("shop", "api-1"),
        port: Some(8080),
        policies: network,
        unknown: None,
        unknown_in_trial: None,
    };
    let policies = PolicySet::compile(policies);
    let network = NetworkPolicies {
        clusters: BTreeMap::from([(key.clone(), Arc::from([subject]))]),
        ..NetworkPolicies::default()
    };
    let egress = Egress::compile(&network);
    policies.with_network(Network::of_port(&network, &egress, &key, []))
}

/// Allocations of one decision about a request for a path, and whether it was allowed.
fn spent(set: &PolicySet, path: &str) -> (u64, bool) {
    let peer = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    let headers = HeaderMap::new();
    let facts = Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: IpAddr::from(SOURCE),
        remote_ip: IpAddr::from(SOURCE),
        destination_ip: "10.96.0.1".parse().unwrap(),
        destination_port: 80,
        backends: &[],
        http: Some(HttpFacts {
            method: "GET",
            host: "api.shop",
            path,
            query: None,
            headers: &headers,
            token: None,
        }),
    };
    // Expressions make room for their search when they are first used.
    let allowed = set.decide(&facts).allowed;
    let info = measure(|| drop(set.decide(&facts)));
    (info.count_total, allowed)
}

#[test]
fn what_is_enforced_takes_nothing() {
    let policies = [
        policy(0, Action::Deny, false, "/secret"),
        policy(1, Action::Allow, false, "/orders"),
    ];
    let network = vec![network_policy(2, Standing::InForce, "/orders|/secret")];
    let set = set(&policies, network);
    for (path, allowed) in [("/orders", true), ("/secret", false), ("/else", false)] {
        assert_eq!(spent(&set, path), (0, allowed), "{path}");
    }
}

/// The record of the trial, and the list of what each policy says.
#[test]
fn what_is_tried_takes_two_however_much_it_is() {
    for many in [1, 10, 100] {
        let mut policies = vec![policy(1_000, Action::Allow, false, "/orders")];
        for number in 0..many {
            let action = [Action::Deny, Action::Allow][number % 2];
            policies.push(policy(number, action, true, "/orders"));
        }
        let set = set(&policies, vec![]);
        for (path, allowed) in [("/orders", true), ("/else", false)] {
            assert_eq!(spent(&set, path), (2, allowed), "{many} {path}");
        }
    }
}

#[test]
fn network_policies_that_are_tried_take_two() {
    let network = vec![
        network_policy(0, Standing::InForce, "/orders|/else"),
        network_policy(1, Standing::Tried, "/orders"),
        network_policy(2, Standing::Tried, "/else"),
    ];
    let set = set(&[], network);
    for path in ["/orders", "/else"] {
        assert_eq!(spent(&set, path), (2, true), "{path}");
    }
}
