//! A mesh with two Services, their pods and clients, and how it is asked. Holds no case itself.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::{Attestation, Egress, Facts, HttpFacts, Network, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{ClusterKey, Snapshot};
use cairn_config_schema::store::{SourceFile, Store};
use cairn_config_schema::translate::{Source, Target, Translation, translate};
use http::HeaderMap;
use serde_json::Value;

/// Service `api` (80 and 9090 before 8080 and 9090) and `orders` (8080) of namespace `shop`, each before one pod
/// with ztunnel, and clients in `shop` and `other`.
const MESH: &str = include_str!("../../../config-schema/tests/translate/services.yaml");

/// Name, namespace, service account, label `app` and address of each pod.
const PODS: [(&str, &str, &str, &str, &str); 7] = [
    ("api-1", "shop", "api", "api", "10.0.1.1"),
    ("orders-1", "shop", "orders", "orders", "10.0.1.2"),
    ("web-1", "shop", "web", "web", "10.0.2.1"),
    ("web-2", "shop", "web", "batch", "10.0.2.2"),
    ("job-1", "shop", "job", "batch", "10.0.2.3"),
    ("web-1", "other", "web", "web", "10.0.2.4"),
    ("job-1", "other", "job", "batch", "10.0.2.5"),
];

/// An address that no Pod has.
const UNKNOWN: &str = "10.0.9.9";

/// Namespace, service account and address of clients; the last with a certificate of a pod that is not known.
pub const CLIENTS: [(&str, &str, &str); 8] = [
    ("shop", "web", "10.0.2.1"),
    ("shop", "web", "10.0.2.2"),
    ("shop", "job", "10.0.2.3"),
    ("other", "web", "10.0.2.4"),
    ("other", "job", "10.0.2.5"),
    ("shop", "api", "10.0.1.1"),
    ("shop", "web", UNKNOWN),
    ("other", "web", UNKNOWN),
];

/// Services and their ports.
pub const PORTS: [(&str, u16); 3] = [("api", 80), ("api", 9090), ("orders", 8080)];

/// A configuration, as written and as resolved.
pub struct World {
    pub resources: Resources,
    pub snapshot: Snapshot,
    sets: Vec<PolicySet>,
}

/// A request, or a stream.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: (&'static str, &'static str, &'static str),
    /// Of [`PORTS`].
    pub port: usize,
    pub method: &'static str,
    pub path: &'static str,
    pub query: Option<&'static str>,
    pub host: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
    pub tcp: bool,
}

impl World {
    /// The mesh with these objects.
    pub fn with(objects: &[Value]) -> Self {
        let pod = |(name, namespace, account, app, ip): (&str, &str, &str, &str, &str)| {
            format!(
                r#"
{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}},
annotations: {{ambient.istio.io/redirection: enabled}}}}, spec: {{serviceAccountName: {account}}}, status: {{podIPs: [{{ip: {ip}}}]}}}}"#
            )
        };
        let pods = PODS.into_iter().map(pod);
        let other = "{apiVersion: v1, kind: Namespace, metadata: {name: other}}".to_owned();
        let mut parts: Vec<String> = [MESH.to_owned(), other].into_iter().chain(pods).collect();
        parts.extend(objects.iter().map(ToString::to_string));
        let file = SourceFile {
            path: "mesh.yaml".into(),
            content: Ok(parts.join("\n---\n").into_bytes().into()),
        };
        Self::of(Store::default().update(&[file]).resources)
    }

    fn of(resources: Resources) -> Self {
        let snapshot = resolve(&resources, &Options::default());
        let sets = PORTS
            .iter()
            .map(|(service, port)| set(&snapshot, service, *port));
        Self {
            sets: sets.collect(),
            resources,
            snapshot,
        }
    }

    pub fn translate(&self, target: Target, wider: bool) -> Translation {
        let waypoint = cairn_authz::waypoint::identity(&self.snapshot);
        let source = Source {
            resources: &self.resources,
            snapshot: &self.snapshot,
            options: &Options::default(),
            waypoint: waypoint.as_ref(),
        };
        translate(source, target, wider)
    }

    /// With what was written in place of the original, which must be without fault.
    pub fn after(&self, translation: &Translation) -> Self {
        let (resources, wrong) = translation.applied_to(&self.resources);
        assert!(wrong.is_empty(), "{wrong:?} {translation:#?}");
        Self::of(resources)
    }

    pub fn allows(&self, request: &Request) -> bool {
        let (namespace, account, ip) = request.client;
        let peer = Identity::of_workload("cluster.local", namespace, account).unwrap();
        let ip: IpAddr = ip.parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            headers.append(*name, value.parse().unwrap());
        }
        let facts = Facts {
            peer: Some(&peer),
            attested_by: Attestation::Certificate,
            source_ip: ip,
            remote_ip: ip,
            destination_ip: "10.96.2.1".parse().unwrap(),
            destination_port: PORTS[request.port].1,
            backends: &[],
            http: (!request.tcp).then_some(HttpFacts {
                method: request.method,
                host: request.host,
                path: request.path,
                query: request.query,
                headers: &headers,
                token: None,
            }),
        };
        self.sets[request.port].decide(&facts).allowed
    }
}

fn set(snapshot: &Snapshot, service: &str, port: u16) -> PolicySet {
    let key = ObjectKey::new("shop", service);
    let policies = &snapshot.services.get(&key).unwrap().policies;
    let policies: Vec<Arc<_>> = policies.to_vec();
    let egress = Egress::compile(&snapshot.network);
    let network = Network::of_port(&snapshot.network, &egress, &ClusterKey::new(key, port), []);
    PolicySet::compile(&policies).with_network(network)
}
