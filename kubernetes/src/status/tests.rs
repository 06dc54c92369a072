//! What `cairn status` shows of clusters written as manifests.

use super::*;
use crate::cluster::{SHOP, documents};
use serde_json::json;

/// One Service that is fine.
const MORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80}]}
";

fn shop() -> String {
    format!("{SHOP}---{MORE}")
}

fn of(more: &str) -> Report {
    let cluster = Cluster::of(documents(&(shop() + more)), Vec::new());
    report(&cluster, Some("shop"), &BTreeMap::new())
}

#[test]
fn a_waypoint_that_runs_and_what_it_serves() {
    let report = of("");
    let waypoint = &report.waypoints[0];
    assert_eq!(waypoint.gateway, "shop/waypoint");
    assert!(waypoint.programmed && waypoint.why_not.is_none());
    assert_eq!(
        (waypoint.replicas_ready, waypoint.replicas_wanted),
        (1, Some(2))
    );
    assert_eq!(waypoint.services, ["shop/web"]);
    assert!(!report.has_gaps(), "{report:?}");
}

#[test]
fn policy_that_nobody_enforces_is_a_gap_with_its_reason() {
    let report = of("---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: wep}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
");
    let [policy] = report.not_enforced.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(policy.policy, "AuthorizationPolicy/shop/readers");
    assert_eq!(policy.why, "targets something that does not exist");
    assert!(report.has_gaps());
}

#[test]
fn a_service_that_may_not_use_its_waypoint_is_named() {
    let text = "---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: bank, labels: {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: shop}}
spec: {clusterIP: 10.96.1.2, ports: [{name: http, port: 80}]}
";
    let cluster = Cluster::of(documents(&(shop() + text)), Vec::new());
    let all = report(&cluster, None, &BTreeMap::new());
    assert_eq!(all.not_attached[0].service, "bank/api");
    assert!(
        all.not_attached[0]
            .why
            .contains("does not allow the namespace bank")
    );
    let shop = report(&cluster, Some("shop"), &BTreeMap::new());
    assert!(shop.not_attached.is_empty(), "another namespace's");
}

#[test]
fn a_pod_that_has_an_older_version_in_force_is_behind() {
    let new = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: new, namespace: shop, generation: 1}
spec: {parentRefs: [{group: '', kind: Service, name: web}]}
";
    let cluster = Cluster::of(documents(&(shop() + new)), Vec::new());
    let said = json!({"snapshot": 7, "gateway": "shop/waypoint", "left_out": 0,
        "objects": {"Gateway/shop/waypoint": 1, "HTTPRoute/shop/gone": 4}});
    let said: Acknowledgement = serde_json::from_value(said).unwrap();
    let acknowledged = BTreeMap::from([(ObjectKey::new("shop", "waypoint-1"), Ok(said))]);
    let report = report(&cluster, None, &acknowledged);
    let replica = &report.waypoints[0].replicas[0];
    assert_eq!(replica.snapshot, Some(7));
    assert_eq!(
        replica.behind,
        [
            "Gateway/shop/waypoint: generation 1 of 2",
            "HTTPRoute/shop/gone: deleted",
            "HTTPRoute/shop/new: not there yet"
        ]
    );
}

/// An annotation, or a new object of the name, is no other generation.
#[test]
fn a_pod_that_has_an_earlier_text_of_the_generation_is_behind() {
    let cluster = Cluster::of(documents(&shop()), Vec::new());
    let name = "Gateway/shop/waypoint";
    let written = versions(&cluster)[name].fingerprint;
    for (told, expected) in [
        (written, Vec::new()),
        (
            written + 1,
            vec!["Gateway/shop/waypoint: another text of generation 2"],
        ),
    ] {
        let said = json!({"snapshot": 7, "gateway": "shop/waypoint",
            "objects": {name: 2}, "fingerprints": {name: told}});
        let said: Acknowledgement = serde_json::from_value(said).unwrap();
        assert_eq!(behind(&cluster, &said), expected);
    }
}

#[test]
fn what_can_not_be_read_is_a_gap() {
    let forbidden = vec!["list Pod objects: forbidden".to_owned()];
    let cluster = Cluster::of(documents(&shop()), forbidden);
    assert!(report(&cluster, None, &BTreeMap::new()).has_gaps());
}

#[test]
fn a_waypoint_without_an_address_is_a_gap() {
    let yaml = shop().replace(
        "addresses: [{type: IPAddress, value: 10.96.1.9}]",
        "addresses: []",
    );
    let cluster = Cluster::of(documents(&yaml), Vec::new());
    let report = report(&cluster, None, &BTreeMap::new());
    assert_eq!(
        report.waypoints[0].why_not.as_deref(),
        Some("it has no address")
    );
    assert!(report.has_gaps());
}

/// What the controller says of a replica that is behind is told, and makes the answer no.
#[test]
fn a_route_that_not_every_replica_has_in_force_is_named() {
    let route = |status: &str| {
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop, generation: 2}}
spec: {{parentRefs: [{{group: '', kind: Service, name: web}}]}}
status:
  parents:
  - controllerName: cairn.dev/waypoint-controller
    parentRef: {{group: '', kind: Service, name: web}}
    conditions: [{{type: cairn.dev/Programmed, status: '{status}', observedGeneration: 2, message: 'waypoint-1: it has generation 1'}}]
"
        )
    };
    let behind = of(&route("False"));
    let [route_behind] = behind.not_programmed.as_slice() else {
        panic!("{behind:?}")
    };
    assert_eq!(route_behind.object, "HTTPRoute/shop/web");
    assert_eq!(route_behind.why, "waypoint-1: it has generation 1");
    assert!(behind.has_gaps());
    assert!(!of(&route("True")).has_gaps());
}
