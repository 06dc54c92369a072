//! A waypoint for workloads: CONNECT to the address of a pod (1.2, 2.3), and the Gateway's policies.

use http::StatusCode;

use crate::mesh::{Mesh, WEB, status_word};

/// The Gateway of the mesh, for other traffic than Services'.
fn gateway(waypoint_for: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  \
         labels: {{istio.io/use-waypoint: waypoint}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: waypoint, namespace: shop, labels: {{istio.io/waypoint-for: {waypoint_for}}}}}\n\
         spec:\n  gatewayClassName: cairn-waypoint\n  \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]\n"
    )
}

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
     metadata: {name: readers, namespace: shop}\nspec:\n  \
     targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]\n  \
     rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/viewer]}}], \
     to: [{operation: {paths: [/public*]}}]}]\n";

#[tokio::test]
async fn a_service_waypoint_refuses_the_address_of_a_pod() {
    let mesh = Mesh::start().await;
    let pod = mesh.raw.address.to_string();
    assert_eq!(mesh.connect_status(&pod).await, StatusCode::BAD_REQUEST);
    assert_eq!(mesh.refused("not_served").await, 1.0);
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}

#[tokio::test]
async fn a_workload_waypoint_takes_the_address_of_a_pod_and_applies_the_gateways_policies() {
    let mesh = Mesh::start().await;
    mesh.configure("mesh", &gateway("workload")).await;
    mesh.configure("readers", POLICY).await;
    let pod = mesh.raw.address.to_string();
    for (path, status) in [
        ("/public/a", "200"),
        ("/private", "403"),
        ("//private", "403"),
    ] {
        let get = format!("GET {path} HTTP/1.1\r\nhost: raw\r\nconnection: close\r\n\r\n");
        let answer = mesh.exchange(&pod, get).await;
        assert_eq!(status_word(&answer), status, "{path}: {answer:?}");
    }
    assert_eq!(mesh.raw.requests(), 1);
    let denied = |line: &serde_json::Value| line["path"] == "/private";
    let line = mesh.cairn().logged("the denial", denied).await;
    assert_eq!(line["tunnel_authority"], pod.as_str(), "{line}");
    assert_eq!(line["verdict"], "deny", "{line}");
    assert!(
        line["reason"]
            .as_str()
            .is_some_and(|r| r.contains("shop/readers")),
        "{line}"
    );
}

#[tokio::test]
async fn a_workload_waypoint_refuses_services_and_addresses_of_nobody() {
    let mesh = Mesh::start().await;
    mesh.configure("mesh", &gateway("workload")).await;
    for authority in [WEB, "10.96.99.99:80", "127.0.0.1:80"] {
        let status = mesh.connect_status(authority).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{authority}");
    }
    assert_eq!(mesh.refused("not_served").await, 3.0);
    assert_eq!(mesh.web.connections(), 0);
}
