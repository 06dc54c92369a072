//! `cairn doctor` at a real API server that passes its questions on to pods: a waypoint and an agent that the test
//! plays, answering over real sockets (issue 7 item 7).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::process::until;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::people::cairn;

/// What a pod answers, by path.
type Pages = Arc<Mutex<BTreeMap<&'static str, (u16, String)>>>;

/// Told of each question before it is answered.
type Asked = Arc<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

async fn answering(address: IpAddr, port: u16, pages: Pages, asked: Asked) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("").to_owned();
            asked(&path).await;
            let page = pages.lock().unwrap().get(path.as_str()).cloned();
            let (status, body) = page.unwrap_or((404, String::new()));
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

/// Makes a pod and says that it runs at this address.
async fn pod(cluster: &ApiServer, object: Value, ip: IpAddr, ready: &str) {
    let namespace = object["metadata"]["namespace"].as_str().unwrap().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let pods = collection("v1", &namespace, "pods");
    cluster.api.create(&pods, &object).await;
    runs(cluster, &namespace, &name, ip, ready).await;
}

/// Says that a pod runs at this address.
async fn runs(cluster: &ApiServer, namespace: &str, name: &str, ip: IpAddr, ready: &str) {
    let pods = collection("v1", namespace, "pods");
    let status = json!({"status": {
        "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}],
        "conditions": [{"type": "Ready", "status": ready}],
    }});
    cluster
        .api
        .patch(&format!("{pods}/{name}/status"), &status)
        .await;
}

/// A Service with a policy behind a waypoint, and an agent for it.
fn shop(namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}, labels: {{istio.io/use-waypoint: waypoint}}}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: waypoint, namespace: {namespace}}}
spec:
  gatewayClassName: cairn-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: readers, namespace: {namespace}}}
spec:
  targetRefs: [{{kind: Service, group: '', name: web}}]
  rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: cairn-node, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: cairn-node}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}
subjects: [{{kind: ServiceAccount, name: cairn-node, namespace: {namespace}}}]
"
    )
}

/// What a waypoint's pod acknowledges.
fn acknowledged(namespace: &str, policy: i64) -> (u16, String) {
    let gateway = format!("{namespace}/waypoint");
    let objects = json!({
        format!("Gateway/{gateway}"): 1,
        format!("AuthorizationPolicy/{namespace}/readers"): policy,
    });
    let answer = json!({"snapshot": 7, "gateway": gateway, "objects": objects, "left_out": 0});
    (200, answer.to_string())
}

/// Makes the Gateway's Deployment, as the controller does, and takes the pod that upstream's controllers make of it.
async fn replica(cluster: &ApiServer, ns: &str) -> String {
    let gateways = collection("gateway.networking.k8s.io/v1", ns, "gateways");
    let gateway = cluster.api.get(&format!("{gateways}/waypoint")).await;
    let gateway = gateway.expect("the Gateway");
    let labels = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    let owner = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "waypoint",
        "uid": gateway["metadata"]["uid"], "controller": true});
    let deployment = json!({
        "metadata": {"name": "waypoint", "namespace": ns, "labels": labels, "ownerReferences": [owner]},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "waypoint", "image": "cairn"}]}}},
    });
    let deployments = collection("apps/v1", ns, "deployments");
    cluster.api.create(&deployments, &deployment).await;
    let pods = collection("v1", ns, "pods");
    let mut name = None;
    until("a pod of the Deployment", async || {
        let list = cluster.api.get(&pods).await.unwrap();
        name = list["items"][0]["metadata"]["name"]
            .as_str()
            .map(str::to_owned);
        name.is_some()
    })
    .await;
    name.unwrap()
}

/// Makes the Gateway, its waypoint and an agent, which answer with these pages. The name of the waypoint's pod.
async fn play(cluster: &ApiServer, ns: &str, pages: &Pages, asked: Asked) -> String {
    cluster.apply(&shop(ns)).await;
    let node = json!({"metadata": {"name": "node-a"}});
    cluster.api.create("/api/v1/nodes", &node).await;
    let gateway = collection("gateway.networking.k8s.io/v1", ns, "gateways") + "/waypoint/status";
    let programmed = json!({"status": {
        "addresses": [{"type": "IPAddress", "value": "10.96.1.9"}],
        "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}],
    }});
    cluster.api.patch(&gateway, &programmed).await;
    let of_pod = |name: &str, labels: Value, spec: Value| json!({"metadata": {"name": name, "namespace": ns, "labels": labels}, "spec": spec});
    let (waypoint, agent) = (cluster.pod_address(), cluster.pod_address());
    for (address, port) in [(waypoint, 15021), (agent, 15020), (agent, 15021)] {
        answering(address, port, pages.clone(), asked.clone()).await;
    }
    let labels = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    let spec = json!({"containers": [{"name": "waypoint", "image": "cairn"}]});
    let replica = replica(cluster, ns).await;
    runs(cluster, ns, &replica, waypoint, "True").await;
    // Somebody's, with the label; whatever it says of itself is not asked for.
    let theirs = of_pod("theirs", labels, spec);
    pod(cluster, theirs, waypoint, "True").await;
    let labels = json!({"app.kubernetes.io/name": "cairn", "app.kubernetes.io/component": "node"});
    let spec = json!({"serviceAccountName": "cairn-node", "nodeName": "node-a", "containers": [
        {"name": "node", "image": "cairn", "args": ["node", "--kube", format!("--gateway={ns}/waypoint")]}]});
    pod(cluster, of_pod("agent-1", labels, spec), agent, "True").await;
    replica
}

/// What is made after the doctor has read is in force at once, and is no reason to call a pod behind: it is read again.
#[tokio::test]
async fn what_is_made_while_the_doctor_reads_is_read_again() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let cluster = Arc::new(cluster);
    let namespace = cluster.namespace("race").await;
    let ns = namespace.as_str();
    let pages = Pages::default();
    let is_made = Arc::new(tokio::sync::Mutex::new(false));
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "late", "namespace": ns},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]},
    });
    let routes = collection("gateway.networking.k8s.io/v1", ns, "httproutes");
    let (made, of_cluster) = (is_made.clone(), cluster.clone());
    let make = move |path: &str| -> BoxFuture<'static, ()> {
        let is_first = path == "/acknowledged";
        let (made, cluster) = (made.clone(), of_cluster.clone());
        let (routes, route) = (routes.clone(), route.clone());
        Box::pin(async move {
            let mut made = made.lock().await;
            if is_first && !*made {
                *made = true;
                cluster.api.create(&routes, &route).await;
            }
        })
    };
    play(&cluster, ns, &pages, Arc::new(make)).await;
    let (status, page) = acknowledged(ns, 1);
    let mut page: Value = serde_json::from_str(&page).unwrap();
    page["objects"][format!("HTTPRoute/{ns}/late")] = 1.into();
    pages
        .lock()
        .unwrap()
        .insert("/acknowledged", (status, page.to_string()));
    let (_, said, err) = cairn(&cluster, &["doctor", "-n", ns]).await;
    assert!(*is_made.lock().await, "{said}{err}");
    assert!(said.contains("snapshot 7 in force"), "{said}{err}");
    assert!(!said.contains("behind"), "{said}");
}

#[tokio::test]
async fn the_doctor_asks_waypoints_and_agents_through_the_api_server() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let cluster = &cluster;
    let namespace = cluster.namespace("doctor").await;
    let ns = namespace.as_str();
    let pages = Pages::default();
    let say = |path: &'static str, page: (u16, String)| {
        pages.lock().unwrap().insert(path, page);
    };
    let replica = play(cluster, ns, &pages, Arc::new(|_| Box::pin(async {}))).await;

    // The version before is in force, and two pods go past the agent.
    let readers = collection("security.istio.io/v1", ns, "authorizationpolicies") + "/readers";
    let more = json!({"spec": {"rules": [{"to": [{"operation": {"methods": ["HEAD"]}}]}]}});
    cluster.api.patch(&readers, &more).await;
    say("/acknowledged", acknowledged(ns, 1));
    let metrics = "cairn_node_pods{state=\"served\"} 4\ncairn_node_pods{state=\"overdue\"} 2\n";
    say("/metrics", (200, metrics.to_owned()));
    let (code, said, err) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 1, "{said}{err}");
    for words in [
        format!(
            "Pod {ns}/{replica} has generation 1 of AuthorizationPolicy/{ns}/readers in force, and 2 is written"
        ),
        format!("Pod {ns}/{replica}  waypoint {ns}/waypoint"),
        "not enrolled: 2 overdue".to_owned(),
        "on node-a".to_owned(),
    ] {
        assert!(said.contains(&words), "{words} in\n{said}");
    }
    // By the objects alone nothing of that is known.
    let (_, said, _) = cairn(cluster, &["doctor", "-n", ns, "--offline"]).await;
    assert!(!said.contains(&replica), "{said}");

    // In force, and everybody enrolled; closed at the pods, of which there is none yet.
    say("/acknowledged", acknowledged(ns, 2));
    say(
        "/metrics",
        (200, "cairn_node_pods{state=\"served\"} 6\n".to_owned()),
    );
    let (code, said, err) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 1, "{said}{err}");
    assert!(said.contains("snapshot 7 in force"), "{said}");
    assert!(said.contains("ready, 6 pods served"), "{said}");
    // One thing is left: a pod that only has the label.
    assert_eq!(said.matches("mend: ").count(), 1, "{said}");
    assert!(
        said.contains(&format!("Pod {ns}/theirs  no replica of {ns}/waypoint")),
        "{said}"
    );
    let theirs = collection("v1", ns, "pods") + "/theirs?gracePeriodSeconds=0";
    cluster.api.delete(&theirs).await;
    let (code, said, err) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 0, "{said}{err}");

    // What is not ready says why; a pod that can not be asked is a gap.
    let ready = format!("{}/{replica}/status", collection("v1", ns, "pods"));
    let waits = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.api.patch(&ready, &waits).await;
    say(
        "/healthz/ready",
        (
            503,
            "not ready:\nwaiting for the first certificate\n".to_owned(),
        ),
    );
    say("/metrics", (404, String::new()));
    let (code, said, _) = cairn(cluster, &["doctor", "-n", ns]).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("not ready: waiting for the first certificate"),
        "{said}"
    );
    assert!(said.contains("whom it has enrolled is not known"), "{said}");
}
