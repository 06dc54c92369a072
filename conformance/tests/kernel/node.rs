//! `cairn node` end to end: real curl in pods, applications behind services, and the agent as a
//! process that is killed, stopped and started again.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cairn_conformance::app::App as Echo;
use cairn_conformance::identities::Identities;
use cairn_conformance::net::free_address;
use cairn_conformance::process::Process;
use cairn_conformance::workspace;
use cairn_kernel_redirect::{Redirect, Status};
use serde_json::{Value, json};

use crate::lab::{Lab, Pod};
use crate::processes::command;

/// How long anything may take that is not asserted to be fast.
const DEADLINE: Duration = Duration::from_secs(30);

/// `web`: HTTP with a canary and a policy. `raw`: the same server's other port, nobody's business.
/// `open` goes direct when nobody listens.
const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.11, ports: [{name: tcp, port: 80}]}
---
apiVersion: v1
kind: Service
metadata:
  name: open
  namespace: shop
  labels: {istio.io/use-waypoint: waypoint}
  annotations: {cairn.dev/redirect-failure: open}
spec: {clusterIP: 10.96.0.12, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.96.0.21, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.96.0.22, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.13, ports: [{name: tcp, port: 5432}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: db}]
  rules: [{from: [{source: {serviceAccounts: [client]}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]
    to: [{operation: {methods: [GET]}}]
";

/// Where the servers of v1 and v2 are: not at the virtual addresses.
const V1: &str = "10.97.0.1:8080";
const V2: &str = "10.97.0.2:8080";
/// Those of `open` and `db`.
const OPEN: &str = "10.97.0.3:8080";
const DB: &str = "10.97.0.4:5432";

fn slice(service: &str, endpoint: &str) -> String {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: {}, port: {}}}]
endpoints: [{{addresses: ['{}']}}]
",
        if service == "db" { "tcp" } else { "http" },
        endpoint.port(),
        endpoint.ip()
    )
}

/// Everything around one agent.
struct Mesh {
    lab: Lab,
    folder: tempfile::TempDir,
    client: Pod,
    _servers: Vec<Echo>,
}

impl Mesh {
    fn new() -> Option<Self> {
        let mut lab = Lab::new()?;
        let client = lab.pod("client");
        for address in [
            "10.96.0.10",
            "10.96.0.11",
            "10.96.0.12",
            "10.97.0.1",
            "10.97.0.2",
            "10.97.0.3",
            "10.97.0.4",
        ] {
            lab.address(address);
        }
        // `raw` and, for whoever goes past the proxy, `open` answer at their virtual addresses.
        let servers = lab.hub().within(|| {
            let echo = |name, address: &str| Echo::http(name, address.parse().unwrap());
            vec![
                echo("v1", V1),
                echo("v2", V2),
                echo("open", OPEN),
                echo("raw", "10.96.0.11:80"),
                echo("direct", "10.96.0.12:80"),
            ]
        });
        let folder = tempfile::tempdir().unwrap();
        let mesh = Self {
            lab,
            folder,
            client,
            _servers: servers,
        };
        mesh.configure(&format!(
            "{MESH}{}{}{}{}",
            slice("db", DB),
            slice("v1", V1),
            slice("v2", V2),
            slice("open", OPEN)
        ));
        mesh.list(&[("client", &mesh.client)]);
        Identities::new(mesh.folder.path()).folder_of("shop/waypoint");
        Some(mesh)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, yaml: &str) {
        replace(&self.path("mesh.yaml"), yaml);
    }

    /// Writes the list of pods; each has the service account of its name.
    fn list(&self, pods: &[(&str, &Pod)]) {
        let entry = |(name, pod): &(&str, &Pod)| {
            json!({
                "name": name, "namespace": "shop", "serviceAccount": name,
                "netns": pod.netns, "cgroup": pod.cgroup,
            })
        };
        let list: Vec<Value> = pods.iter().map(entry).collect();
        replace(&self.path("pods.json"), &json!(list).to_string());
    }

    /// `cairn node ...` as an operator runs it, in the waypoint's cgroup.
    fn cairn(&self, arguments: &[&str]) -> Command {
        let here = Path::new("/proc/self/ns/net");
        let mut cairn = command(here, &self.lab.waypoint_cgroup(), &workspace::cairn());
        let place = self.lab.place();
        cairn.arg("node").args(arguments);
        cairn.arg("--bpffs").arg(&place.bpffs);
        cairn.arg("--cgroup").arg(&place.cgroup);
        cairn
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.cairn(arguments).output().unwrap()
    }

    /// Starts the agent and waits until it steers.
    fn agent(&self) -> Process {
        let mut cairn = self.cairn(&[]);
        cairn.arg("--config").arg(self.path("mesh.yaml"));
        cairn.arg("--pods").arg(self.path("pods.json"));
        cairn.arg("--identity-dir").arg(self.path("shop/waypoint"));
        cairn.args(["--workers", "2", "--drain-seconds", "1"]);
        for flag in ["hbone", "metrics", "ready", "admin"] {
            let address = free_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
            cairn.args([format!("--{flag}-addr"), address.to_string()]);
        }
        let mut agent = Process::start("cairn", cairn, self.folder.path());
        let end = Instant::now() + DEADLINE;
        while !agent.stderr().contains("steering") {
            assert!(
                agent.ended().is_none() && Instant::now() < end,
                "{}",
                agent.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        agent
    }

    fn status(&self) -> Status {
        Redirect::inspect(self.lab.place()).unwrap().unwrap()
    }
}

/// As a careful tool writes a file: whoever reads it sees the old or the new one.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// What curl in a pod says: its exit code, and the body with the status behind it.
fn curl(pod: &Pod, arguments: &[&str]) -> (Option<i32>, String) {
    let mut curl = command(&pod.netns, &pod.cgroup, Path::new("curl"));
    curl.args(["-s", "-w", " %{http_code}\\n", "--max-time", "10"]);
    let output = curl.args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// curl's "could not connect".
const REFUSED: Option<i32> = Some(7);

fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log_lines(agent: &Process) -> Vec<Value> {
    let text = agent.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

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

#[test]
fn what_is_wrong_at_the_start_is_said_and_nothing_is_attached() {
    let Some(mesh) = Mesh::new() else { return };
    let identity = mesh.path("shop/waypoint");
    let start = |pods: &Path| {
        let config = mesh.path("mesh.yaml");
        let mut cairn = mesh.cairn(&["--workers", "1"]);
        cairn.arg("--config").arg(config).arg("--pods").arg(pods);
        let output = cairn.arg("--identity-dir").arg(&identity).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let pods = mesh.path("wrong.yaml");
    fs::write(&pods, "- {name: a, namespce: shop}\n").unwrap();
    let said = start(&pods);
    assert!(
        said.contains("wrong.yaml:1:") && said.contains("did you mean `namespace`"),
        "{said}"
    );
    assert!(start(Path::new("/nowhere/pods.yaml")).contains("/nowhere/pods.yaml: No such file"));
    assert!(Redirect::inspect(mesh.lab.place()).unwrap().is_none());
}
