//! Listeners in the host's network namespace, for pods whose own can not be entered: the same outcomes
//! as in the pod, and whoever tries to pass for another pod. The hub is the host.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use cairn_kernel_redirect::{Redirect, RedirectError, slot_of};
use serde_json::json;

use crate::lab::{LISTENER_PORT, Lab, Pod, listen_on};
use crate::processes::StandIn;
use crate::scene::{flagged, opened, reached};

const WEB: &str = "10.96.0.1:80";
const OPEN: &str = "10.96.0.1:81";
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

fn attach(lab: &Lab) -> Redirect {
    let mut redirect = lab.attach();
    redirect
        .set_services(&[flagged(WEB, 1), opened(OPEN, 2)])
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
    lab.hub().within(|| Redirect::detach(place)).unwrap();
    let routes = lab
        .hub()
        .within(|| std::fs::read_to_string("/proc/net/fib_trie"));
    assert!(
        !routes.unwrap().contains("240.128"),
        "nothing is left behind"
    );
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
    let refused = Err(REFUSED.to_owned());
    assert_eq!(
        reached(&mut stranger.app_in(&outside), SLOT_OF_WEB),
        refused
    );
    let mut host = lab.hub().app();
    assert_eq!(reached(&mut host, SLOT_OF_WEB), refused);
    let listener = SocketAddr::from((lab.hub().address, LISTENER_PORT)).to_string();
    assert_ne!(
        reached(&mut host, &listener).map_err(drop),
        Ok("for-a".to_owned())
    );
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
    assert_eq!(reached(&mut b.app_in(&a.cgroup), WEB), Err(REFUSED.into()));
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
    let from = |app: &mut crate::processes::App| {
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
    let mut redirect = attach(&lab);
    let (stand_in, listener) = lab.stand_in_in_hub(&pod, "for-a");
    let enrolled = hub.within(|| redirect.enrol(&stand_in.pod, listener.as_fd()));
    let error = enrolled.unwrap_err().to_string();
    assert!(error.contains("in use behind one"), "{error}");
    assert_eq!(redirect.status().unwrap().pods, []);
}
