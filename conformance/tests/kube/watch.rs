//! `cairn run --kube`: what the API server has is in force, stays in force while it is away, and is in force
//! again when a waypoint starts without it (specs/istio-waypoint.md 6.4 and 8, docs/kube-source.md).

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_conformance::cairn::Cairn;
use cairn_conformance::client;
use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::identities::Identities;
use cairn_conformance::net::free_address;
use cairn_conformance::process::{self, Process};
use cairn_conformance::workspace;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Starts the waypoint of a namespace, and waits until it listens.
async fn start(folder: &Path, kubeconfig: &Path, namespace: &str, more: &[&str]) -> Cairn {
    let [hbone, metrics, ready, admin] = [(); 4].map(|()| free_address(LOOPBACK));
    let identity = Identities::new(&folder.join("pki")).folder_of(&format!("{namespace}/waypoint"));
    let mut command = Command::new(workspace::cairn());
    command
        .args(["run", "--kube", "--kubeconfig"])
        .arg(kubeconfig)
        .args(["--gateway", &format!("{namespace}/waypoint")])
        .arg("--identity-dir")
        .arg(identity)
        .args(["--hbone-addr", &hbone.to_string()])
        .args(["--metrics-addr", &metrics.to_string()])
        .args(["--ready-addr", &ready.to_string()])
        .args(["--admin-addr", &admin.to_string()])
        .args(more);
    let mut process = Process::start(&format!("cairn-{}", hbone.port()), command, folder);
    process.listening(hbone).await;
    Cairn {
        process,
        hbone,
        metrics,
        ready,
        admin,
    }
}

async fn start_ready(folder: &Path, kubeconfig: &Path, namespace: &str, more: &[&str]) -> Cairn {
    let cairn = start(folder, kubeconfig, namespace, more).await;
    process::until("cairn is ready", async || cairn.is_ready().await).await;
    cairn
}

/// What `/healthz/ready` says.
async fn readiness(cairn: &Cairn) -> String {
    client::text(&client::get(cairn.ready, "/healthz/ready").await)
}

/// A Gateway and a Service that is attached to it.
async fn mesh(cluster: &ApiServer, namespace: &str) {
    let gateway = json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": namespace},
        "spec": {"gatewayClassName": "cairn-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    });
    let gateways = collection(GATEWAY_API, namespace, "gateways");
    cluster.api.create(&gateways, &gateway).await;
    service(cluster, namespace, "web").await;
}

async fn service(cluster: &ApiServer, namespace: &str, name: &str) {
    let services = collection("v1", namespace, "services");
    let service = json!({
        "metadata": {"name": name, "namespace": namespace,
            "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    cluster.api.create(&services, &service).await;
}

fn route(namespace: &str, name: &str, service: &str) -> Value {
    json!({
        "apiVersion": GATEWAY_API, "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": service}],
            "rules": [{"backendRefs": [{"name": service, "port": 80}]}],
        },
    })
}

fn routes(namespace: &str) -> String {
    collection(GATEWAY_API, namespace, "httproutes")
}

/// Waits until the configuration in force mentions a name, or does not.
async fn in_force(cairn: &Cairn, name: &str, is_there: bool) {
    let name = format!("\"{name}\"");
    cairn
        .admin_shows("/config_dump", |dump| {
            dump["services"].is_array() && dump.to_string().contains(&name) == is_there
        })
        .await;
}

/// An object made, changed and deleted; kinds that the API server does not have are no fault.
#[tokio::test]
async fn what_the_api_server_has_is_in_force() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("watch").await;
    mesh(cluster, &namespace).await;
    let folder = tempfile::tempdir().unwrap();
    let cairn = start_ready(folder.path(), &cluster.admin(), &namespace, &[]).await;
    in_force(&cairn, "first", false).await;

    let list = routes(&namespace);
    cluster
        .api
        .create(&list, &route(&namespace, "first", "web"))
        .await;
    in_force(&cairn, "first", true).await;

    let path = format!("{list}/first");
    let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/elsewhere"}}],
        "backendRefs": [{"name": "web", "port": 80}]});
    cluster
        .api
        .patch(&path, &json!({"spec": {"rules": [rule]}}))
        .await;
    cairn
        .admin_shows("/config_dump", |dump| {
            dump.to_string().contains("elsewhere")
        })
        .await;

    cluster.api.delete(&path).await;
    in_force(&cairn, "first", false).await;
    assert!(
        cairn
            .metric("cairn_kube_connected", &["kind=\"HTTPRoute\""])
            .await
            >= 1.0
    );
    let calico = cairn.metrics().await;
    assert!(
        !calico.contains("cairn_kube_objects{kind=\"GlobalNetworkPolicy\"}"),
        "what the API server does not have is not shown: {calico}"
    );
}

/// Without the rights it is not ready, and says which one is missing.
#[tokio::test]
async fn a_missing_right_is_named_and_nothing_is_in_force_without_it() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("rights").await;
    mesh(cluster, &namespace).await;
    let folder = tempfile::tempdir().unwrap();
    let cairn = start(folder.path(), &cluster.nobody(), &namespace, &[]).await;
    let mut said = String::new();
    process::until("it says what it may not", async || {
        said = readiness(&cairn).await;
        said.contains("AuthorizationPolicy: ") && said.contains("Pod: pods is forbidden")
    })
    .await;
    assert!(said.contains("cannot list resource \"pods\""), "{said}");
    assert!(said.contains("no configuration yet"), "{said}");
    assert!(!cairn.is_ready().await);
    let log = cairn.process.stderr();
    assert!(log.contains("grant list and watch on pods"), "{log}");
}

/// The API server goes away and comes back: nothing changes meanwhile, and then what was missed is there. Who
/// starts meanwhile serves by the state on disk; a state that is damaged is not used.
#[tokio::test]
async fn away_and_back_and_started_without_it() {
    let Some(mut cluster) = ApiServer::start().await else {
        return;
    };
    let namespace = cluster.namespace("away").await;
    mesh(&cluster, &namespace).await;
    let list = routes(&namespace);
    cluster
        .api
        .create(&list, &route(&namespace, "early", "web"))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let state_dir = state.to_string_lossy().into_owned();
    let with_state = ["--state-dir", state_dir.as_str()];
    let kubeconfig: PathBuf = cluster.admin();
    let cairn = start_ready(folder.path(), &kubeconfig, &namespace, &with_state).await;
    in_force(&cairn, "early", true).await;
    let stored = ["result=\"success\""];
    cairn
        .metric_reaches("cairn_kube_state_stored_total", &stored, 1.0)
        .await;

    cluster.stop().await;
    let routes_connected = ["kind=\"HTTPRoute\""];
    cairn
        .metric_falls_to("cairn_kube_connected", &routes_connected, 0.0)
        .await;
    assert!(cairn.is_ready().await, "the last good state serves");
    in_force(&cairn, "early", true).await;
    let told = |log: &str| log.matches("the API server can not be reached").count();
    process::until("that is told", async || told(&cairn.process.stderr()) > 0).await;
    assert_eq!(told(&cairn.process.stderr()), 1, "once");

    // A second one, which never saw the API server.
    let without = start_ready(folder.path(), &kubeconfig, &namespace, &with_state).await;
    in_force(&without, "early", true).await;
    assert!(
        without
            .process
            .stderr()
            .contains("what the API server said when it was last read")
    );

    // And one whose state is damaged.
    let damaged = folder.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    let mut bytes = std::fs::read(state.join("objects")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(damaged.join("objects"), bytes).unwrap();
    let damaged_dir = damaged.to_string_lossy().into_owned();
    let with_damaged = ["--state-dir", damaged_dir.as_str()];
    let refused = start(folder.path(), &kubeconfig, &namespace, &with_damaged).await;
    assert!(
        refused
            .process
            .stderr()
            .contains("the stored state is not used")
    );
    assert!(!refused.is_ready().await);

    cluster.start_again().await;
    cluster.api.delete(&format!("{list}/early")).await;
    cluster
        .api
        .create(&list, &route(&namespace, "late", "web"))
        .await;
    for one in [&cairn, &without, &refused] {
        in_force(one, "late", true).await;
        in_force(one, "early", false).await;
        process::until("it is ready", async || one.is_ready().await).await;
    }
    without
        .metric_falls_to("cairn_kube_state_age_seconds", &[], 0.0)
        .await;
}

/// The version that a watch stands at is compacted away while the waypoint does not listen: 410, and the list
/// that follows tells what was deleted.
#[tokio::test]
async fn a_watch_that_expired_is_listed_again() {
    let Some(mut cluster) = ApiServer::start_with(&["--watch-cache=false"]).await else {
        return;
    };
    let namespace = cluster.namespace("expired").await;
    mesh(&cluster, &namespace).await;
    let list = routes(&namespace);
    for name in ["stays", "goes"] {
        cluster
            .api
            .create(&list, &route(&namespace, name, "web"))
            .await;
    }
    let folder = tempfile::tempdir().unwrap();
    let cairn = start_ready(folder.path(), &cluster.admin(), &namespace, &[]).await;
    in_force(&cairn, "goes", true).await;

    cairn.process.signal("STOP");
    cluster.stop().await;
    cluster.start_again().await;
    cluster.api.delete(&format!("{list}/goes")).await;
    cluster.compact().await;
    cairn.process.signal("CONT");

    in_force(&cairn, "goes", false).await;
    in_force(&cairn, "stays", true).await;
    let of_routes = ["kind=\"HTTPRoute\""];
    assert!(cairn.metric("cairn_kube_relists_total", &of_routes).await >= 1.0);
    assert!(
        cairn
            .metric("cairn_kube_watch_errors_total", &["expired"])
            .await
            >= 1.0
    );
}

/// Resident memory: what the process has for itself, what it shares as its program, and the most there ever was.
struct Memory {
    rss_mib: u64,
    program_mib: u64,
    peak_mib: u64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "RSS {} MiB (of it the program {}; at most {})",
            self.rss_mib, self.program_mib, self.peak_mib
        )
    }
}

/// Memory, and processor time in seconds.
fn costs(pid: u32) -> (Memory, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mib = |key: &str| {
        let kib = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
        kib.div_ceil(1024)
    };
    let memory = Memory {
        rss_mib: mib("VmRSS:"),
        program_mib: mib("RssFile:"),
        peak_mib: mib("VmHWM:"),
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    (memory, ticks / 100.0)
}

/// Services that are filled in at the same time.
const AT_ONCE: usize = 8;

/// Services with ten endpoints, their Pods and a route each.
async fn fill(cluster: &ApiServer, namespace: &str, services: usize) {
    let all = stream::iter(0..services);
    all.for_each_concurrent(AT_ONCE, |n| fill_one(cluster, namespace, n))
        .await;
}

async fn fill_one(cluster: &ApiServer, namespace: &str, n: usize) {
    let name = format!("s{n}");
    service(cluster, namespace, &name).await;
    cluster
        .api
        .create(&routes(namespace), &route(namespace, &name, &name))
        .await;
    let mut endpoints = Vec::new();
    for m in 0..10 {
        let (pod, ip) = (
            format!("{name}-{m}"),
            format!("10.{}.{}.{}", 1 + m, n / 250, 1 + n % 250),
        );
        let pods = collection("v1", namespace, "pods");
        let object = json!({
            "metadata": {"name": pod, "namespace": namespace, "labels": {"app": name},
                "annotations": {"ambient.istio.io/redirection": "enabled"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        cluster.api.create(&pods, &object).await;
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        cluster
            .api
            .patch(&format!("{pods}/{pod}/status"), &status)
            .await;
        endpoints.push(json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}}));
    }
    let slice = json!({
        "metadata": {"name": format!("{name}-x"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    let slices = collection("discovery.k8s.io/v1", namespace, "endpointslices");
    cluster.api.create(&slices, &slice).await;
}

/// What so many Services cost.
struct Measured {
    synced: Duration,
    /// Resident, before anything changes.
    rss_mib: u64,
    /// One change of a route.
    in_force: Duration,
    /// The last of many changes of Pods.
    last_in_force: Duration,
    /// Resident, at most, after all of them.
    peak_mib: u64,
}

/// What so many Services of ten endpoints with a route each cost, printed.
async fn measure(services: usize) -> Measured {
    let cluster = ApiServer::start().await.expect("an API server");
    let namespace = cluster.namespace("many").await;
    mesh(&cluster, &namespace).await;
    fill(&cluster, &namespace, services).await;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let cairn = start_ready(folder.path(), &cluster.admin(), &namespace, &[]).await;
    let synced = began.elapsed();
    let ready = costs(cairn.process.id()).0;
    // Nothing to wait for: the pause after the first time ends by itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let version = cairn.metric("cairn_snapshot_version", &[]).await;
    let changed = Instant::now();
    let one = format!("{}/s0", routes(&namespace));
    let patch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    cluster.api.patch(&one, &patch).await;
    cairn
        .metric_reaches("cairn_snapshot_version", &[], version + 1.0)
        .await;
    let in_force = changed.elapsed();

    let settled = costs(cairn.process.id()).0;
    let (rate, core) = churn(&cluster, &cairn, &namespace, services).await;
    let last_in_force = marked(&cluster, &cairn, &namespace).await;
    let after = costs(cairn.process.id()).0;
    println!(
        "{services} services: ready after {synced:?}, {ready}, a little later {settled}; one change in force after \
         {in_force:?}; {rate:.0} changes/s cost {:.1} % of a core, the last one in force after {last_in_force:?}, then {after}",
        core * 100.0
    );
    Measured {
        synced,
        rss_mib: settled.rss_mib,
        in_force,
        last_in_force,
        peak_mib: after.peak_mib,
    }
}

/// How long it takes until a Pod has an address in force that none had before: then all changes before it are, too.
async fn marked(cluster: &ApiServer, cairn: &Cairn, namespace: &str) -> Duration {
    const MARK: &str = "10.250.0.1";
    let path = format!("{}/s0-0/status", collection("v1", namespace, "pods"));
    let status = json!({"status": {"podIP": MARK, "podIPs": [{"ip": MARK}]}});
    cluster.api.patch(&path, &status).await;
    let written = Instant::now();
    in_force(cairn, MARK, true).await;
    written.elapsed()
}

/// Pods that change their address, 200 a second if they can be written so fast: how many a second, and the share of a
/// core that they cost.
async fn churn(cluster: &ApiServer, cairn: &Cairn, namespace: &str, services: usize) -> (f64, f64) {
    let pods = collection("v1", namespace, "pods");
    let (_, before) = costs(cairn.process.id());
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let ticks = stream::poll_fn(|context| ticks.poll_tick(context).map(Some));
    let changes = ticks.enumerate().map(|(change, _)| {
        let at = change % (services * 10);
        let (n, m) = (at / 10, at % 10);
        let ip = format!("10.{}.{}.{}", 101 + m, n % 250, 1 + change % 200);
        let path = format!("{pods}/s{n}-{m}/status");
        async move {
            let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
            cluster.api.patch(&path, &status).await
        }
    });
    let length = Duration::from_secs(20);
    let changes = changes.buffer_unordered(AT_ONCE);
    let written = changes.take_until(tokio::time::sleep(length)).count().await;
    let seconds = began.elapsed().as_secs_f64();
    let (_, after) = costs(cairn.process.id());
    (written as f64 / seconds, (after - before) / seconds)
}

/// A tenth of the measurement, held to bounds that a shared machine and a debug build keep.
#[tokio::test]
async fn a_hundred_services_are_there_soon_and_a_change_at_once() {
    if ApiServer::shared().await.is_none() {
        return;
    }
    let found = measure(100).await;
    assert!(found.synced < Duration::from_secs(20), "{:?}", found.synced);
    assert!(found.rss_mib < 100, "{} MiB", found.rss_mib);
    assert!(found.peak_mib < 120, "{} MiB at most", found.peak_mib);
    assert!(
        found.in_force < Duration::from_secs(2),
        "{:?}",
        found.in_force
    );
    // Pods wait 10 s at most, and what comes in force takes a moment.
    assert!(
        found.last_in_force < Duration::from_secs(12),
        "{:?}",
        found.last_in_force
    );
}

#[tokio::test]
#[ignore = "a measurement: run it alone, in a release build"]
async fn a_thousand_services_of_ten_endpoints_with_a_route_each() {
    measure(1000).await;
}
