//! Listeners in the host's network namespace, for pods whose own can not be entered: the same outcomes
//! as in the pod, and whoever tries to pass for another pod. The hub is the host.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use cairn_kernel_redirect::{Redirect, RedirectError, slot_of};
use serde_json::json;

use crate::lab::{LISTENER_PORT, Lab, Pod, listen_on};
use crate::processes::{App, StandIn, command};
use crate::scene::{flagged, opened, reached};

const WEB: &str = "10.96.0.1:80";
const OPEN: &str = "10.96.0.1:81";
const WEB6: &str = "[fd00:96::1]:80";
/// A slot at which nobody listens is no address of the host, from which it could refuse.
const TIMEOUT: &str = "timeout";
const SHORT_S: f64 = 1.5;
const REFUSED: &str = "ECONNREFUSED";

/// The address of slot 1, which is that of [`WEB`].
const SLOT_OF_WEB: &str = "240.128.0.1:15001";

/// Enrols a pod with a stand-in in the hub that greets with `name`.
fn enrol(lab: &Lab, redirect: &mut Redirect, pod: &Pod, name: &str) -> StandIn {
    let (stand_in, listener) = lab.stand_in_in_hub(pod, name);
    let enrolled = lab
        .hub()
        .within(|| redirect.enrol(&stand_in.pod, listener.as_fd()));
    enrolled.unwrap();
    stand_in
}

/// What a connection fails with that nobody answers. Whoever answers does so at once.
fn unanswered(app: &mut App, to: &str) -> String {
    let error = app.connect(to, json!({"timeout": SHORT_S}));
    error.unwrap_err()
}

fn attach(lab: &Lab) -> Redirect {
    let mut redirect = lab.attach();
    redirect
        .set_services(&[flagged(WEB, 1), opened(OPEN, 2), flagged(WEB6, 3)])
        .unwrap();
    redirect
}

#[test]
fn a_pod_is_steered_to_its_listener_in_the_host_and_sees_what_it_dialled() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let _server = lab.server(
        "server",
        &[("10.96.0.1", 80), ("10.96.0.1", 81), ("10.96.0.1", 82)],
    );
    let mut redirect = attach(&lab);
    let waypoint = enrol(&lab, &mut redirect, &pod, "for-a");
    let mut app = pod.app();
    for options in [
        json!({}),
        json!({"mptcp": true}),
        json!({"how": "fastopen"}),
        json!({"how": "nonblocking"}),
        json!({"source": pod.address.to_string()}),
        json!({"device": "eth0"}),
    ] {
        let arrived = app.connect(WEB, options.clone()).unwrap();
        assert_eq!(arrived.server, "for-a", "{options}");
        assert_eq!(slot_of(arrived.local), Some(1), "{options}");
        assert_eq!(arrived.from, pod.address, "{options}");
        assert_eq!(arrived.peer, WEB.parse().unwrap(), "{options}");
    }
    for options in [
        json!({}),
        json!({"v6only": true}),
        json!({"source": pod.address6.to_string()}),
        json!({"device": "eth0"}),
    ] {
        let arrived = app.connect(WEB6, options.clone()).unwrap();
        assert_eq!(arrived.server, "for-a", "{options}");
        assert_eq!(slot_of(arrived.local), Some(3), "{options}");
        assert!(arrived.local.is_ipv6(), "{options}");
        assert_eq!(arrived.from, pod.address6, "{options}");
        assert_eq!(arrived.peer, WEB6.parse().unwrap(), "{options}");
    }
    let mapped = app.connect("[::ffff:10.96.0.1]:80", json!({})).unwrap();
    assert_eq!(slot_of(mapped.local), Some(1));
    assert_eq!(reached(&mut app, "10.96.0.1:82").unwrap(), "server");
    // Loopback does not lead to the host.
    assert_eq!(
        app.connect(WEB, json!({"device": "lo"})),
        Err(REFUSED.into())
    );

    // A new loader takes over, and the pod is known all the time.
    drop(redirect);
    let redirect = lab.attach();
    assert_eq!(reached(&mut app, WEB).unwrap(), "for-a");
    waypoint.process.kill();
    assert_eq!(reached(&mut app, WEB), Err(REFUSED.into()));
    assert_eq!(reached(&mut app, OPEN).unwrap(), "server");
    let counters = redirect.status().unwrap().counters;
    assert_eq!((counters.not_enrolled, counters.opened), (0, 1));

    let place = lab.place();
    assert!(said(&lab.hub(), &["rule"]).contains("240.128"));
    assert!(said(&lab.hub(), &["-6", "rule"]).contains("fd63:6169:726e::/96"));
    lab.hub().within(|| Redirect::detach(place)).unwrap();
    for asked in [
        &["rule"][..],
        &["-6", "rule"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ] {
        let left = said(&lab.hub(), asked);
        assert!(
            !left.contains("240.128") && !left.contains("fd63"),
            "{left}"
        );
    }
}

/// Without the route to the slots nothing of it reaches the listener any more (docs/node.md); what a
/// pod has with a listener of its own goes on, see lifecycle.
#[test]
fn detaching_ends_connections_that_are_steered_to_the_host_and_lets_new_ones_go_direct() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let _server = lab.server("server", &[("10.96.0.1", 80)]);
    let mut redirect = attach(&lab);
    let _waypoint = enrol(&lab, &mut redirect, &pod, "for-a");
    let mut app = pod.app();
    let arrived = app.connect(WEB, json!({"name": "l7", "timeout": SHORT_S}));
    assert_eq!(arrived.unwrap().server, "for-a");
    assert_eq!(app.say("l7").unwrap(), "for-a");
    let place = lab.place();
    lab.hub().within(|| Redirect::detach(place)).unwrap();
    assert_eq!(app.say("l7"), Err(TIMEOUT.to_owned()));
    assert_eq!(reached(&mut app, WEB).unwrap(), "server");
}

/// What `ip` says in a namespace.
fn said(pod: &Pod, arguments: &[&str]) -> String {
    let mut ip = command(&pod.netns, &pod.cgroup, Path::new("ip"));
    let output = ip.args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Who listens on every address of the host listens on no slot: pods must not get round what keeps
/// them from the host's own addresses.
#[test]
fn at_a_slot_nobody_is_reached_but_the_pods_own_listener() {
    let Some(mut lab) = Lab::new() else { return };
    let pod = lab.pod("a");
    let _host = lab.server("host", &[("0.0.0.0", 8080), ("::", 8081)]);
    let mut redirect = attach(&lab);
    let _waypoint = enrol(&lab, &mut redirect, &pod, "for-a");
    let mut app = pod.app();
    for (own, slot, port) in [
        ("10.64.1.1", "240.128.0.1", 8080),
        ("[fd00:64:1::1]", "[fd63:6169:726e::1]", 8081),
    ] {
        assert_eq!(reached(&mut app, &format!("{own}:{port}")).unwrap(), "host");
        unanswered(&mut app, &format!("{slot}:{port}"));
        assert_eq!(
            reached(&mut app, &format!("{slot}:15001")).unwrap(),
            "for-a"
        );
    }
}

/// A pod's root may send any packet from its own namespace. It reaches its own listener or none.
#[test]
fn no_pod_passes_for_another_one() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let (victim, thief, stranger) = (lab.pod("a"), lab.pod("b"), lab.pod("c"));
    let mut redirect = attach(&lab);
    let _for_victim = enrol(&lab, &mut redirect, &victim, "for-a");
    let _for_thief = enrol(&lab, &mut redirect, &thief, "for-b");

    // Past the program: in a cgroup that is not hooked, at the slot's own address.
    let outside = lab.outside_cgroup();
    let mut past = thief.app_in(&outside);
    assert_eq!(reached(&mut past, SLOT_OF_WEB).unwrap(), "for-b");
    // With the victim's address as its own, which the host routes to the victim.
    let stolen = victim.address.to_string();
    lab.ip("b", &[&format!("addr add {stolen}/32 dev eth0")]);
    let outcome = past.connect(SLOT_OF_WEB, json!({"source": stolen}));
    assert_ne!(outcome.map(|r| r.server), Ok("for-a".to_owned()));
    // With the host's route turned to it as well, as if it had taken the address over.
    lab.ip(
        "hub",
        &[&format!("route replace {stolen}/32 dev {}", thief.device)],
    );
    let arrived = past
        .connect(SLOT_OF_WEB, json!({"source": stolen}))
        .unwrap();
    assert_eq!(
        (arrived.server.as_str(), arrived.from),
        ("for-b", victim.address.into())
    );
    lab.ip(
        "hub",
        &[&format!("route del {stolen}/32 dev {}", thief.device)],
    );

    // A pod that is not enrolled, and the host itself, also from the victim's address.
    let mut from_stranger = stranger.app_in(&outside);
    assert_eq!(unanswered(&mut from_stranger, SLOT_OF_WEB), TIMEOUT);
    let mut host = lab.hub().app();
    reached(&mut host, SLOT_OF_WEB).unwrap_err();
    let listener = SocketAddr::from((lab.hub().address, LISTENER_PORT)).to_string();
    assert_ne!(
        reached(&mut host, &listener).map_err(drop),
        Ok("for-a".to_owned())
    );
    // Bound to the very device it sends by it, into the pod.
    let bound = json!({"device": victim.device, "timeout": SHORT_S});
    host.connect(SLOT_OF_WEB, bound).unwrap_err();
    // The victim is served all the while.
    assert_eq!(reached(&mut victim.app(), WEB).unwrap(), "for-a");
}

/// A process belongs to the pod whose cgroup it is in, at any depth; the cgroup of a container is not
/// the pod's.
#[test]
fn a_pod_is_known_by_its_cgroup_and_those_below() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let _server = lab.server("server", &[("10.96.0.1", 80)]);
    let mut redirect = attach(&lab);
    let _waypoint = enrol(&lab, &mut redirect, &a, "for-a");
    let container = a.cgroup.join("container").join("inner");
    std::fs::create_dir_all(&container).unwrap();
    assert_eq!(reached(&mut a.app_in(&container), WEB).unwrap(), "for-a");
    // Not enrolled, as every pod that the agent does not know.
    assert_eq!(reached(&mut b.app(), WEB).unwrap(), "server");
    // In a's cgroup but b's network: the packets tell, and nobody takes them for a's.
    assert_eq!(unanswered(&mut b.app_in(&a.cgroup), WEB), TIMEOUT);
}

#[test]
fn a_socket_that_others_could_reach_is_refused_with_the_reason() {
    let Some(mut lab) = Lab::new() else { return };
    let pod = lab.pod("a");
    let mut redirect = attach(&lab);
    let (stand_in, listener) = lab.stand_in_in_hub(&pod, "for-a");
    let mut why = |socket: &std::net::TcpListener| match redirect
        .enrol(&stand_in.pod, socket.as_fd())
        .unwrap_err()
    {
        RedirectError::Listener { why, .. } => why,
        other => panic!("{other}"),
    };
    assert!(why(&listener).contains("not in the host's network namespace"));
    let (loopback, any) = (
        listen_on(b"lo", 15_002),
        std::net::TcpListener::bind("0.0.0.0:15001").unwrap(),
    );
    assert!(why(&loopback).contains("15001"), "another port");
    assert!(why(&any).contains("other pods could pass for it"));
}

/// Why pods behind a bridge are not served from the host (`cairn_kernel_redirect::pod_link` refuses
/// them): all come in by the bridge, only their addresses tell them apart, and these are there to take.
#[test]
fn behind_a_bridge_a_pod_can_take_anothers_address() {
    let Some(mut lab) = Lab::new() else { return };
    let (victim, thief) = (lab.pod("a"), lab.pod("b"));
    let on_bridge = |pod: &Pod| format!("link set {} master br0", pod.device);
    lab.ip(
        "hub",
        &[
            "link add br0 type bridge",
            "addr add 10.70.0.1/24 dev br0",
            "link set br0 up",
            &on_bridge(&victim),
            &on_bridge(&thief),
        ],
    );
    let stolen = "10.70.0.2";
    lab.ip("a", &[&format!("addr add {stolen}/24 dev eth0")]);
    let hub = lab.hub();
    let listener = hub.within(|| listen_on(b"br0", LISTENER_PORT));
    let _server = lab.serve_on("by-address", listener);
    let to = format!("10.70.0.1:{LISTENER_PORT}");
    let from = |app: &mut App| {
        let bound = json!({"source": stolen});
        app.connect(&to, bound)
            .map(|arrived| arrived.from.to_string())
    };
    let owner = from(&mut victim.app());
    assert_eq!(owner.as_deref(), Ok(stolen));

    // The owner is away for a moment, and the thief has its address.
    lab.ip("b", &[&format!("addr add {stolen}/24 dev eth0")]);
    lab.ip("hub", &["neigh flush dev br0"]);
    lab.ip("a", &["link set eth0 down"]);
    let thief = from(&mut thief.app());
    assert_eq!(
        thief.as_deref(),
        Ok(stolen),
        "and nothing tells it from its owner"
    );

    let error = hub.within(|| cairn_kernel_redirect::pod_link("pod1"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("part of a bridge"), "{error}");
}

#[test]
fn only_the_hosts_end_of_a_pods_own_link_will_do() {
    let Some(mut lab) = Lab::new() else { return };
    let pod = lab.pod("a");
    let hub = lab.hub();
    let judge = |name: &str| {
        let found = hub.within(|| cairn_kernel_redirect::pod_link(name));
        found.map_err(|e| e.to_string())
    };
    assert!(judge(&pod.device).unwrap() > 1);
    lab.ip("hub", &["link add one type veth peer name two"]);
    assert!(
        judge("one")
            .unwrap_err()
            .contains("is no veth whose other end")
    );
    assert!(judge("lo").unwrap_err().contains("is no veth"));
    assert!(judge("gone").unwrap_err().contains("interface gone"));
    // Addresses that somebody has are no slots: the host would lose them.
    let taken = [
        "link set one up",
        "link set two up",
        "route add 240.0.0.0/4 dev one",
    ];
    lab.ip("hub", &taken);
    let routed = hub.within(|| cairn_kernel_redirect::route_host_slots(LISTENER_PORT));
    let error = routed.unwrap_err().to_string();
    assert!(error.contains("in use behind one"), "{error}");
}
