//! Hosts of which DNS says the address only when a request is sent (specs/policies.md 2.4): what is
//! allowed then is allowed wherever DNS may lead.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::{Attestation, Egress, Facts, Network, PolicySet};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    ClusterKey, Criteria, Destination, DestinationAddress, DestinationPlace, Direction, Entity,
    Family, HttpRules, NetworkAction, NetworkPolicies, NetworkPolicy, NetworkRule, NetworkSubject,
    NetworkTier, Peer, Peers, Surface,
};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate::{policy, worlds};

const BLOCKS: [&str; 8] = [
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "203.0.113.0/24",
    "2001:db8::/32",
];

/// Some of what DNS may say: both ends of both families, and what is in a block and beside it.
const ADDRESSES: [&str; 9] = [
    "0.0.0.0",
    "10.1.2.3",
    "11.0.0.1",
    "203.0.113.7",
    "255.255.255.255",
    "::",
    "2001:db8::1",
    "2001:db9::1",
    "ffff:ffff::1",
];

fn block() -> impl Strategy<Value = IpNet> {
    select(BLOCKS.to_vec()).prop_map(|block| block.parse().unwrap())
}

fn peer() -> impl Strategy<Value = Peer> {
    let cidr = (block(), vec(block(), 0..2)).prop_map(|(block, except)| Peer::Cidr {
        block,
        except: except.into_iter().filter(|e| block.contains(e)).collect(),
    });
    let entity = select(vec![
        Entity::World,
        Entity::WorldIpv4,
        Entity::WorldIpv6,
        Entity::Cluster,
    ]);
    prop_oneof![4 => cidr, 1 => entity.prop_map(Peer::Entity)]
}

fn criteria() -> impl Strategy<Value = Peers> {
    let version = proptest::option::weighted(0.2, select(vec![4, 6]));
    let nets = proptest::option::weighted(0.8, vec(block(), 1..3));
    (nets, vec(block(), 0..2), version).prop_map(|(nets, not_nets, ip_version)| {
        Peers::Criteria(Box::new(Criteria {
            nets,
            not_nets,
            ip_version,
            ..Criteria::default()
        }))
    })
}

fn rule(peers: Peers, denies: bool) -> NetworkRule {
    NetworkRule {
        index: 0,
        path: "spec".into(),
        action: match denies {
            true => NetworkAction::Deny,
            false => NetworkAction::Allow,
        },
        peers,
        ports: None,
        http: HttpRules::NotAsked,
        authentication: None,
        broken: None,
    }
}

/// A policy for egress, of Cilium or of Calico.
fn policies() -> impl Strategy<Value = NetworkPolicy> {
    let tier = Arc::new(NetworkTier {
        name: "default".into(),
        order: None,
        passes_by_default: false,
    });
    let of_cilium = vec(peer(), 1..4).prop_map(Peers::AnyOf).boxed();
    let of_calico = criteria().boxed();
    let rules = |peers: BoxedStrategy<Peers>| vec((peers, prop::bool::weighted(0.3)), 1..12);
    let of = |surface: Surface| {
        move |rules: Vec<(Peers, bool)>| NetworkPolicy {
            direction: Direction::Egress,
            ..policy(
                surface.clone(),
                true,
                rules
                    .into_iter()
                    .map(|(peers, no)| rule(peers, no))
                    .collect(),
            )
        }
    };
    prop_oneof![
        rules(of_cilium).prop_map(of(Surface::Cilium)),
        rules(of_calico).prop_map(of(Surface::Calico(tier))),
    ]
}

/// Whether the client of these policies may reach what is outside at these addresses, all of them.
fn allows(policy: &NetworkPolicy, addresses: &[DestinationAddress]) -> bool {
    let client = worlds().remove(0);
    let subject = Arc::new(NetworkSubject {
        workload: ObjectKey::new("shop", "client"),
        port: None,
        policies: vec![Arc::new(policy.clone())],
        unknown: None,
        unknown_in_trial: None,
    });
    let destinations = addresses.iter().map(|address| Destination {
        address: *address,
        port: Some(80),
        workload: None,
        place: DestinationPlace::Outside,
        host: None,
        services: Vec::new(),
    });
    let key = ClusterKey::new(ObjectKey::new("shop", "api.example.com"), 80);
    let network = NetworkPolicies {
        sources: Arc::new(FromIterator::from_iter([(
            client.address(),
            Arc::new(client.workload()),
        )])),
        egress: cairn_config_schema::snapshot::Egress {
            clients: FromIterator::from_iter([(client.address(), subject)]),
            destinations: BTreeMap::from([(key.clone(), destinations.collect())]),
            ..Default::default()
        },
        ..NetworkPolicies::default()
    };
    let egress = Egress::compile(&network);
    let set = PolicySet::compile(&[]).with_network(Network::of_port(&network, &egress, &key, []));
    let verdict = set.decide(&Facts {
        peer: Some(&client.identity()),
        attested_by: Attestation::Certificate,
        source_ip: client.address(),
        remote_ip: client.address(),
        destination_ip: IpAddr::from([240, 0, 0, 1]),
        destination_port: 80,
        backends: &[],
        http: None,
    });
    verdict.allowed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_allowed_is_allowed_wherever_dns_leads(policy in policies()) {
        let found = [Family::V4, Family::V6].map(DestinationAddress::Found);
        let at = |ip: &str| allows(&policy, &[DestinationAddress::At(ip.parse().unwrap())]);
        if allows(&policy, &found) {
            for ip in ADDRESSES {
                prop_assert!(at(ip), "{ip} {policy:?}");
            }
        }
    }
}

#[test]
fn whole_families_are_allowed_beside_each_other_and_not_alone() {
    let found = [Family::V4, Family::V6].map(DestinationAddress::Found);
    let of = |blocks: &[&str]| {
        let peers = blocks.iter().map(|block| Peer::Cidr {
            block: block.parse().unwrap(),
            except: Vec::new(),
        });
        let rules = vec![rule(Peers::AnyOf(peers.collect()), false)];
        let policy = policy(Surface::Cilium, true, rules);
        NetworkPolicy {
            direction: Direction::Egress,
            ..policy
        }
    };
    assert!(allows(&of(&["0.0.0.0/0", "::/0"]), &found));
    assert!(!allows(&of(&["0.0.0.0/0"]), &found));
    assert!(!allows(&of(&["::/0"]), &found));
    assert!(!allows(&of(&["0.0.0.0/1", "128.0.0.0/1", "::/0"]), &found));
}
