//! Picks, load, and what survives an update.

use std::net::Ipv4Addr;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Binding, OutlierDetection, Workload, WorkloadType};
use proptest::prelude::*;

use super::*;

fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, last), 8080).into()
}

fn endpoint(last: u8, pod: &str, version: &str) -> Endpoint {
    Endpoint::new(
        address(last),
        Some(Arc::new(Workload {
            key: ObjectKey::new("default", pod),
            addresses: vec![address(last).ip()],
            identity: Identity::of_workload("cluster.local", "default", "sa").unwrap(),
            hbone: true,
            workload_name: "w".into(),
            workload_type: WorkloadType::Deployment,
            canonical_name: "w".into(),
            canonical_revision: version.into(),
            app: "w".into(),
            version: version.into(),
            node: "".into(),
            labels: Default::default(),
            namespace_labels: None,
            host_network: false,
            behind_gateway: false,
            named_ports: Default::default(),
            binding: Binding::Unbound,
        })),
    )
}

fn endpoints(count: u8) -> Vec<Endpoint> {
    (0..count)
        .map(|n| endpoint(n, &format!("pod-{n}"), "v1"))
        .collect()
}

fn cluster(count: u8) -> Cluster {
    let key = ClusterKey::new(ObjectKey::new("default", "web"), 80);
    Cluster::new(key, &endpoints(count), Arc::default(), 0)
}

fn any(random: u64, tried: &[SocketAddr]) -> Choice<'_> {
    Choice::new(random, tried, 0)
}

/// Uniform enough, and the same in every run.
fn randoms(count: usize) -> impl Iterator<Item = u64> {
    let mut state = 0u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    })
    .take(count)
}

#[test]
fn an_empty_cluster_has_nothing_to_pick() {
    assert!(cluster(0).pick(&any(1, &[])).is_none());
    assert!(cluster(0).pick(&any(1, &[address(0)])).is_none());
}

#[test]
fn requests_in_flight_are_counted_until_their_guards_drop() {
    let cluster = cluster(1);
    let picked = cluster.pick(&any(0, &[])).unwrap();
    let first = picked.begin();
    let second = picked.begin();
    assert_eq!(picked.active(), 2);
    assert_eq!(second.endpoint().endpoint.address, address(0));
    drop(first);
    assert_eq!(picked.active(), 1);
    drop(second);
    assert_eq!(picked.active(), 0);
}

#[test]
fn of_two_the_less_loaded_is_picked_always() {
    let cluster = cluster(2);
    let busy = cluster.pick(&any(0, &[])).unwrap();
    let _guard = busy.begin();
    for random in randoms(100) {
        let picked = cluster.pick(&any(random, &[])).unwrap();
        assert_ne!(picked.endpoint.address, busy.endpoint.address);
    }
}

#[test]
fn the_most_loaded_of_many_is_never_picked() {
    let cluster = cluster(10);
    let busy = cluster.pick(&any(0, &[])).unwrap();
    let _guard = busy.begin();
    for random in randoms(1_000) {
        let picked = cluster.pick(&any(random, &[])).unwrap();
        assert_ne!(picked.endpoint.address, busy.endpoint.address);
    }
}

#[test]
fn requests_that_stay_spread_evenly() {
    let cluster = cluster(10);
    let guards: Vec<_> = randoms(1_000)
        .map(|random| cluster.pick(&any(random, &[])).unwrap().begin())
        .collect();
    for live in cluster.endpoints().iter() {
        // A random spread would leave some below 80 and some above 120.
        assert!((95..=105).contains(&live.active()), "{}", live.active());
    }
    assert_eq!(guards.len(), 1_000);
}

#[test]
fn an_update_keeps_the_load_of_what_stays() {
    let cluster = cluster(2);
    let before = cluster.endpoints();
    let _guard = before[0].begin();
    cluster.update(
        &[endpoint(5, "new", "v1"), endpoint(0, "pod-0", "v1")],
        Arc::default(),
        0,
    );
    let after = cluster.endpoints();
    let seen: Vec<_> = after
        .iter()
        .map(|e| (e.endpoint.address, e.active()))
        .collect();
    assert_eq!(seen, [(address(5), 0), (address(0), 1)]);
    assert!(Arc::ptr_eq(&before[0], &after[1]));
}

#[test]
fn new_metadata_of_the_same_pod_keeps_its_load_and_another_pod_starts_afresh() {
    let cluster = cluster(2);
    let before = cluster.endpoints();
    let guards = (before[0].begin(), before[1].begin());
    cluster.update(
        &[endpoint(0, "pod-0", "v2"), endpoint(1, "pod-9", "v1")],
        Arc::default(),
        0,
    );
    let after = cluster.endpoints();
    let version = |e: &LiveEndpoint| e.endpoint.workload.as_ref().unwrap().version.clone();
    assert_eq!((&*version(&after[0]), after[0].active()), ("v2", 1));
    assert_eq!(after[1].active(), 0);
    drop(guards);
    assert_eq!(after[0].active(), 0, "the guard of the old one counts down");
    assert_eq!(after[1].active(), 0);
}

#[test]
fn an_address_listed_twice_is_one_endpoint() {
    let cluster = cluster(0);
    cluster.update(
        &[endpoint(1, "a", "v1"), endpoint(1, "a", "v1")],
        Arc::default(),
        0,
    );
    assert_eq!(cluster.endpoints().len(), 1);
}

proptest! {
    /// The oracle: the pick is one of the endpoints, and tried only if all are.
    #[test]
    fn tried_endpoints_are_picked_only_when_nothing_else_is_left(
        count in 1..8u8,
        tried in prop::collection::vec(0..8u8, 0..10),
        random in prop::num::u64::ANY,
    ) {
        let tried: Vec<_> = tried.into_iter().map(address).collect();
        let picked = cluster(count).pick(&any(random, &tried)).unwrap().endpoint.address;
        let all: Vec<_> = (0..count).map(address).collect();
        prop_assert!(all.contains(&picked));
        let all_tried = all.iter().all(|a| tried.contains(a));
        prop_assert_eq!(tried.contains(&picked), all_tried);
    }

    /// Without load every endpoint must be within reach.
    #[test]
    fn every_endpoint_is_picked_sometimes(count in 1..8u8, tried in 0..8u8) {
        let cluster = cluster(count);
        let tried = [address(tried)];
        let tried = if count > 1 { &tried[..] } else { &[] };
        let picked: std::collections::HashSet<_> = randoms(500)
            .map(|r| cluster.pick(&any(r, tried)).unwrap().endpoint.address)
            .collect();
        let reachable = (0..count).map(address).filter(|a| !tried.contains(a)).count();
        prop_assert_eq!(picked.len(), reachable);
    }
}

fn session(at: u8, pod: &str) -> Session {
    let key = ClusterKey::new(ObjectKey::new("default", "web"), 80);
    Session {
        rule: 0,
        backend: session::backend_id(&key),
        endpoint: session::endpoint_id(&endpoint(at, pod, "v1")),
        begun_s: 0,
        used_s: 0,
    }
}

/// GEP-1619: a session stays at its endpoint; when that fails, it goes on elsewhere.
#[test]
fn a_session_is_held_to_its_endpoint_until_that_fails_it() {
    let cluster = cluster(5);
    let id = session(3, "pod-3").endpoint;
    for random in randoms(50) {
        let held = Choice {
            prefer: Some(id),
            ..any(random, &[])
        };
        assert_eq!(cluster.pick(&held).unwrap().endpoint.address, address(3));
        let tried = [address(3)];
        let again = Choice {
            prefer: Some(id),
            ..any(random, &tried)
        };
        assert_ne!(cluster.pick(&again).unwrap().endpoint.address, address(3));
    }
}

#[test]
fn a_cluster_holds_sessions_of_its_own_pods_alone() {
    let cluster = cluster(2);
    assert_eq!(cluster.hold(&session(1, "pod-1")), Hold::Endpoint);
    assert_eq!(
        cluster.hold(&session(1, "pod-that-had-the-address")),
        Hold::Backend
    );
    assert_eq!(cluster.hold(&session(9, "pod-9")), Hold::Backend);
    let of_another = Session {
        backend: 1,
        ..session(1, "pod-1")
    };
    assert_eq!(cluster.hold(&of_another), Hold::None);
    cluster.update(&[], Arc::default(), 1);
    assert_eq!(cluster.hold(&session(1, "pod-1")), Hold::None);
}

proptest! {
    /// Whatever a client shows, it gets to an endpoint of the cluster.
    #[test]
    fn no_session_leads_outside(id: u64, random: u64) {
        let cluster = cluster(3);
        let choice = Choice { prefer: Some(id), ..any(random, &[]) };
        let picked = cluster.pick(&choice).unwrap();
        prop_assert!((0..3).map(address).any(|a| a == picked.endpoint.address));
    }
}

fn judged() -> Arc<ClusterSettings> {
    let rules = OutlierDetection {
        consecutive_5xx: 1,
        consecutive_gateway_errors: 0,
        split_local_origin: false,
        consecutive_local_origin_failures: 1,
        success_rate: None,
        interval_ms: 1_000,
        base_ejection_ms: 1,
        ejection_max_ms: 1,
        ejected_percent_max: 100,
    };
    Arc::new(ClusterSettings {
        outlier_detection: Some(rules),
        ..ClusterSettings::default()
    })
}

/// An answer is judged by the endpoints of before, who are in force no more when it ejects.
#[test]
fn an_ejection_by_the_set_of_before_is_told_to_the_one_in_force() {
    let cluster = cluster(2);
    cluster.update(&endpoints(2), judged(), 0);
    let before = cluster.set.load_full();
    cluster.update(&endpoints(2), Arc::default(), 1);
    let event = cluster.judge(&before, &before.all[0], AnswerKind::Status(500), 2);
    assert!(matches!(event, Some(EjectionEvent::Ejected { .. })));
    assert!(cluster.set.load().has_ejected());
    assert_eq!(cluster.sweep(3).len(), 1, "back at once");
}

/// The other way round: it ejects after the next endpoints were made and before they are in force.
#[test]
fn endpoints_that_come_into_force_know_who_was_ejected_meanwhile() {
    let cluster = cluster(2);
    cluster.update(&endpoints(2), judged(), 0);
    let live = cluster.endpoints();
    let next = EndpointSet::new(live.to_vec(), Arc::default(), cluster.active.clone(), 0);
    cluster.record(&live[0], AnswerKind::Status(500), 2);
    cluster.put_in_force(next);
    assert!(cluster.set.load().has_ejected());
    assert_eq!(cluster.sweep(3).len(), 1, "back at once");
}

/// The ejection ends at the first sweep, whose time is one interval after detection was switched on.
#[test]
fn the_first_interval_begins_when_detection_is_switched_on() {
    let cluster = cluster(2);
    cluster.update(&endpoints(2), judged(), 5_000);
    let live = cluster.endpoints();
    cluster.record(&live[0], AnswerKind::Status(500), 5_000);
    assert!(cluster.sweep(5_999).is_empty());
    assert_eq!(cluster.sweep(6_000).len(), 1);
}
