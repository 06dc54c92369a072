//! What istiod tells of workloads, beside what this cluster has (docs/kube-source.md: who is believed): what becomes
//! of them, and what the tests of all that use.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::discovered::{Discovered, DiscoveredWorkload, Tunnel};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Endpoint, Locality, Snapshot};

use super::support::{Ask, key, load, shop};

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

pub(super) fn with(more: &[&str], workloads: &[(&str, DiscoveredWorkload)]) -> Snapshot {
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
