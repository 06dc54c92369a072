//! `cairn node` end to end: real curl in pods, applications behind services, and the agent as a
//! process that is killed, stopped and started again.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cairn_kernel_redirect::Redirect;
use serde_json::{Value, json};

use crate::mesh::{DEADLINE, Mesh, REFUSED, curl, log_lines, replace, until};

#[test]
fn policy_and_routes_hold_through_the_kernel() {
    let Some(mesh) = Mesh::new() else { return };
    let agent = mesh.agent();
    let flagged: Vec<String> = mesh
        .status()
        .services
        .iter()
        .map(|s| format!("{}:{}", s.address, s.port))
        .collect();
    assert_eq!(
        flagged,
        ["10.96.0.10:80", "10.96.0.12:80", "10.96.0.13:5432"],
        "exactly those with something at L7"
    );

    let (code, text) = curl(&mesh.client, &["http://10.96.0.10/items"]);
    assert!(
        code == Some(0) && text.ends_with(" 200\n"),
        "{text} {}",
        agent.stderr()
    );
    let (_, text) = curl(&mesh.client, &["-X", "DELETE", "http://10.96.0.10/items"]);
    assert!(text.ends_with(" 403\n"), "{text}");
    let denied = || {
        log_lines(&agent)
            .into_iter()
            .find(|line| line["method"] == "DELETE")
    };
    until("the denial is logged", DEADLINE, || denied().is_some());
    let denied = denied().unwrap();
    assert_eq!(
        denied["source_principal"],
        "spiffe://cluster.local/ns/shop/sa/client"
    );
    let reason = denied["reason"].as_str().unwrap();
    assert!(
        reason.contains("AuthorizationPolicy/shop/readers rule 0: method DELETE is not GET"),
        "{reason}"
    );

    // The servers see the pod, and not the node.
    let allowed = log_lines(&agent)
        .into_iter()
        .find(|line| line["method"] == "GET")
        .unwrap();
    for key in ["upstream_local_address", "downstream_remote_address"] {
        let address = allowed[key].as_str().unwrap();
        assert!(
            address.starts_with(&format!("{}:", mesh.client.address)),
            "{key}: {address}"
        );
    }

    let (_, text) = curl(&mesh.client, &["http://10.96.0.10/[1-200]"]);
    let of = |name: &str| text.matches(&format!("\"app\":\"{name}\"")).count();
    assert_eq!(of("v1") + of("v2"), 200, "{text}");
    assert!((5..=45).contains(&of("v2")), "10 % of 200 are {}", of("v2"));

    let before = mesh.status().counters.steered;
    let (_, text) = curl(&mesh.client, &["-X", "DELETE", "http://10.96.0.11/"]);
    assert!(
        text.contains("\"raw\"") && text.ends_with(" 200\n"),
        "{text}"
    );
    assert_eq!(
        mesh.status().counters.steered,
        before,
        "the other port was not touched"
    );
}

#[test]
fn a_tcp_service_speaks_first_and_its_policy_decides_by_the_pod() {
    let Some(mut mesh) = Mesh::new() else { return };
    let stranger = mesh.lab.pod("stranger");
    mesh.list(&[("client", &mesh.client), ("stranger", &stranger)]);
    let _server = mesh.lab.server("db", &[("10.97.0.4", 5432)]);
    let _agent = mesh.agent();
    let to = "10.96.0.13:5432";
    let reached = mesh.client.app().connect(to, json!({})).unwrap();
    assert_eq!(reached.server, "db");
    assert_eq!(
        reached.from,
        IpAddr::V4(mesh.client.address),
        "as the server sees it"
    );
    assert_eq!(reached.peer, to.parse().unwrap(), "as dialled");
    stranger.app().connect(to, json!({})).unwrap_err();
    // The same pod under another account: known by its listing, and at once.
    let listed = fs::read_to_string(mesh.path("pods.json")).unwrap();
    replace(
        &mesh.path("pods.json"),
        &listed.replace(
            "\"serviceAccount\":\"stranger\"",
            "\"serviceAccount\":\"client\"",
        ),
    );
    until("the stranger is a client", DEADLINE, || {
        stranger.app().connect(to, json!({})).is_ok()
    });
}

#[test]
fn a_steered_stream_that_new_policy_denies_is_reset() {
    let Some(mesh) = Mesh::new() else { return };
    let _server = mesh.lab.server("db", &[("10.97.0.4", 5432)]);
    let _agent = mesh.agent();
    let mut app = mesh.client.app();
    app.connect("10.96.0.13:5432", json!({"name": "db"}))
        .unwrap();
    assert_eq!(app.say("db").unwrap(), "db");
    let text = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    mesh.configure(&text.replace("serviceAccounts: [client]", "serviceAccounts: [other]"));
    let mut ended = Ok(String::new());
    until("the stream ends", DEADLINE, || {
        ended = app.say("db");
        ended.is_err()
    });
    assert_eq!(ended, Err("ECONNRESET".into()), "not a clean end");
}

#[test]
fn killed_or_stopped_each_service_has_what_it_asked_for() {
    let Some(mesh) = Mesh::new() else { return };
    let agent = mesh.agent();
    let refused = || curl(&mesh.client, &["http://10.96.0.10/"]).0 == REFUSED;
    let steered = || {
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    };
    let open_by = |name: &str| {
        curl(&mesh.client, &["http://10.96.0.12/"])
            .1
            .contains(&format!("\"{name}\""))
    };
    assert!(steered() && open_by("open"));

    // Stopped, it still listens: nobody but the guard can tell.
    agent.signal("STOP");
    let stopped = Instant::now();
    until(
        "the guard takes the listeners away",
        Duration::from_secs(4),
        || mesh.status().pods.iter().all(|pod| !pod.listening),
    );
    assert!(
        // 2 s, and one more for machines that share their cores.
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    assert!(refused() && open_by("direct"));
    agent.signal("CONT");
    until("it is steered to again", DEADLINE, &steered);
    assert!(open_by("open"));

    agent.signal("KILL");
    until("it is refused", DEADLINE, &refused);
    let began = Instant::now();
    assert!(
        refused() && began.elapsed() < Duration::from_secs(2),
        "at once"
    );
    assert!(open_by("direct"));

    let before: Vec<u32> = mesh.status().services.iter().map(|s| s.slot).collect();
    let _again = mesh.agent();
    assert!(steered() && open_by("open"));
    let after: Vec<u32> = mesh.status().services.iter().map(|s| s.slot).collect();
    assert_eq!(before, after, "slots stay what they were");
}

#[test]
fn pods_come_and_go() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    let agent = mesh.agent();
    // Not listed: no business of ours. Nobody is at the virtual address.
    assert_eq!(curl(&other, &["http://10.96.0.10/"]).0, REFUSED);
    mesh.list(&[("client", &mesh.client), ("other", &other)]);
    until(
        "it is enrolled, and policy knows who it is",
        DEADLINE,
        || curl(&other, &["http://10.96.0.10/"]).1.ends_with(" 403\n"),
    );
    // A list that is wrong changes nothing.
    replace(&mesh.path("pods.json"), "[{}]");
    until("it is told", DEADLINE, || {
        agent.stderr().contains("the list of pods is wrong")
    });
    assert!(curl(&other, &["http://10.96.0.10/"]).1.ends_with(" 403\n"));
    mesh.list(&[("other", &other)]);
    until("the other one left", DEADLINE, || {
        mesh.status().pods.len() == 1
    });
    assert_eq!(curl(&mesh.client, &["http://10.96.0.10/"]).0, REFUSED);
}

#[test]
fn connections_from_before_the_flag_are_counted_and_closed() {
    let Some(mesh) = Mesh::new() else { return };
    let _agent = mesh.agent();
    let mut app = mesh.client.app();
    let _greeter = mesh.lab.server("greeter", &[("10.96.0.11", 81)]);
    app.connect("10.96.0.11:81", json!({"name": "old"}))
        .unwrap();
    let pods = mesh.path("pods.json");
    let ask = |more: &[&str]| {
        let pods = ["--pods", pods.to_str().unwrap()];
        mesh.ask(&[&["connections"], &pods[..], more].concat())
    };
    assert!(ask(&[]).status.success(), "81 is not flagged");

    let yaml = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    mesh.configure(&yaml.replace(
        "{name: tcp, port: 80}",
        "{name: tcp, port: 80}, {name: http, port: 81}",
    ));
    until("81 is flagged", DEADLINE, || {
        mesh.status().services.iter().any(|s| s.port == 81)
    });
    let found = ask(&[]);
    let text = String::from_utf8_lossy(&found.stdout);
    assert_eq!(found.status.code(), Some(1));
    assert!(
        text.contains("shop/client -> 10.96.0.11:81: 1 connection goes direct"),
        "{text}"
    );
    let closed = ask(&["--close", "-o", "json"]);
    let rows: Value = serde_json::from_slice(&closed.stdout).unwrap();
    assert_eq!(
        (&rows[0]["open"], &rows[0]["closed"]),
        (&json!(0), &json!(1)),
        "{rows}"
    );
    assert!(app.say("old").is_err(), "the application notices");
}

#[test]
fn status_and_detach_tell_what_they_see_and_do() {
    let Some(mesh) = Mesh::new() else { return };
    let empty = mesh.ask(&["status"]);
    assert_eq!(empty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&empty.stdout).contains("nothing is attached"));

    let agent = mesh.agent();
    let pods = mesh.path("pods.json");
    let shown = mesh.ask(&["status", "-o", "json", "--pods", pods.to_str().unwrap()]);
    let status: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(status["attached"], true, "{status:#}");
    assert_eq!(status["pods"][0]["pod"], "shop/client", "{status:#}");
    assert_eq!(
        status["services"].as_array().unwrap().len(),
        3,
        "{status:#}"
    );
    let fill = |at: usize| (&status["maps"][at]["entries"], &status["maps"][at]["limit"]);
    assert_eq!(fill(0), (&json!(3), &json!(65_536)), "{status:#}");
    assert_eq!(fill(2), (&json!(1), &json!(4_096)), "{status:#}");
    assert_eq!(status["counters"].as_object().unwrap().len(), 6);
    let programs = status["programs"].as_array().unwrap();
    assert!(programs.len() == 4 && programs.iter().all(|p| p["attached"] == true));
    let features = status["features"].as_array().unwrap();
    let why = |f: &Value| f["why"].as_str().is_some_and(|why| !why.is_empty());
    assert!(
        features.len() == 4 && features.iter().all(why),
        "{status:#}"
    );
    let text = String::from_utf8(mesh.ask(&["status"]).stdout).unwrap();
    assert!(
        text.contains("10.96.0.10:80") && text.contains("attached"),
        "{text}"
    );

    drop(agent);
    let gone = mesh.ask(&["detach"]);
    assert!(gone.status.success(), "{gone:?}");
    assert!(Redirect::inspect(mesh.lab.place()).unwrap().is_none());
    assert!(
        curl(&mesh.client, &["http://10.96.0.12/"])
            .1
            .contains("\"direct\"")
    );
}
