//! What istiod tells of workloads, beside what this cluster has (docs/kube-source.md: who is believed).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::discovered::{Discovered, DiscoveredWorkload, Tunnel};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Endpoint, Locality, Snapshot};
use proptest::prelude::*;

use super::support::{Ask, documents, key, load, shop};

pub(super) const OWN: &str = "Kubernetes";
pub(super) const WEB_HOST: &str = "shop/web.shop.svc.cluster.local";

/// A pod of this cluster and its endpoint; not captured.
pub(super) const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, nodeName: n1}
status: {podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8000}, {name: http-admin, port: 8001}, {name: tcp, port: 8002}]
endpoints: [{addresses: [10.1.0.1], nodeName: n1, zone: z1, targetRef: {kind: Pod, name: web-1, namespace: shop}}]
";

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A healthy, captured pod of the cluster `east`, behind port 80 of `shop/web`.
pub(super) fn remote(address: &str) -> DiscoveredWorkload {
    DiscoveredWorkload {
        name: "web-9".into(),
        namespace: "shop".into(),
        cluster: "east".into(),
        addresses: vec![ip(address)],
        tunnel: Tunnel::Hbone,
        service_account: "web".into(),
        canonical_name: "web".into(),
        is_healthy: true,
        capacity: 1,
        services: [(WEB_HOST.into(), [(80, 8080)].into())].into(),
        ..DiscoveredWorkload::default()
    }
}

pub(super) fn told(workloads: &[(&str, DiscoveredWorkload)]) -> Discovered {
    let each = workloads.iter();
    Discovered {
        cluster: OWN.into(),
        network: "".into(),
        workloads: each
            .map(|(uid, workload)| (Arc::from(*uid), Arc::new(workload.clone())))
            .collect(),
        ..Discovered::default()
    }
}

fn with(more: &[&str], workloads: &[(&str, DiscoveredWorkload)]) -> Snapshot {
    let options = Options {
        discovered: Some(Arc::new(told(workloads))),
        ..Options::default()
    };
    resolve(&load(&shop(more)), &options)
}

pub(super) fn endpoint<'a>(snapshot: &'a Snapshot, address: &str) -> &'a Endpoint {
    let cluster = &snapshot.clusters[&ClusterKey::new(key("shop/web"), 80)];
    let at = cluster.iter().find(|e| e.address.to_string() == address);
    at.expect("the endpoint")
}

/// Messages of findings with these words in them.
pub(super) fn messages(snapshot: &Snapshot, words: &str) -> Vec<String> {
    let all = snapshot.diagnostics.iter().map(|d| d.message.clone());
    all.filter(|message| message.contains(words)).collect()
}

#[test]
fn a_workload_of_another_cluster_is_reached_as_istiod_tells() {
    let place = Locality::parse("r1/z9");
    let workload = DiscoveredWorkload {
        locality: place.clone(),
        capacity: 3,
        ..remote("10.2.0.1")
    };
    let snapshot = with(&[POD], &[("east//Pod/shop/web-9", workload)]);
    assert_eq!(
        snapshot.endpoints("shop/web", 80),
        ["10.1.0.1:8000", "10.2.0.1:8080"]
    );
    assert_eq!(snapshot.endpoints("shop/web", 8080), ["10.1.0.1:8001"]);
    let found = endpoint(&snapshot, "10.2.0.1:8080");
    let identity = found.hbone_identity().unwrap().uri();
    assert_eq!(identity, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(found.weight, 3);
    assert_eq!(found.whereabouts.as_ref().unwrap().locality, place);
    let workload = found.workload.as_ref().unwrap();
    assert_eq!(workload.key.to_string(), "shop/web-9@east");
    assert_eq!(workload.name_and_cluster(), ("web-9", Some("east")));
    assert_eq!(workload.labels, None, "nobody tells them");
    assert_eq!(workload.namespace_labels, None);
    assert!(
        snapshot.workloads.contains_key(&ip("10.2.0.1")),
        "no name may lead there"
    );
}

#[test]
fn what_can_take_no_requests_gets_none() {
    let unhealthy = DiscoveredWorkload {
        is_healthy: false,
        ..remote("10.2.0.1")
    };
    let of_named_port = DiscoveredWorkload {
        services: [(WEB_HOST.into(), [(80, 0)].into())].into(),
        ..remote("10.2.0.2")
    };
    let without_capacity = DiscoveredWorkload {
        capacity: 0,
        ..remote("10.2.0.3")
    };
    let workloads = [
        ("east//Pod/shop/a", unhealthy),
        ("east//Pod/shop/b", of_named_port),
        ("east//Pod/shop/c", without_capacity),
    ];
    let snapshot = with(&[POD], &workloads);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
}

#[test]
fn an_address_of_this_cluster_stays_its_owners() {
    let at_pod = remote("10.1.0.1");
    let at_service = remote("10.0.0.1");
    let thief = DiscoveredWorkload {
        service_account: "thief".into(),
        ..remote("10.1.0.7")
    };
    // Its Pod is not known, but this cluster says that there is one.
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-b, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8000}]
endpoints: [{addresses: [10.1.0.7], targetRef: {kind: Pod, name: web-7, namespace: shop}}]
";
    let workloads = [
        ("east//Pod/shop/a", at_pod),
        ("east//Pod/shop/b", at_service),
        ("east//Pod/shop/c", thief),
    ];
    let snapshot = with(&[POD, slice], &workloads);
    assert_eq!(
        snapshot.endpoints("shop/web", 80),
        ["10.1.0.1:8000", "10.1.0.7:8000"]
    );
    let own = &snapshot.workloads[&ip("10.1.0.1")];
    assert_eq!(own.key.to_string(), "shop/web-1");
    assert_eq!(own.name_and_cluster(), ("web-1", None));
    assert!(!snapshot.workloads.contains_key(&ip("10.0.0.1")));
    assert_eq!(endpoint(&snapshot, "10.1.0.7:8000").workload, None);
    let finding = snapshot.finding(Code::Conflict);
    assert!(
        finding.message.starts_with("3 workloads"),
        "{}",
        finding.message
    );
    assert!(
        finding.message.contains("10.1.0.1 is that of shop/web-1"),
        "{}",
        finding.message
    );
}

/// Whoever of them has it: neither gets the requests of the other, and nothing goes there in plain text.
#[test]
fn an_address_that_two_claim_is_nobodys() {
    let other = DiscoveredWorkload {
        service_account: "other".into(),
        cluster: "west".into(),
        ..remote("10.2.0.1")
    };
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-b, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8000}]
endpoints: [{addresses: [10.2.0.1]}]
";
    let workloads = [
        ("east//Pod/shop/a", remote("10.2.0.1")),
        ("west//Pod/shop/b", other),
    ];
    let snapshot = with(&[POD, slice], &workloads);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert!(!snapshot.workloads.contains_key(&ip("10.2.0.1")));
    assert!(snapshot.unidentified.contains(&ip("10.2.0.1")));
    assert!(
        snapshot
            .finding(Code::Conflict)
            .message
            .contains("several workloads claim")
    );
}

#[test]
fn an_identity_of_a_trust_domain_that_is_not_accepted_is_none() {
    let workload = DiscoveredWorkload {
        trust_domain: "elsewhere.example".into(),
        ..remote("10.2.0.1")
    };
    let snapshot = with(&[POD], &[("east//Pod/shop/a", workload)]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert!(snapshot.unidentified.contains(&ip("10.2.0.1")));
    let finding = snapshot.finding(Code::BadValue);
    assert!(finding.message.contains("trust domain elsewhere.example"));
}

/// Addresses that this cluster's own objects list without a pod.
fn listing(addresses: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-b, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8000}}]
endpoints: [{{addresses: [{addresses}]}}]
"
    )
}

/// specs/istio-waypoint.md 6.2: every pod with a sidecar has `LEGACY_ISTIO_MTLS`. It is not reached in plain text
/// instead, by whatever way, and neither is a proxy that wants to be told of its callers.
#[test]
fn what_is_reached_in_another_way_is_left_out_and_never_reached_in_plain_text() {
    let sidecar = DiscoveredWorkload {
        tunnel: Tunnel::LegacyMtls,
        ..remote("10.2.0.1")
    };
    let proxy = DiscoveredWorkload {
        wants_proxy_protocol: true,
        ..remote("10.2.0.1")
    };
    for (workload, words) in [(sidecar, "have sidecars"), (proxy, "PROXY protocol")] {
        let uid = "east//Pod/shop/web-9";
        let snapshot = with(&[POD, &listing("10.2.0.1")], &[(uid, workload.clone())]);
        assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
        assert!(snapshot.unidentified.contains(&ip("10.2.0.1")), "{words}");
        assert!(!snapshot.workloads.contains_key(&ip("10.2.0.1")), "{words}");
        let finding = snapshot.finding(Code::Unsupported);
        assert!(finding.message.contains(words), "{}", finding.message);
        assert!(finding.message.contains(uid), "{}", finding.message);
        // It has the address all the same.
        let other = DiscoveredWorkload {
            service_account: "other".into(),
            ..remote("10.2.0.1")
        };
        let both = [(uid, workload), ("west//Pod/shop/web-8", other)];
        assert_eq!(with(&[POD], &both).endpoints("shop/web", 80).len(), 1);
    }
}

/// Nothing changes for pods of this cluster: what they are the objects say.
#[test]
fn a_sidecar_of_this_cluster_is_what_its_pod_says() {
    let own = DiscoveredWorkload {
        name: "web-1".into(),
        cluster: OWN.into(),
        tunnel: Tunnel::LegacyMtls,
        ..remote("10.1.0.1")
    };
    let snapshot = with(&[POD], &[("Kubernetes//Pod/shop/web-1", own)]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    let found = endpoint(&snapshot, "10.1.0.1:8000");
    assert!(found.hbone_identity().is_none());
}

/// Of a workload of which one address is another's here, the other one is not reached in plain text.
#[test]
fn the_other_address_of_what_is_left_out_is_closed() {
    let workload = DiscoveredWorkload {
        addresses: vec![ip("10.1.0.1"), ip("10.2.0.1")],
        ..remote("10.2.0.1")
    };
    let snapshot = with(
        &[POD, &listing("10.2.0.1")],
        &[("east//Pod/shop/web-9", workload)],
    );
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert!(snapshot.unidentified.contains(&ip("10.2.0.1")));
    assert!(!snapshot.unidentified.contains(&ip("10.1.0.1")));
}

/// An object in somebody's namespace does not cut a pod off, and gets nothing of the pod's.
#[test]
fn an_entry_takes_no_address_from_a_pod() {
    let pod = ("east//Pod/shop/web-9", remote("10.2.0.1"));
    let entry = |cluster: &str| DiscoveredWorkload {
        name: "mine".into(),
        namespace: "tenant".into(),
        cluster: cluster.into(),
        service_account: "tenant".into(),
        tunnel: Tunnel::None,
        services: [(WEB_HOST.into(), [(80, 81)].into())].into(),
        ..remote("10.2.0.1")
    };
    for (uid, cluster) in [
        (
            "east/networking.istio.io/ServiceEntry/tenant/mine/10.2.0.1",
            "east",
        ),
        ("aa/networking.istio.io/WorkloadEntry/tenant/mine", "aa"),
        (
            "Kubernetes/networking.istio.io/ServiceEntry/tenant/mine/10.2.0.1",
            OWN,
        ),
        // No uid of a Pod: it is that of another cluster, or of another namespace.
        ("east//Pod/shop/mine", "east"),
        ("east//Pod/tenant/mine", "aa"),
    ] {
        let snapshot = with(&[POD], &[pod.clone(), (uid, entry(cluster))]);
        assert_eq!(
            snapshot.endpoints("shop/web", 80),
            ["10.1.0.1:8000", "10.2.0.1:8080"],
            "{uid}"
        );
        let has_it = &snapshot.workloads[&ip("10.2.0.1")];
        assert_eq!(has_it.key.to_string(), "shop/web-9@east", "{uid}");
        assert!(has_it.hbone, "{uid}");
        assert!(!snapshot.unidentified.contains(&ip("10.2.0.1")), "{uid}");
        let told = snapshot.diagnostics.iter();
        let told = told.filter(|d| d.code == Code::Conflict).count();
        assert_eq!(told, usize::from(cluster != OWN), "{uid}");
    }
}

/// The same pod by two objects, or a virtual machine that two ServiceEntries list.
#[test]
fn accounts_that_say_the_same_do_not_contest_each_other() {
    let entry = |cluster: &str| DiscoveredWorkload {
        cluster: cluster.into(),
        name: "vm".into(),
        ..remote("10.2.0.1")
    };
    let pod = ("east//Pod/shop/web-9", remote("10.2.0.1"));
    let first = ("aa/networking.istio.io/WorkloadEntry/shop/vm", entry("aa"));
    let second = ("zz/networking.istio.io/WorkloadEntry/shop/vm", entry("zz"));
    let snapshot = with(&[POD], &[first.clone(), pod, second.clone()]);
    assert_eq!(snapshot.endpoints("shop/web", 80).len(), 2);
    let has_it = &snapshot.workloads[&ip("10.2.0.1")];
    assert_eq!(has_it.key.to_string(), "shop/web-9@east", "the Pod");
    let snapshot = with(&[POD], &[first.clone(), second.clone()]);
    assert_eq!(snapshot.endpoints("shop/web", 80).len(), 2);
    // One of them knows of no tunnel: in plain text it might reach somebody else.
    let (uid, mut plain) = second;
    plain.tunnel = Tunnel::None;
    let snapshot = with(&[POD], &[first, (uid, plain)]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert!(snapshot.unidentified.contains(&ip("10.2.0.1")));
}

/// An account of a pod that is there adds to it; it takes nothing away, and one of another pod adds nothing.
#[test]
fn of_pods_of_this_cluster_istiod_tells_the_tunnel_and_the_place() {
    let own = DiscoveredWorkload {
        name: "web-1".into(),
        cluster: OWN.into(),
        locality: Locality::parse("r1/z1/s1"),
        ..remote("10.1.0.1")
    };
    let uid = "Kubernetes//Pod/shop/web-1";
    let snapshot = with(&[POD], &[(uid, own.clone())]);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    let found = endpoint(&snapshot, "10.1.0.1:8000");
    assert!(found.hbone_identity().is_some());
    assert!(found.workload.as_ref().unwrap().labels.is_some());
    let place = &found.whereabouts.as_ref().unwrap().locality;
    assert_eq!(*place, Locality::parse("r1/z1/s1"));

    let captured = POD.replacen(
        "labels: {app: web}",
        "labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}",
        1,
    );
    let not_captured = DiscoveredWorkload {
        tunnel: Tunnel::None,
        ..own.clone()
    };
    let snapshot = with(&[&captured], &[(uid, not_captured)]);
    assert!(
        endpoint(&snapshot, "10.1.0.1:8000")
            .hbone_identity()
            .is_some()
    );

    let earlier = [
        DiscoveredWorkload {
            service_account: "other".into(),
            ..own.clone()
        },
        DiscoveredWorkload {
            addresses: vec![ip("10.1.0.9")],
            ..own.clone()
        },
        DiscoveredWorkload {
            cluster: "east".into(),
            ..own
        },
    ];
    for earlier in earlier {
        let snapshot = with(&[POD], &[(uid, earlier.clone())]);
        let found = endpoint(&snapshot, "10.1.0.1:8000");
        assert!(found.hbone_identity().is_none(), "{earlier:?}");
        let place = &found.whereabouts.as_ref().unwrap().locality;
        assert_eq!(*place, Locality::parse("/z1"), "{earlier:?}");
    }
}

#[test]
fn a_service_that_is_not_here_is_told_and_gets_nothing() {
    let workload = DiscoveredWorkload {
        services: [(
            "shop/other.shop.svc.cluster.local".into(),
            [(80, 80)].into(),
        )]
        .into(),
        ..remote("10.2.0.1")
    };
    let snapshot = with(&[POD], &[("east//Pod/shop/a", workload)]);
    assert_eq!(
        messages(&snapshot, "that this cluster has not"),
        ["istiod tells of 1 service that this cluster has not: shop/other.shop.svc.cluster.local"]
    );
}

#[test]
fn endpoints_of_the_own_node_are_of_the_own_cluster() {
    let local = "
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {clusterIP: 10.0.0.3, internalTrafficPolicy: Local, ports: [{name: http, port: 80}]}
";
    let workload = DiscoveredWorkload {
        services: [("shop/near.shop.svc.cluster.local".into(), [(80, 80)].into())].into(),
        ..remote("10.2.0.1")
    };
    let snapshot = with(&[local], &[("east//Pod/shop/a", workload)]);
    assert_eq!(snapshot.endpoints("shop/near", 80), [""; 0]);
}

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

/// Addresses that pods and workloads of this test may have.
const POOL: u8 = 6;

fn in_pool(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, last])
}

#[derive(Clone, Debug)]
struct LocalPod {
    address: u8,
    on_node: bool,
}

fn local_pod() -> impl Strategy<Value = LocalPod> {
    (0..POOL, proptest::bool::weighted(0.2))
        .prop_map(|(address, on_node)| LocalPod { address, on_node })
}

fn any_workload() -> impl Strategy<Value = DiscoveredWorkload> {
    let cluster = prop::sample::select(vec!["", OWN, "east", "east", "west"]);
    let network = prop::sample::select(vec!["", "", "", "net-2"]);
    let trust_domain = prop::sample::select(vec!["", "", "cluster.local", "other"]);
    let addresses = prop::collection::vec(0..POOL, 0..3);
    let ports = prop::sample::select(vec![None, Some(0), Some(8000), Some(8080)]);
    let tunnels = [
        Tunnel::None,
        Tunnel::Hbone,
        Tunnel::Hbone,
        Tunnel::LegacyMtls,
    ];
    let tunnel = prop::sample::select(tunnels.to_vec());
    let is_proxy = proptest::bool::weighted(0.1);
    let flags = (
        is_proxy,
        any::<bool>(),
        proptest::bool::weighted(0.2),
        tunnel,
    );
    (
        cluster,
        network,
        trust_domain,
        addresses,
        ports,
        flags,
        0..3u8,
    )
        .prop_map(
            |(cluster, network, trust_domain, addresses, port, flags, account)| {
                DiscoveredWorkload {
                    name: "told".into(),
                    namespace: "shop".into(),
                    cluster: cluster.into(),
                    network: network.into(),
                    trust_domain: trust_domain.into(),
                    service_account: format!("account-{account}").into(),
                    addresses: addresses.into_iter().map(in_pool).collect(),
                    wants_proxy_protocol: flags.0,
                    tunnel: flags.3,
                    is_healthy: flags.1,
                    host_network: flags.2,
                    capacity: 1,
                    services: match port {
                        Some(target) => [(WEB_HOST.into(), [(80, target)].into())].into(),
                        None => [].into(),
                    },
                    ..DiscoveredWorkload::default()
                }
            },
        )
}

/// What istiod makes workloads of; the uid says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Pod,
    ServiceEntry,
    WorkloadEntry,
}

fn any_made() -> impl Strategy<Value = Made> {
    let all = [
        Made::Pod,
        Made::Pod,
        Made::ServiceEntry,
        Made::WorkloadEntry,
    ];
    prop::sample::select(all.to_vec())
}

fn uid_of(n: usize, made: Made, workload: &DiscoveredWorkload) -> String {
    let cluster = match &*workload.cluster {
        "" => OWN,
        cluster => cluster,
    };
    match made {
        Made::Pod => format!("{cluster}//Pod/shop/told-{n}"),
        Made::ServiceEntry => {
            format!("{cluster}/networking.istio.io/ServiceEntry/shop/told-{n}/10.1.0.1")
        }
        Made::WorkloadEntry => {
            format!("{cluster}/networking.istio.io/WorkloadEntry/shop/told-{n}")
        }
    }
}

/// Who is who, said plainly: one workload after the other, compared with all others.
struct Oracle<'a> {
    pods: &'a [LocalPod],
    workloads: &'a [(Made, DiscoveredWorkload)],
}

impl Oracle<'_> {
    fn is_taken_in(&self, index: usize) -> bool {
        let (made, it) = &self.workloads[index];
        let collides = |ip: &IpAddr| {
            let others = self.workloads.iter().enumerate();
            let others = others.filter(|(n, (_, w))| {
                *n != index && w.network.is_empty() && w.addresses.contains(ip)
            });
            let others: Vec<_> = others.map(|(_, other)| other).collect();
            let alone = |w: &DiscoveredWorkload| !w.host_network;
            let contests = |(kind, other): &(Made, DiscoveredWorkload)| {
                let shared = other.host_network && it.host_network;
                let owned = !other.host_network && !it.host_network;
                match (*made == Made::Pod, *kind == Made::Pod) {
                    // What is written of an address counts less than the Pod that has it.
                    (true, false) => false,
                    (true, true) => !shared,
                    (false, _) => !(shared || owned && Self::is_same(it, other)),
                }
            };
            let pods = others.iter().filter(|(m, w)| *m == Made::Pod && alone(w));
            let several = *made != Made::Pod && alone(it) && pods.count() > 1;
            several || others.into_iter().any(contests)
        };
        self.is_remote(index)
            && !it.wants_proxy_protocol
            && it.tunnel != Tunnel::LegacyMtls
            && !it.addresses.is_empty()
            && !it.addresses.iter().any(|ip| self.is_ours(ip))
            && !it.addresses.iter().any(collides)
            && &*it.trust_domain != "other"
    }

    /// Whether it is of another cluster, in the own network.
    fn is_remote(&self, index: usize) -> bool {
        let (_, it) = &self.workloads[index];
        !it.cluster.is_empty() && &*it.cluster != OWN && it.network.is_empty()
    }

    fn is_ours(&self, ip: &IpAddr) -> bool {
        self.pods.iter().any(|pod| in_pool(pod.address) == *ip)
    }

    /// Whether both say the same of who it is and how it is reached.
    fn is_same(one: &DiscoveredWorkload, other: &DiscoveredWorkload) -> bool {
        let says = |w: &DiscoveredWorkload| {
            let domain = match &*w.trust_domain {
                "" => "cluster.local".to_owned(),
                domain => domain.to_owned(),
            };
            (
                domain,
                w.service_account.clone(),
                w.tunnel,
                w.wants_proxy_protocol,
            )
        };
        says(one) == says(other)
    }

    fn taken_in(&self) -> impl Iterator<Item = &DiscoveredWorkload> {
        let each = self.workloads.iter().enumerate();
        each.filter(|(index, _)| self.is_taken_in(*index))
            .map(|(_, (_, w))| w)
    }

    /// The account at each address.
    fn accounts(&self) -> BTreeMap<IpAddr, String> {
        let pods = self.pods.iter().filter(|pod| !pod.on_node);
        let pods = pods.map(|pod| (in_pool(pod.address), format!("pod-{}", pod.address)));
        let standard = self.taken_in().filter(|w| !w.host_network);
        let told = standard.flat_map(|w| {
            let account = w.service_account.to_string();
            w.addresses.iter().map(move |ip| (*ip, account.clone()))
        });
        pods.chain(told).collect()
    }

    fn endpoints(&self) -> BTreeSet<String> {
        let pods = self
            .pods
            .iter()
            .map(|pod| format!("{}:8000", in_pool(pod.address)));
        let healthy = self.taken_in().filter(|w| w.is_healthy);
        let told = healthy.filter_map(|w| {
            let (_, ports) = w.services.first()?;
            let (_, target) = ports[0];
            (target != 0).then(|| format!("{}:{target}", w.addresses[0]))
        });
        pods.chain(told).collect()
    }
}

proptest! {
    /// Whatever istiod tells: no address has another identity than the oracle's, and nothing else is sent to.
    #[test]
    fn the_join_is_as_the_oracle_says(
        pods in prop::collection::vec(local_pod(), 0..4),
        workloads in prop::collection::vec((any_made(), any_workload()), 0..7),
    ) {
        let mut pods = pods;
        pods.sort_by_key(|pod| pod.address);
        pods.dedup_by_key(|pod| pod.address);
        let mut parts = vec![shop(&[])];
        for LocalPod { address, on_node } in &pods {
            let at = in_pool(*address);
            parts.push(format!("
apiVersion: v1
kind: Pod
metadata: {{name: pod-{address}, namespace: shop}}
spec: {{serviceAccountName: pod-{address}, hostNetwork: {on_node}}}
status: {{podIPs: [{{ip: {at}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: pod-{address}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8000}}]
endpoints: [{{addresses: [{at}], targetRef: {{kind: Pod, name: pod-{address}, namespace: shop}}}}]
"));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let each = workloads.iter().enumerate();
        let uids: Vec<String> = each.map(|(n, (made, w))| uid_of(n, *made, w)).collect();
        let told_of = workloads.iter().map(|(_, workload)| workload.clone());
        let named: Vec<_> = uids.iter().map(String::as_str).zip(told_of).collect();
        let options = Options {
            discovered: Some(Arc::new(told(&named))),
            ..Options::default()
        };
        let snapshot = resolve(&load(&documents(&parts)), &options);
        let oracle = Oracle { pods: &pods, workloads: &workloads };
        let accounts: BTreeMap<IpAddr, String> = snapshot.workloads.iter()
            .map(|(ip, w)| (*ip, w.identity.service_account().unwrap().to_owned()))
            .collect();
        prop_assert_eq!(accounts, oracle.accounts());
        let endpoints: BTreeSet<String> = snapshot.endpoints("shop/web", 80).into_iter().collect();
        prop_assert_eq!(endpoints, oracle.endpoints());
        // What is not taken in is not reached in plain text either.
        for (index, (_, workload)) in workloads.iter().enumerate() {
            if oracle.is_remote(index) && !oracle.is_taken_in(index) {
                for ip in workload.addresses.iter().filter(|ip| !oracle.is_ours(ip)) {
                    let has_owner = snapshot.workloads.contains_key(ip);
                    prop_assert!(has_owner || snapshot.unidentified.contains(ip), "{}", ip);
                }
            }
        }
        // What comes from a certificate of this cluster's pods is unchanged by what istiod tells.
        for pod in pods.iter().filter(|pod| !pod.on_node) {
            let workload = &snapshot.workloads[&in_pool(pod.address)];
            prop_assert!(workload.labels.is_some());
        }
    }
}
