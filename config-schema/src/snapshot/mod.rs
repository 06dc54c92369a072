//! One immutable version of the whole configuration, resolved: what it means.
//!
//! Everything here is plain data that a reader can follow with a finger: a service has ports, a
//! port has routes, a route has rules, a rule has backends; a service has the policies that apply
//! to it. Routing and authorization compile it further; nothing in the data path reads YAML.

mod authentication;
mod balancing;
mod beginnings;
mod calico_path;
mod client_tls;
mod cors;
mod discovery;
mod dns_pattern;
mod external;
mod fault;
mod kube_network;
mod l7_ports;
mod labels;
mod locality;
mod mesh;
mod network_egress;
mod network_policy;
mod network_selection;
mod policy;
mod route;
pub(crate) mod service;
mod session;
mod shared;
mod stream_route;
mod telemetry;
mod traffic;
mod traffic_limits;
mod unenforced;
mod ztunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

pub use authentication::{
    Authentications, ClaimHeader, JwtRule, KeySource, RemoteKeys, RequestAuthentication,
    RequestPrincipal, TokenHeader,
};
pub use balancing::{
    Balancer, ClusterSettings, ConnectionLimits, ConsistentHash, HashBy, HashTable, LoadBalancing,
    OutlierDetection, SuccessRate, Warmup,
};
pub use calico_path::calico_path;
pub use client_tls::{ClientCertificate, ProxyProtocol, TlsOrigination, TlsTrust};
pub use cors::{Cors, HostPattern, Names, OriginPattern, default_port};
pub use discovery::{Discovery, NamedEndpoint};
pub use dns_pattern::DnsPattern;
pub use external::{
    BodyInCheck, CheckProtocol, ExternalProvider, FRAMING_HEADERS, GrpcCheck, HeaderNames,
    HttpCheck, Provider,
};
pub use fault::{Abort, AbortAnswer, Delay, Fault, SHARE_PARTS};
pub use kube_network::{KubeNetworkPolicy, KubePeer, KubePort, KubeRule, Transport};
pub use l7_ports::L7Port;
pub use labels::{Label, LabelExpression, LabelKey, LabelView, Labels, Truth};
pub use locality::{Locality, LocalityPattern, LocalityPreference, LocalityShares, Whereabouts};
pub use mesh::{Mesh, PathNormalization};
pub use network_egress::{Destination, DestinationAddress, DestinationPlace, Egress, Family};
pub use network_policy::{
    AuthenticationMode, CalicoHttp, CalicoPath, CiliumHttpRule, Criteria, Direction, Entity,
    HeaderExpectation, HttpRules, Mismatch, NetSets, NetworkAction, NetworkPolicies, NetworkPolicy,
    NetworkRule, NetworkSubject, NetworkTier, Peer, Peers, PortSet, Standing, Surface, World,
};
pub use network_selection::Selecting;
pub use policy::{
    Action, Condition, Operation, PathPattern, PathTemplate, Policy, PolicyRule, Source,
    StringMatch, TemplateError, TemplateSegment, Values,
};
pub use route::{
    Backend, BackendTarget, ClaimMatch, DirectResponse, Filter, HeaderChange, HeaderMatch,
    HttpMatch, HttpRoute, HttpRule, Mirror, MoreConditions, PathMatch, PathRewrite, Pattern,
    QueryMatch, Redirect, RedirectScheme, Rewrite, TextMatch,
};
pub use service::{
    AppProtocol, Binding, ClusterKey, Endpoint, NetworkGateway, RedirectFailure, Service,
    ServicePort, Workload, WorkloadType,
};
pub use session::{SessionCarrier, SessionPersistence};
pub use stream_route::{ServerNames, StreamMatch, StreamRoute, StreamRule};
pub use telemetry::{
    AccessLog, BUILT_IN_LOG, Collector, EntryKind, EntryLog, Expression, ISTIO_TEXT, IstioMetric,
    LogFormat, LogSink, MetricOverride, MetricSettings, OtelLog, OtlpProtocol, TagChange,
    TagSource, Telemetry, TelemetrySettings, TraceSettings, TraceTarget, WrittenAt, WrittenFormat,
};
pub use traffic::{
    BackOff, RetryBudget, RetryConditions, RetryPolicy, RetryWindow, RuleTraffic, Timeouts,
};
pub use traffic_limits::{
    Concurrency, DescriptorValue, GlobalRateLimit, LimitDescriptor, LimitKey, LimitTarget,
    RateLimit, TrafficLimits,
};
pub use unenforced::{Unenforced, UnenforcedReason};
pub use ztunnel::ZtunnelPolicy;

use crate::diagnostics::Diagnostic;
use crate::origin::{ObjectKey, Origin};

/// The whole configuration, resolved for one waypoint.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Counts up by one with every published snapshot; access log field `snapshot`.
    pub version: u64,
    /// Mesh-wide settings.
    pub mesh: Mesh,
    /// The Gateway this process serves. `None`: no such Gateway, every tunnel is refused.
    pub waypoint: Option<Waypoint>,
    /// Whether the configuration has no Gateway at all, and everything in it was read: then nothing
    /// waits for a waypoint. Without one and `false`, nobody knows what it would serve.
    #[serde(skip)]
    pub without_gateways: bool,
    /// Every Service of the configuration, served by this waypoint or not, for backends point to both.
    #[serde(serialize_with = "by_text")]
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Every workload by each of its addresses.
    #[serde(serialize_with = "by_text")]
    pub workloads: FxHashMap<IpAddr, Arc<Workload>>,
    /// Addresses of pods that are no workloads, for they can not be read or are not there. No name may
    /// lead there: it would go in plain text.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unidentified: BTreeSet<IpAddr>,
    /// Endpoints that may receive traffic, by service and service port.
    #[serde(serialize_with = "by_text")]
    pub clusters: BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    /// How they are balanced and limited; those without an entry are as by default.
    #[serde(serialize_with = "by_text")]
    pub cluster_settings: BTreeMap<ClusterKey, Arc<ClusterSettings>>,
    /// How more of their endpoints are found, of those that do not list them all.
    #[serde(serialize_with = "by_text")]
    pub discoveries: BTreeMap<ClusterKey, Arc<Discovery>>,
    /// Limits on traffic.
    pub limits: Vec<Arc<TrafficLimits>>,
    /// Network policies of Cilium and Calico, and what they select.
    pub network: NetworkPolicies,
    /// NetworkPolicies of Kubernetes, which the CNI enforces and no waypoint.
    pub kube_network: Vec<Arc<KubeNetworkPolicy>>,
    /// AuthorizationPolicies that ztunnel enforces and no waypoint.
    pub ztunnel: Vec<ZtunnelPolicy>,
    /// L7 policies that are not enforced as they are written.
    pub unenforced: Vec<Unenforced>,
    /// Whose tokens are taken, by service.
    pub authentications: Authentications,
    /// What is told of traffic, and whom.
    pub telemetry: Telemetry,
    /// Findings of parsing and resolving, worst first.
    pub diagnostics: Vec<Diagnostic>,
}

/// The Gateway that this process implements (specs/istio-waypoint.md 1.2).
#[derive(Clone, Debug, Serialize)]
pub struct Waypoint {
    /// The Gateway object.
    pub origin: Origin,
    /// Its GatewayClass.
    pub class: Arc<str>,
    /// Serves addresses of Services: `istio.io/waypoint-for` is `service` or `all`.
    pub serves_services: bool,
    /// Serves addresses of workloads: `istio.io/waypoint-for` is `workload` or `all`.
    pub serves_workloads: bool,
    /// Writes `x-forwarded-client-cert` with the client's identity (specs/istio-waypoint.md 2.7).
    pub xfcc_include_client_identity: bool,
    /// A service with an L7 policy that is not enforced as it is written refuses traffic: annotation
    /// `cairn.dev/strict`, or `--strict`.
    pub strict: bool,
    /// Policies that target this Gateway or its GatewayClass; they apply to everything it serves.
    pub policies: Vec<Arc<Policy>>,
    /// Set when a part of the configuration is unreadable and its scope unknown: everything is
    /// refused, for this reason.
    pub blocked: Option<Arc<str>>,
}

impl Snapshot {
    /// The services this waypoint serves.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services
            .values()
            .filter(|s| matches!(s.binding, Binding::Served))
    }

    /// Whether labels of callers' pods decide who may do what, or where it goes: then a pod that is not what it was
    /// must not be taken for that for long.
    pub fn asks_for_caller_labels(&self) -> bool {
        let mut ports = self.services.values().flat_map(|service| &service.ports);
        !self.network.all.is_empty() || ports.any(ServicePort::asks_for_caller_labels)
    }
}

/// Writes a map sorted by its keys as text: JSON has no other keys, and a dump of the same snapshot
/// is the same text.
fn by_text<'a, K, V, M, S>(map: &'a M, serializer: S) -> Result<S::Ok, S::Error>
where
    K: ToString + 'a,
    V: Serialize + 'a,
    &'a M: IntoIterator<Item = (&'a K, &'a V)>,
    S: serde::Serializer,
{
    let sorted: BTreeMap<String, &V> = map.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    serializer.collect_map(sorted)
}
