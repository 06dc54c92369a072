//! The map of flagged services: kept in step, and what happens when it is full.

use cairn_kernel_redirect::{FlaggedService, LeftOutReason};
use serde_json::json;

use crate::scene::{Scene, flagged, reached};

/// As many as the kernel's map has room for.
const ROOM: u32 = 65_536;

/// A service of its own for each number.
fn numbered(number: u32) -> FlaggedService {
    let [_, a, b, c] = number.to_be_bytes();
    flagged(&format!("10.{}.{b}.{c}:80", 100 + a), number)
}

#[test]
fn a_full_map_is_reported_and_what_is_in_it_stays_in_force() {
    let Some(mut scene) = Scene::new(&[], &[]) else {
        return;
    };
    let mut wanted: Vec<_> = (0..ROOM + 3).map(numbered).collect();
    let report = scene.redirect.set_services(&wanted).unwrap();
    assert_eq!(report.flagged, ROOM as usize);
    let left_out: Vec<_> = report.left_out.iter().map(|l| l.service.slot).collect();
    assert_eq!(
        left_out,
        [ROOM, ROOM + 1, ROOM + 2],
        "the last ones, each named"
    );
    assert!(
        report
            .left_out
            .iter()
            .all(|l| l.reason == LeftOutReason::MapFull)
    );
    let status = scene.redirect.status().unwrap();
    assert_eq!(
        (status.maps[0].entries, status.maps[0].limit),
        (ROOM as usize, ROOM)
    );
    for number in [0, ROOM - 1] {
        let to = numbered(number);
        let to = format!("{}:{}", to.address, to.port);
        assert_eq!(scene.reached(&to).unwrap(), "waypoint", "{to}");
    }

    // Room is made, and used at once: the slots of those that went are given up too.
    wanted.drain(0..3);
    let report = scene.redirect.set_services(&wanted).unwrap();
    assert_eq!(
        (report.removed, report.added, report.left_out.len()),
        (3, 3, 0)
    );
    let last = numbered(ROOM + 2);
    let reached = scene
        .app
        .connect(&format!("{}:80", last.address), json!({}))
        .unwrap();
    assert_eq!(
        cairn_kernel_redirect::slot_of(reached.local),
        Some(ROOM + 2)
    );
}

#[test]
fn a_service_changes_slot_and_failure_mode_in_place() {
    let first = flagged("10.96.0.1:80", 1);
    let Some(mut scene) = Scene::new(&[("10.96.0.1", 80)], &[first]) else {
        return;
    };
    let now = FlaggedService {
        slot: 2,
        fail_open: true,
        ..first
    };
    let report = scene.redirect.set_services(&[now]).unwrap();
    assert_eq!((report.added, report.changed, report.removed), (0, 1, 0));
    let arrived = scene.app.connect("10.96.0.1:80", json!({})).unwrap();
    assert_eq!(cairn_kernel_redirect::slot_of(arrived.local), Some(2));
    scene.waypoint.process.kill();
    assert_eq!(reached(&mut scene.app, "10.96.0.1:80").unwrap(), "server");
    assert_eq!(
        scene.redirect.set_services(&[now]).unwrap().changed,
        0,
        "nothing to do"
    );
}
