//! Attaching, taking over, upgrading, detaching; and what keeps the redirect from being attached.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_kernel_redirect::{EnrolledPod, Place, Redirect, RedirectError, existing};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::lab::{LISTENER_PORT, Lab, listen_on, until};
use crate::scene::{Scene, flagged, reached};

#[test]
fn whoever_attaches_next_takes_over_with_flows_and_connects_undisturbed() {
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 81)], &[flagged("10.96.0.1:80", 9)]) else {
        return;
    };
    scene
        .app
        .connect("10.96.0.1:80", json!({"name": "l7"}))
        .unwrap();
    scene
        .app
        .connect("10.96.0.1:81", json!({"name": "l4"}))
        .unwrap();
    let before = scene.redirect.status().unwrap();
    drop(scene.redirect);

    // Nobody is loaded; the kernel goes on by itself.
    assert_eq!(reached(&mut scene.app, "10.96.0.1:80").unwrap(), "waypoint");
    for _ in 0..3 {
        let redirect = scene.lab.attach();
        assert_eq!(reached(&mut scene.app, "10.96.0.1:80").unwrap(), "waypoint");
        let after = redirect.status().unwrap();
        assert_eq!(
            (&after.services, &after.pods),
            (&before.services, &before.pods)
        );
        assert_eq!(
            redirect.slots().collect::<Vec<_>>(),
            [(9, "10.96.0.1:80".parse().unwrap())]
        );
        let programs = |s: &cairn_kernel_redirect::Status| -> Vec<_> {
            s.programs
                .iter()
                .map(|p| (p.attached(), p.cgroup_id))
                .collect()
        };
        assert_eq!(programs(&after), programs(&before));
        assert_ne!(after.programs[0].id, before.programs[0].id, "replaced");
    }
    let after = scene.lab.attach().status().unwrap();
    assert_eq!((after.counters.steered, after.counters.refused), (5, 0));
    assert_eq!(scene.app.say("l7").unwrap(), "waypoint");
    assert_eq!(scene.app.say("l4").unwrap(), "server");
}

/// The server would answer whoever went direct.
#[test]
fn no_connection_goes_astray_while_the_program_is_replaced() {
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &[flagged("10.96.0.1:80", 1)]) else {
        return;
    };
    let done = AtomicBool::new(false);
    let connections = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut connections = 0;
            while !done.load(Ordering::Relaxed) && connections < 20_000 {
                let reached = scene.app.connect("10.96.0.1:80", json!({})).unwrap();
                assert_eq!(reached.server, "waypoint", "connection {connections}");
                assert_eq!(reached.peer, "10.96.0.1:80".parse().unwrap());
                connections += 1;
            }
            connections
        });
        for _ in 0..10 {
            drop(scene.lab.attach());
        }
        done.store(true, Ordering::Relaxed);
        connecting.join().unwrap()
    });
    let counters = scene.counters();
    assert_eq!((counters.steered, counters.refused), (connections, 0));
    assert!(connections > 10, "{connections} while it was replaced");
}

#[test]
fn status_reads_without_taking_over_and_detach_removes_everything() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let _server = lab.server("server", &[("10.96.0.1", 80)]);
    assert_eq!(Redirect::inspect(lab.place()).unwrap(), None);
    let mut redirect = lab.attach();
    let (waypoint, listener) = lab.stand_in(&pod);
    redirect.enrol(&waypoint.pod, listener.as_fd()).unwrap();
    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    let mut app = pod.app();
    app.connect("10.96.0.1:80", json!({"name": "l7"})).unwrap();
    let status = Redirect::inspect(lab.place()).unwrap().unwrap();
    assert_eq!(status, redirect.status().unwrap());
    assert!(status.programs.iter().all(|p| p.attached()));
    let fill: Vec<_> = status.maps.iter().map(|m| (m.name, m.entries)).collect();
    let names = [
        "cairn_services",
        "cairn_slots",
        "cairn_pods",
        "cairn_listeners",
    ];
    assert_eq!(fill, names.map(|name| (name, 1)));

    let gone = Redirect::detach(lab.place()).unwrap();
    assert_eq!((gone.programs, gone.maps), (4, 6));
    assert!(!lab.place().bpffs.exists());
    assert_eq!(
        app.connect("10.96.0.1:80", json!({})).unwrap().server,
        "server"
    );
    assert_eq!(
        app.say("l7").unwrap(),
        "waypoint",
        "what is steered goes on"
    );
    assert_eq!(Redirect::detach(lab.place()).unwrap().programs, 0);
    let detached = redirect.status().expect("who still runs can tell");
    assert!(!detached.programs.iter().any(|p| p.attached()));

    // A reboot, seen from here: nothing is pinned, and whoever starts sets all up anew.
    let mut redirect = lab.attach();
    assert_eq!(redirect.status().unwrap().services, []);
    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    redirect.enrol(&waypoint.pod, listener.as_fd()).unwrap();
    assert_eq!(
        app.connect("10.96.0.1:80", json!({})).unwrap().server,
        "waypoint"
    );
}

#[test]
fn a_cgroup_made_anew_is_attached_to_anew() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let first = lab.attach();
    assert!(
        first
            .status()
            .unwrap()
            .programs
            .iter()
            .all(|p| p.attached())
    );
    drop(first);
    lab.renew_cgroups();
    // The kernel lets go of a removed cgroup when nobody looks at it any more.
    until("status tells that the cgroup is gone", || {
        let orphaned = Redirect::inspect(lab.place()).unwrap().unwrap();
        !orphaned.programs.iter().any(|p| p.attached())
    });

    let mut redirect = lab.attach();
    assert!(
        redirect
            .status()
            .unwrap()
            .programs
            .iter()
            .all(|p| p.attached())
    );
    let pod = lab.pod("a");
    let _waypoint = lab.enrol(&mut redirect, &pod);
    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    assert_eq!(
        pod.app().connect("10.96.0.1:80", json!({})).unwrap().server,
        "waypoint"
    );
}

#[test]
fn what_a_process_left_half_way_is_not_in_the_way_of_the_next() {
    let Some(lab) = Lab::new() else { return };
    let folder = lab.place().bpffs.join("v2");
    let left = || {
        let names = std::fs::read_dir(&folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with("_new")).count()
    };
    drop(lab.attach());
    // It ended after pinning a link and before giving it its name.
    let link = folder.join("cairn_connect4_link");
    std::fs::rename(&link, folder.join("cairn_connect4_new")).unwrap();
    assert_eq!(left(), 1);
    let redirect = lab.attach();
    let programs = redirect.status().unwrap().programs;
    assert!(programs.iter().all(|p| p.attached()));
    assert_eq!(left(), 0);
}

#[test]
fn another_layout_stays_attached_until_it_is_retired() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    // What an older version left: the same program under another version's name.
    let mut old = lab.attach();
    let _old_waypoint = lab.enrol(&mut old, &pod);
    old.set_services(&[flagged("10.96.0.1:80", 1)]).unwrap();
    drop(old);
    let folder = &lab.place().bpffs;
    std::fs::rename(folder.join("v2"), folder.join("v1")).unwrap();

    let mut redirect = lab.attach();
    assert_eq!(redirect.status().unwrap().other_layouts, ["v1"]);
    let mut app = pod.app();
    assert_eq!(
        app.connect("10.96.0.1:80", json!({})).unwrap().server,
        "waypoint",
        "no gap"
    );
    assert_eq!(
        redirect.status().unwrap().counters.steered,
        0,
        "by the old one"
    );

    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    let _waypoint = lab.enrol_on(&mut redirect, &pod, LISTENER_PORT + 1);
    assert_eq!(redirect.retire_other_layouts().unwrap(), 1);
    assert_eq!(redirect.status().unwrap().other_layouts, [""; 0]);
    let reached = app.connect("10.96.0.1:80", json!({})).unwrap();
    assert_eq!(reached.local.port(), LISTENER_PORT + 1);
    assert_eq!(redirect.status().unwrap().counters.steered, 1);
}

#[test]
fn what_can_not_be_attached_leaves_nothing_behind_and_names_the_fix() {
    let Some(lab) = Lab::new() else { return };
    let place = |bpffs: &Path, cgroup: &Path| Place {
        bpffs: bpffs.to_path_buf(),
        cgroup: cgroup.to_path_buf(),
    };
    let own = lab.waypoint_cgroup();
    let (bpffs, cgroup) = (&lab.place().bpffs, &lab.place().cgroup);
    let folder = tempfile::tempdir().unwrap();
    let failure = |place: &Place, own: &Path| Redirect::attach(place, own).unwrap_err().to_string();

    let error = failure(&place(bpffs, Path::new("/proc")), &own);
    assert!(error.contains("/proc is no cgroup v2 folder"), "{error}");
    assert!(error.contains("cgroup v2 is mounted at"), "{error}");
    assert!(!bpffs.exists(), "nothing half attached");
    let error = failure(&place(bpffs, &cgroup.join("missing")), &own);
    assert!(error.contains("No such file"), "{error}");
    let error = failure(&place(bpffs, cgroup), &PathBuf::from("/tmp"));
    assert!(error.contains("/tmp is no cgroup v2 folder"), "{error}");
    let error = failure(&place(folder.path(), cgroup), &own);
    assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    assert!(!bpffs.exists());

    // A pin that some other program left under our name.
    let redirect = lab.attach();
    drop(redirect);
    let ours = bpffs.join("v2");
    std::fs::remove_file(ours.join("cairn_pods")).unwrap();
    std::fs::rename(ours.join("cairn_slots"), ours.join("cairn_pods")).unwrap();
    let error = failure(lab.place(), &own);
    assert!(error.contains("cairn node detach"), "{error}");
    Redirect::detach(lab.place()).unwrap();
}

#[test]
fn a_socket_that_can_not_be_steered_to_is_refused_with_the_reason() {
    let Some(mut lab) = Lab::new() else { return };
    let pod = lab.pod("a");
    let mut redirect = lab.attach();
    let (stand_in, listener) = lab.stand_in(&pod);
    let mut why = |enrolled: &EnrolledPod, socket: std::os::fd::BorrowedFd<'_>| match redirect
        .enrol(enrolled, socket)
        .unwrap_err()
    {
        RedirectError::Listener { why, .. } => why,
        other => panic!("{other}"),
    };
    let other_port = EnrolledPod {
        listener_port: 1,
        ..stand_in.pod
    };
    assert!(why(&other_port, listener.as_fd()).contains("15001"));
    let ours = listen_on(b"lo", 0);
    assert!(why(&stand_in.pod, ours.as_fd()).contains("network namespace"));
    let (idle, exposed) = pod.within(|| {
        let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let exposed = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        (idle, exposed)
    });
    assert!(why(&stand_in.pod, idle.as_fd()).contains("no TCP socket that listens"));
    let exposed_port = EnrolledPod {
        listener_port: exposed.local_addr().unwrap().port(),
        ..stand_in.pod
    };
    assert!(why(&exposed_port, exposed.as_fd()).contains("from outside the pod"));
    assert_eq!(redirect.status().unwrap().pods, []);
}

#[test]
fn connections_from_before_a_service_was_flagged_are_counted_and_closed() {
    let Some(mut scene) = Scene::new(
        &[("10.96.0.1", 80), ("10.96.0.1", 81), ("fd00:96::1", 80)],
        &[],
    ) else {
        return;
    };
    scene
        .app
        .connect("10.96.0.1:80", json!({"name": "v4"}))
        .unwrap();
    scene
        .app
        .connect("[::ffff:10.96.0.1]:80", json!({"name": "mapped"}))
        .unwrap();
    scene
        .app
        .connect("10.96.0.1:81", json!({"name": "other"}))
        .unwrap();
    scene
        .redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    scene
        .app
        .connect("10.96.0.1:80", json!({"name": "steered"}))
        .unwrap();
    assert_eq!(
        scene.app.say("v4").unwrap(),
        "server",
        "an old connection stays direct"
    );

    // Of an IPv6 service too.
    scene
        .app
        .connect("[fd00:96::1]:80", json!({"name": "v6"}))
        .unwrap();
    let v6 = "[fd00:96::1]:80".parse().unwrap();
    assert_eq!(scene.pod.within(|| existing::destroy(v6)).unwrap(), 1);
    assert_eq!(scene.app.say("v6"), Err("ECONNABORTED".into()));

    let to = "10.96.0.1:80".parse().unwrap();
    assert_eq!(scene.pod.within(|| existing::count(to)).unwrap(), 2);
    assert_eq!(scene.pod.within(|| existing::destroy(to)).unwrap(), 2);
    assert_eq!(scene.pod.within(|| existing::count(to)).unwrap(), 0);
    assert_eq!(scene.app.say("v4"), Err("ECONNABORTED".into()));
    assert_eq!(scene.app.say("mapped"), Err("ECONNABORTED".into()));
    assert_eq!(scene.app.say("other").unwrap(), "server");
    assert_eq!(scene.app.say("steered").unwrap(), "waypoint");
    assert_eq!(scene.reached("10.96.0.1:80").unwrap(), "waypoint");
}
