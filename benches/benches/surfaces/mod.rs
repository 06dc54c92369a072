//! Policies of each surface for the benchmark of decisions, and what is asked. Measures nothing.

pub mod calico;
pub mod cilium;
pub mod istio;
pub mod shapes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cairn_authz::{Attestation, Egress, Facts, HttpFacts, Network, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    Binding, ClusterKey, HttpRules, NetworkAction, NetworkPolicies, NetworkPolicy, NetworkRule,
    NetworkSubject, Peers, PortSet, Workload, WorkloadType,
};
use http::HeaderMap;

/// Rules of each policy.
pub const RULES: usize = 10;
/// The client of all rules that differ by path, and the path of those that differ by client.
const COMMON: &str = "common";
const NOBODY: &str = "nobody";
const PORT: u16 = 8080;

/// What rules differ by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Client,
    Path,
}

impl By {
    /// The client and the first segment of the path of rule `n`.
    fn names(self, n: usize) -> (String, String) {
        match self {
            Self::Client => (format!("team-{n}"), COMMON.to_owned()),
            Self::Path => (COMMON.to_owned(), format!("team-{n}")),
        }
    }
}

/// A request: `GET /SEGMENT/orders/42` of a client whose Pod is known.
pub struct Asked {
    client: String,
    path: String,
}

impl Asked {
    /// What rule `n` is about.
    pub fn of_rule(by: By, n: usize) -> Self {
        let (client, segment) = by.names(n);
        let path = format!("/{segment}/orders/42");
        Self { client, path }
    }

    /// What no rule is about.
    pub fn of_nobody(by: By) -> Self {
        let (client, segment) = match by {
            By::Client => (NOBODY, COMMON),
            By::Path => (COMMON, NOBODY),
        };
        Self {
            client: client.to_owned(),
            path: format!("/{segment}/orders/42"),
        }
    }

    /// Runs a closure on its facts.
    pub fn with<T>(&self, f: impl FnOnce(&Facts<'_>) -> T) -> T {
        let peer = identity(&self.client);
        let headers = HeaderMap::new();
        let source_ip = address(&self.client);
        f(&Facts {
            peer: Some(&peer),
            attested_by: Attestation::Certificate,
            source_ip,
            remote_ip: source_ip,
            destination_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
            destination_port: 80,
            backends: &[],
            http: Some(HttpFacts {
                method: "GET",
                host: "app.bench.svc.cluster.local",
                path: &self.path,
                query: None,
                headers: &headers,
                token: None,
            }),
        })
    }
}

fn identity(client: &str) -> Identity {
    Identity::of_workload("cluster.local", "bench", client).unwrap()
}

fn address(client: &str) -> IpAddr {
    let n: u16 = match client.strip_prefix("team-") {
        Some(number) => number.parse().unwrap(),
        None if client == NOBODY => u16::MAX,
        None => u16::MAX - 1,
    };
    let [high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 1, high, low))
}

/// A Pod with the labels that Pods of a Deployment have.
fn workload(client: &str) -> Workload {
    let labels = [
        ("app", client),
        ("app.kubernetes.io/name", client),
        ("app.kubernetes.io/part-of", "bench"),
        ("pod-template-hash", "6d4cf56db6"),
        ("version", "v1"),
    ];
    let of_namespace = [("team", "bench"), ("kubernetes.io/metadata.name", "bench")];
    let owned = |labels: &[(&str, &str)]| {
        let labels = labels.iter();
        Arc::new(labels.map(|(k, v)| ((*k).into(), (*v).into())).collect())
    };
    Workload {
        key: ObjectKey::new("bench", client),
        addresses: vec![address(client)],
        identity: identity(client),
        hbone: true,
        host_network: false,
        behind_gateway: false,
        workload_name: client.into(),
        workload_type: WorkloadType::Deployment,
        canonical_name: client.into(),
        canonical_revision: "v1".into(),
        app: client.into(),
        version: "v1".into(),
        node: "node-1".into(),
        labels: Some(owned(&labels)),
        namespace_labels: Some(owned(&of_namespace)),
        named_ports: Box::default(),
        binding: Binding::Unbound,
    }
}

/// A rule for the port of the application.
fn rule(index: usize, action: NetworkAction, peers: Peers, http: HttpRules) -> NetworkRule {
    NetworkRule {
        index,
        path: format!("spec.ingress[{index}]").into(),
        action,
        peers,
        ports: Some(vec![PortSet::Range(PORT, PORT)]),
        http,
        authentication: None,
        broken: None,
    }
}

/// Network policies on the one workload of a service, all clients being known.
fn network(policies: Vec<NetworkPolicy>) -> PolicySet {
    let key = ClusterKey::new(ObjectKey::new("bench", "app"), 80);
    let clients = (0..policies.len() * RULES).map(|n| format!("team-{n}"));
    let clients = clients.chain([COMMON.to_owned(), NOBODY.to_owned()]);
    let sources = clients.map(|client| (address(&client), Arc::new(workload(&client))));
    let subject = NetworkSubject {
        workload: ObjectKey::new("bench", "app-1"),
        port: Some(PORT),
        policies: policies.into_iter().map(Arc::new).collect(),
        unknown: None,
        unknown_in_trial: None,
    };
    let subjects = match subject.policies.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(key.clone(), Arc::from([subject]))]),
    };
    let network = NetworkPolicies {
        clusters: subjects,
        sources: Arc::new(sources.collect()),
        ..NetworkPolicies::default()
    };
    PolicySet::compile(&[]).with_network(Network::of_port(
        &network,
        &Egress::compile(&network),
        &key,
        [],
    ))
}
