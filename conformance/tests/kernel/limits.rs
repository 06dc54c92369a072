//! What the agent shows of itself and does at the edges: no room, no Gateway to choose, an address
//! that a pod would like to have, a start beside connections that run.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use cairn_conformance::process::Process;
use serde_json::{Value, json};

use crate::lab::{LISTENER_PORT, listen_on};
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
fn an_agent_without_room_for_the_pods_of_the_one_before_ends_and_changes_nothing() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    mesh.list(&[("client", &mesh.client), ("other", &other)]);
    drop(mesh.agent());
    let before = mesh.status();
    for (flags, needed) in [
        (["--pods-max", "1"], "start with --pods-max 2 or more"),
        (
            ["--services-max", "2"],
            "start with --services-max 3 or more",
        ),
    ] {
        let mut small = mesh.serving(mesh.cairn(&flags));
        small.arg("--pods").arg(mesh.path("pods.json"));
        let output = small.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(needed), "{said}");
        assert_eq!(mesh.status(), before);
    }
    let _agent = mesh.start(mesh.cairn(&["--pods-max", "2", "--services-max", "3"]));
    assert_eq!(mesh.status().other_layouts, [""; 0], "nothing is left half");
    assert!(
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    );
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

#[test]
fn an_agent_that_never_knew_its_gateway_lets_nobody_past() {
    let Some(mesh) = Mesh::new() else { return };
    let yaml = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    let gateway = yaml.split("---").next().unwrap();
    let second = gateway.replace("name: waypoint", "name: another");
    mesh.configure(&format!("{yaml}---{second}"));
    let agent = mesh.agent();
    let log = agent.stderr();
    assert!(
        log.contains("every service that names a Gateway is flagged"),
        "{log}"
    );
    assert!(log.contains("name one with --gateway"), "{log}");
    // Somebody is at these addresses, and would answer. It is steered, and then refused.
    for address in ["10.96.0.11", "10.96.0.12"] {
        let (code, text) = curl(&mesh.client, &[&format!("http://{address}/")]);
        assert!(
            code != Some(0) && !text.contains("app"),
            "{address}: {text}"
        );
    }
    mesh.configure(&yaml);
    until("it knows", DEADLINE, || {
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    });
    assert!(
        curl(&mesh.client, &["http://10.96.0.11/"])
            .1
            .contains("\"raw\"")
    );
}

#[test]
fn connections_that_run_direct_notice_no_start_kill_or_end_of_an_agent() {
    let Some(mesh) = Mesh::new() else { return };
    let mut app = mesh.client.app();
    let _greeter = mesh.lab.server("greeter", &[("10.96.0.11", 81)]);
    app.connect("10.96.0.11:81", json!({"name": "direct"}))
        .unwrap();
    let mut says = |when: &str| assert_eq!(app.say("direct"), Ok("greeter".into()), "{when}");
    let agent = mesh.agent();
    says("attached");
    agent.signal("KILL");
    drop(agent);
    let agent = mesh.start(mesh.cairn(&["--pods-max", "16"]));
    says("taken over, with maps of another size");
    drop(agent);
    assert!(mesh.ask(&["detach"]).status.success());
    says("detached");
    let left = fs::read_dir("/sys/fs/bpf").unwrap().flatten();
    let bpffs = mesh.lab.place().bpffs.file_name().unwrap().to_owned();
    assert!(
        !left.into_iter().any(|entry| entry.file_name() == bpffs),
        "no pin is left"
    );
}

#[test]
fn nobody_outside_the_pod_reaches_its_listener_and_a_port_that_is_taken_is_no_obstacle() {
    let Some(mesh) = Mesh::new() else { return };
    let pod = &mesh.client;
    let _taken = pod.within(|| listen_on(b"lo", LISTENER_PORT));
    let agent = mesh.agent();
    let port = mesh.status().pods[0].listener_port;
    assert_ne!(port, LISTENER_PORT);
    let (_, text) = curl(pod, &["http://10.96.0.10/"]);
    assert!(text.ends_with(" 200\n"), "{text} {}", agent.stderr());
    let reach = |to: SocketAddr| TcpStream::connect_timeout(&to, DEADLINE).map(drop);
    for to in [
        SocketAddr::from((pod.address, port)),
        SocketAddr::from((pod.address6, port)),
    ] {
        let outside = mesh.lab.hub().within(|| reach(to));
        let refused = outside.unwrap_err().kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{to}");
    }
    // From inside it is there, and stands for no service: reset, perhaps before connect() returns.
    let inside = pod.within(|| reach(SocketAddr::from(([127, 0, 0, 1], port))));
    let refused = inside.err().map(|error| error.kind());
    assert!(
        matches!(refused, None | Some(std::io::ErrorKind::ConnectionReset)),
        "{refused:?}"
    );
}
