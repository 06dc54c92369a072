//! Pods that are not ready when the mesh is exported: once they are, nobody may call them whom the original denied.

use cairn_config_schema::translate::Target;

use crate::support::{mesh_with, written_in};

/// Pods of both Services have it.
const TIER: [(&str, &str); 2] = [
    (
        "name: api-1, namespace: shop, labels: {app: api}",
        "name: api-1, namespace: shop, labels: {app: api, tier: back}",
    ),
    (
        "name: orders-1, namespace: shop, labels: {app: orders}",
        "name: orders-1, namespace: shop, labels: {app: orders, tier: back}",
    ),
];

const NOT_READY: (&str, &str) = (
    "endpoints: [{addresses: [10.0.1.2],",
    "endpoints: [{conditions: {ready: false}, addresses: [10.0.1.2],",
);

/// A policy of the pods of both Services.
const CNP: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop}, spec: {\
                   endpointSelector: {matchLabels: {tier: back}}, \
                   ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: web}}]}]}}";

const AP: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {\
                  targetRefs: [{group: '', kind: Service, name: api}], \
                  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}}";

fn mesh_of(changes: &[(&str, &str)]) -> String {
    let all: Vec<_> = TIER.iter().chain(changes).copied().collect();
    mesh_with(&all)
}

/// Service `orders` would get no policy, and the waypoint would be let in.
#[test]
fn a_service_whose_pods_are_not_ready_is_not_left_open() {
    let found = written_in(mesh_of(&[]), Target::Istio, &[CNP]);
    found.is_whole();
    assert_eq!(found.all("AuthorizationPolicy").len(), 3);
    let why = "Pod shop/orders-1 behind Service shop/orders is no endpoint";
    // In no EndpointSlice at all: by the selector it will be.
    let gone = (
        "endpoints: [{addresses: [10.0.1.2], targetRef: {kind: Pod, name: orders-1, namespace: shop}}]",
        "endpoints: []",
    );
    written_in(mesh_of(&[gone]), Target::Istio, &[CNP]).is_refused(&[why]);
    // Without an address yet.
    let pending = (
        "status: {podIPs: [{ip: 10.0.1.2}]}",
        "status: {phase: Pending}",
    );
    let found = written_in(mesh_of(&[gone, pending]), Target::Istio, &[CNP]);
    found.is_refused(&["Pod shop/orders-1 has no address yet"]);
}

/// An EndpointSlice says what its port will be: the same is written as when it is ready.
#[test]
fn a_pod_that_is_listed_is_taken_for_ready() {
    for (target, policy) in [(Target::Istio, CNP), (Target::Cilium, AP)] {
        let ready = written_in(mesh_of(&[]), target, &[policy]);
        ready.is_whole();
        let late = written_in(mesh_of(&[NOT_READY]), target, &[policy]);
        assert_eq!(late.0.objects, ready.0.objects);
        let told = |notes: &[String]| notes.iter().any(|note| note.contains("not ready"));
        assert!(told(&late.0.notes) && !told(&ready.0.notes));
    }
}

#[test]
fn a_service_that_has_no_pods_now_is_not_left_open_for_those_to_come() {
    let scaled = |labels: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: scaled, namespace: shop}}, \
             spec: {{clusterIP: 10.96.2.8, selector: {labels}, ports: [{{name: http, port: 80}}]}}}}"
        )
    };
    let comes = scaled("{app: scaled}");
    let found = written_in(mesh_of(&[]), Target::Istio, &[CNP, &comes]);
    found.is_refused(&["Service shop/scaled has no pods now"]);
    // Pods of this one can not be of the policy.
    let other = scaled("{app: scaled, tier: front}");
    written_in(mesh_of(&[]), Target::Istio, &[CNP, &other]).is_whole();
}

/// Everybody could call it once it has one.
#[test]
fn a_port_without_an_endpoint_keeps_the_policy_from_being_written() {
    let no_metrics = (
        ", {name: http-metrics, port: 9090}]\nendpoints",
        "]\nendpoints",
    );
    let why = "Pod shop/api-1 behind Service shop/api is no endpoint of its port 9090";
    for (target, policy) in [(Target::Istio, CNP), (Target::Cilium, AP)] {
        written_in(mesh_of(&[no_metrics]), target, &[policy]).is_refused(&[why]);
    }
}

/// What it isolates and what is written would be united, and open it.
#[test]
fn a_quarantined_pod_that_is_not_ready_stays_closed() {
    let quarantined = "
apiVersion: v1
kind: Pod
metadata: {name: api-2, namespace: shop, labels: {app: api, quarantine: 'yes'}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: api}
status: {podIPs: [{ip: 10.0.1.9}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: quarantine, namespace: shop}
spec: {endpointSelector: {matchLabels: {quarantine: 'yes'}}, ingress: [{}]}";
    let found = written_in(mesh_of(&[]), Target::Cilium, &[AP, quarantined]);
    found.is_refused(&["Pod shop/api-2 behind Service shop/api is no endpoint"]);
}

/// Whoever can not be read may be behind anything.
#[test]
fn an_object_that_can_not_be_read_keeps_all_from_being_written() {
    let broken =
        "{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: shop, labels: 5}, spec: {}}";
    for (target, policy) in [(Target::Istio, CNP), (Target::Cilium, AP)] {
        let found = written_in(mesh_of(&[]), target, &[policy, broken]);
        found.is_refused(&["Pod/shop/x can not be read"]);
    }
}
