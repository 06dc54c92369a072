//! Maps of other sizes: what does not fit is told and nothing else suffers, and who starts with other
//! sizes takes over what is there.

use std::os::fd::AsFd;

use cairn_kernel_redirect::{LeftOutReason, Redirect, RedirectError, Sizes};

use crate::lab::{LISTENER_PORT, Lab};
use crate::scene::{Scene, flagged, opened, reached};

fn attach(lab: &Lab, sizes: Sizes) -> Redirect {
    Redirect::attach_sized(lab.place(), &lab.waypoint_cgroup(), sizes).unwrap()
}

#[test]
fn small_maps_tell_what_they_have_no_room_for() {
    let Some(mut lab) = Lab::new() else { return };
    let sizes = Sizes {
        services: 2,
        pods: 1,
    };
    let mut redirect = attach(&lab, sizes);
    let (pod, other) = (lab.pod("a"), lab.pod("b"));
    let _waypoint = lab.enrol(&mut redirect, &pod);
    let (second, listener) = lab.stand_in(&other);
    let full = redirect.enrol(&second.pod, listener.as_fd()).unwrap_err();
    assert!(
        matches!(full, RedirectError::Full { limit: 1, .. }),
        "{full}"
    );
    assert!(full.to_string().contains("--pods-max"), "{full}");

    let ports = [80, 81, 82].map(|port| format!("10.96.0.1:{port}"));
    let services: Vec<_> = (1..)
        .zip(&ports)
        .map(|(slot, to)| flagged(to, slot))
        .collect();
    let report = redirect.set_services(&services).unwrap();
    let left: Vec<_> = report.left_out.iter().map(|l| l.service.port).collect();
    assert_eq!((report.flagged, left), (2, vec![82]));
    assert_eq!(report.left_out[0].reason, LeftOutReason::MapFull);
    let status = redirect.status().unwrap();
    let fill: Vec<_> = status.maps.iter().map(|m| (m.entries, m.limit)).collect();
    assert_eq!(fill, [(2, 2), (2, 2), (1, 1), (1, 1)]);
    // Who is in is served.
    assert_eq!(
        reached(&mut pod.app(), "10.96.0.1:80"),
        Ok("waypoint".into())
    );
}

/// The server would answer whoever went direct.
#[test]
fn who_starts_with_other_sizes_takes_over_without_letting_anybody_past() {
    let served = [("10.96.0.1", 80), ("10.96.0.1", 81)];
    let services = [flagged("10.96.0.1:80", 1), opened("10.96.0.1:81", 2)];
    let Some(mut scene) = Scene::new(&served, &services) else {
        return;
    };
    let forgotten = scene.lab.pod("b");
    let _its_waypoint = scene.lab.enrol(&mut scene.redirect, &forgotten);
    let mut app = forgotten.app();
    let larger = Sizes {
        pods: 8_192,
        services: 131_072,
    };
    let mut redirect = attach(&scene.lab, larger);
    assert_eq!(redirect.sizes(), larger);
    assert_eq!(redirect.status().unwrap().other_layouts, ["v2-0"]);
    assert_eq!(
        scene.reached("10.96.0.1:80"),
        Ok("waypoint".into()),
        "no gap"
    );

    redirect.set_services(&services).unwrap();
    let _waypoint = scene
        .lab
        .enrol_on(&mut redirect, &scene.pod, LISTENER_PORT + 1);
    assert_eq!(redirect.retire_other_layouts().unwrap(), 1);
    assert_eq!(redirect.status().unwrap().other_layouts, [""; 0]);
    let reached_at = scene.app.connect("10.96.0.1:80", serde_json::json!({}));
    assert_eq!(reached_at.unwrap().local.port(), LISTENER_PORT + 1);

    // The pod that nobody enrolled anew is known, and each service has what it asked for.
    let refused = Err("ECONNREFUSED".into());
    assert_eq!(reached(&mut app, "10.96.0.1:80"), refused);
    assert_eq!(reached(&mut app, "10.96.0.1:81"), Ok("server".into()));
    // The same sizes again: nothing is set aside.
    drop(redirect);
    let again = attach(&scene.lab, larger).status().unwrap();
    assert_eq!((again.other_layouts.len(), again.pods.len()), (0, 2));
}

#[test]
fn a_start_with_sizes_that_can_not_be_had_leaves_what_was_there() {
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &[flagged("10.96.0.1:80", 1)]) else {
        return;
    };
    // More than the kernel makes a map of.
    let huge = Sizes {
        services: u32::MAX,
        pods: 1,
    };
    let (place, own) = (scene.lab.place(), scene.lab.waypoint_cgroup());
    Redirect::attach_sized(place, &own, huge).unwrap_err();
    let status = Redirect::inspect(place).unwrap().expect("as it was");
    assert_eq!(status, scene.redirect.status().unwrap());
    assert!(status.other_layouts.is_empty());
    assert_eq!(scene.reached("10.96.0.1:80"), Ok("waypoint".into()));
}

/// Taken over they would have to be refused for ever, or let past.
#[test]
fn a_start_without_room_for_what_is_known_is_refused_before_anything_is_touched() {
    let services = [flagged("10.96.0.1:80", 1), flagged("10.96.0.1:81", 2)];
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &services) else {
        return;
    };
    let other = scene.lab.pod("b");
    let _its_waypoint = scene.lab.enrol(&mut scene.redirect, &other);
    let (place, own) = (scene.lab.place(), scene.lab.waypoint_cgroup());
    let before = Redirect::inspect(place).unwrap().unwrap();
    let refused = |services, pods| {
        let sizes = Sizes { services, pods };
        let error = Redirect::attach_sized(place, &own, sizes).unwrap_err();
        assert!(matches!(error, RedirectError::TooSmall { .. }), "{error}");
        error.to_string()
    };
    for (said, needed) in [
        (
            refused(2, 1),
            "2 pods are enrolled from before, and with --pods-max 1 ",
        ),
        (
            refused(1, 2),
            "2 services are flagged from before, and with --services-max 1 ",
        ),
        (refused(1, 1), "start with --pods-max 2 or more"),
    ] {
        assert!(said.contains(needed), "{said}");
    }
    assert_eq!(Redirect::inspect(place).unwrap().unwrap(), before);
    assert_eq!(scene.reached("10.96.0.1:80"), Ok("waypoint".into()));

    // As much as is needed is enough, and the old ones go.
    let enough = Sizes {
        services: 2,
        pods: 2,
    };
    let mut redirect = attach(&scene.lab, enough);
    assert_eq!(redirect.pods().unwrap().len(), 2);
    redirect.set_services(&services).unwrap();
    assert_eq!(redirect.retire_other_layouts().unwrap(), 1);
}

/// What the list does not have any more is withdrawn, wherever it is known from. It does not come back
/// with another start before the old maps are gone, nor when they go.
#[test]
fn a_pod_withdrawn_before_the_old_maps_are_retired_does_not_come_back() {
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &[flagged("10.96.0.1:80", 1)]) else {
        return;
    };
    let sizes = Sizes {
        services: 8,
        pods: 1,
    };
    let mut redirect = attach(&scene.lab, sizes);
    let [known] = redirect.pods().unwrap()[..] else {
        panic!("the pod is known from the start")
    };
    redirect.withdraw(known).unwrap();
    let next = scene.lab.pod("b");
    let _its_waypoint = scene.lab.enrol(&mut redirect, &next);
    drop(redirect);
    let mut redirect = attach(&scene.lab, sizes);
    redirect
        .set_services(&[flagged("10.96.0.1:80", 1)])
        .unwrap();
    assert_eq!(redirect.retire_other_layouts().unwrap(), 1);
    let pods = redirect.status().unwrap().pods;
    assert_eq!(pods.len(), 1);
    assert!(pods[0].netns_cookie != known && pods[0].listening);
    assert_eq!(
        reached(&mut next.app(), "10.96.0.1:80"),
        Ok("waypoint".into())
    );
}
