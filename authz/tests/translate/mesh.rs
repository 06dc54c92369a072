//! A mesh with two Services, their pods and clients, and how it is asked. Holds no case itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::ztunnel::{Arrival, judge, of_pod};
use cairn_authz::{Attestation, Egress, Facts, HttpFacts, Network, PolicySet};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{ClusterKey, Snapshot, Truth};
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

/// Services, their ports, and the pods behind them. `both` is not always there.
pub const PORTS: [(&str, u16, &[&str]); 4] = [
    ("api", 80, &["10.0.1.1:8080"]),
    ("api", 9090, &["10.0.1.1:9090"]),
    ("orders", 8080, &["10.0.1.2:8080"]),
    ("both", 7000, &["10.0.1.1:8080", "10.0.1.2:8080"]),
];

/// Service `both`, before the pods of the two others.
const BOTH: &str = "
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {clusterIP: 10.96.2.7, selector: {tier: back}, ports: [{name: http, port: 7000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both, namespace: shop, labels: {kubernetes.io/service-name: both}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.1.1], targetRef: {kind: Pod, name: api-1, namespace: shop}}, {addresses: [10.0.1.2], targetRef: {kind: Pod, name: orders-1, namespace: shop}}]";

/// What a pod is to the Services before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    #[default]
    Yes,
    /// Its endpoints are not ready.
    No,
    /// It has no endpoint.
    Nowhere,
}

/// How the mesh is when it is exported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    pub api: Ready,
    pub orders: Ready,
    /// Port 9090 of `api` has no endpoint.
    pub without_metrics: bool,
    /// There is Service `both`.
    pub both: bool,
}

impl Shape {
    /// The same once all pods are ready.
    pub fn ready(self) -> Self {
        Self {
            both: self.both,
            ..Self::default()
        }
    }

    fn services(self) -> String {
        let mut mesh = MESH.to_owned();
        if self.both {
            mesh = format!("{mesh}\n---{BOTH}");
        }
        for (ready, ip, pod) in [
            (self.api, "10.0.1.1", "api-1"),
            (self.orders, "10.0.1.2", "orders-1"),
        ] {
            let rest = format!(
                "addresses: [{ip}], targetRef: {{kind: Pod, name: {pod}, namespace: shop}}"
            );
            let endpoint = format!("{{{rest}}}");
            assert!(mesh.contains(&endpoint));
            mesh = match ready {
                Ready::Yes => mesh,
                Ready::No => mesh.replace(
                    &endpoint,
                    &format!("{{conditions: {{ready: false}}, {rest}}}"),
                ),
                Ready::Nowhere => mesh
                    .replace(&format!("{endpoint}, "), "")
                    .replace(&format!(", {endpoint}"), "")
                    .replace(&endpoint, ""),
            };
        }
        let metrics = ", {name: http-metrics, port: 9090}]\nendpoints";
        assert!(mesh.contains(metrics));
        match self.without_metrics {
            true => mesh.replace(metrics, "]\nendpoints"),
            false => mesh,
        }
    }
}

/// A configuration, as written and as resolved.
pub struct World {
    pub resources: Resources,
    pub snapshot: Snapshot,
    sets: Vec<PolicySet>,
    /// What the CNI asks, for those who call pods by their own addresses.
    cni: Vec<PolicySet>,
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
    /// To the address of the pod, past the waypoint.
    pub direct: bool,
}

impl World {
    /// The mesh with these objects.
    pub fn with(objects: &[Value]) -> Self {
        Self::shaped(Shape::default(), objects)
    }

    /// The mesh as it is at some moment, with these objects.
    pub fn shaped(shape: Shape, objects: &[Value]) -> Self {
        let pod = |(name, namespace, account, app, ip): (&str, &str, &str, &str, &str)| {
            let tier = if matches!(app, "api" | "orders") {
                "back"
            } else {
                "front"
            };
            format!(
                r#"
{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, tier: {tier}}},
annotations: {{ambient.istio.io/redirection: enabled}}}}, spec: {{serviceAccountName: {account}}}, status: {{podIPs: [{{ip: {ip}}}]}}}}"#
            )
        };
        let pods = PODS.into_iter().map(pod);
        let other = "{apiVersion: v1, kind: Namespace, metadata: {name: other}}".to_owned();
        let mut parts: Vec<String> = [shape.services(), other].into_iter().chain(pods).collect();
        parts.extend(objects.iter().map(ToString::to_string));
        let file = SourceFile {
            path: "mesh.yaml".into(),
            content: Ok(parts.join("\n---\n").into_bytes().into()),
        };
        Self::of(Store::default().update(&[file]).resources)
    }

    fn of(resources: Resources) -> Self {
        let snapshot = resolve(&resources, &Options::default());
        let sets = |waypoint: bool| {
            let ports = PORTS.iter();
            ports
                .map(|(service, port, _)| set(&snapshot, service, *port, waypoint))
                .collect()
        };
        Self {
            sets: sets(true),
            cni: sets(false),
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
        if request.direct {
            return self.cni[request.port].decide(&facts).allowed && self.lets_in(request, &peer);
        }
        let waypoint = cairn_authz::waypoint::identity(&self.snapshot).unwrap();
        self.sets[request.port].decide(&facts).allowed && self.lets_in(request, &waypoint)
    }

    /// Whether there is anybody whom a request can be sent to.
    pub fn leads_to_somebody(&self, request: &Request) -> bool {
        let (service, port, _) = PORTS[request.port];
        let key = ClusterKey::new(ObjectKey::new("shop", service), port);
        let endpoints = self.snapshot.clusters.get(&key);
        request.direct || endpoints.is_some_and(|endpoints| !endpoints.is_empty())
    }

    /// Whether ztunnel lets somebody in to all pods behind a port.
    fn lets_in(&self, request: &Request, peer: &Identity) -> bool {
        let mut pods = PORTS[request.port].2.iter();
        pods.all(|address| {
            let destination: SocketAddr = address.parse().unwrap();
            let pod = self.snapshot.workloads.get(&destination.ip()).unwrap();
            let policies: Vec<_> = of_pod(&self.snapshot.ztunnel, pod).collect();
            let arrival = Arrival {
                peer,
                source: None,
                destination,
            };
            judge(&policies, &arrival).passes == Truth::Yes
        })
    }
}

/// What is asked of requests to a port of a Service; without `waypoint` by the CNI alone. Of a Service that is
/// not there nothing.
fn set(snapshot: &Snapshot, service: &str, port: u16, waypoint: bool) -> PolicySet {
    let key = ObjectKey::new("shop", service);
    let found = snapshot.services.get(&key).filter(|_| waypoint);
    let policies: Vec<Arc<_>> = found.map_or_else(Vec::new, |service| service.policies.to_vec());
    let egress = Egress::compile(&snapshot.network);
    let network = Network::of_port(&snapshot.network, &egress, &ClusterKey::new(key, port), []);
    PolicySet::compile(&policies).with_network(network)
}
