//! Workload discovery from istiod: what it tells of this cluster changes nothing, a quiet stream stays, and what is gone
//! while it is away is gone when it is back.

use std::time::Duration;

use cairn_conformance::client;
use cairn_conformance::cluster::collection;
use cairn_conformance::process::until;
use serde_json::{Value, json};

use super::world::World;

/// Longer than istiod takes to end a connection that pings too often (its fourth PING), twice.
const QUIET: Duration = Duration::from_secs(100);

/// What is told at once, once.
const SERVICES: usize = 1_000;

#[tokio::test]
#[ignore = "needs an istiod: make istiod"]
async fn what_istiod_tells_is_what_the_pods_say_and_outlives_it() {
    let Some(mut world) = World::start().await else {
        return;
    };
    world.account("waypoint").await;
    world.gateway().await;
    let token = world.token("waypoint", Some("istio-ca")).await;
    let token = ["--ca-token", token.to_str().unwrap()];
    let address = world.istiod.address();
    let asked = ["--discovery", "istiod", "--xds-address", &address];
    let mut alone = world.waypoint("alone", &token).await;
    let mut told = world.waypoint("told", &[&token[..], &asked].concat()).await;
    alone.until_ready().await;
    told.until_ready().await;

    // The Pods of this cluster are believed, and istiod says the same of them: tunnels, identities, endpoints.
    for part in ["workloads", "services"] {
        let expected = alone.config_dump().await[part].clone();
        assert!(expected.as_array().is_some_and(|all| all.len() >= 2));
        told.admin_shows("/config_dump", |dump| dump[part] == expected)
            .await;
    }
    assert_eq!(
        told.metric("cairn_xds_resources", &["kind=\"refused\""])
            .await,
        0.0
    );
    let workloads = ["kind=\"workload\""];
    assert_eq!(told.metric("cairn_xds_resources", &workloads).await, 3.0);

    // Nothing happens, and nobody hangs up.
    tokio::time::sleep(QUIET).await;
    let log = told.process.stderr();
    assert!(!log.contains("istiod tells nothing new"), "{log}");

    let services = ["kind=\"service\""];
    let before = told.metric("cairn_xds_resources", &services).await;
    create_services(&world).await;
    let all = before + SERVICES as f64;
    told.metric_reaches("cairn_xds_resources", &services, all)
        .await;

    // Away: what it told stays in force. A Service and a pod go meanwhile.
    world.istiod.stop().await;
    told.metric_falls_to("cairn_xds_connected", &[], 0.0).await;
    assert_eq!(
        client::get(told.ready, "/healthz/ready").await.status(),
        200
    );
    let of = collection("v1", &world.namespace, "services");
    world.cluster.api.delete(&format!("{of}/many-0")).await;
    let scale = json!({ "spec": { "replicas": 1 } });
    let deployments = collection("apps/v1", &world.namespace, "deployments");
    world
        .cluster
        .api
        .patch(&format!("{deployments}/web"), &scale)
        .await;
    let pods = collection("v1", &world.namespace, "pods");
    until("a pod is gone", async || {
        let list = world.cluster.api.get(&pods).await.unwrap();
        list["items"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await;
    world.istiod.start_again().await;
    told.metric_reaches("cairn_xds_connected", &[], 1.0).await;
    told.metric_falls_to("cairn_xds_resources", &services, all - 1.0)
        .await;
    told.metric_falls_to("cairn_xds_resources", &workloads, 2.0)
        .await;
    let expected = alone.config_dump().await["workloads"].clone();
    told.admin_shows("/config_dump", |dump| dump["workloads"] == expected)
        .await;
}

async fn create_services(world: &World) {
    let service = |n: usize| -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": format!("many-{n}"), "namespace": world.namespace },
            "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80 }] },
        })
    };
    let items: Vec<Value> = (0..SERVICES).map(service).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let create = ["create", "-f", "-"];
    let said = world.cluster.kubectl(&create, &list.to_string()).await;
    said.expect("Services");
}
