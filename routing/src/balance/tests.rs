//! Spread, stickiness and who is passed over, by statistics and against naive oracles
//! (specs/policies.md 2.7).

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    Balancer, ClusterKey, ClusterSettings, ConsistentHash, Endpoint, HashBy, HashTable,
    LoadBalancing, Warmup,
};
use proptest::prelude::*;

use super::tiers::{self, Count, Place};
use super::*;
use crate::cluster::Cluster;

fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, last), 8080).into()
}

fn weighted(weights: &[u32]) -> Vec<Endpoint> {
    let endpoint = |(at, weight): (usize, &u32)| Endpoint {
        weight: *weight,
        ..Endpoint::new(address(at as u8), None)
    };
    weights.iter().enumerate().map(endpoint).collect()
}

fn settings(balancer: Balancer) -> ClusterSettings {
    ClusterSettings {
        balancing: LoadBalancing {
            balancer,
            ..LoadBalancing::default()
        },
        ..ClusterSettings::default()
    }
}

fn hashing(table: HashTable, load_bound_percent: Option<u32>) -> Balancer {
    Balancer::Hash(ConsistentHash {
        by: HashBy::SourceIp,
        table,
        load_bound_percent,
    })
}

fn ring() -> Balancer {
    hashing(HashTable::Ring { points_min: 1_024 }, None)
}

fn maglev() -> Balancer {
    hashing(HashTable::Maglev { size: 5_003 }, None)
}

fn cluster(endpoints: &[Endpoint], settings: ClusterSettings) -> Cluster {
    let key = ClusterKey::new(ObjectKey::new("shop", "web"), 80);
    Cluster::new(key, endpoints, Arc::new(settings), 0)
}

fn keyed(key: u64, tried: &[SocketAddr]) -> Choice<'_> {
    Choice {
        hash: Some(key_hash(&key.to_be_bytes())),
        ..Choice::new(mix(key), tried, 0)
    }
}

/// How often each endpoint is picked for so many different requests.
fn spread(cluster: &Cluster, requests: u64, now_ms: u64) -> HashMap<SocketAddr, f64> {
    let mut counts = HashMap::new();
    for n in 0..requests {
        let choice = Choice {
            now_ms,
            ..keyed(n, &[])
        };
        let picked = cluster.pick(&choice).unwrap().endpoint.address;
        *counts.entry(picked).or_insert(0.0) += 1.0;
    }
    counts
}

fn assert_shares(cluster: &Cluster, weights: &[u32], tolerance: f64, now_ms: u64) {
    let requests = 20_000;
    let counts = spread(cluster, requests, now_ms);
    let total: u32 = weights.iter().sum();
    for (at, weight) in weights.iter().enumerate() {
        let wanted = requests as f64 * f64::from(*weight) / f64::from(total);
        let got = counts.get(&address(at as u8)).copied().unwrap_or(0.0);
        assert!(
            (got - wanted).abs() <= wanted * tolerance,
            "endpoint {at} of weight {weight}: {got} of {wanted}"
        );
    }
}

#[test]
fn every_algorithm_gives_each_endpoint_its_weight() {
    let weights = [1, 2, 3, 10];
    for (balancer, tolerance) in [
        (Balancer::Random, 0.1),
        (Balancer::RoundRobin, 0.01),
        (ring(), 0.35),
        (maglev(), 0.1),
    ] {
        let cluster = cluster(&weighted(&weights), settings(balancer));
        assert_shares(&cluster, &weights, tolerance, 0);
    }
}

/// Places with shares of 80 and 20 (`distribute`, specs/istio-waypoint.md 4.7): with requests in flight, and
/// the less loaded of a place is picked all the same.
#[test]
fn shares_of_places_are_kept_under_load() {
    let weights = [40_000, 40_000, 20_000];
    for balancer in [
        Balancer::LeastRequest,
        Balancer::RoundRobin,
        Balancer::Random,
    ] {
        let cluster = cluster(&weighted(&weights), settings(balancer.clone()));
        let mut in_flight = std::collections::VecDeque::new();
        let mut counts = [0.0; 3];
        for n in 0..20_000 {
            let picked = cluster.pick(&keyed(n, &[])).unwrap();
            let at = (0..3)
                .position(|at| address(at) == picked.endpoint.address)
                .unwrap();
            counts[at] += 1.0;
            in_flight.push_back(picked.begin());
            if in_flight.len() > 60 {
                in_flight.pop_front();
            }
        }
        // Three standard deviations of 20,000 draws of 20 % are 170.
        let far = counts[0] + counts[1] - 16_000.0_f64;
        assert!(far.abs() < 170.0, "{balancer:?}: {counts:?}");
        assert!(
            (counts[0] - counts[1]).abs() < 400.0,
            "{balancer:?}: {counts:?}"
        );
    }
}

#[test]
fn round_robin_goes_through_all_before_it_comes_back() {
    let cluster = cluster(&weighted(&[1; 7]), settings(Balancer::RoundRobin));
    for _ in 0..5 {
        let picked: HashSet<_> = (0..7)
            .map(|n| cluster.pick(&keyed(n, &[])).unwrap().endpoint.address)
            .collect();
        assert_eq!(picked.len(), 7);
    }
}

#[test]
fn without_a_key_a_hashing_cluster_picks_at_random() {
    let cluster = cluster(&weighted(&[1; 4]), settings(ring()));
    let picked: HashSet<_> = (0..200u64)
        .map(|n| {
            let choice = Choice::new(mix(n), &[], 0);
            cluster.pick(&choice).unwrap().endpoint.address
        })
        .collect();
    assert_eq!(picked.len(), 4);
}

/// What a key is for: of ten endpoints one goes, and only its keys move.
#[test]
fn when_an_endpoint_goes_few_keys_of_the_others_move() {
    for (balancer, moved_max) in [(ring(), 0), (maglev(), 150)] {
        let all = weighted(&[1; 10]);
        let cluster = cluster(&all, settings(balancer.clone()));
        let place = |key| cluster.pick(&keyed(key, &[])).unwrap().endpoint.address;
        let before: Vec<_> = (0..5_000).map(place).collect();
        cluster.update(&all[1..], Arc::new(settings(balancer)), 0);
        let moved = (0..5_000u64)
            .zip(&before)
            .filter(|(key, before)| **before != address(0) && place(*key) != **before)
            .count();
        assert!(moved <= moved_max, "{moved} keys moved");
    }
}

/// The order in which endpoints are listed is nobody's promise.
#[test]
fn a_key_stays_where_it_is_however_endpoints_are_listed() {
    let mut all = weighted(&[1; 10]);
    let forwards = cluster(&all, settings(ring()));
    all.reverse();
    let backwards = cluster(&all, settings(ring()));
    for key in 0..1_000 {
        let at = |c: &Cluster| c.pick(&keyed(key, &[])).unwrap().endpoint.address;
        assert_eq!(at(&forwards), at(&backwards));
    }
}

#[test]
fn a_bound_passes_on_what_is_too_much_for_one() {
    for table in [
        HashTable::Ring { points_min: 1_024 },
        HashTable::Maglev { size: 5_003 },
    ] {
        let cluster = cluster(&weighted(&[1; 5]), settings(hashing(table, Some(125))));
        let guards: Vec<_> = (0..100)
            .map(|_| cluster.pick(&keyed(7, &[])).unwrap().begin())
            .collect();
        let most = cluster.endpoints().iter().map(|e| e.active()).max();
        // A hundred requests of one key over five: 20 each, a quarter more at most.
        assert!(most.unwrap() <= 25, "{most:?} of {}", guards.len());
    }
}

#[test]
fn a_new_endpoint_gets_a_growing_share() {
    let warm = |balancer| ClusterSettings {
        balancing: LoadBalancing {
            balancer,
            warmup: Some(Warmup {
                duration_ms: 10_000,
                minimum_percent: 10,
                aggression: 1.0,
            }),
            ..LoadBalancing::default()
        },
        ..ClusterSettings::default()
    };
    for balancer in [Balancer::RoundRobin, Balancer::LeastRequest] {
        let settings = Arc::new(warm(balancer));
        let all = weighted(&[1; 3]);
        let cluster = cluster(&all[..2], (*settings).clone());
        cluster.update(&all, settings, 100_000);
        let share = |now_ms| {
            let new = spread(&cluster, 20_000, now_ms).remove(&address(2));
            new.unwrap() / 20_000.0
        };
        // At a tenth of its weight beside two whole ones: 0.1 of 2.1. Then half: 0.5 of 2.5.
        for (now_ms, wanted) in [(100_000, 0.048), (105_000, 0.2), (110_000, 0.333)] {
            let got = share(now_ms);
            assert!(
                (got - wanted).abs() < 0.05,
                "{got} at {now_ms}, not {wanted}"
            );
        }
    }
}

#[test]
fn the_nearest_priority_takes_all_while_it_is_whole() {
    let mut all = weighted(&[1; 6]);
    all[3..].iter_mut().for_each(|e| e.priority = 1);
    let cluster = cluster(&all, settings(Balancer::Random));
    let picked: HashSet<_> = spread(&cluster, 500, 0).into_keys().collect();
    assert_eq!(picked, (0..3).map(address).collect());
    // All of them failed this request: the next priority, before one of them is asked again.
    let tried: Vec<_> = (0..3).map(address).collect();
    let next = cluster.pick(&keyed(1, &tried)).unwrap();
    assert_eq!(next.endpoint.priority, 1);
}

const fn count(healthy: usize, all: usize) -> Count {
    Count { healthy, all }
}

fn place(tier: usize, panic: bool) -> Option<Place> {
    Some(Place { tier, panic })
}

/// Envoy's own example: with a factor of 1.4 half of a priority still takes 70 of 100.
#[test]
fn a_priority_spills_over_what_it_can_not_take() {
    let counts = [count(5, 10), count(10, 10)];
    let to_first = (0..100).filter(|roll| tiers::choose(&counts, 0, *roll) == place(0, false));
    assert_eq!(to_first.count(), 70);
    let whole_enough = [count(8, 10), count(10, 10)];
    assert!((0..100).all(|roll| tiers::choose(&whole_enough, 0, roll) == place(0, false)));
}

#[test]
fn panic_begins_below_its_threshold_and_never_at_0() {
    let few = [count(1, 10)];
    assert_eq!(tiers::choose(&few, 50, 3), place(0, true));
    assert_eq!(tiers::choose(&few, 10, 3), place(0, false));
    let none = [count(0, 10)];
    assert_eq!(tiers::choose(&none, 50, 3), place(0, true));
    assert_eq!(
        tiers::choose(&none, 0, 3),
        None,
        "as Envoy: no healthy upstream"
    );
    assert_eq!(tiers::choose(&[count(0, 0)], 50, 3), None);
}

fn balancers() -> impl Strategy<Value = Balancer> {
    let bounded = hashing(HashTable::Ring { points_min: 8 }, Some(101));
    prop::sample::select(vec![
        Balancer::LeastRequest,
        Balancer::RoundRobin,
        Balancer::Random,
        ring(),
        hashing(HashTable::Ring { points_min: 1 }, None),
        // Not a prime: some endpoints' orders do not lead through all entries.
        hashing(HashTable::Maglev { size: 8 }, None),
        bounded,
    ])
}

proptest! {
    /// The oracle: a walk over all endpoints says whether there is one that was not tried.
    #[test]
    fn a_tried_endpoint_is_picked_only_when_no_other_is_left(
        balancer in balancers(),
        endpoints in prop::collection::vec((1..5u32, 0..3u8), 0..9),
        tried in prop::collection::vec(0..9u8, 0..9),
        key in any::<u64>(),
    ) {
        let mut all = weighted(&endpoints.iter().map(|e| e.0).collect::<Vec<_>>());
        for (endpoint, (_, priority)) in all.iter_mut().zip(&endpoints) {
            endpoint.priority = *priority;
        }
        let tried: Vec<_> = tried.into_iter().map(address).collect();
        let cluster = cluster(&all, settings(balancer));
        let picked = cluster.pick(&keyed(key, &tried)).map(|e| e.endpoint.address);
        let untried = all.iter().any(|e| !tried.contains(&e.address));
        match picked {
            None => prop_assert!(all.is_empty()),
            Some(picked) => prop_assert_eq!(tried.contains(&picked), !untried),
        }
    }

    /// The same key is at the same endpoint, whatever else is random.
    #[test]
    fn a_key_is_sticky(key in any::<u64>(), random in any::<u64>(), count in 1..9usize) {
        for balancer in [ring(), maglev()] {
            let cluster = cluster(&weighted(&vec![1; count]), settings(balancer));
            let again = Choice { random, ..keyed(key, &[]) };
            let first = cluster.pick(&keyed(key, &[])).unwrap();
            prop_assert_eq!(first.endpoint.address, cluster.pick(&again).unwrap().endpoint.address);
        }
    }
}
