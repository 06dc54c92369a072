//! `cairn node --kube`: the pods of this node from a real API server, each found by its uid in cgroups named as a
//! kubelet's drivers name them, and steered for as long as its processes run (issue 7 item 6). The kubelet and its
//! runtime are played: folders, network namespaces and processes are real.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cairn_conformance::client;
use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::net::free_address;
use cairn_conformance::process::{self, Process};
use serde_json::json;

use crate::lab::Pod;
use crate::mesh::{DEADLINE, Mesh, REFUSED, curl, until};
use crate::processes::App;

const NODE: &str = "node-a";

/// What the DaemonSet's container has (deploy/helm/cairn/templates/node.yaml).
const CAPABILITIES: &str = "-all,+bpf,+net_admin,+sys_admin,+sys_ptrace";

/// An API server, and a laboratory whose mesh it has.
struct Cluster {
    api: ApiServer,
    mesh: Mesh,
}

impl Cluster {
    async fn new() -> Option<Self> {
        let mesh = Mesh::new()?;
        let api = ApiServer::start().await?;
        let namespace = json!({"metadata": {"name": "shop"}});
        api.api.create("/api/v1/namespaces", &namespace).await;
        for account in ["client", "other"] {
            let object = json!({"metadata": {"name": account}});
            let accounts = collection("v1", "shop", "serviceaccounts");
            api.api.create(&accounts, &object).await;
        }
        api.apply(&fs::read_to_string(mesh.path("mesh.yaml")).unwrap())
            .await;
        Some(Self { api, mesh })
    }

    /// Makes a Pod that is bound to a node, with a service account of its name; its uid.
    async fn create(&self, name: &str, node: &str, host_network: bool) -> String {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "hostNetwork": host_network,
                "serviceAccountName": if name == "client" { "client" } else { "other" },
                "containers": [{"name": "app", "image": "app"}],
            },
        });
        let made = self.api.api.create(&pods(), &pod).await;
        made["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// As a kubelet tells a pod's address.
    async fn tell_address(&self, name: &str, pod: &Pod) {
        let address = pod.address.to_string();
        let status =
            json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        let path = format!("{}/{name}/status", pods());
        self.api.api.patch(&path, &status).await;
    }

    /// As `kubectl delete --force`: the object is gone, whatever its processes do.
    async fn forget(&self, name: &str) {
        let path = format!("{}/{name}?gracePeriodSeconds=0", pods());
        self.api.api.delete(&path).await;
    }

    /// The folder of a pod's container as the driver systemd has it.
    fn slice(&self, uid: &str) -> PathBuf {
        let class = "kubepods.slice/kubepods-besteffort.slice";
        let slice = uid.replace('-', "_");
        self.folder(&format!(
            "{class}/kubepods-besteffort-pod{slice}.slice/cri-containerd-1.scope"
        ))
    }

    /// As the driver cgroupfs has it.
    fn plain(&self, uid: &str) -> PathBuf {
        self.folder(&format!("burstable/pod{uid}/1"))
    }

    fn folder(&self, path: &str) -> PathBuf {
        let folder = self.mesh.lab.place().cgroup.join(path);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// `cairn node --kube`, by way of another program, without waiting for anything.
    fn start(&self, wrapper: &[&str], more: &[&str]) -> Agent {
        let mut cairn = match wrapper {
            [] => self.mesh.cairn(&[]),
            wrapper => self.mesh.cairn_under(wrapper),
        };
        let [hbone, metrics, ready, admin] =
            [(); 4].map(|()| free_address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        cairn
            .args(["--kube", "--node-name", NODE, "--gateway", "shop/waypoint"])
            .arg("--kubeconfig")
            .arg(self.api.admin())
            .arg("--identity-dir")
            .arg(self.mesh.path("shop/waypoint"))
            .args(["--workers", "2", "--drain-seconds", "1"])
            .args(["--hbone-addr", &hbone.to_string()])
            .args(["--metrics-addr", &metrics.to_string()])
            .args(["--ready-addr", &ready.to_string()])
            .args(["--admin-addr", &admin.to_string()])
            .args(more);
        Agent {
            process: Process::start("cairn", cairn, &self.mesh.path("")),
            metrics,
            ready,
        }
    }
}

/// The agent.
struct Agent {
    process: Process,
    metrics: SocketAddr,
    ready: SocketAddr,
}

impl Agent {
    /// Waits until it steers, and says that it is ready.
    async fn steering(mut self) -> Self {
        let address = self.ready;
        let ready = async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
                && client::get(address, "/healthz/ready").await.status() == 200
        };
        self.process.until("it steers", ready).await;
        assert!(self.log().contains("steering failing=0"), "{}", self.log());
        self
    }

    fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits for a line of its log.
    fn says(&self, words: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "{words:?} is not in\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits until metrics tell of one pod of this state.
    async fn counts_one(&self, state: &str) {
        let line = format!("cairn_node_pods{{state=\"{state}\"}} 1");
        process::until(&line, async || {
            let text = client::text(&client::get(self.metrics, "/metrics").await);
            text.lines().any(|l| l == line)
        })
        .await;
    }

    /// What `/healthz/ready` says; `None`: nobody listens there yet.
    async fn readiness(&self) -> Option<String> {
        tokio::net::TcpStream::connect(self.ready).await.ok()?;
        let answer = client::get(self.ready, "/healthz/ready").await;
        Some(client::text(&answer))
    }
}

fn pods() -> String {
    collection("v1", "shop", "pods")
}

/// A pod as it is with its processes in this cgroup.
fn in_cgroup(pod: &Pod, cgroup: PathBuf) -> Pod {
    Pod {
        cgroup,
        ..pod.clone()
    }
}

fn web(pod: &Pod) -> String {
    let (code, text) = curl(pod, &["http://10.96.0.10/"]);
    match code {
        Some(0) => text.trim_end().rsplit(' ').next().unwrap().to_owned(),
        REFUSED => "refused".to_owned(),
        code => format!("{code:?}"),
    }
}

/// Takes away the name of a pod's network namespace, as with a runtime that gives it none: it lives on with this
/// process, and is found by it.
fn unpin(pod: &Pod, app: &App) -> Pod {
    let own = Path::new("/proc").join(app.id().to_string()).join("ns/net");
    let id = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
    until("it is in there", DEADLINE, || id(&own) == id(&pod.netns));
    let name = pod.netns.file_name().unwrap();
    let status = Command::new("ip").args(["netns", "del"]).arg(name).status();
    assert!(status.unwrap().success());
    Pod {
        netns: own,
        ..pod.clone()
    }
}

/// With the capabilities of the DaemonSet, with cgroups that can not be written, and in a cgroup namespace of its own:
/// that only where the first process may be looked at, by which the agent finds the host's.
fn as_in_its_container() -> Vec<String> {
    let root = cairn_kernel_redirect::cgroup2_root().unwrap();
    let mut words = vec!["unshare", "--mount", "--propagation", "slave"];
    match fs::metadata("/proc/1/ns/cgroup") {
        Ok(_) => words.push("--cgroup"),
        Err(error) => {
            eprintln!("without a cgroup namespace of its own: /proc/1/ns/cgroup: {error}")
        }
    }
    let script = format!("mount -o remount,bind,ro {} && exec \"$@\"", root.display());
    let bounding = format!("--bounding-set={CAPABILITIES}");
    let inherited = format!("--inh-caps={CAPABILITIES}");
    words.extend(["sh", "-c", &script, "sh", "setpriv", &bounding, &inherited]);
    words.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_pod_is_steered_from_its_first_process_to_its_last() {
    let Some(mut cluster) = Cluster::new().await else {
        return;
    };
    let other = cluster.mesh.lab.pod("other");
    let wrapper = as_in_its_container();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let state = cluster.mesh.path("state");
    let agent = cluster.start(&wrapper, &["--state-dir", state.to_str().unwrap()]);
    let agent = agent.steering().await;
    assert_eq!(cluster.mesh.status().pods, []);

    // The object first, as always: there is nothing to steer yet.
    let uid = cluster.create("client", NODE, false).await;
    let client = in_cgroup(&cluster.mesh.client, cluster.slice(&uid));
    agent.counts_one("awaited").await;
    let app = client.app();
    agent.says("pod enrolled pod=shop/client");
    assert_eq!(web(&client), "200", "{}", agent.log());

    // The other driver's names, and a namespace that is found by a process alone.
    let other_uid = cluster.create("other", NODE, false).await;
    let other = in_cgroup(&other, cluster.plain(&other_uid));
    let other_app = other.app();
    let other = unpin(&other, &other_app);
    agent.says("pod enrolled pod=shop/other");
    assert_eq!(web(&other), "403", "it is another one: {}", agent.log());

    // Its address and labels change what is known of it, and nothing else.
    let before = cluster.mesh.status().pods;
    cluster.tell_address("client", &client).await;
    agent.says("pod is listed otherwise, and where it was pod=shop/client");
    let labels = json!({"metadata": {"labels": {"version": "v2"}}});
    let path = format!("{}/client", pods());
    cluster.api.api.patch(&path, &labels).await;
    let list = state.join("pods.json");
    until("the new label is listed", DEADLINE, || {
        fs::read_to_string(&list).is_ok_and(|text| text.contains("\"version\":\"v2\""))
    });
    assert_eq!(web(&client), "200");
    assert_eq!(cluster.mesh.status().pods, before, "the same listeners");
    let shown = cluster
        .mesh
        .ask(&["status", "--pods", list.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("shop/client") && shown.contains("shop/other"),
        "{shown}"
    );

    // A pod of another node, whose folder is here by whatever accident, is nobody's.
    let elsewhere = cluster.create("elsewhere", "node-b", false).await;
    let _stray = cluster.folder(&format!("burstable/pod{elsewhere}/1"));
    cluster.create("on-host", NODE, true).await;
    agent.says("pod is not steered: it is on the host's network pod=shop/on-host");
    agent.counts_one("left_out").await;

    // Deleted by force it is no object any more, and steered until its last process has ended.
    cluster.forget("client").await;
    agent.counts_one("lingering").await;
    assert_eq!(web(&client), "200", "no way past policy");

    // Also by an agent that is started again, to whom the API server never speaks of it. What it knows was written at
    // most once in five seconds.
    let kept = state.join("node/objects");
    until("it is kept though it is no object", DEADLINE, || {
        fs::read_to_string(&kept).is_ok_and(|text| text.contains("lingering/"))
    });
    drop(agent);
    assert_eq!(web(&client), "refused", "nobody serves");
    let agent = cluster.start(&wrapper, &["--state-dir", state.to_str().unwrap()]);
    let agent = agent.steering().await;
    agent.counts_one("lingering").await;
    assert_eq!(web(&client), "200", "no way past policy: {}", agent.log());
    drop(app);
    agent.says("the last process of the pod has ended pod=shop/client");
    agent.says("pod left pod=shop/client");
    let left: Vec<u64> = cluster
        .mesh
        .status()
        .pods
        .iter()
        .map(|p| p.netns_cookie)
        .collect();
    assert_eq!(left.len(), 1, "{}", agent.log());
    assert_eq!(web(&other), "403", "the other one is where it was");
}

/// With CRI-O, which drops infra containers, a pod in a crash loop has no process most of the time.
#[tokio::test]
async fn a_pod_between_two_of_its_containers_is_not_forgotten_by_an_agent_that_starts() {
    let Some(cluster) = Cluster::new().await else {
        return;
    };
    let uid = cluster.create("client", NODE, false).await;
    let client = in_cgroup(&cluster.mesh.client, cluster.slice(&uid));
    let app = client.app();
    let agent = cluster.start(&[], &[]).steering().await;
    let known = || -> Vec<u64> {
        let pods = cluster.mesh.status().pods;
        pods.iter().map(|pod| pod.netns_cookie).collect()
    };
    let before = known();
    assert_eq!(before.len(), 1, "{}", agent.log());

    drop(agent);
    drop(app);
    let agent = cluster.start(&[], &[]).steering().await;
    agent.counts_one("awaited").await;
    agent.counts_one("earlier").await;
    assert_eq!(known(), before, "refused, not direct: {}", agent.log());
    let _app = client.app();
    agent.says("pod enrolled pod=shop/client");
    assert_eq!(known(), before);
    assert_eq!(web(&client), "200", "{}", agent.log());
}

#[tokio::test]
async fn what_is_steered_stays_so_while_the_api_server_is_away() {
    let Some(mut cluster) = Cluster::new().await else {
        return;
    };
    let uid = cluster.create("client", NODE, false).await;
    let client = in_cgroup(&cluster.mesh.client, cluster.slice(&uid));
    let _app = client.app();
    cluster.tell_address("client", &client).await;
    let state = cluster.mesh.path("state");
    let keeps = ["--state-dir", state.to_str().unwrap()];
    let agent = cluster.start(&[], &keeps).steering().await;
    assert_eq!(web(&client), "200", "{}", agent.log());
    until("the pods are kept", DEADLINE, || {
        state.join("node/objects").exists() && state.join("objects").exists()
    });

    cluster.api.stop().await;
    agent.says("the API server can not be reached");
    assert_eq!(web(&client), "200");

    // Started again without the API server: what it said last is in force.
    drop(agent);
    assert_eq!(web(&client), "refused", "nobody serves");
    let agent = cluster.start(&[], &keeps).steering().await;
    assert_eq!(web(&client), "200", "{}", agent.log());

    // Without anything that was kept nobody knows what to steer: what the kernel knows stays, and is refused.
    drop(agent);
    let agent = cluster.start(&[], &[]);
    agent.says("the API server can not be reached");
    assert_eq!(web(&client), "refused");
    process::until("it says why it is not ready", async || {
        let said = agent.readiness().await;
        said.is_some_and(|said| said.contains("this node's pods are not steered yet"))
    })
    .await;
    assert_eq!(web(&client), "refused");
    cluster.api.start_again().await;
    let agent = agent.steering().await;
    assert_eq!(web(&client), "200", "{}", agent.log());
}

/// With anything less the pods' namespaces can not be found, and it is said before anything is attached.
#[test]
fn a_capability_that_finding_pods_needs_is_named() {
    let Some(mesh) = Mesh::new() else { return };
    let lacking = "--bounding-set=-sys_ptrace";
    let mut cairn = mesh.cairn_under(&["setpriv", lacking, "--inh-caps=-sys_ptrace"]);
    let output = cairn
        .args(["--kube", "--node-name", NODE, "--kubeconfig", "/nowhere"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this needs CAP_SYS_PTRACE"), "{said}");
    assert!(!mesh.lab.place().bpffs.exists(), "nothing is attached");

    let mut nameless = mesh.cairn(&["--kube", "--kubeconfig", "/nowhere"]);
    let output = nameless.env_remove("NODE_NAME").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Say --node-name"), "{said}");
}
