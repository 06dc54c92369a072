//! The join of what istiod tells with what this cluster has, against an oracle that compares each with each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::discovered::{DiscoveredWorkload, Tunnel};
use cairn_config_schema::resolve::{Options, resolve};
use proptest::prelude::*;

use super::elsewhere::{OWN, WEB_HOST, told};
use super::support::{Ask, documents, load, shop};

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
