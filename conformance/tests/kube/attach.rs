//! From a Gateway and a label to traffic: the controller, the waypoint's own pods and the API server together
//! (issue 7, Proof). Whatever is asked of the cluster is asked as a user would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cairn_conformance::app::Echo;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::cluster::{Api, ApiServer, Node, collection};
use cairn_conformance::hbone::{Tls, Tunnel};
use cairn_conformance::net::free_address;
use cairn_conformance::process::{Process, tied, until};
use cairn_conformance::workspace;
use http::StatusCode;
use serde_json::{Value, json};

use crate::node::echo;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const CONTROLLER: &str = "cairn.dev/waypoint-controller";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What waypoints may do. That the chart gives them no more than this is another test's.
pub const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cairn-waypoint}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cairn-waypoint}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cairn-waypoint}
";

/// A controller, a node, and a namespace with an application that is attached to a waypoint.
struct Mesh {
    api: Api,
    namespace: String,
    node: Node,
    _controller: Process,
    /// Virtual IP and port of the application.
    authority: String,
}

/// Starts a controller that makes pods of this image.
pub async fn controller(cluster: &ApiServer, name: &str, image: &str) -> Process {
    let [metrics, ready] = [(); 2].map(|()| free_address(LOOPBACK));
    let mut command = tied(&workspace::cairn());
    command
        .args([
            "controller",
            "--image",
            image,
            "--namespace=default",
            "--ca-address=",
        ])
        .arg(format!("--identity={name}"))
        .arg(format!("--kubeconfig={}", cluster.admin().display()))
        .arg(format!("--metrics-addr={metrics}"))
        .arg(format!("--ready-addr={ready}"));
    let mut process = Process::start(name, command, cluster.folder());
    process.listening(ready).await;
    process
}

impl Mesh {
    async fn start(cluster: &ApiServer) -> Self {
        cluster.apply(READER).await;
        let namespace = cluster.namespace("shop").await;
        let node = Node::start(cluster, &[&namespace]).await;
        let controller = controller(cluster, "controller-a", "cairn:test").await;
        cluster.apply(&echo(&namespace, 2)).await;
        let services = collection("v1", &namespace, "services");
        let web = cluster.api.get(&format!("{services}/web")).await.unwrap();
        let mesh = Self {
            api: cluster.api,
            authority: format!("{}:80", web["spec"]["clusterIP"].as_str().unwrap()),
            namespace,
            node,
            _controller: controller,
        };
        cluster
            .apply(&mesh.gateway("waypoint", "cairn-waypoint"))
            .await;
        mesh.label(json!("waypoint")).await;
        mesh.programmed().await;
        mesh
    }

    fn gateway(&self, name: &str, class: &str) -> String {
        json!({
            "apiVersion": GATEWAY_API,
            "kind": "Gateway",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "gatewayClassName": class,
                "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
            },
        })
        .to_string()
    }

    /// Every ready replica has acknowledged the Gateway.
    async fn programmed(&self) {
        let gateways = self.all(GATEWAY_API, "gateways");
        let is = |gateway: &Value| condition(&gateway["status"], "Programmed") == Some("True");
        self.api
            .until(&gateways, "waypoint", "is programmed", is)
            .await;
    }

    fn all(&self, api_version: &str, plural: &str) -> String {
        collection(api_version, &self.namespace, plural)
    }

    /// Sets, or with null removes, the label that attaches the Service.
    async fn label(&self, waypoint: Value) {
        let labels = json!({ "metadata": { "labels": { "istio.io/use-waypoint": waypoint } } });
        let service = format!("{}/web", self.all("v1", "services"));
        self.api.patch(&service, &labels).await;
    }

    /// A route of the application with these rules.
    async fn route(&self, cluster: &ApiServer, rules: Value) {
        let route = json!({
            "apiVersion": GATEWAY_API,
            "kind": "HTTPRoute",
            "metadata": { "name": "web", "namespace": self.namespace },
            "spec": {
                "parentRefs": [{ "group": "", "kind": "Service", "name": "web", "port": 80 }],
                "rules": rules,
            },
        });
        cluster.apply(&route.to_string()).await;
    }

    /// Waits until the route's present generation has this status in our condition.
    async fn route_says(&self, kind: &str, status: &str) {
        let routes = self.all(GATEWAY_API, "httproutes");
        let is = |route: &Value| {
            let parents = route["status"]["parents"].as_array().into_iter().flatten();
            let mut ours = parents.filter(|parent| parent["controllerName"] == CONTROLLER);
            ours.any(|parent| {
                let mut conditions = parent["conditions"].as_array().into_iter().flatten();
                conditions.any(|condition| {
                    condition["type"] == kind
                        && condition["status"] == status
                        && condition["observedGeneration"] == route["metadata"]["generation"]
                })
            })
        };
        let what = format!("says {kind} {status}");
        self.api.until(&routes, "web", &what, is).await;
    }

    /// Waypoint pods that are ready and not told to end.
    async fn waypoints(&self) -> Vec<SocketAddr> {
        let of = "labelSelector=gateway.networking.k8s.io/gateway-name%3Dwaypoint";
        let pods = format!("{}?{of}", self.all("v1", "pods"));
        let list = self.api.get(&pods).await.unwrap();
        let items = list["items"].as_array().into_iter().flatten();
        items
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter(|pod| condition(&pod["status"], "Ready") == Some("True"))
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 15008))
            .collect()
    }

    /// One request through a waypoint, as a client in the mesh makes it.
    async fn ask(&self, waypoint: SocketAddr) -> Result<client::Answer, String> {
        ask(self.tls(), waypoint, &self.authority).await
    }

    fn tls(&self) -> Tls {
        let client = format!("{}/client", self.namespace);
        Tls::of(&self.node.identities().folder_of(&client))
    }

    /// Waits until the first waypoint answers as it should.
    async fn answers(
        &self,
        what: &str,
        is_right: impl Fn(&Result<client::Answer, String>) -> bool,
    ) {
        let waypoint = self.waypoints().await[0];
        until(what, async || is_right(&self.ask(waypoint).await)).await;
    }
}

async fn ask(tls: Tls, waypoint: SocketAddr, authority: &str) -> Result<client::Answer, String> {
    let mut tunnel = Tunnel::connect(&tls, waypoint, LOOPBACK).await?;
    let stream = tunnel.open(authority).await.map_err(|e| format!("{e:?}"))?;
    let mut connection = Connection::http1_over(stream).await;
    connection.get("/").await.map_err(|e| e.to_string())
}

fn condition<'v>(status: &'v Value, kind: &str) -> Option<&'v str> {
    let conditions = status["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.and_then(|condition| condition["status"].as_str())
}

fn is_status(answer: &Result<client::Answer, String>, status: u16) -> bool {
    answer
        .as_ref()
        .is_ok_and(|answer| answer.status() == status)
}

fn echoed(answer: &Result<client::Answer, String>) -> Option<Echo> {
    let answer = answer.as_ref().ok()?;
    (answer.status() == StatusCode::OK).then(|| client::echo(answer))
}

/// Adds a request header, so that a test sees which rules are in force.
fn marked(version: &str) -> Value {
    json!([{
        "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{ "name": "x-rules", "value": version }],
        }}],
        "backendRefs": [{ "name": "web", "port": 80 }],
    }])
}

fn has_mark(answer: &Result<client::Answer, String>, version: &str) -> bool {
    echoed(answer).is_some_and(|echo| echo.header("x-rules").as_deref() == Some(version))
}

#[tokio::test]
async fn a_service_is_attached_routed_and_let_go() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let mesh = Mesh::start(&cluster).await;
    mesh.answers("the application answers", |answer| echoed(answer).is_some())
        .await;

    // A route, and a change of it: condition and traffic follow.
    mesh.route(&cluster, marked("1")).await;
    mesh.route_says("Accepted", "True").await;
    mesh.answers("the first rules", |answer| has_mark(answer, "1"))
        .await;
    mesh.route(&cluster, marked("2")).await;
    mesh.route_says("Accepted", "True").await;
    mesh.answers("the second rules", |answer| has_mark(answer, "2"))
        .await;
    // By the word of the waypoint's own pods.
    mesh.route_says("cairn.dev/Programmed", "True").await;

    // What can not be resolved is said, and answered 500 (specs/gateway-api.md 1.2).
    let nowhere = json!([{ "backendRefs": [{ "name": "nowhere", "port": 80 }] }]);
    mesh.route(&cluster, nowhere).await;
    mesh.route_says("ResolvedRefs", "False").await;
    mesh.answers("500", |answer| is_status(answer, 500)).await;
    mesh.route(&cluster, marked("3")).await;
    mesh.route_says("ResolvedRefs", "True").await;
    mesh.answers("the third rules", |answer| has_mark(answer, "3"))
        .await;

    // A policy that denies.
    let nobody = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "nobody", "namespace": mesh.namespace },
        "spec": { "targetRefs": [{ "group": "", "kind": "Service", "name": "web" }] },
    });
    cluster.apply(&nobody.to_string()).await;
    mesh.answers("403", |answer| is_status(answer, 403)).await;
    let policies = mesh.all("security.istio.io/v1", "authorizationpolicies");
    mesh.api.delete(&format!("{policies}/nobody")).await;
    mesh.answers("the application again", |answer| has_mark(answer, "3"))
        .await;

    // The Service is let go, and taken again.
    mesh.label(Value::Null).await;
    mesh.answers("not for this waypoint", |answer| answer.is_err())
        .await;
    mesh.label(json!("waypoint")).await;
    mesh.answers("the application once more", |answer| has_mark(answer, "3"))
        .await;
}

/// Gateways of other controllers are left alone (issue 7, item 2).
#[tokio::test]
async fn what_is_another_controllers_is_left_alone() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let class = json!({
        "apiVersion": GATEWAY_API,
        "kind": "GatewayClass",
        "metadata": { "name": "theirs" },
        "spec": { "controllerName": "other.example/controller" },
    });
    cluster.apply(&class.to_string()).await;
    let other = cluster.namespace("theirs").await;
    let gateway = json!({
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": { "name": "edge", "namespace": other },
        "spec": {
            "gatewayClassName": "theirs",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
    });
    cluster.apply(&gateway.to_string()).await;
    let gateways = collection(GATEWAY_API, &other, "gateways");
    let path = format!("{gateways}/edge");
    let before = cluster.api.get(&path).await.unwrap();

    // Once ours, made later, is programmed, theirs has been seen and passed over.
    let mesh = Mesh::start(&cluster).await;
    mesh.answers("the application answers", |answer| echoed(answer).is_some())
        .await;
    assert_eq!(cluster.api.get(&path).await.unwrap(), before);
    let deployments = collection("apps/v1", &other, "deployments");
    let made = cluster.api.get(&deployments).await.unwrap();
    assert_eq!(made["items"], json!([]));
}

/// Requests one after the other until they are stopped, each with a new tunnel.
struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Traffic {
    fn start(mesh: &Mesh, waypoint: SocketAddr) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (tls, authority) = (mesh.tls(), mesh.authority.clone());
        let (stopped, count) = (stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match ask(tls.clone(), waypoint, &authority).await {
                    Ok(answer) if answer.status() == StatusCode::OK => {}
                    Ok(answer) => failures.push(answer.status().to_string()),
                    Err(error) => failures.push(error),
                }
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            failures
        });
        Self { stop, done, task }
    }

    /// Waits until so many more have been answered.
    async fn more(&self, requests: usize) {
        let target = self.done.load(Ordering::Relaxed) + requests;
        until("more requests", async || {
            self.done.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// What failed.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// No request fails while the API server is away, is back, and has forgotten what was watched from.
#[tokio::test]
async fn the_api_server_goes_and_comes_back_under_traffic() {
    let Some(mut cluster) = ApiServer::start_with(&["--watch-cache=false"]).await else {
        return;
    };
    let mesh = Mesh::start(&cluster).await;
    mesh.route(&cluster, marked("before")).await;
    mesh.answers("the rules", |answer| has_mark(answer, "before"))
        .await;
    let traffic = Traffic::start(&mesh, mesh.waypoints().await[0]);
    traffic.more(50).await;
    cluster.stop().await;
    traffic.more(100).await;
    cluster.start_again().await;
    // If the waypoint does not watch again yet, it can only list what was changed meanwhile.
    mesh.route(&cluster, marked("after")).await;
    cluster.compact().await;
    mesh.answers("the new rules", |answer| has_mark(answer, "after"))
        .await;
    mesh.route_says("Accepted", "True").await;
    traffic.more(50).await;
    assert_eq!(traffic.end().await, Vec::<String>::new());
}

/// The controller is killed and the next version of it takes over: its pods take the place of the old ones only
/// once they are ready, and no moment is without a waypoint (issue 7, Proof).
#[tokio::test]
async fn the_controller_is_upgraded() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let mut mesh = Mesh::start(&cluster).await;
    let before = mesh.waypoints().await;
    mesh._controller = controller(&cluster, "controller-b", "cairn:next").await;
    let deployments = mesh.all("apps/v1", "deployments");
    let is_next = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "cairn:next"
    };
    mesh.api
        .until(&deployments, "waypoint", "has the next image", is_next)
        .await;
    until("another pod is in its place", async || {
        let now = mesh.waypoints().await;
        assert!(!now.is_empty(), "there is no waypoint");
        now.iter().all(|waypoint| !before.contains(waypoint))
    })
    .await;
    mesh.programmed().await;
    mesh.answers("the application answers", |answer| echoed(answer).is_some())
        .await;
}
