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
    Backend, BackendTarget, ClusterKey, Destination, DestinationAddress, DestinationPlace,
    Direction, NetworkPolicies, NetworkPolicy, NetworkSubject,
};
use proptest::prelude::*;

use crate::generate::{PORTS, Request, World, calico_policies, cilium_policies, worlds};
use crate::oracle;
use crate::properties::{Mix, OF_CALICO, OF_CILIUM, Pairs, for_all};

const CLIENT: [u8; 4] = [10, 0, 3, 1];

fn client() -> World {
    worlds().remove(0)
}

/// The service port that leads to a world's workload, known or not, on a port.
fn key(world: u8, known: bool, port: u16) -> ClusterKey {
    let known = if known { "known" } else { "unknown" };
    ClusterKey::new(ObjectKey::new("shop", format!("{known}-{world}")), port)
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
        for (known, port) in PORTS.into_iter().flat_map(|p| [(true, p), (false, p)]) {
            let destination = Destination {
                address: DestinationAddress::At(world.address()),
                port: Some(port),
                workload: known.then(|| Arc::new(world.workload())),
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
    let peer: Identity = client().identity();
    let http = request.http.as_ref();
    let target = key(request.source.number, request.known, request.port);
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
