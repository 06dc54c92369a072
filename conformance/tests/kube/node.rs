//! The played node: pods run, answer and end, and upstream's controllers make endpoints of them.

use cairn_conformance::client;
use cairn_conformance::cluster::{ApiServer, Node, collection};
use serde_json::{Value, json};

/// A Deployment of echo applications and its Service.
pub fn echo(namespace: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: echo, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"
    )
}

/// Addresses of the endpoints that are ready.
fn ready(slice: &Value) -> Vec<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] == json!(true))
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
#[ignore = "not run yet"]
async fn pods_run_and_become_endpoints() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("node").await;
    let _node = Node::start(cluster, &[&namespace]).await;
    cluster.apply(&echo(&namespace, 2)).await;
    let deployments = collection("apps/v1", &namespace, "deployments");
    let available = |web: &Value| web["status"]["availableReplicas"] == json!(2);
    cluster
        .api
        .until(&deployments, "web", "has two ready pods", available)
        .await;
    let slices = collection("discovery.k8s.io/v1", &namespace, "endpointslices");
    let list = cluster.api.get(&slices).await.unwrap();
    let name = list["items"][0]["metadata"]["name"].as_str().unwrap();
    let slice = cluster
        .api
        .until(&slices, name, "has both", |slice| ready(slice).len() == 2)
        .await;
    let before = ready(&slice);
    for address in &before {
        let answer = client::get(format!("{address}:8080").parse().unwrap(), "/").await;
        assert_eq!(answer.status(), 200);
    }

    // One is deleted: it ends, and another one takes its place.
    let gone = slice["endpoints"][0]["targetRef"]["name"].as_str().unwrap();
    let pods = collection("v1", &namespace, "pods");
    cluster.api.delete(&format!("{pods}/{gone}")).await;
    cluster.api.until_gone(&pods, gone).await;
    cluster
        .api
        .until(&slices, name, "has another", |slice| {
            let now = ready(slice);
            now.len() == 2 && now != before && now.iter().any(|at| !before.contains(at))
        })
        .await;
}
