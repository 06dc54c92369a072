//! The engine equals the oracles where the source is known; where it is not, the engine allows only
//! what is allowed whoever the source may be. Explanations equal decisions. Each property holds for
//! 100,000 pairs of policies and a request: a thousand sets of policies, a hundred requests to each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_authz::{Attestation, Egress, Facts, HeaderEdit, HttpFacts, Network, PolicySet, Verdict};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{ClusterKey, NetworkPolicies, NetworkPolicy, NetworkSubject};
use http::HeaderMap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::generate::{PORTS, Request, World, calico_policies, cilium_policies, request, worlds};
use crate::oracle;

const SETS: u32 = 1_000;
const REQUESTS_PER_SET: usize = 100;

/// Policies on a workload. `None`: of which the port is known at the request only.
pub fn set(policies: &[NetworkPolicy], port: Option<u16>) -> PolicySet {
    let key = ClusterKey::new(ObjectKey::new("shop", "api"), 80);
    let subject = NetworkSubject {
        workload: ObjectKey::new("shop", "api-1"),
        port,
        policies: policies.iter().cloned().map(Arc::new).collect(),
        unknown: None,
        unknown_in_trial: None,
    };
    let sources = worlds().into_iter();
    let sources = sources.map(|world| (world.address(), Arc::new(world.workload())));
    let network = NetworkPolicies {
        clusters: BTreeMap::from([(key.clone(), Arc::from([subject]))]),
        sources: Arc::new(sources.collect()),
        ..NetworkPolicies::default()
    };
    PolicySet::compile(&[]).with_network(Network::of_port(
        &network,
        &Egress::compile(&network),
        &key,
        [],
    ))
}

/// Runs a closure on the facts of a request.
pub fn with_facts<T>(request: &Request, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let peer = request.source.identity();
    let http = request.http.as_ref();
    f(&Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: request.address(),
        remote_ip: request.address(),
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

/// How often each outcome was seen, by the reason for it.
#[derive(Default)]
pub struct Mix(RefCell<BTreeMap<String, usize>>);

impl Mix {
    pub fn count(&self, verdict: &Verdict) {
        let why = verdict.network.as_ref().map(|network| &network.why);
        let mut seen = self.0.borrow_mut();
        *seen.entry(format!("{why:?}")).or_default() += 1;
    }

    /// A test that hardly ever denies, or hardly ever for one reason, says little: of two hundred
    /// pairs at least one must be of each.
    pub fn assert_has(&self, whys: &[&str]) {
        let seen = self.0.borrow();
        let all: usize = seen.values().sum();
        assert!(all >= SETS as usize * REQUESTS_PER_SET, "{all}");
        for why in whys {
            let of = seen.get(*why).copied().unwrap_or_default();
            assert!(of * 200 > all, "{why} is {of} of {all}: {seen:?}");
        }
    }
}

pub type Pairs = (Vec<NetworkPolicy>, Vec<Request>);

/// Holds a property for every pair.
pub fn for_all(
    policies: impl Strategy<Value = Vec<NetworkPolicy>>,
    property: impl Fn(&Pairs) -> Result<(), TestCaseError>,
) {
    let config = ProptestConfig {
        cases: SETS,
        ..ProptestConfig::default()
    };
    let pairs = (policies, vec(request(), REQUESTS_PER_SET));
    let outcome = TestRunner::new(config).run(&pairs, |pairs| property(&pairs));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The verdict on each request, held against the oracle.
fn decide_all(
    (policies, requests): &Pairs,
    oracle: impl Fn(&Request, &World) -> bool,
    mut then: impl FnMut(&Request, &Verdict) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let by_port = PORTS.map(|port| (port, set(policies, Some(port))));
    let late = set(policies, None);
    for request in requests {
        let (_, set) = by_port.iter().find(|(p, _)| *p == request.port).unwrap();
        let verdict = with_facts(request, |facts| set.decide(facts));
        if request.known {
            let expected = oracle(request, &request.source);
            prop_assert_eq!(verdict.allowed, expected, "{:?} {:?}", request, verdict);
        } else if verdict.allowed {
            for world in possible(request) {
                prop_assert!(oracle(request, &world), "{:?} {:?}", verdict, world);
            }
        }
        // Where the port is known only at the request it makes no difference.
        let late = with_facts(request, |facts| late.decide(facts));
        prop_assert_eq!(&late, &verdict);
        then(request, &verdict)?;
    }
    Ok(())
}

/// Explanations, held against decisions.
fn explain_all((policies, requests): &Pairs, mix: &Mix) -> Result<(), TestCaseError> {
    let by_port = PORTS.map(|port| (port, set(policies, Some(port))));
    for request in requests {
        let (_, set) = by_port.iter().find(|(p, _)| *p == request.port).unwrap();
        let (verdict, explained, reason) = with_facts(request, |facts| {
            let verdict = set.decide(facts);
            let reason = verdict.reason(set, facts);
            (verdict, set.explain(facts), reason)
        });
        prop_assert_eq!(explained.allowed, verdict.allowed);
        prop_assert_eq!(explained.policy.as_ref(), verdict.origin());
        prop_assert_eq!(explained.rule, verdict.rule_index());
        prop_assert!(!explained.reason.is_empty());
        prop_assert_eq!(explained.reason, reason);
        mix.count(&verdict);
    }
    Ok(())
}

pub const OF_CILIUM: [&str; 5] = [
    "Some(Allowed)",
    "Some(Denied)",
    "Some(NothingDenies)",
    "Some(NoRule)",
    "Some(Authentication)",
];
pub const OF_CALICO: [&str; 4] = [
    "Some(Allowed)",
    "Some(Denied)",
    "Some(NothingDenies)",
    "Some(NoRule)",
];

#[test]
fn cilium_equals_the_oracle() {
    let mix = Mix::default();
    let policies = prop_oneof![cilium_policies(3).boxed(), cilium_policies(12).boxed()];
    for_all(policies, |pairs| {
        let oracle = |request: &Request, world: &World| oracle::cilium(&pairs.0, request, world);
        decide_all(
            pairs,
            |r, w| oracle(r, w).0,
            |request, verdict| {
                mix.count(verdict);
                if !(verdict.allowed && request.known && request.http.is_some()) {
                    return Ok(());
                }
                let network = verdict.network.as_ref().unwrap();
                let edits: Vec<_> = network.edits_for(None).cloned().collect();
                let mut expected = oracle(request, &request.source).1;
                expected.sort_by(|a, b| a.0.cmp(&b.0));
                if network.policy.is_some() {
                    prop_assert_eq!(edited(request.headers.clone(), &edits), expected);
                }
                Ok(())
            },
        )
    });
    mix.assert_has(&OF_CILIUM);
}

#[test]
fn calico_equals_the_oracle() {
    let mix = Mix::default();
    let policies = prop_oneof![calico_policies(2).boxed(), calico_policies(8).boxed()];
    for_all(policies, |pairs| {
        let oracle = |request: &Request, world: &World| oracle::calico(&pairs.0, request, world);
        decide_all(pairs, oracle, |_, verdict| {
            mix.count(verdict);
            Ok(())
        })
    });
    mix.assert_has(&OF_CALICO);
}

#[test]
fn explanations_of_cilium_equal_decisions() {
    let mix = Mix::default();
    for_all(cilium_policies(4), |pairs| explain_all(pairs, &mix));
    mix.assert_has(&OF_CILIUM);
}

#[test]
fn explanations_of_calico_equal_decisions() {
    let mix = Mix::default();
    for_all(calico_policies(2), |pairs| explain_all(pairs, &mix));
    mix.assert_has(&OF_CALICO);
}
