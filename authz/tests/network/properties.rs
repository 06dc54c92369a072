//! The engine equals the oracles where the source is known; where it is not, the engine allows only
//! what is allowed whoever the source may be. Explanations equal decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_authz::{Attestation, Facts, HeaderEdit, HttpFacts, Network, PolicySet};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{ClusterKey, NetworkPolicies, NetworkPolicy, NetworkSubject};
use http::HeaderMap;
use proptest::prelude::*;

use crate::generate::{Request, World, address, calico_policies, cilium_policies, request, worlds};
use crate::oracle;

pub fn set(policies: &[NetworkPolicy], request: &Request, port_known: bool) -> PolicySet {
    let key = ClusterKey {
        service: ObjectKey::new("shop", "api"),
        port: request.port,
    };
    let subject = NetworkSubject {
        workload: ObjectKey::new("shop", "api-1"),
        port: port_known.then_some(request.port),
        policies: policies.iter().cloned().map(Arc::new).collect(),
        unknown: None,
        unknown_in_trial: None,
    };
    let sources = request
        .known
        .then(|| (address(), Arc::new(request.workload())));
    let network = NetworkPolicies {
        clusters: BTreeMap::from([(key.clone(), Arc::from([subject]))]),
        sources: Arc::new(sources.into_iter().collect()),
        ..NetworkPolicies::default()
    };
    PolicySet::compile(&[]).with_network(Network::of_port(&network, &key, []))
}

/// Runs a closure on the facts of a request.
pub fn with_facts<T>(request: &Request, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let peer = request.identity();
    let http = request.http.as_ref();
    f(&Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: address(),
        remote_ip: address(),
        destination_ip: "10.96.0.1".parse().unwrap(),
        destination_port: request.port,
        backends: &[],
        http: http.map(|(method, path, query)| HttpFacts {
            method,
            host: "api.shop",
            path,
            query: query.as_deref(),
            headers: &request.headers,
            token: None,
        }),
    })
}

fn edited(mut headers: HeaderMap, edits: &[HeaderEdit]) -> Vec<(String, String)> {
    for edit in edits {
        match edit {
            HeaderEdit::Append(name, value) => {
                headers.append(name, value.clone());
            }
            HeaderEdit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            HeaderEdit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
        .collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

/// The sources that a waypoint can not tell from this one, when it knows no Pod of its address.
fn possible(request: &Request) -> Vec<World> {
    let same =
        |w: &World| w.namespace == request.source.namespace && w.account == request.source.account;
    let inside = worlds().into_iter().filter(|w| same(w));
    let outside = |w: World| World { outside: true, ..w };
    inside.flat_map(|w| [w.clone(), outside(w)]).collect()
}

fn check(
    policies: &[NetworkPolicy],
    request: &Request,
    oracle: impl Fn(&World) -> bool,
) -> Result<bool, TestCaseError> {
    let set = set(policies, request, true);
    let verdict = with_facts(request, |facts| set.decide(facts));
    if request.known {
        prop_assert_eq!(verdict.allowed, oracle(&request.source), "{:?}", verdict);
    } else if verdict.allowed {
        for world in possible(request) {
            prop_assert!(oracle(&world), "{:?} {:?}", verdict, world);
        }
    }
    // Where the port is known only at the request it makes no difference.
    let late = self::set(policies, request, false);
    let late = with_facts(request, |facts| late.decide(facts));
    prop_assert_eq!(late.allowed, verdict.allowed);
    let explained = with_facts(request, |facts| set.explain(facts));
    prop_assert_eq!(explained.allowed, verdict.allowed);
    prop_assert_eq!(explained.policy.as_ref(), verdict.origin());
    prop_assert_eq!(explained.rule, verdict.rule_index());
    prop_assert!(!explained.reason.is_empty());
    let reason = with_facts(request, |facts| verdict.reason(&set, facts));
    prop_assert_eq!(explained.reason, reason);
    Ok(verdict.allowed)
}

/// `PROPTEST_CASES=100000` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(4096),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn cilium_equals_the_oracle(policies in cilium_policies(), request in request()) {
        let oracle = |world: &World| oracle::cilium(&policies, &request, world);
        let allowed = check(&policies, &request, |world| oracle(world).0)?;
        if allowed && request.known && request.http.is_some() {
            let set = set(&policies, &request, true);
            let verdict = with_facts(&request, |facts| set.decide(facts));
            let network = verdict.network.unwrap();
            let by_rule = network.policy.is_some();
            let edits: Vec<_> = network.edits_for(None).cloned().collect();
            let edits = edited(request.headers.clone(), &edits);
            let mut expected = oracle(&request.source).1;
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            if by_rule {
                prop_assert_eq!(edits, expected);
            }
        }
    }

    #[test]
    fn calico_equals_the_oracle(policies in calico_policies(), request in request()) {
        check(&policies, &request, |world| oracle::calico(&policies, &request, world))?;
    }
}
