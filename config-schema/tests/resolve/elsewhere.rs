//! What istiod tells of workloads, beside what this cluster has (docs/kube-source.md: who is believed).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::discovered::{Discovered, DiscoveredWorkload};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Endpoint, Locality, Snapshot};
use proptest::prelude::*;

use super::support::{Ask, documents, key, load, shop};

const OWN: &str = "Kubernetes";
const WEB_HOST: &str = "shop/web.shop.svc.cluster.local";

/// A pod of this cluster and its endpoint; not captured.
const POD: &str = "
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

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A healthy, captured pod of the cluster `east`, behind port 80 of `shop/web`.
fn remote(address: &str) -> DiscoveredWorkload {
    DiscoveredWorkload {
        name: "web-9".into(),
        namespace: "shop".into(),
        cluster: "east".into(),
        addresses: vec![ip(address)],
        hbone: true,
        service_account: "web".into(),
        canonical_name: "web".into(),
        is_healthy: true,
        capacity: 1,
        services: [(WEB_HOST.into(), [(80, 8080)].into())].into(),
        ..DiscoveredWorkload::default()
    }
}

fn told(workloads: &[(&str, DiscoveredWorkload)]) -> Discovered {
    let each = workloads.iter();
    Discovered {
        cluster: OWN.into(),
        network: "".into(),
        workloads: each
            .map(|(uid, workload)| (Arc::from(*uid), Arc::new(workload.clone())))
            .collect(),
    }
}

fn with(more: &[&str], workloads: &[(&str, DiscoveredWorkload)]) -> Snapshot {
    let options = Options {
        discovered: Some(Arc::new(told(workloads))),
        ..Options::default()
    };
    resolve(&load(&shop(more)), &options)
}

fn endpoint<'a>(snapshot: &'a Snapshot, address: &str) -> &'a Endpoint {
    let cluster = &snapshot.clusters[&ClusterKey::new(key("shop/web"), 80)];
    let at = cluster.iter().find(|e| e.address.to_string() == address);
    at.expect("the endpoint")
}

/// Messages of findings with these words in them.
fn messages(snapshot: &Snapshot, words: &str) -> Vec<String> {
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

/// Tunnels in tunnels are not made, and nothing goes in plain text instead.
#[test]
fn other_networks_are_left_out_and_told() {
    let elsewhere = DiscoveredWorkload {
        network: "net-2".into(),
        ..remote("10.1.0.1")
    };
    let behind_gateway = DiscoveredWorkload {
        addresses: Vec::new(),
        has_gateway: true,
        ..remote("10.2.0.1")
    };
    let workloads = [
        ("east//Pod/shop/web-9", elsewhere),
        ("east/SplitHorizonWorkload/shop/gw", behind_gateway),
    ];
    let snapshot = with(&[POD], &workloads);
    assert_eq!(snapshot.endpoints("shop/web", 80), ["10.1.0.1:8000"]);
    assert!(
        !endpoint(&snapshot, "10.1.0.1:8000")
            .workload
            .as_ref()
            .unwrap()
            .hbone
    );
    let finding = snapshot.finding(Code::Unsupported);
    assert!(
        finding
            .message
            .starts_with("2 workloads that istiod tells of are in other networks")
            && finding.message.contains("east//Pod/shop/web-9 (net-2)"),
        "{}",
        finding.message
    );
    assert_eq!(finding.effect.as_deref(), Some("they receive nothing"));
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
        hbone: false,
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

fn cilium(spec: &str) -> String {
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
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2));
    (
        cluster,
        network,
        trust_domain,
        addresses,
        ports,
        flags,
        0..4u8,
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
                    hbone: flags.0,
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

/// Who is who, said plainly: one workload after the other, compared with all others.
struct Oracle<'a> {
    pods: &'a [LocalPod],
    workloads: &'a [DiscoveredWorkload],
}

impl Oracle<'_> {
    fn is_taken_in(&self, index: usize) -> bool {
        let it = &self.workloads[index];
        let is_ours = |ip: &IpAddr| self.pods.iter().any(|pod| in_pool(pod.address) == *ip);
        let collides = |ip: &IpAddr| {
            let others = self
                .workloads
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != index);
            others.into_iter().any(|(_, other)| {
                other.network.is_empty()
                    && other.addresses.contains(ip)
                    && !(other.host_network && it.host_network)
            })
        };
        !it.cluster.is_empty()
            && &*it.cluster != OWN
            && it.network.is_empty()
            && !it.addresses.is_empty()
            && !it.addresses.iter().any(is_ours)
            && !it.addresses.iter().any(collides)
            && &*it.trust_domain != "other"
    }

    fn taken_in(&self) -> impl Iterator<Item = &DiscoveredWorkload> {
        let each = self.workloads.iter().enumerate();
        each.filter(|(index, _)| self.is_taken_in(*index))
            .map(|(_, w)| w)
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
        workloads in prop::collection::vec(any_workload(), 0..7),
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
        let uids: Vec<String> = (0..workloads.len()).map(|n| format!("uid-{n}")).collect();
        let named: Vec<_> = uids.iter().map(String::as_str).zip(workloads.iter().cloned()).collect();
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
        // What comes from a certificate of this cluster's pods is unchanged by what istiod tells.
        for pod in pods.iter().filter(|pod| !pod.on_node) {
            let workload = &snapshot.workloads[&in_pool(pod.address)];
            prop_assert!(workload.labels.is_some());
        }
    }
}
