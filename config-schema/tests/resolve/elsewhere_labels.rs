//! Workloads of other clusters have no labels here: what needs them is in doubt, and what is in doubt is closed
//! (docs/kube-source.md).

use cairn_config_schema::snapshot::ClusterKey;

use super::elsewhere::{POD, ip, messages, remote, with};
use super::support::{Ask, key};

#[test]
fn subsets_by_labels_have_no_endpoint_of_another_cluster() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: all}, {name: web, labels: {app: web}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, port: {number: 80}, subset: all}, weight: 50}
    - {destination: {host: web, port: {number: 80}, subset: web}, weight: 50}
";
    let snapshot = with(&[POD, rule], &[("east//Pod/shop/a", remote("10.2.0.1"))]);
    let of = |subset: &str| {
        let cluster = ClusterKey::new(key("shop/web"), 80).with_subset(subset.into());
        let endpoints = &snapshot.clusters[&cluster];
        let each = endpoints.iter().map(|e| e.address.to_string());
        each.collect::<Vec<_>>()
    };
    assert_eq!(of("all"), ["10.1.0.1:8000", "10.2.0.1:8080"]);
    assert_eq!(of("web"), ["10.1.0.1:8000"]);
    assert_eq!(
        messages(&snapshot, "subsets"),
        [
            "1 endpoint of shop/web:80 in other clusters belong to none of these subsets, for their labels are not known: web"
        ]
    );
}

pub(super) fn cilium(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

/// A policy that may select an endpoint, or not: it gets nothing rather than what the policy may forbid.
#[test]
fn an_endpoint_that_a_policy_may_select_is_left_out() {
    let web = [("east//Pod/shop/a", remote("10.2.0.1"))];
    let by_label = cilium("{endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}");
    let snapshot = with(&[POD, &by_label], &web);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert_eq!(
        messages(&snapshot, "left out"),
        [
            "1 endpoint of Service shop/web in other clusters are left out: it is not known whether CiliumNetworkPolicy/shop/p selects it"
        ]
    );
    // Everything in the namespace, whatever its labels are: the policy is for it.
    let everything = cilium("{endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}");
    let snapshot = with(&[POD, &everything], &web);
    assert_eq!(snapshot.endpoints("shop/web", 80).len(), 2);
    let subjects = &snapshot.network.clusters[&ClusterKey::new(key("shop/web"), 80)];
    assert!(subjects.iter().all(|subject| subject.policies.len() == 1));
    // Another namespace's.
    let other = by_label.replace("namespace: shop", "namespace: bank");
    let snapshot = with(&[POD, &other], &web);
    assert_eq!(snapshot.endpoints("shop/web", 80).len(), 2);
}

#[test]
fn policies_for_egress_leave_no_endpoint_of_another_cluster() {
    let egress =
        cilium("{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {app: web}}]}]}");
    let snapshot = with(&[POD, &egress], &[("east//Pod/shop/a", remote("10.2.0.1"))]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
}

/// A rule that asks nothing of whom it is sent to, or by its namespace can not be for this one, is known to hold or not.
#[test]
fn policies_for_egress_that_need_no_labels_leave_endpoints_of_other_clusters_in() {
    let web = [("east//Pod/shop/a", remote("10.2.0.1"))];
    let count = |spec: &str, namespace: &str| {
        let policy = cilium(spec).replace("namespace: shop", &format!("namespace: {namespace}"));
        with(&[POD, &policy], &web).endpoints("shop/web", 80).len()
    };
    let by_ports =
        "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '8080', protocol: TCP}]}]}]}";
    let by_name =
        "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]}";
    let to_all = "{endpointSelector: {}, egress: [{toEntities: [all]}]}";
    let to_cluster = "{endpointSelector: {}, egress: [{toEntities: [cluster]}]}";
    let to_block = "{endpointSelector: {}, egress: [{toCIDR: [10.2.0.0/16]}]}";
    let to_pods = "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {app: web}}]}]}";
    let denied = "{endpointSelector: {}, egressDeny: [{toEndpoints: [{matchLabels: {app: web}}]}]}";
    for spec in [by_ports, to_all] {
        assert_eq!(count(spec, "shop"), 2, "{spec}");
    }
    for spec in [by_name, to_cluster, to_block] {
        assert_eq!(count(spec, "shop"), 1, "{spec}");
    }
    for spec in [to_pods, denied] {
        assert_eq!(count(spec, "shop"), 1, "{spec}");
        assert_eq!(count(spec, "bank"), 2, "of its own namespace: {spec}");
    }
}

/// Network policies know it by its certificate alone, as without istiod: what needs labels is in doubt.
#[test]
fn a_caller_of_another_cluster_is_no_pod_of_this_one() {
    let policy =
        cilium("{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]}");
    let snapshot = with(&[POD, &policy], &[("east//Pod/shop/a", remote("10.2.0.1"))]);
    assert!(snapshot.workloads.contains_key(&ip("10.2.0.1")));
    assert!(snapshot.network.sources.contains_key(&ip("10.1.0.1")));
    assert!(!snapshot.network.sources.contains_key(&ip("10.2.0.1")));
}
