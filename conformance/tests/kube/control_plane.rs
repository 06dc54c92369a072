//! That the control plane of the tests is what it says: what is tested against it would mean nothing otherwise.

use cairn_conformance::cluster::{ApiServer, collection};
use serde_json::json;

/// A Deployment becomes a ReplicaSet and pods, by upstream's controllers; without a node they wait.
#[tokio::test]
async fn a_deployment_becomes_pods() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("deployment").await;
    let create = [
        "create",
        "deployment",
        "web",
        "--image=echo",
        "--replicas=2",
    ];
    cluster
        .kubectl(&[&create[..], &["-n", &namespace]].concat(), "")
        .await
        .expect("a deployment");
    let deployments = collection("apps/v1", &namespace, "deployments");
    cluster
        .api
        .until(&deployments, "web", "has two pods", |web| {
            web["status"]["replicas"] == json!(2)
        })
        .await;
    let pods = collection("v1", &namespace, "pods");
    let list = cluster.api.get(&pods).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["items"][0]["status"]["phase"], "Pending");

    // The garbage collector removes them with their owner, the namespace controller with their namespace.
    cluster.api.delete(&format!("{deployments}/web")).await;
    let pod = list["items"][0]["metadata"]["name"].as_str().unwrap();
    cluster.api.until_gone(&pods, pod).await;
    cluster
        .api
        .delete(&format!("/api/v1/namespaces/{namespace}"))
        .await;
    cluster
        .api
        .until_gone("/api/v1/namespaces", &namespace)
        .await;
}

/// RBAC is on: a user without a role may do nothing, a ServiceAccount what its role says.
#[tokio::test]
async fn only_what_a_role_allows_is_allowed() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("roles").await;
    let list = ["get", "services", "-n", &namespace];
    let said = cluster.kubectl_as(cluster.nobody(), &list, "").await;
    assert!(said.refused("nobody").contains("(Forbidden)"));

    let reader = cluster.account(&namespace, "default").await;
    let said = cluster.kubectl_as(reader.clone(), &list, "").await;
    assert!(
        said.refused("an account without a role")
            .contains("(Forbidden)")
    );
    let account = format!("--serviceaccount={namespace}:default");
    let role = ["role", "reader", "--verb=list", "--resource=services"];
    let binding = ["rolebinding", "reader", "--role=reader", &account];
    for made in [role, binding] {
        let create = [&["create", "-n", &namespace], &made[..]].concat();
        cluster.kubectl(&create, "").await.expect("a role");
    }
    let said = cluster.kubectl_as(reader, &list, "").await;
    said.expect("an account with a role");
}

/// The kinds of the Gateway API, Istio, Cilium and Cairn are served, and their schemas are enforced.
#[tokio::test]
async fn the_kinds_are_served_and_checked() {
    let Some(cluster) = ApiServer::shared().await else {
        return;
    };
    let namespace = cluster.namespace("kinds").await;
    for kind in [
        "gateways.gateway.networking.k8s.io",
        "httproutes.gateway.networking.k8s.io",
        "xbackendtrafficpolicies.gateway.networking.x-k8s.io",
        "authorizationpolicies.security.istio.io",
        "virtualservices.networking.istio.io",
        "telemetries.telemetry.istio.io",
        "ciliumnetworkpolicies.cilium.io",
        "ciliumenvoyconfigs.cilium.io",
        "trafficpolicies.cairn.dev",
    ] {
        let said = cluster.kubectl(&["get", kind, "-n", &namespace], "").await;
        said.expect(kind);
    }
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "wrong", "namespace": namespace },
        "spec": { "rules": [{ "matches": [{ "path": { "type": "Exact", "value": "no-slash" } }] }] },
    });
    let said = cluster
        .kubectl(&["apply", "-f", "-"], &route.to_string())
        .await;
    assert!(
        said.refused("a path without a slash")
            .contains("must be an absolute path")
    );
}

/// The API server stops and starts again on the same data; a watch from before a compaction is told so.
#[tokio::test]
async fn it_stops_starts_again_and_forgets() {
    let Some(mut cluster) = ApiServer::start_with(&["--watch-cache=false"]).await else {
        return;
    };
    let namespace = cluster.namespace("kept").await;
    let maps = collection("v1", &namespace, "configmaps");
    let map = json!({ "metadata": { "name": "one" } });
    let made = cluster.api.create(&maps, &map).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();

    cluster.stop().await;
    cluster.start_again().await;
    assert!(cluster.api.get(&format!("{maps}/one")).await.is_some());

    cluster.api.delete(&format!("{maps}/one")).await;
    cluster.compact().await;
    let query = format!("resourceVersion={version}");
    let event = cluster.api.watch(&maps, &query).await.next().await.unwrap();
    assert_eq!(
        (event.kind.as_str(), &event.object["code"]),
        ("ERROR", &json!(410))
    );
}
