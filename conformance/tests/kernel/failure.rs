//! What becomes of flagged connections when nobody serves them: each service decides.

use std::os::fd::AsFd;
use std::time::Duration;

use cairn_kernel_redirect::{FlaggedService, Redirect};
use serde_json::json;

use crate::lab::{Lab, Pod};
use crate::processes::{App, Ready};
use crate::scene::flagged;

/// Long enough for a loaded machine, far shorter than a SYN's first retransmission (1 s).
const AT_ONCE: Duration = Duration::from_millis(500);

const CLOSED: &str = "10.96.0.1:80";
const OPEN: &str = "10.96.0.1:81";
const UNFLAGGED: &str = "10.96.0.1:82";

/// A server whose ports fail closed, fail open and are not flagged, and a pod.
fn scene(lab: &mut Lab) -> (Pod, Ready, Redirect) {
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let ports = [80, 81, 82].map(|port| ("10.96.0.1", port));
    let server = lab.server("server", &ports);
    let mut redirect = lab.attach();
    let opened = FlaggedService {
        fail_open: true,
        ..flagged(OPEN, 2)
    };
    redirect
        .set_services(&[flagged(CLOSED, 1), opened])
        .unwrap();
    (pod, server, redirect)
}

/// Asserts that the fail-closed port is refused at once, and the others go direct.
fn assert_unserved(app: &mut App) {
    let (outcome, took) = app.connect_timed(CLOSED, json!({}));
    assert_eq!(outcome, Err("ECONNREFUSED".into()));
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(app.connect(OPEN, json!({})).unwrap().server, "server");
    assert_eq!(app.connect(UNFLAGGED, json!({})).unwrap().server, "server");
}

fn assert_served(app: &mut App) {
    assert_eq!(app.connect(CLOSED, json!({})).unwrap().server, "waypoint");
    assert_eq!(app.connect(OPEN, json!({})).unwrap().server, "waypoint");
    assert_eq!(app.connect(UNFLAGGED, json!({})).unwrap().server, "server");
}

#[test]
fn a_killed_waypoint_refuses_or_opens_at_once_and_a_new_one_serves() {
    let Some(mut lab) = Lab::new() else { return };
    let (pod, _server, mut redirect) = scene(&mut lab);
    let waypoint = lab.enrol(&mut redirect, &pod);
    let mut app = pod.app();
    assert_served(&mut app);
    app.connect(CLOSED, json!({"name": "l7"})).unwrap();
    app.connect(UNFLAGGED, json!({"name": "l4"})).unwrap();

    waypoint.process.kill();
    assert_unserved(&mut app);
    let l7 = app.say("l7").unwrap_err();
    assert!(
        ["EOF", "ECONNRESET", "EPIPE"].contains(&l7.as_str()),
        "{l7}"
    );
    assert_eq!(app.say("l4").unwrap(), "server", "untouched");
    let status = redirect.status().unwrap();
    assert!(!status.pods[0].listening);
    assert_eq!((status.counters.refused, status.counters.opened), (1, 1));

    let _new = lab.enrol(&mut redirect, &pod);
    assert_served(&mut app);
}

#[test]
fn a_hung_waypoint_is_served_until_it_is_suspended() {
    let Some(mut lab) = Lab::new() else { return };
    let (pod, _server, mut redirect) = scene(&mut lab);
    let (waypoint, listener) = lab.stand_in(&pod);
    redirect.enrol(&waypoint.pod, listener.as_fd()).unwrap();
    let mut app = pod.app();
    waypoint.process.stop();
    // The kernel can not know: it accepts, and nobody answers.
    assert!(redirect.status().unwrap().pods[0].listening);

    redirect.suspend(waypoint.pod.netns_cookie).unwrap();
    assert_unserved(&mut app);
    assert_eq!(
        redirect.status().unwrap().pods.len(),
        1,
        "it stays enrolled"
    );

    // Back again, with the listener that it had all the time.
    redirect.enrol(&waypoint.pod, listener.as_fd()).unwrap();
    assert!(redirect.status().unwrap().pods[0].listening);
    // What a guard beside the waypoint does.
    assert_eq!(Redirect::suspend_all(lab.place()).unwrap(), 1);
    assert_unserved(&mut app);
}

#[test]
fn a_listener_that_no_longer_listens_counts_as_gone() {
    let Some(mut lab) = Lab::new() else { return };
    let (pod, _server, mut redirect) = scene(&mut lab);
    let (waypoint, listener) = lab.stand_in(&pod);
    redirect.enrol(&waypoint.pod, listener.as_fd()).unwrap();
    let mut app = pod.app();
    assert_served(&mut app);
    socket2::SockRef::from(&listener)
        .shutdown(std::net::Shutdown::Read)
        .unwrap();
    assert_unserved(&mut app);
}

#[test]
fn a_withdrawn_pods_connections_go_direct() {
    let Some(mut lab) = Lab::new() else { return };
    let (pod, _server, mut redirect) = scene(&mut lab);
    let waypoint = lab.enrol(&mut redirect, &pod);
    redirect.withdraw(waypoint.pod.netns_cookie).unwrap();
    let mut app = pod.app();
    assert_eq!(app.connect(CLOSED, json!({})).unwrap().server, "server");
    let status = redirect.status().unwrap();
    assert_eq!((status.pods.len(), status.counters.not_enrolled), (0, 1));
    redirect
        .withdraw(waypoint.pod.netns_cookie)
        .expect("twice is fine");
}

#[test]
fn unflagging_lets_new_connections_past_and_keeps_the_steered_ones() {
    let Some(mut lab) = Lab::new() else { return };
    let (pod, _server, mut redirect) = scene(&mut lab);
    let _waypoint = lab.enrol(&mut redirect, &pod);
    let mut app = pod.app();
    app.connect(CLOSED, json!({"name": "l7"})).unwrap();
    let report = redirect.set_services(&[]).unwrap();
    assert_eq!((report.removed, report.flagged), (2, 0));
    assert_eq!(app.connect(CLOSED, json!({})).unwrap().server, "server");
    assert_eq!(app.say("l7").unwrap(), "waypoint");
}
