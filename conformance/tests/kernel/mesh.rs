//! A mesh in the laboratory: services, policies and servers, a pod that is a client, and `cairn node`
//! as a process. Asserts nothing.

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

/// The network namespace of the node, which is this process's.
const HERE: &str = "/proc/self/ns/net";

/// How long anything may take that is not asserted to be fast.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The waypoint.
pub const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

/// `web`: HTTP with a canary and a policy. `raw`: the same server's other port, nobody's business.
/// `open` goes direct when nobody listens.
const SERVICES: &str = "---
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
";

/// Who may do what at `web`.
pub const READERS: &str = "---
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

/// The one endpoint of a service.
pub fn slice(service: &str, endpoint: &str) -> String {
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
pub struct Mesh {
    /// Where it is.
    pub lab: Lab,
    folder: tempfile::TempDir,
    /// A pod that is listed.
    pub client: Pod,
    /// Who issues certificates.
    pub identities: Identities,
    _servers: Vec<Echo>,
}

impl Mesh {
    /// A laboratory with services and servers; `None` where the machine does not allow one.
    pub fn new() -> Option<Self> {
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
        let identities = Identities::new(folder.path());
        identities.folder_of("shop/waypoint");
        let mesh = Self {
            lab,
            folder,
            client,
            identities,
            _servers: servers,
        };
        mesh.configure(&format!(
            "{GATEWAY}{SERVICES}{READERS}{}{}{}{}",
            slice("db", DB),
            slice("v1", V1),
            slice("v2", V2),
            slice("open", OPEN)
        ));
        mesh.list(&[("client", &mesh.client)]);
        Some(mesh)
    }

    /// A file of this mesh.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration.
    pub fn configure(&self, yaml: &str) {
        replace(&self.path("mesh.yaml"), yaml);
    }

    /// Writes the list of pods; each has the service account of its name.
    pub fn list(&self, pods: &[(&str, &Pod)]) {
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
    pub fn cairn(&self, arguments: &[&str]) -> Command {
        self.cairn_in(Path::new(HERE), arguments)
    }

    /// The same by way of another program, which runs what it is given: `setpriv`, `unshare`.
    pub fn cairn_under(&self, wrapper: &[&str]) -> Command {
        let cairn = workspace::cairn();
        let (first, rest) = wrapper.split_first().unwrap();
        let mut wrapped = command(HERE.as_ref(), &self.lab.waypoint_cgroup(), first.as_ref());
        wrapped.args(rest).arg(&cairn);
        self.node(wrapped, &[])
    }

    /// The same of another copy of the program.
    pub fn cairn_of(&self, program: &Path) -> Command {
        let cairn = command(HERE.as_ref(), &self.lab.waypoint_cgroup(), program);
        self.node(cairn, &[])
    }

    /// As [`agent_in_hub`](Self::agent_in_hub), by way of another program.
    pub fn agent_in_hub_under(&self, wrapper: &[&str], flags: &[&str]) -> Process {
        let cairn = workspace::cairn();
        let (first, rest) = wrapper.split_first().unwrap();
        let hub = self.lab.hub().netns;
        let mut wrapped = command(&hub, &self.lab.waypoint_cgroup(), first.as_ref());
        wrapped.args(rest).arg(&cairn);
        self.start(self.node(wrapped, flags))
    }

    fn cairn_in(&self, netns: &Path, arguments: &[&str]) -> Command {
        let cairn = command(netns, &self.lab.waypoint_cgroup(), &workspace::cairn());
        self.node(cairn, arguments)
    }

    fn node(&self, mut cairn: Command, arguments: &[&str]) -> Command {
        let place = self.lab.place();
        cairn.arg("node").args(arguments);
        cairn.arg("--bpffs").arg(&place.bpffs);
        cairn.arg("--cgroup").arg(&place.cgroup);
        cairn
    }

    /// What such a command says.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.cairn(arguments).output().unwrap()
    }

    /// Starts the agent and waits until it steers.
    pub fn agent(&self) -> Process {
        self.start(self.cairn(&[]))
    }

    /// As [`agent`](Self::agent), with the hub as the node's own network: what it dials by itself it
    /// dials from there.
    pub fn agent_in_hub(&self, flags: &[&str]) -> Process {
        self.start(self.cairn_in(&self.lab.hub().netns, flags))
    }

    /// What an agent is given, save for its list of pods.
    pub fn serving(&self, mut cairn: Command) -> Command {
        cairn.arg("--config").arg(self.path("mesh.yaml"));
        cairn.arg("--identity-dir").arg(self.path("shop/waypoint"));
        cairn.args(["--workers", "2", "--drain-seconds", "1"]);
        for flag in ["hbone", "metrics", "ready", "admin"] {
            let address = free_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
            cairn.args([format!("--{flag}-addr"), address.to_string()]);
        }
        cairn
    }

    /// Starts an agent as given and waits until it steers.
    pub fn start(&self, cairn: Command) -> Process {
        let mut cairn = self.serving(cairn);
        cairn.arg("--pods").arg(self.path("pods.json"));
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

    /// The redirect as it is pinned.
    pub fn status(&self) -> Status {
        Redirect::inspect(self.lab.place()).unwrap().unwrap()
    }
}

/// As a careful tool writes a file: whoever reads it sees the old or the new one.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// What curl in a pod says: its exit code, and the body with the status behind it.
pub fn curl(pod: &Pod, arguments: &[&str]) -> (Option<i32>, String) {
    let mut curl = command(&pod.netns, &pod.cgroup, Path::new("curl"));
    curl.args(["-s", "-w", " %{http_code}\\n", "--max-time", "10"]);
    let output = curl.args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// curl's "could not connect".
pub const REFUSED: Option<i32> = Some(7);

/// Waits for a state that sends no event.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines of its access log.
pub fn log_lines(agent: &Process) -> Vec<Value> {
    let text = agent.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
