//! Egress: the policies of a client about what it calls (specs/policies.md 2.4). The same oracles as
//! at ingress with the ends changed: `Request::source` is the destination here. What is not known of
//! the destination never makes the engine allow more than all that it may be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::{Attestation, Egress, Facts, HttpFacts, Network, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, CiliumHttpRule, ClusterKey, Destination, DestinationAddress,
    DestinationPlace, Direction, HeaderExpectation, HttpRules, LabelExpression, Mismatch,
    NetworkAction, NetworkPolicies, NetworkPolicy, NetworkRule, NetworkSubject, Peer, Peers,
    Surface, Workload,
};
use proptest::prelude::*;

use crate::generate::{PORTS, Request, World, calico_policies, cilium_policies, policy, worlds};
use crate::oracle;
use crate::properties::{Mix, OF_CALICO, OF_CILIUM, Pairs, for_all};

const CLIENT: [u8; 4] = [10, 0, 3, 1];

fn client() -> World {
    worlds().remove(0)
}

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// Its Pod.
    Pod,
    /// Its namespace.
    Namespace,
    /// Its identity alone, for it is of another cluster.
    Identity,
}

impl Known {
    fn of(request: &Request) -> Self {
        match request.known {
            true => Self::Pod,
            false => Self::Namespace,
        }
    }

    fn workload(self, world: &World) -> Option<Arc<Workload>> {
        match self {
            Self::Pod => Some(Arc::new(world.workload())),
            Self::Namespace => None,
            Self::Identity => Some(Arc::new(Workload {
                // Without an address it would stand for what is behind a gateway.
                addresses: vec![world.address()],
                labels: None,
                namespace_labels: None,
                ..world.workload()
            })),
        }
    }
}

/// The service port that leads to a world's workload, of which so much is known, on a port.
fn key(world: u8, known: Known, port: u16) -> ClusterKey {
    ClusterKey::new(ObjectKey::new("shop", format!("{known:?}-{world}")), port)
}

/// The policies on the client, with a service for each destination.
fn set(policies: &[NetworkPolicy]) -> PolicySet {
    let egress = policies.iter().cloned().map(|policy| NetworkPolicy {
        direction: Direction::Egress,
        ..policy
    });
    let subject = Arc::new(NetworkSubject {
        workload: ObjectKey::new("shop", "client"),
        port: None,
        policies: egress.map(Arc::new).collect(),
        unknown: None,
        unknown_in_trial: None,
    });
    let mut destinations = BTreeMap::new();
    for world in worlds() {
        let all = [Known::Pod, Known::Namespace, Known::Identity];
        let all = all.into_iter().flat_map(|known| PORTS.map(|p| (known, p)));
        for (known, port) in all {
            let destination = Destination {
                address: DestinationAddress::At(world.address()),
                port: Some(port),
                workload: known.workload(&world),
                place: DestinationPlace::Inside(world.namespace.as_str().into()),
                host: None,
                services: Vec::new(),
            };
            destinations.insert(key(world.number, known, port), Arc::from([destination]));
        }
    }
    let keys: Vec<ClusterKey> = destinations.keys().cloned().collect();
    let address = IpAddr::from(CLIENT);
    let network = NetworkPolicies {
        sources: Arc::new(
            [(address, Arc::new(client().workload()))]
                .into_iter()
                .collect(),
        ),
        egress: cairn_config_schema::snapshot::Egress {
            clients: [(address, subject)].into_iter().collect(),
            destinations,
            ..Default::default()
        },
        ..NetworkPolicies::default()
    };
    let egress = Egress::compile(&network);
    let own = ClusterKey::new(ObjectKey::new("shop", "api"), 80);
    PolicySet::compile(&[]).with_network(Network::of_port(&network, &egress, &own, &keys))
}

fn with_facts<T>(request: &Request, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    with_facts_of(request, Known::of(request), f)
}

fn with_facts_of<T>(request: &Request, known: Known, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let peer: Identity = client().identity();
    let http = request.http.as_ref();
    let target = key(request.source.number, known, request.port);
    let backends = [Backend {
        weight: 1,
        target: BackendTarget::Cluster(target),
        filters: Vec::new(),
    }];
    f(&Facts {
        peer: Some(&peer),
        attested_by: Attestation::Certificate,
        source_ip: IpAddr::from(CLIENT),
        remote_ip: IpAddr::from(CLIENT),
        destination_ip: "10.96.0.1".parse().unwrap(),
        destination_port: 1,
        backends: &backends,
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

/// What a destination may be of which only the namespace is known. Its address is.
fn possible(request: &Request) -> Vec<World> {
    let same = |w: &World| w.namespace == request.source.namespace;
    let inside = worlds().into_iter().filter(same);
    let there = |w: World| World {
        number: request.source.number,
        ..w
    };
    inside.map(there).collect()
}

fn decide_all(
    (policies, requests): &Pairs,
    mix: &Mix,
    oracle: impl Fn(&Request, &World) -> bool,
) -> Result<(), TestCaseError> {
    let set = set(policies);
    for request in requests {
        // The oracle takes the address of what it judges from here.
        let at = Request {
            known: true,
            ..request.clone()
        };
        let (verdict, explained) =
            with_facts(request, |facts| (set.decide(facts), set.explain(facts)));
        if request.known {
            let expected = oracle(&at, &request.source);
            prop_assert_eq!(verdict.allowed, expected, "{:?} {:?}", request, verdict);
        } else if verdict.allowed {
            for world in possible(request) {
                prop_assert!(oracle(&at, &world), "{:?} {:?}", verdict, world);
            }
        }
        prop_assert_eq!(explained.allowed, verdict.allowed);
        prop_assert_eq!(explained.policy.as_ref(), verdict.origin());
        prop_assert_eq!(explained.rule, verdict.rule_index());
        mix.count(&verdict);
    }
    Ok(())
}

#[test]
fn egress_of_cilium_equals_the_oracle() {
    let mix = Mix::default();
    for_all(cilium_policies(4), |pairs| {
        let oracle = |request: &Request, world: &World| oracle::cilium(&pairs.0, request, world).0;
        decide_all(pairs, &mix, oracle)
    });
    mix.assert_has(&OF_CILIUM);
}

#[test]
fn egress_of_calico_equals_the_oracle() {
    let mix = Mix::default();
    for_all(calico_policies(4), |pairs| {
        let oracle = |request: &Request, world: &World| oracle::calico(&pairs.0, request, world);
        decide_all(pairs, &mix, oracle)
    });
    mix.assert_has(&OF_CALICO);
}

/// A workload that istiod alone tells of: what holds whatever its labels are, and whether or not it counts as one
/// of the cluster, is all that is allowed.
fn decide_elsewhere(
    (policies, requests): &Pairs,
    oracle: impl Fn(&Request, &World) -> bool,
) -> Result<usize, TestCaseError> {
    let set = set(policies);
    let mut allowed = 0;
    for request in requests {
        let verdict = with_facts_of(request, Known::Identity, |facts| set.decide(facts));
        if !verdict.allowed {
            continue;
        }
        allowed += 1;
        let at = Request {
            known: true,
            ..request.clone()
        };
        let same_account = |w: &World| w.account == request.source.account;
        for world in possible(request).into_iter().filter(same_account) {
            let outside = World {
                outside: true,
                ..world.clone()
            };
            prop_assert!(oracle(&at, &world), "{:?} {:?}", verdict, world);
            prop_assert!(oracle(&at, &outside), "{:?} {:?}", verdict, outside);
        }
    }
    Ok(allowed)
}

#[test]
fn a_destination_of_another_cluster_is_allowed_only_what_all_that_it_may_be_are() {
    let allowed = std::cell::Cell::new(0);
    for_all(cilium_policies(4), |pairs| {
        let oracle = |request: &Request, world: &World| oracle::cilium(&pairs.0, request, world).0;
        allowed.set(allowed.get() + decide_elsewhere(pairs, oracle)?);
        Ok(())
    });
    assert!(allowed.get() > 0, "not everything is in doubt");
}

/// A rule that may be for the destination takes a header out that another one asks for: what that one
/// sees of the request is not known, so nothing is certain to match. A find of the oracle above.
#[test]
fn what_a_rule_in_doubt_would_change_is_in_doubt() {
    let rule = |peers, headers, header_matches| NetworkRule {
        index: 0,
        path: "spec".into(),
        action: NetworkAction::Allow,
        peers,
        ports: None,
        http: HttpRules::Cilium(vec![CiliumHttpRule {
            method: None,
            path: None,
            host: None,
            headers,
            header_matches,
            never: None,
        }]),
        authentication: None,
        broken: None,
    };
    let name = http::HeaderName::from_static("x-a");
    let expected = |value: Option<&'static str>, mismatch| HeaderExpectation {
        name: name.clone(),
        value: value.map(http::HeaderValue::from_static),
        mismatch,
    };
    let labelled = LabelExpression::In("tier".into(), ["x".into()].into_iter().collect());
    let takes_out = rule(
        Peers::AnyOf(vec![Peer::Endpoints(labelled)]),
        Vec::new(),
        vec![
            expected(Some("2"), Mismatch::Delete),
            expected(None, Mismatch::Fail),
        ],
    );
    let asks = rule(Peers::Anybody, vec![(name.clone(), None)], Vec::new());
    let set = set(&[takes_out, asks].map(|rule| policy(Surface::Cilium, false, vec![rule])));
    let world = worlds()
        .into_iter()
        .find(|w| !w.outside && w.namespace == "shop");
    let mut request = Request {
        source: world.unwrap(),
        known: false,
        port: 80,
        http: Some(("GET".into(), "/".into(), None)),
        headers: [(name, http::HeaderValue::from_static("1"))]
            .into_iter()
            .collect(),
    };
    assert!(!with_facts(&request, |facts| set.decide(facts)).allowed);
    // One that is known not to be labelled so is not what the first rule is for.
    request.known = true;
    request.source.labels.remove("tier");
    assert!(with_facts(&request, |facts| set.decide(facts)).allowed);
}
