//! What is steered and what is not: flagged against unflagged, pods against everybody else.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use cairn_kernel_redirect::{Counters, Status, slot_of};
use serde_json::json;

use crate::lab::{LISTENER_PORT, Lab};
use crate::processes::{Ready, script};
use crate::scene::{Scene, flagged, reached};

/// How often a program has run.
fn runs(status: &Status, program: &str) -> u64 {
    let found = status.programs.iter().find(|p| p.name == program);
    found.unwrap().runs
}

#[test]
fn a_flagged_connection_arrives_at_the_pods_listener_with_its_slot() {
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &[]) else {
        return;
    };
    let wanted = [flagged("10.96.0.1:80", 70_000)];
    let report = scene.redirect.set_services(&wanted).unwrap();
    assert_eq!((report.added, report.flagged), (1, 1));
    assert_eq!(report.left_out, []);

    let reached = scene.app.connect("10.96.0.1:80", json!({})).unwrap();
    assert_eq!(reached.server, "waypoint");
    assert_eq!(slot_of(reached.local), Some(70_000));
    assert_eq!(reached.local.port(), LISTENER_PORT);
    assert_eq!(reached.peer, "10.96.0.1:80".parse().unwrap(), "as dialled");
    assert_eq!(scene.counters().steered, 1);
}

#[test]
fn an_unflagged_port_of_the_same_server_stays_in_the_kernel() {
    let Some(mut scene) = Scene::new(
        &[("10.96.0.1", 80), ("10.96.0.1", 81)],
        &[flagged("10.96.0.1:80", 1)],
    ) else {
        return;
    };
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();

    let named = json!({"name": "l4"});
    let reached = scene.app.connect("10.96.0.1:81", named).unwrap();
    assert_eq!(reached.server, "server");
    assert_eq!(reached.from, scene.pod.address, "the server sees the pod");
    assert_eq!(reached.peer, "10.96.0.1:81".parse().unwrap());
    let connected = scene.redirect.status().unwrap();
    assert_eq!(runs(&connected, "cairn_connect4"), 1);

    for _ in 0..1000 {
        assert_eq!(scene.app.say("l4").unwrap(), "server");
    }
    let after = scene.redirect.status().unwrap();
    for program in &after.programs {
        assert_eq!(
            program.runs,
            runs(&connected, program.name),
            "{} ran after connect()",
            program.name
        );
    }
    assert_eq!(
        after.counters,
        Counters::default(),
        "not even its first packet"
    );
}

#[test]
fn each_pods_connections_arrive_at_its_own_listener() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let mut redirect = lab.attach();
    let (in_a, listener_a) = lab.stand_in(&a);
    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    redirect.enrol(&in_a.pod, listener_a.as_fd()).unwrap();
    drop(listener_a);
    let (mut app_a, mut app_b) = (a.app(), b.app());
    assert_eq!(reached(&mut app_a, "10.96.0.1:80").unwrap(), "waypoint");
    // b is not enrolled: like a pod that the agent does not know, or one on the host's network.
    assert_eq!(
        reached(&mut app_b, "10.96.0.1:80"),
        Err("ECONNREFUSED".into()),
        "direct, and nobody listens"
    );
    assert_eq!(redirect.status().unwrap().counters.not_enrolled, 1);

    let in_b = lab.enrol(&mut redirect, &b);
    assert_ne!(in_a.pod.netns_cookie, in_b.pod.netns_cookie);
    assert_eq!(reached(&mut app_b, "10.96.0.1:80").unwrap(), "waypoint");
    in_a.process.kill();
    assert_eq!(reached(&mut app_b, "10.96.0.1:80").unwrap(), "waypoint");
}

#[test]
fn processes_outside_the_cgroup_and_the_waypoint_itself_go_direct() {
    let Some(scene) = Scene::new(&[("10.96.0.1", 80)], &[flagged("10.96.0.1:80", 1)]) else {
        return;
    };

    // A debug container in another cgroup: no program runs, nothing is counted.
    let mut outside = scene.pod.app_in(&scene.lab.outside_cgroup());
    assert_eq!(
        outside.connect("10.96.0.1:80", json!({})).unwrap().server,
        "server"
    );
    assert_eq!(scene.counters(), Counters::default());

    // The waypoint's own connection, from the same network namespace: no loop.
    let mut own = scene.pod.app_in(&scene.lab.waypoint_cgroup());
    let reached = own.connect("10.96.0.1:80", json!({})).unwrap();
    assert_eq!(
        (reached.server.as_str(), reached.from),
        ("server", scene.pod.address.into())
    );
    assert_eq!(scene.counters().own, 1);
}

/// As the kubelet that probes a pod, or a pod with hostNetwork: in the hooked cgroup, in no pod's network.
/// Also by the host's end of the pod's own link.
#[test]
fn a_process_on_the_hosts_network_goes_direct_and_is_counted() {
    let Some(scene) = Scene::new(&[("10.96.0.1", 80)], &[flagged("10.96.0.1:80", 1)]) else {
        return;
    };
    let (lab, pod, mut redirect) = (&scene.lab, &scene.pod, scene.redirect);
    let in_pod = (pod.address.to_string(), 8080);
    let words = ["serve", "in-pod", &in_pod.0, "8080"];
    let _in_pod = Ready::start(script(&pod.netns, &lab.outside_cgroup(), &words));
    let in_pod = format!("{}:{}", in_pod.0, in_pod.1);
    let services = [flagged("10.96.0.1:80", 1), flagged(&in_pod, 2)];
    redirect.set_services(&services).unwrap();

    let cgroup = lab.place().cgroup.join("hostnetwork");
    std::fs::create_dir(&cgroup).unwrap();
    let mut host = lab.hub().app_in(&cgroup);
    assert_eq!(reached(&mut host, "10.96.0.1:80").unwrap(), "server");
    for options in [json!({}), json!({"device": pod.device})] {
        let arrived = host.connect(&in_pod, options).unwrap();
        assert_eq!(arrived.server, "in-pod");
        assert_eq!(arrived.peer, in_pod.parse().unwrap());
    }
    let counters = redirect.status().unwrap().counters;
    assert_eq!((counters.not_enrolled, counters.steered), (3, 0));
}

/// Nor at the pod's address from inside. At its loopback address it is: whoever dials a slot there
/// gets what dialling the service gets.
#[test]
fn the_listener_is_not_reachable_from_outside_the_pod() {
    let Some(scene) = Scene::new(&[], &[]) else {
        return;
    };
    let refused = Err("ECONNREFUSED".to_owned());
    let (mut inside, mut hub) = (scene.app, scene.lab.hub().app());
    let listener = SocketAddr::from((scene.pod.address, LISTENER_PORT)).to_string();
    assert_eq!(hub.connect(&listener, json!({})), refused);
    assert_eq!(inside.connect(&listener, json!({})), refused);
    let listener = format!("[{}]:{LISTENER_PORT}", scene.pod.address6);
    assert_eq!(hub.connect(&listener, json!({})), refused);
    let loopback = inside.connect("127.128.0.7:15001", json!({})).unwrap();
    assert_eq!(slot_of(loopback.local), Some(7));
    assert_eq!(
        loopback.peer,
        "127.128.0.7:15001".parse().unwrap(),
        "no service has it"
    );
}
