//! Services, their ports, workloads and endpoints.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{HttpRoute, Labels, Policy, StreamRoute, Whereabouts};
use crate::identity::Identity;
use crate::origin::{Kind, ObjectKey, Origin};

/// A Kubernetes Service, or one host of a ServiceEntry.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Namespace and name; of a ServiceEntry the host is the name, which no Service can have, for it has
    /// a dot.
    pub key: ObjectKey,
    /// The object that declares it.
    pub origin: Origin,
    /// `<name>.<namespace>.svc.<cluster domain>`, or the host.
    pub hostname: Arc<str>,
    /// Virtual IPs, both families. Empty for a headless service, which no waypoint can serve.
    pub addresses: Vec<IpAddr>,
    /// Blocks of addresses that are its own as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<IpNet>,
    /// Namespaces that may use it (`exportTo`). `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_to: Option<Arc<[Arc<str>]>>,
    /// Names that certificates of its endpoints may have (`subjectAltNames`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<Arc<str>>,
    /// TCP ports in the order of the Service.
    pub ports: Vec<ServicePort>,
    /// Whether this waypoint serves it.
    pub binding: Binding,
    /// Every policy that applies to requests to this service: those of the Gateway, its class and
    /// the service itself. Empty unless `binding` is `Served`.
    pub policies: Vec<Arc<Policy>>,
    /// What becomes of connections that the kernel redirect steers here while nobody listens.
    pub redirect_failure: RedirectFailure,
}

impl Service {
    /// Whether a ServiceEntry declares it.
    pub fn is_entry(&self) -> bool {
        self.origin.kind == Kind::ServiceEntry
    }

    /// Whether objects and callers of a namespace may use it.
    pub fn is_visible_to(&self, namespace: &str) -> bool {
        let exported = self.exported_to.as_deref();
        exported.is_none_or(|namespaces| namespaces.iter().any(|n| **n == *namespace))
    }
}

/// What becomes of a connection that the kernel redirect would steer, while the node's proxy is not
/// there to take it: annotation `cairn.dev/redirect-failure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RedirectFailure {
    /// It is refused at once.
    #[default]
    Closed,
    /// It goes to the service directly, past every route and policy of the proxy.
    Open,
}

/// One port of a service.
#[derive(Clone, Debug, Serialize)]
pub struct ServicePort {
    /// The service port, as clients dial it.
    pub number: u16,
    /// The port's name; empty when it has none.
    pub name: Arc<str>,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// Routes attached to this port, in no particular order. Empty: forward to the service itself.
    pub routes: Vec<Arc<HttpRoute>>,
    /// Routes of its connections that carry no HTTP, in no particular order. Empty: to the service
    /// itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_routes: Vec<Arc<StreamRoute>>,
}

impl ServicePort {
    /// Whether a route looks at the labels of the caller's pod.
    pub fn asks_for_caller_labels(&self) -> bool {
        let mut streams = self.stream_routes.iter();
        (self.routes.iter()).any(|route| route.asks_for_caller_labels())
            || streams.any(|route| route.asks_for_caller_labels())
    }
}

/// Whether this waypoint serves a service or workload (specs/istio-waypoint.md 1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// By this waypoint.
    Served,
    /// By another waypoint.
    Other(ObjectKey),
    /// By none: no label, or `none`.
    Unbound,
    /// The labels ask for this waypoint, which may not or can not serve it; the reason in words.
    Refused(Arc<str>),
}

/// What is spoken on a port (specs/istio-waypoint.md 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// Declared HTTP: HTTP/1.1 upstream; HTTP/2 with prior knowledge is accepted downstream.
    Http,
    /// Declared HTTP/2 (`http2`, `h2c`, `kubernetes.io/h2c`).
    Http2,
    /// Declared gRPC.
    Grpc,
    /// Declared TCP or a protocol that is not HTTP: spliced.
    Tcp,
    /// Undeclared: decided by the first bytes, upstream as the client spoke.
    Sniff,
}

/// A service port as a load-balancing target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ClusterKey {
    /// The service.
    pub service: ObjectKey,
    /// The service port.
    pub port: u16,
    /// A subset of a DestinationRule: those endpoints alone. `None`: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Arc<str>>,
}

impl ClusterKey {
    /// All endpoints of a service port.
    pub fn new(service: ObjectKey, port: u16) -> Self {
        Self {
            service,
            port,
            subset: None,
        }
    }

    /// A subset of the same endpoints.
    pub fn with_subset(self, subset: Arc<str>) -> Self {
        Self {
            subset: Some(subset),
            ..self
        }
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)?;
        match &self.subset {
            Some(subset) => write!(f, "/{subset}"),
            None => Ok(()),
        }
    }
}

/// One address behind a service port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Pod IP and target port.
    pub address: SocketAddr,
    /// The pod, when one with this address is known.
    pub workload: Option<Arc<Workload>>,
    /// Its labels, where they are not the workload's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<Labels>>,
    /// Its share of requests beside the others'; at least 1.
    pub weight: u32,
    /// Endpoints of the lowest number are picked while enough of them are there: how far away it is,
    /// seen from this waypoint.
    pub priority: u8,
    /// Where it is; shared by those at one place. `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whereabouts: Option<Arc<Whereabouts>>,
    /// It is in another network: the address is that of the gateway there, and the tunnel to it carries another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Arc<NetworkGateway>>,
}

/// What is behind the gateway of another network, and who it is. The gateway's own identity is the endpoint's
/// ([`Endpoint::hbone_identity`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NetworkGateway {
    /// The network it leads into; empty: the default one.
    pub network: Arc<str>,
    /// The network of this waypoint, which is told there.
    pub own_network: Arc<str>,
    /// What is asked for, of the gateway and behind it: host and port of the service, as clients dial it.
    pub authority: Arc<str>,
    /// Who may be at the end of the inner tunnel; never empty.
    pub identities: Arc<[Identity]>,
    /// Port of the workloads there, which network policies are about; istiod takes it to be that of the Service here.
    /// `None`: it is not known, or not the same of all.
    pub target_port: Option<u16>,
}

impl Endpoint {
    /// An endpoint with the share and distance of any other.
    pub fn new(address: SocketAddr, workload: Option<Arc<Workload>>) -> Self {
        Self {
            address,
            workload,
            labels: None,
            weight: 1,
            priority: 0,
            whereabouts: None,
            gateway: None,
        }
    }

    /// The port of the workload that a request ends at, as network policies have it: of what is behind a gateway not
    /// the gateway's. `None`: it is not known.
    pub fn target_port(&self) -> Option<u16> {
        match &self.gateway {
            Some(gateway) => gateway.target_port,
            None => Some(self.address.port()),
        }
    }

    /// The identity that must be at the other end of the tunnel. `None`: not reachable by HBONE,
    /// plain TCP is used.
    pub fn hbone_identity(&self) -> Option<&Identity> {
        self.workload
            .as_ref()
            .filter(|w| w.hbone)
            .map(|w| &w.identity)
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub key: ObjectKey,
    /// All its IPs.
    pub addresses: Vec<IpAddr>,
    /// SPIFFE identity from its namespace and service account.
    pub identity: Identity,
    /// Reachable by HBONE: annotation `ambient.istio.io/redirection: enabled` or label
    /// `networking.istio.io/tunnel: http` (specs/istio-waypoint.md 2.6).
    pub hbone: bool,
    /// Name of the owning workload (a Deployment rather than its ReplicaSet), else the pod's.
    pub workload_name: Arc<str>,
    /// Kind of the owning workload.
    pub workload_type: WorkloadType,
    /// `service.istio.io/canonical-name`, or the labels it falls back to (4.1).
    pub canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision`, or what it falls back to, `latest` at last.
    pub canonical_revision: Arc<str>,
    /// Label `app`; empty when absent.
    pub app: Arc<str>,
    /// Label `version`; empty when absent.
    pub version: Arc<str>,
    /// Node it runs on; empty when unknown.
    pub node: Arc<str>,
    /// Labels of the pod, shared with pods that have the same. `None`: they are not known, for it is of
    /// another cluster, and nobody tells them; no selector is known to select it, or not to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<Labels>>,
    /// Labels of its namespace. `None`: no such Namespace is in the configuration.
    pub namespace_labels: Option<Arc<Labels>>,
    /// Ports of its containers that have a name, by the name in lower case.
    pub named_ports: Box<[(Arc<str>, u16)]>,
    /// It is in the network of its node: its addresses are the node's.
    pub host_network: bool,
    /// It stands for whatever is behind the gateway of another network, and its identity is the gateway's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub behind_gateway: bool,
    /// Whether this waypoint serves its addresses (`istio.io/waypoint-for: workload` or `all`).
    pub binding: Binding,
}

/// Between the name of a pod of another cluster and that cluster, in its key. No Pod of this cluster has it.
pub(crate) const CLUSTER_MARK: char = '@';

impl Workload {
    /// The value of a label, if it is known to have it.
    pub fn label(&self, name: &str) -> Option<&Arc<str>> {
        self.labels.as_ref()?.get(name)
    }

    /// The service account. `None`: it is not known, for it is whose of those behind a gateway gets the request.
    pub fn account(&self) -> Option<&str> {
        match self.behind_gateway {
            true => None,
            false => self.identity.service_account(),
        }
    }

    /// The name of its pod, and what istiod calls its cluster if it is another one.
    pub fn name_and_cluster(&self) -> (&str, Option<&str>) {
        // Whoever has labels is of this cluster, where no Pod has an @ in its name.
        match self.key.name.rsplit_once(CLUSTER_MARK) {
            Some((name, cluster)) if self.labels.is_none() => (name, Some(cluster)),
            _ => (&self.key.name, None),
        }
    }

    /// Whether a peer with this certificate can be it: addresses are given away anew, certificates are not.
    pub fn may_be(&self, peer: &Identity) -> bool {
        let own = &self.identity;
        own.namespace() == peer.namespace() && own.service_account() == peer.service_account()
    }
}

/// Kind of the owner of a pod, as in Istio's `workload_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum WorkloadType {
    Deployment,
    CronJob,
    Job,
    Pod,
}
