//! `cairn node --listen-in-host` end to end: pods whose network namespace can not be entered, and what
//! is said of those that can not be served from the host's side either. The hub is the host.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::lab::Pod;
use crate::mesh::{DEADLINE, Mesh, curl, log_lines, replace, until};

/// Runs a program that may not enter namespaces.
const UNPRIVILEGED: [&str; 5] = [
    "setpriv",
    "--bounding-set",
    "-sys_admin",
    "--inh-caps",
    "-sys_admin",
];

/// Lists pods with the host's end of their link; each has the service account of its name.
fn list(mesh: &Mesh, pods: &[(&str, &Pod)]) {
    let entry = |(name, pod): &(&str, &Pod)| {
        json!({
            "name": name, "namespace": "shop", "serviceAccount": name,
            "netns": pod.netns, "cgroup": pod.cgroup,
            "hostInterface": pod.device, "addresses": [pod.address],
        })
    };
    let list: Vec<Value> = pods.iter().map(entry).collect();
    replace(&mesh.path("pods.json"), &json!(list).to_string());
}

#[test]
fn a_pod_that_can_not_be_entered_is_served_by_its_identity() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    list(&mesh, &[("client", &mesh.client), ("other", &other)]);
    let agent = mesh.agent_in_hub_under(&UNPRIVILEGED, &["--listen-in-host"]);
    let web = |pod: &Pod, method: &str| curl(pod, &["-X", method, "http://10.96.0.10/"]).1;
    let got = web(&mesh.client, "GET");
    assert!(got.ends_with(" 200\n"), "{got} {}", agent.stderr());
    assert!(web(&mesh.client, "DELETE").ends_with(" 403\n"));
    assert!(web(&other, "GET").ends_with(" 403\n"));

    // With the client's address as its own it is still the other one.
    let stolen = mesh.client.address.to_string();
    mesh.lab
        .ip("other", &[&format!("addr add {stolen}/32 dev eth0")]);
    mesh.lab.ip(
        "hub",
        &[&format!("route replace {stolen}/32 dev {}", other.device)],
    );
    let asked = curl(
        &other,
        &["--interface", &stolen, "http://10.96.0.10/stolen"],
    );
    assert!(asked.1.ends_with(" 403\n"), "{asked:?}");
    mesh.lab.ip(
        "hub",
        &[&format!("route del {stolen}/32 dev {}", other.device)],
    );

    let lines = || log_lines(&agent);
    until("all is logged", DEADLINE, || lines().len() == 4);
    let principal = |line: &Value| line["source_principal"].as_str().unwrap().to_owned();
    let principals: Vec<String> = lines().iter().map(principal).collect();
    let of = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
    assert_eq!(
        principals,
        [of("client"), of("client"), of("other"), of("other")]
    );
    // The server sees the node, for nothing can leave from where nobody can go.
    let allowed = lines().remove(0);
    let from = allowed["upstream_local_address"].as_str().unwrap();
    assert!(
        !from.starts_with(&format!("{}:", mesh.client.address)),
        "{from}"
    );
    let peer = allowed["downstream_remote_address"].as_str().unwrap();
    assert!(
        peer.starts_with(&format!("{}:", mesh.client.address)),
        "{peer}"
    );

    let shown = mesh.ask(&["status", "--pods", mesh.path("pods.json").to_str().unwrap()]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("shop/client") && text.contains("of the host"),
        "{text}"
    );

    // It left: what it dials goes direct, as with every pod that leaves.
    list(&mesh, &[("other", &other)]);
    until("the client left", DEADLINE, || {
        mesh.status().pods.len() == 1
    });
}

#[test]
fn who_can_not_be_served_from_the_host_either_is_told_why() {
    let Some(mut mesh) = Mesh::new() else { return };
    let bridged = mesh.lab.pod("bridged");
    mesh.lab.ip(
        "hub",
        &[
            "link add br0 type bridge",
            &format!("link set {} master br0", bridged.device),
        ],
    );
    let nowhere = |pod: &Pod| Pod {
        netns: "/nowhere".into(),
        ..pod.clone()
    };
    let (client, bridged) = (nowhere(&mesh.client), nowhere(&bridged));
    list(&mesh, &[("client", &client)]);
    let untold = mesh.agent_in_hub(&[]);
    let said = untold.stderr();
    assert!(
        said.contains("/nowhere") && said.contains("start the agent with --listen-in-host"),
        "{said}"
    );
    drop(untold);

    let bridged = Pod {
        netns: "/nowhere/else".into(),
        ..bridged
    };
    list(&mesh, &[("client", &client), ("bridged", &bridged)]);
    let told = mesh.agent_in_hub(&["--listen-in-host"]);
    let said = told.stderr();
    assert!(said.contains("part of a bridge"), "{said}");
    assert_eq!(mesh.status().pods.len(), 1, "{said}");
    // What is not listed is named.
    let listed = fs::read_to_string(mesh.path("pods.json")).unwrap();
    replace(
        &mesh.path("pods.json"),
        &listed.replace("\"hostInterface\"", "\"labels\":{},\"hostInterfaces\""),
    );
    until("the wrong list is told", DEADLINE, || {
        told.stderr().contains("hostInterface")
    });
}

/// Where the program tells pods by their cgroup, one must not have what is others'.
#[test]
fn a_cgroup_that_is_not_a_pods_alone_or_lies_too_deep_is_refused_with_the_reason() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    let in_cgroup = |pod: &Pod, cgroup: PathBuf, netns: &str| Pod {
        cgroup,
        netns: netns.into(),
        ..pod.clone()
    };
    let inner = mesh.client.cgroup.join("inner");
    let deep = (0..10).fold(other.cgroup.clone(), |above, _| above.join("x"));
    fs::create_dir_all(&inner).unwrap();
    fs::create_dir_all(&deep).unwrap();
    let client = in_cgroup(&mesh.client, mesh.client.cgroup.clone(), "/nowhere/a");
    let all = mesh.lab.place().cgroup.clone();
    for (cgroup, reason) in [
        (all, "is that of all pods"),
        (inner, "above it or below it"),
        (
            deep,
            "its cgroup lies 13 folders deep, and the program looks no deeper than 12",
        ),
    ] {
        let other = in_cgroup(&other, cgroup, "/nowhere/b");
        list(&mesh, &[("client", &client), ("other", &other)]);
        let agent = mesh.agent_in_hub(&["--listen-in-host"]);
        let said = agent.stderr();
        assert!(said.contains(reason), "{said}");
        assert_eq!(mesh.status().pods.len(), 1, "{said}");
        let got = curl(&mesh.client, &["http://10.96.0.10/"]).1;
        assert!(got.ends_with(" 200\n"), "{got} {said}");
    }
}
