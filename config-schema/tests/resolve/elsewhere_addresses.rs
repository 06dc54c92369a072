//! Whose an address is that istiod tells of: what this cluster has keeps it, and what several claim is nobody's
//! (docs/kube-source.md: who is believed).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::discovered::{DiscoveredWorkload, Tunnel};

use super::elsewhere::{OWN, POD, WEB_HOST, endpoint, ip, remote, with};
use super::support::Ask;

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
