//! Endpoints of service ports (specs/istio-waypoint.md 4.1).

use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::{Kind, ObjectKey};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{ClusterKey, Snapshot};
use cairn_config_schema::store::{SourceFile, Store};

use super::support::{Ask, break_object, documents, load, shop, shop_with};

fn slice(name: &str, ports: &str, endpoints: &str) -> String {
    let family = if endpoints.contains("fd00") {
        "IPv6"
    } else {
        "IPv4"
    };
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\nports: [{ports}]\nendpoints: [{endpoints}]"
    )
}

const HTTP: &str =
    "{name: http, port: 8000}, {name: http-admin, port: 8001}, {name: tcp, port: 8002}";
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: web}
status: {podIPs: [{ip: 10.1.0.1}]}
";

#[test]
fn a_slices_port_is_that_of_the_service_port_of_its_name() {
    let snapshot = shop_with(&[&slice("web-a", HTTP, "{addresses: [10.1.0.1]}")]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert_eq!(snapshot.endpoints("shop/web", 8080), ["10.1.0.1:8001"]);
    assert_eq!(snapshot.endpoints("shop/web", 9000), ["10.1.0.1:8002"]);
}

#[test]
fn endpoints_of_all_slices_and_families_are_sorted_and_without_doubles() {
    let snapshot = shop_with(&[
        &slice(
            "web-c",
            HTTP,
            "{addresses: [10.1.0.2]}, {addresses: [10.1.0.1]}",
        ),
        &slice("web-b", HTTP, "{addresses: [10.1.0.1]}"),
        &slice("web-a", HTTP, "{addresses: [\"fd00::1\"]}"),
    ]);
    assert_eq!(
        snapshot.endpoints("shop/web", 80),
        ["10.1.0.1:8000", "10.1.0.2:8000", "[fd00::1]:8000"]
    );
}

#[test]
fn pods_with_different_numbers_for_a_named_port_are_in_different_slices() {
    let snapshot = shop_with(&[
        &slice(
            "web-a",
            "{name: http, port: 8000}",
            "{addresses: [10.1.0.1]}",
        ),
        &slice(
            "web-b",
            "{name: http, port: 9000}",
            "{addresses: [10.1.0.2]}",
        ),
    ]);
    assert_eq!(
        snapshot.endpoints("shop/web", 80),
        ["10.1.0.1:8000", "10.1.0.2:9000"]
    );
}

/// No name of a ServiceEntry may lead there: it would go in plain text (docs/egress.md).
#[test]
fn addresses_of_pods_that_can_not_be_read_are_known_as_such() {
    let of_pod = |name: &str, address: &str| {
        format!(
            "{{addresses: [{address}], targetRef: {{kind: Pod, name: {name}, namespace: shop}}}}"
        )
    };
    let node = POD
        .replace("web-1", "node-1")
        .replace(
            "{serviceAccountName: web}",
            "{serviceAccountName: web, hostNetwork: true}",
        )
        .replace("10.1.0.1", "10.9.0.1");
    let endpoints = [
        of_pod("web-1", "10.1.0.1"),
        of_pod("broken", "10.1.0.2"),
        of_pod("gone", "10.1.0.3"),
        of_pod("node-1", "10.9.0.1"),
        "{addresses: [203.0.113.9]}".to_owned(),
    ];
    let slice = slice("web-a", HTTP, &endpoints.join(", "));
    let mut resources = load(&shop(&[POD, &node, &slice]));
    break_object(&mut resources.pods, Kind::Pod, "shop/broken");
    let snapshot = resolve(&resources, &Options::default());
    let unidentified: Vec<String> = snapshot
        .unidentified
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(unidentified, ["10.1.0.2", "10.1.0.3"]);
}

#[test]
fn endpoints_that_are_not_ready_receive_nothing_unless_the_service_publishes_them() {
    let not_ready = slice(
        "web-a",
        HTTP,
        "{addresses: [10.1.0.1], conditions: {ready: false}}",
    );
    let yaml = shop(&[&not_ready]);
    let snapshot = super::support::resolved(&yaml);
    assert!(snapshot.endpoints("shop/web", 80).is_empty());
    // No ready endpoint is a state, not a mistake.
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    let publishing = yaml.replace(
        "clusterIP: 10.0.0.1",
        "clusterIP: 10.0.0.1\n  publishNotReadyAddresses: true",
    );
    let snapshot = super::support::resolved(&publishing);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
}

#[test]
fn a_selector_without_any_slice_is_warned_of() {
    let yaml = shop(&[]).replace(
        "clusterIP: 10.0.0.1",
        "clusterIP: 10.0.0.1\n  selector: {app: web}",
    );
    let snapshot = super::support::resolved(&yaml);
    let finding = snapshot.finding(Code::NoEndpoints);
    assert_eq!(finding.path, "spec.selector");
    assert!(finding.effect.as_deref().unwrap().contains("503"));
    // Without a selector the endpoints are somebody else's business.
    assert!(shop_with(&[]).said().is_empty());
}

#[test]
fn a_port_name_that_no_slice_has_is_warned_of() {
    let unnamed = slice("web-a", "{port: 8000}", "{addresses: [10.1.0.1]}");
    let snapshot = shop_with(&[&unnamed]);
    assert!(snapshot.endpoints("shop/web", 80).is_empty());
    let finding = &snapshot.diagnostics[0];
    assert_eq!(finding.code, Code::NoEndpoints);
    assert!(
        finding.message.contains("named 'http'"),
        "{}",
        finding.message
    );
}

#[test]
fn an_endpoint_knows_its_pod_by_name_or_by_address() {
    for endpoint in [
        "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-1, namespace: shop}}",
        "{addresses: [10.1.0.1]}",
    ] {
        let snapshot = shop_with(&[POD, &slice("web-a", HTTP, endpoint)]);
        let cluster = snapshot.clusters.iter().find(|(k, _)| k.port == 8080);
        let identity = cluster.unwrap().1[0].hbone_identity().unwrap();
        assert_eq!(identity.uri(), "spiffe://cluster.local/ns/shop/sa/web");
    }
}

#[test]
fn a_pod_without_status_is_known_by_name() {
    let pod = POD.replace("status: {podIPs: [{ip: 10.1.0.1}]}", "");
    let endpoint = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-1, namespace: shop}}";
    let snapshot = shop_with(&[&pod, &slice("web-a", HTTP, endpoint)]);
    let (_, endpoints) = snapshot
        .clusters
        .iter()
        .find(|(k, _)| k.port == 8080)
        .unwrap();
    assert!(endpoints[0].hbone_identity().is_some());
}

#[test]
fn an_endpoint_without_pod_is_reached_by_plain_tcp() {
    let snapshot = shop_with(&[&slice("web-a", HTTP, "{addresses: [127.0.0.1]}")]);
    let (_, endpoints) = snapshot
        .clusters
        .iter()
        .find(|(k, _)| k.port == 8080)
        .unwrap();
    assert!(endpoints[0].workload.is_none());
    assert!(snapshot.said().is_empty());

    let named = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: gone, namespace: shop}}";
    let snapshot = shop_with(&[&slice("web-a", HTTP, named)]);
    assert_eq!(
        snapshot.said(),
        ["warning bad-value EndpointSlice/shop/web-a"]
    );
}

#[test]
fn nothing_is_sent_to_a_pod_that_can_not_be_read() {
    let endpoint = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-1, namespace: shop}}";
    let mut resources = load(&shop(&[&slice("web-a", HTTP, endpoint)]));
    break_object(&mut resources.pods, Kind::Pod, "shop/web-1");
    let snapshot = resolve(&resources, &Options::default());
    assert!(snapshot.endpoints("shop/web", 80).is_empty());
    assert!(
        snapshot
            .said()
            .contains(&"error no-endpoints EndpointSlice/shop/web-a".to_owned())
    );
}

/// Of a Pod that can not be read, or of which nobody knows which definition is meant, the addresses
/// are known all the same: a slice that does not name the pod must not lead there in plain text.
#[test]
fn a_pod_that_can_not_be_read_is_known_by_its_addresses() {
    let by_address = slice(
        "web-a",
        HTTP,
        "{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}",
    );
    let broken = POD.replace("serviceAccountName", "serviceAcountName");
    let no_yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-1\n  namespace: shop\n\
                   spec: {\nstatus:\n  podIPs:\n  - ip: 10.1.0.1\n"
        .to_owned();
    let other = POD
        .replace("10.1.0.1", "10.1.0.2")
        .replace(": web}", ": db}");
    let contested = documents(&[&other, POD]);
    for (pods, left) in [
        (&broken, &["10.1.0.2:8000"][..]),
        (&no_yaml, &["10.1.0.2:8000"]),
        (&contested, &[]),
    ] {
        let mut store = Store::default();
        let resources = fed(&mut store, &shop(&[&by_address, pods]));
        let snapshot = resolve(&resources, &Options::default());
        assert_eq!(snapshot.endpoints("shop/web", 80), left, "{pods}");
    }
    // Nor where a Pod in force as it was has moved to by a text that is not.
    let mut store = Store::default();
    fed(&mut store, &shop(&[&by_address, POD]));
    let moved = broken.replace("10.1.0.1", "10.1.0.2");
    let resources = fed(&mut store, &shop(&[&by_address, &moved]));
    let snapshot = resolve(&resources, &Options::default());
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
}

/// Else every change would keep a second copy of all pods alive in the data path, and have it look at all.
#[test]
fn what_is_as_it_was_is_kept_once() {
    let endpoints = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-1, namespace: shop}}";
    let snapshot = |pod: &str, endpoints: &str| shop_with(&[pod, &slice("web-a", HTTP, endpoints)]);
    let text = |snapshot: &Snapshot| serde_json::to_string(snapshot).unwrap();
    let web = ClusterKey::new(ObjectKey::new("shop", "web"), 80);
    let before = snapshot(POD, endpoints);

    let mut same = snapshot(POD, endpoints);
    let said = text(&same);
    same.share_with(&before);
    assert_eq!(text(&same), said);
    assert!(Arc::ptr_eq(&same.clusters[&web], &before.clusters[&web]));
    for (address, workload) in &same.workloads {
        assert!(Arc::ptr_eq(workload, &before.workloads[address]));
    }

    // The slice is new, the pod is not.
    let more = format!("{endpoints}, {{addresses: [10.1.0.7]}}");
    let mut more = snapshot(POD, &more);
    let said = text(&more);
    more.share_with(&before);
    assert_eq!(text(&more), said);
    let workload = more.clusters[&web][0].workload.as_ref().unwrap();
    assert!(Arc::ptr_eq(
        workload,
        &before.workloads[&"10.1.0.1".parse().unwrap()]
    ));

    // Another identity at the same address.
    let other = POD.replace("serviceAccountName: web", "serviceAccountName: other");
    let mut other = snapshot(&other, endpoints);
    let said = text(&other);
    other.share_with(&before);
    assert_eq!(text(&other), said);
    assert_ne!(said, text(&before));
}

fn fed(store: &mut Store, yaml: &str) -> Resources {
    let file = SourceFile {
        path: "config.yaml".into(),
        content: Ok(yaml.as_bytes().into()),
    };
    store.update(&[file]).resources
}

#[test]
fn local_traffic_policy_keeps_to_the_node() {
    let two = "{addresses: [10.1.0.1], nodeName: n1}, {addresses: [10.1.0.2], nodeName: n2}";
    let yaml = shop(&[&slice("web-a", HTTP, two)]).replace(
        "clusterIP: 10.0.0.1",
        "clusterIP: 10.0.0.1\n  internalTrafficPolicy: Local",
    );
    let resources = load(&yaml);
    let options = Options {
        node: Some("n2".into()),
        ..Options::default()
    };
    let snapshot = resolve(&resources, &options);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.2:8000"]);
    assert!(snapshot.said().is_empty());

    let snapshot = resolve(&resources, &Options::default());
    assert_eq!(snapshot.endpoints("shop/web", 80).len(), 2);
    assert_eq!(
        snapshot.said(),
        ["warning unsupported Service/shop/web spec.internalTrafficPolicy"]
    );
}

#[test]
fn a_slice_without_service_or_that_can_not_be_read_is_said() {
    let stray = slice("old", HTTP, "{addresses: [10.1.0.1]}")
        .replace("service-name: web", "service-name: gone");
    let mut resources = load(&shop(&[&stray]));
    break_object(
        &mut resources.endpoint_slices,
        Kind::EndpointSlice,
        "shop/web-a",
    );
    let snapshot = resolve(&resources, &Options::default());
    assert_eq!(
        snapshot.said(),
        [
            "error unreadable EndpointSlice/shop/web-a",
            "info parent-not-found EndpointSlice/shop/old",
        ]
    );
}
