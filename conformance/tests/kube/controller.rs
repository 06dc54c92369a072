//! `cairn controller` at a real API server: from the GatewayClass to the deletion of a Gateway. Pods are made by the
//! real Deployment controller; here they are made ready, and answer what they have acknowledged.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cairn_conformance::cluster::{Api, ApiServer, collection};
use cairn_conformance::net::free_port;
use cairn_conformance::process::{Process, READY_DEADLINE, tied, until};
use cairn_conformance::workspace;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const CONTROLLER: &str = "cairn.dev/waypoint-controller";

/// How often it is asked whether it leads.
const LOOK: Duration = Duration::from_millis(20);

/// A controller with its metrics.
struct Controller {
    process: Process,
    metrics: std::net::SocketAddr,
    ready: std::net::SocketAddr,
}

impl Controller {
    async fn start(cluster: &ApiServer, name: &str) -> Self {
        let loopback = "127.0.0.1".parse().unwrap();
        let [metrics, ready] = [(); 2].map(|()| (loopback, free_port(loopback)).into());
        let mut command: Command = tied(&workspace::cairn());
        command
            .args(["controller", "--image=cairn:test", "--namespace=default"])
            .arg(format!("--identity={name}"))
            .arg(format!("--kubeconfig={}", cluster.admin().display()))
            .arg(format!("--metrics-addr={metrics}"))
            .arg(format!("--ready-addr={ready}"));
        let mut process = Process::start(name, command, cluster.folder());
        process.listening(ready).await;
        Self {
            process,
            metrics,
            ready,
        }
    }

    /// The value of one metric.
    async fn metric(&self, name: &str) -> f64 {
        let text = fetch(self.metrics, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.trim().parse().unwrap()
    }

    async fn writes(&self) -> f64 {
        let name =
            |outcome: &str| format!("cairn_controller_writes_total{{outcome=\"{outcome}\"}}");
        self.metric(&name("done")).await
            + self.metric(&name("conflict")).await
            + self.metric(&name("failed")).await
    }

    /// Leads, and has read everything; if not in time, what it says that it waits for is told.
    async fn until_leading(&self) {
        let mut said = String::new();
        let leads = async {
            while !said.ends_with("ready, leading\n") {
                tokio::time::sleep(LOOK).await;
                said = fetch(self.ready, "/healthz/ready").await;
            }
        };
        if tokio::time::timeout(READY_DEADLINE, leads).await.is_err() {
            panic!("not in time: a controller leads; it says\n{said}");
        }
    }
}

async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What a waypoint's pod answers to `/acknowledged`: the generation can be set.
async fn replica(api: Api, address: std::net::IpAddr, gateway: String) -> Arc<AtomicI64> {
    let generation = Arc::new(AtomicI64::new(0));
    let serves = generation.clone();
    let listener = TcpListener::bind((address, 15021)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 2048];
            let _ = stream.read(&mut head).await;
            let namespace = gateway.split('/').next().unwrap();
            // Of the route it always has the present one.
            let routes = collection(GATEWAY_API, namespace, "httproutes");
            let route = api.get(&format!("{routes}/web")).await;
            let route = route.map(|route| route["metadata"]["generation"].clone());
            let objects = json!({
                format!("Gateway/{gateway}"): serves.load(Ordering::SeqCst),
                format!("HTTPRoute/{namespace}/web"): route,
            });
            let body = json!({"gateway": gateway, "objects": objects}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    generation
}

fn condition<'v>(object: &'v Value, list: &str, kind: &str) -> &'v Value {
    let conditions = object.pointer(list).and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.unwrap_or(&Value::Null)
}

fn is(object: &Value, kind: &str, status: &str, reason: &str) -> bool {
    let condition = condition(object, "/status/conditions", kind);
    let observed = &condition["observedGeneration"];
    condition["status"] == status
        && condition["reason"] == reason
        && (observed.is_null() || *observed == object["metadata"]["generation"])
}

struct Shop<'c> {
    cluster: &'c ApiServer,
    namespace: String,
}

impl Shop<'_> {
    fn gateways(&self) -> String {
        collection(GATEWAY_API, &self.namespace, "gateways")
    }

    fn all(&self, api_version: &str, plural: &str) -> String {
        collection(api_version, &self.namespace, plural)
    }

    async fn until_gateway(&self, what: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        let api = &self.cluster.api;
        api.until(&self.gateways(), "waypoint", what, is_right)
            .await
    }

    /// Gateway, Service and route, as a user has them.
    async fn apply(&self) {
        let namespace = &self.namespace;
        let yaml = format!(
            r#"
apiVersion: {GATEWAY_API}
kind: Gateway
metadata: {{name: waypoint, namespace: {namespace}}}
spec: {{gatewayClassName: cairn-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}, labels: {{istio.io/use-waypoint: waypoint}}}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: {GATEWAY_API}
kind: HTTPRoute
metadata: {{name: web, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web, port: 80}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
"#
        );
        self.cluster.apply(&yaml).await;
    }

    /// The first pod of the Deployment, made ready at an address of its own.
    async fn ready_pod(&self) -> (String, Arc<AtomicI64>) {
        let api = &self.cluster.api;
        let deployments = self.all("apps/v1", "deployments");
        let has_pods = |d: &Value| d["status"]["replicas"] == json!(1);
        api.until(&deployments, "waypoint", "has a pod", has_pods)
            .await;
        let pods = self.all("v1", "pods");
        let list = api.get(&pods).await.unwrap();
        let name = list["items"][0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let address = self.cluster.pod_address();
        let generation = replica(*api, address, format!("{}/waypoint", self.namespace)).await;
        let status = json!({"status": {
            "phase": "Running",
            "podIP": address.to_string(),
            "podIPs": [{"ip": address.to_string()}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        api.patch(&format!("{pods}/{name}/status"), &status).await;
        (name, generation)
    }
}

/// Issue 7 items 2 and 3; specs/istio-waypoint.md 1.4, 1.5; specs/gateway-api.md 1.4.
#[tokio::test]
async fn a_gateway_from_its_class_to_its_deletion() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    cluster.apply(ROLE).await;
    let first = Controller::start(&cluster, "first").await;
    first.until_leading().await;
    let second = Controller::start(&cluster, "second").await;
    let classes = format!("/apis/{GATEWAY_API}/gatewayclasses");
    let is_accepted = |class: &Value| {
        is(class, "Accepted", "True", "Accepted") && class["status"]["supportedFeatures"].is_array()
    };
    cluster
        .api
        .until(&classes, "cairn-waypoint", "is accepted", is_accepted)
        .await;

    let namespace = cluster.namespace("shop").await;
    let shop = Shop {
        cluster: &cluster,
        namespace,
    };
    shop.apply().await;
    made(&shop).await;
    acknowledged(&shop).await;
    told(&shop).await;
    quiet(&shop, &first).await;
    overlaid(&shop).await;

    // The leader is killed, and the other one goes on when its lease has ended.
    drop(first.process);
    second.until_leading().await;
    let back = json!({"metadata": {"labels": {"istio.io/use-waypoint": "none"}}});
    let services = shop.all("v1", "services");
    cluster.api.patch(&format!("{services}/web"), &back).await;
    let is_free = |service: &Value| {
        condition(service, "/status/conditions", "cairn.dev/WaypointBound").is_null()
    };
    cluster
        .api
        .until(&services, "web", "has no condition any more", is_free)
        .await;

    cluster
        .api
        .delete(&format!("{}/waypoint", shop.gateways()))
        .await;
    for (api_version, plural) in MADE {
        cluster
            .api
            .until_gone(&shop.all(api_version, plural), "waypoint")
            .await;
    }
    // SIGTERM gives the lease back.
    let mut second = second.process;
    second.signal("TERM");
    assert!(second.wait(Duration::from_secs(10)).await.success());
    let leases = collection("coordination.k8s.io/v1", "default", "leases");
    let lease = cluster
        .api
        .get(&format!("{leases}/cairn-controller"))
        .await
        .unwrap();
    assert_eq!(
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default(),
        ""
    );
}

pub const MADE: [(&str, &str); 5] = [
    ("v1", "serviceaccounts"),
    ("v1", "services"),
    ("apps/v1", "deployments"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("policy/v1", "poddisruptionbudgets"),
];

/// As the chart has it: the controller writes the subjects.
const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cairn-waypoint}
rules: [{apiGroups: [''], resources: [services], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cairn-waypoint}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cairn-waypoint}
";

/// Everything is made, owned and labelled, and the API server has taken all of it.
async fn made(shop: &Shop<'_>) {
    for (api_version, plural) in MADE {
        let is_ours = |object: &Value| {
            object["metadata"]["labels"]["gateway.istio.io/managed"]
                == "cairn.dev-waypoint-controller"
                && object["metadata"]["ownerReferences"][0]["kind"] == "Gateway"
        };
        let api = &shop.cluster.api;
        api.until(
            &shop.all(api_version, plural),
            "waypoint",
            "is made",
            is_ours,
        )
        .await;
    }
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let account =
        json!({"kind": "ServiceAccount", "name": "waypoint", "namespace": shop.namespace});
    let has_account = |binding: &Value| binding["subjects"] == json!([account]);
    let api = &shop.cluster.api;
    api.until(bindings, "cairn-waypoint", "has the account", has_account)
        .await;
}

/// No address before a pod is ready; Programmed once it has acknowledged the generation.
async fn acknowledged(shop: &Shop<'_>) {
    let gateway = shop
        .until_gateway("waits for a pod", |g| {
            is(g, "Programmed", "False", "AddressNotAssigned")
        })
        .await;
    assert!(gateway["status"]["addresses"].is_null(), "{gateway:#}");
    let waits = |s: &Value| is(s, "cairn.dev/WaypointBound", "False", "AddressNotAssigned");
    let (api, services) = (&shop.cluster.api, shop.all("v1", "services"));
    api.until(&services, "web", "is not bound yet", waits).await;
    let (pod, generation) = shop.ready_pod().await;
    let names_the_pod = |gateway: &Value| {
        let programmed = condition(gateway, "/status/conditions", "Programmed");
        let message = programmed["message"].as_str().unwrap_or_default();
        programmed["reason"] == "Pending"
            && message.contains(&pod)
            && message.contains("generation 0")
    };
    shop.until_gateway("waits for the pod's word", names_the_pod)
        .await;
    generation.store(i64::MAX, Ordering::SeqCst);
    let gateway = shop
        .until_gateway("is programmed", |g| {
            is(g, "Programmed", "True", "Programmed")
        })
        .await;
    let hostname = format!("waypoint.{}.svc.cluster.local", shop.namespace);
    assert_eq!(
        gateway["status"]["addresses"][0],
        json!({"type": "Hostname", "value": hostname})
    );
    assert_eq!(gateway["status"]["addresses"][1]["type"], "IPAddress");
    let listener = &gateway["status"]["listeners"][0];
    assert_eq!(
        (&listener["name"], &listener["supportedKinds"]),
        (&json!("mesh"), &json!([]))
    );
}

/// Service and route are told; what another controller wrote stays, and a change is seen.
async fn told(shop: &Shop<'_>) {
    let api = &shop.cluster.api;
    let services = shop.all("v1", "services");
    let is_bound = |s: &Value| is(s, "cairn.dev/WaypointBound", "True", "WaypointAccepted");
    api.until(&services, "web", "is bound", is_bound).await;
    let routes = shop.all(GATEWAY_API, "httproutes");
    let ours = |route: &Value| {
        let parents = route["status"]["parents"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        parents
            .into_iter()
            .find(|parent| parent["controllerName"] == CONTROLLER)
    };
    let with = |route: &Value, kind: &str, status: &str, reason: &str| {
        let parent = ours(route).unwrap_or_default();
        let condition = condition(&parent, "/conditions", kind);
        condition["status"] == status
            && condition["reason"] == reason
            && condition["observedGeneration"] == route["metadata"]["generation"]
    };
    let route = api
        .until(&routes, "web", "is accepted", |r| {
            with(r, "Accepted", "True", "Accepted")
                && with(r, "cairn.dev/Programmed", "True", "Programmed")
        })
        .await;
    assert_eq!(ours(&route).unwrap()["parentRef"]["port"], 80);
    let others = json!({"parentRef": {"name": "edge"}, "controllerName": "other.example/x", "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let both = json!({"status": {"parents": [others, ours(&route).unwrap()]}});
    api.patch(&format!("{routes}/web/status"), &both).await;
    let broken = json!({"spec": {"rules": [{"backendRefs": [{"name": "gone", "port": 80}]}]}});
    api.patch(&format!("{routes}/web"), &broken).await;
    let route = api
        .until(&routes, "web", "has lost its backend", |r| {
            with(r, "ResolvedRefs", "False", "BackendNotFound")
        })
        .await;
    let parents = route["status"]["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0]["controllerName"], "other.example/x");
    assert_eq!(
        parents[0]["conditions"][0]["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
}

/// No churn: states of the cluster come and go, and nothing is written.
async fn quiet(shop: &Shop<'_>, controller: &Controller) {
    let reads = || controller.metric("cairn_controller_reads_total");
    let is_idle = || controller.metric("cairn_controller_queue");
    until("nothing is left to do", async || is_idle().await == 0.0).await;
    let (writes, from) = (controller.writes().await, reads().await);
    for n in 0..10 {
        let pods = shop.all("v1", "pods");
        let pod = json!({"metadata": {"name": format!("churn-{n}")},
            "spec": {"containers": [{"name": "c", "image": "c"}]}});
        shop.cluster.api.create(&pods, &pod).await;
        let seen = reads().await;
        until("the pod is seen", async || reads().await > seen).await;
    }
    until("nothing is left to do", async || is_idle().await == 0.0).await;
    assert!(reads().await >= from + 10.0);
    assert_eq!(
        controller.writes().await,
        writes,
        "written though nothing changed"
    );
}

/// A broken overlay changes nothing that runs; mended, it is applied; what somebody else has changed is set back.
async fn overlaid(shop: &Shop<'_>) {
    let api = &shop.cluster.api;
    let parameters = json!({"spec": {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "more"}}}});
    api.patch(&format!("{}/waypoint", shop.gateways()), &parameters)
        .await;
    let is_invalid = |words: &'static str| {
        move |gateway: &Value| {
            let accepted = condition(gateway, "/status/conditions", "Accepted");
            let message = accepted["message"].as_str().unwrap_or_default();
            accepted["reason"] == "InvalidParameters" && message.contains(words)
        }
    };
    shop.until_gateway("misses its ConfigMap", is_invalid("there is no ConfigMap"))
        .await;
    let maps = shop.all("v1", "configmaps");
    let map = |service: &str| json!({"metadata": {"name": "more"}, "data": {"service": service}});
    api.create(&maps, &map("{spec: {selector: {a: b}}}")).await;
    shop.until_gateway(
        "refuses the overlay",
        is_invalid("spec.selector can not be overlaid"),
    )
    .await;
    // Not known to the API, which is asked to be strict.
    api.patch(&format!("{maps}/more"), &map("{spec: {colour: blue}}"))
        .await;
    shop.until_gateway("refuses the field", is_invalid("colour"))
        .await;
    let good = map("{spec: {sessionAffinity: ClientIP}}");
    api.patch(&format!("{maps}/more"), &good).await;
    let services = shop.all("v1", "services");
    let has_affinity = |service: &Value| service["spec"]["sessionAffinity"] == "ClientIP";
    api.until(&services, "waypoint", "has the overlay", has_affinity)
        .await;
    shop.until_gateway("is programmed again", |g| {
        is(g, "Programmed", "True", "Programmed")
    })
    .await;
    let theirs = json!({"spec": {"sessionAffinity": "None"}});
    api.patch(&format!("{services}/waypoint"), &theirs).await;
    api.until(&services, "waypoint", "is set back", has_affinity)
        .await;
}
