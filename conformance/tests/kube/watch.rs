//! `cairn run --kube`: what the API server has is in force, stays in force while it is away, and is in force
//! again when a waypoint starts without it (specs/istio-waypoint.md 6.4 and 8, docs/kube-source.md).

mod dry_run;
mod many;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_conformance::cairn::{Addresses, Cairn};
use cairn_conformance::client;
use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::identities::Identities;
use cairn_conformance::process::{self, Process};
use cairn_conformance::workspace;
use serde_json::{Value, json};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Starts the waypoint of a namespace, and waits until it listens.
async fn start(folder: &Path, kubeconfig: &Path, namespace: &str, more: &[&str]) -> Cairn {
    let addresses = Addresses::free(LOOPBACK);
    let identity = Identities::new(&folder.join("pki")).folder_of(&format!("{namespace}/waypoint"));
    let mut command = Command::new(workspace::cairn());
    command
        .args(["run", "--kube", "--kubeconfig"])
        .arg(kubeconfig)
        .args(["--gateway", &format!("{namespace}/waypoint")])
        .arg("--identity-dir")
        .arg(identity)
        .args(addresses.flags())
        .args(more);
    let mut process = Process::start(
        &format!("cairn-{}", addresses.hbone.port()),
        command,
        folder,
    );
    process.listening(addresses.hbone).await;
    addresses.of(process)
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
