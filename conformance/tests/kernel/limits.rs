//! What the agent shows of itself: where it stands, what has no room, and who policy takes a pod for.

use std::fs;
use std::process::Command;

use cairn_conformance::process::Process;
use serde_json::{Value, json};

use crate::mesh::{DEADLINE, Mesh, curl, log_lines, replace, until};

/// The value of a series, as a scrape of this agent has it.
fn scraped(agent: &Process, series: &str) -> Option<f64> {
    let log = agent.stderr();
    let (_, after) = log.split_once(" metrics=")?;
    let address = after.split_whitespace().next()?;
    let text = Command::new("curl")
        .args(["-s", &format!("http://{address}/metrics")])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn shows(agent: &Process, series: &str, value: f64) {
    until(&format!("{series} is {value}"), DEADLINE, || {
        scraped(agent, series) == Some(value)
    });
}

#[test]
fn pods_and_services_without_room_are_told_and_have_it_with_larger_maps() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    mesh.list(&[("client", &mesh.client), ("other", &other)]);
    let agent = mesh.start(mesh.cairn(&["--pods-max", "1", "--services-max", "2"]));
    for (series, value) in [
        ("cairn_node_pods{state=\"served\"}", 1.0),
        ("cairn_node_pods{state=\"failed\"}", 1.0),
        ("cairn_node_services{state=\"flagged\"}", 2.0),
        ("cairn_node_services{state=\"left_out\"}", 1.0),
        ("cairn_node_map_entries{map=\"cairn_pods\"}", 1.0),
        ("cairn_node_map_limit{map=\"cairn_pods\"}", 1.0),
        ("cairn_node_map_limit{map=\"cairn_services\"}", 2.0),
        ("cairn_node_events_total{event=\"worker_hung\"}", 0.0),
    ] {
        shows(&agent, series, value);
    }
    let log = agent.stderr();
    assert!(log.contains("with a larger --pods-max"), "{log}");
    assert!(
        log.contains("not steered: its connections go direct, past policy"),
        "{log}"
    );
    curl(&mesh.client, &["http://10.96.0.10/"]);
    shows(
        &agent,
        "cairn_node_connections_total{outcome=\"steered\"}",
        1.0,
    );

    drop(agent);
    let agent = mesh.agent();
    assert_eq!(
        mesh.status().other_layouts,
        [""; 0],
        "the small ones are gone"
    );
    assert_eq!(
        (mesh.status().pods.len(), mesh.status().services.len()),
        (2, 3)
    );
    shows(&agent, "cairn_node_pods{state=\"served\"}", 2.0);
    assert!(curl(&other, &["http://10.96.0.10/"]).1.ends_with(" 403\n"));
}

#[test]
fn a_pod_does_not_choose_the_address_that_policy_sees() {
    let Some(mesh) = Mesh::new() else { return };
    let listed = fs::read_to_string(mesh.path("pods.json")).unwrap();
    let mut pods: Value = serde_json::from_str(&listed).unwrap();
    pods[0]["addresses"] = json!(["10.200.0.7"]);
    replace(&mesh.path("pods.json"), &pods.to_string());
    let agent = mesh.agent();
    assert!(
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    );
    until("the request is logged", DEADLINE, || {
        !log_lines(&agent).is_empty()
    });
    let seen = &log_lines(&agent)[0]["downstream_remote_address"];
    assert!(seen.as_str().unwrap().starts_with("10.200.0.7:"), "{seen}");
}
