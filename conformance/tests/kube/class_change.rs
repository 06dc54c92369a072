//! A Gateway that is given another controller's class (docs/controller.md): what was made for it stays until that
//! controller serves it.

use cairn_conformance::cluster::{ApiServer, collection};
use cairn_conformance::process::until;
use serde_json::{Value, json};

use super::attach::{READER, controller};
use super::controller::MADE;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

#[tokio::test]
async fn what_was_made_goes_when_another_controller_serves_the_gateway() {
    let Some(cluster) = ApiServer::start().await else {
        return;
    };
    let api = cluster.api;
    let namespace = cluster.namespace("handed-over").await;
    cluster.apply(READER).await;
    let controller = controller(&cluster, "controller", "cairn:test").await;
    let class = json!({"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": "theirs"},
        "spec": {"controllerName": "other.example/controller"}});
    cluster.apply(&class.to_string()).await;
    let gateway = json!({"apiVersion": GATEWAY_API, "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": namespace},
        "spec": {"gatewayClassName": "cairn-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}});
    cluster.apply(&gateway.to_string()).await;
    for (api_version, plural) in MADE {
        let all = collection(api_version, &namespace, plural);
        api.until(&all, "waypoint", "is made", |_| true).await;
    }
    let gateways = collection(GATEWAY_API, &namespace, "gateways");
    let path = format!("{gateways}/waypoint");
    let deployments = collection("apps/v1", &namespace, "deployments");
    let made = api.get(&format!("{deployments}/waypoint")).await.unwrap();

    // A class that is not there is nobody's, and one that is another controller's serves nothing yet.
    let of_class = |name: &str| json!({"spec": {"gatewayClassName": name}});
    api.patch(&path, &of_class("missing")).await;
    api.patch(&path, &of_class("theirs")).await;
    until("the controller has seen it", async || {
        controller
            .stderr()
            .contains("it is another controller's now")
    })
    .await;
    let serves = |generation: &Value, address: &str| {
        json!({"status": {
            "addresses": [{"type": "IPAddress", "value": address}],
            "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation}],
        }})
    };
    // It has kept our Service's address: without the Service nobody would serve.
    let generation = api.get(&path).await.unwrap()["metadata"]["generation"].clone();
    let services = collection("v1", &namespace, "services");
    let ours = api.get(&format!("{services}/waypoint")).await.unwrap();
    let ours = ours["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let before = controller
        .stderr()
        .matches("another controller's now")
        .count();
    api.patch(&format!("{path}/status"), &serves(&generation, &ours))
        .await;
    until("the controller has seen that, too", async || {
        controller
            .stderr()
            .matches("another controller's now")
            .count()
            > before
    })
    .await;
    let still = api.get(&format!("{deployments}/waypoint")).await.unwrap();
    assert_eq!(still["metadata"]["uid"], made["metadata"]["uid"]);
    // It serves on, and has to see the policies that come: its account may read as before.
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let subject = json!([{"kind": "ServiceAccount", "name": "waypoint", "namespace": namespace}]);
    let is_bound = |binding: &Value| binding["subjects"] == subject;
    api.until(
        bindings,
        "cairn-waypoint",
        "still has the account",
        is_bound,
    )
    .await;

    api.patch(
        &format!("{path}/status"),
        &serves(&generation, "10.96.77.77"),
    )
    .await;
    for (api_version, plural) in MADE {
        api.until_gone(&collection(api_version, &namespace, plural), "waypoint")
            .await;
    }
    assert!(api.get(&path).await.is_some(), "the Gateway is theirs");
}
