//! Every way to connect: address families, protocols on top, ways to call connect(), and sockets
//! that can not be steered.

use std::time::Duration;

use cairn_kernel_redirect::{Counters, slot_of};
use serde_json::{Value, json};

use crate::lab::{Lab, Pod};
use crate::scene::{Scene, flagged, opened};

/// Long enough for a loaded machine, far shorter than a SYN's first retransmission (1 s).
const AT_ONCE: Duration = Duration::from_millis(500);

/// Connects from an enrolled pod to a flagged service and asserts that it is steered to slot 5 and
/// sees the address it dialled.
fn steered(service: &str, dialled: &str, options: Value) {
    let Some(mut scene) = Scene::new(&[], &[flagged(service, 5)]) else {
        return;
    };
    let mut named = options.clone();
    named["name"] = "kept".into();
    let reached = scene
        .app
        .connect(dialled, named)
        .unwrap_or_else(|e| panic!("{options}: {e}"));
    assert_eq!(reached.server, "waypoint");
    assert_eq!(slot_of(reached.local), Some(5));
    assert_eq!(reached.peer, dialled.parse().unwrap());
    assert_eq!(
        scene.app.say("kept").unwrap(),
        "waypoint",
        "it carries more than a greeting"
    );
    assert_eq!(scene.counters().steered, 1);
}

#[test]
fn ipv6_to_a_service_with_an_ipv6_address() {
    steered("[fd00:96::1]:80", "[fd00:96::1]:80", json!({}));
}

#[test]
fn ipv6_socket_to_an_ipv4_mapped_address() {
    steered("10.96.0.1:80", "[::ffff:10.96.0.1]:80", json!({}));
}

#[test]
fn multipath_tcp() {
    steered("10.96.0.1:80", "10.96.0.1:80", json!({"mptcp": true}));
}

#[test]
fn tcp_fast_open() {
    steered("10.96.0.1:80", "10.96.0.1:80", json!({"how": "fastopen"}));
}

#[test]
fn non_blocking_connect() {
    steered(
        "10.96.0.1:80",
        "10.96.0.1:80",
        json!({"how": "nonblocking"}),
    );
}

#[test]
fn connect_through_io_uring() {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.is_ok_and(|text| text.trim() != "0") {
        eprintln!("SKIPPED: kernel.io_uring_disabled");
        return;
    }
    steered("10.96.0.1:80", "10.96.0.1:80", json!({"how": "io_uring"}));
}

#[test]
fn a_socket_bound_to_the_pods_address() {
    steered(
        "10.96.0.1:80",
        "10.96.0.1:80",
        json!({"source": "10.64.1.2"}),
    );
}

/// It can go neither to a slot of IPv4 nor, with its source, to one of IPv6.
#[test]
fn a_socket_bound_to_the_pods_ipv6_address_is_refused() {
    let Some(mut scene) = Scene::new(&[("fd00:96::1", 80)], &[flagged("[fd00:96::1]:80", 5)])
    else {
        return;
    };
    let bound = json!({"source": scene.pod.address6.to_string()});
    let (outcome, took) = scene.app.connect_timed("[fd00:96::1]:80", bound);
    assert_eq!(outcome, Err("ENETUNREACH".into()));
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_socket_bound_to_loopbacks_device() {
    steered("10.96.0.1:80", "10.96.0.1:80", json!({"device": "lo"}));
}

#[test]
fn an_ipv6_only_socket() {
    steered(
        "[fd00:96::1]:80",
        "[fd00:96::1]:80",
        json!({"v6only": true}),
    );
}

/// Then there are only slots of IPv4, which such a socket can not reach: it is refused by the kernel,
/// and never goes direct. Other IPv6 sockets are steered.
#[test]
fn an_ipv6_only_socket_in_a_pod_without_ipv6_on_loopback_is_refused() {
    let no_ipv6 = |pod: &Pod| {
        let switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
        pod.within(|| std::fs::write(switch, "1")).unwrap();
    };
    let served = [("fd00:96::1", 80), ("fd00:96::1", 81)];
    let services = [flagged("[fd00:96::1]:80", 5)];
    let Some(mut scene) = Scene::with_pod(&served, &services, no_ipv6) else {
        return;
    };
    let app = &mut scene.app;
    let (outcome, took) = app.connect_timed("[fd00:96::1]:80", json!({"v6only": true}));
    assert_eq!(outcome, Err("ENETUNREACH".into()));
    assert!(took < AT_ONCE, "{took:?}");
    let unflagged = app
        .connect("[fd00:96::1]:81", json!({"v6only": true}))
        .unwrap();
    assert_eq!(unflagged.server, "server");
    let both = app.connect("[fd00:96::1]:80", json!({})).unwrap();
    assert_eq!(slot_of(both.local), Some(5));
    assert_eq!(both.peer, "[fd00:96::1]:80".parse().unwrap());
    assert!(!scene.redirect.status().unwrap().pods[0].ipv6_slots);
}

/// From a socket bound to another device than loopback the listener can not be reached: what each
/// service asks for when there is no listener happens, at once.
#[test]
fn a_socket_bound_to_another_device_fails_as_the_service_asks_for() {
    let Some(mut scene) = Scene::new(
        &[("10.96.0.1", 80), ("10.96.0.1", 81)],
        &[flagged("10.96.0.1:80", 5), opened("10.96.0.1:81", 6)],
    ) else {
        return;
    };
    let bound = json!({"device": "eth0"});
    let (outcome, took) = scene.app.connect_timed("10.96.0.1:80", bound.clone());
    assert_eq!(outcome, Err("ECONNREFUSED".into()));
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(
        scene.app.connect("10.96.0.1:81", bound).unwrap().server,
        "server"
    );
    let counters = scene.counters();
    assert_eq!(
        (counters.unreachable, counters.refused, counters.opened),
        (2, 1, 1)
    );
}

#[test]
fn datagrams_to_a_flagged_address_and_port_are_left_alone() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let _server = lab.datagrams("10.96.0.1", 53);
    let mut redirect = lab.attach();
    let _waypoint = lab.enrol(&mut redirect, &pod);
    redirect
        .set_services(&[flagged("10.96.0.1:53", 5)])
        .unwrap();
    let mut app = pod.app();
    assert_eq!(app.datagram("10.96.0.1:53").unwrap(), "hello");
    assert_eq!(redirect.status().unwrap().counters, Counters::default());
    // TCP to the same address and port is flagged.
    assert_eq!(
        app.connect("10.96.0.1:53", json!({})).unwrap().server,
        "waypoint"
    );
}
