//! Where a piece of the snapshot comes from, so that every decision can name its cause.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Namespace and name of an object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectKey {
    /// The object's namespace, empty when cluster-scoped.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds Cairn reads. `Display` and serde give the Kubernetes kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)] // the variants are the Kubernetes kinds themselves
pub enum Kind {
    GatewayClass,
    Gateway,
    HTTPRoute,
    GRPCRoute,
    TLSRoute,
    TCPRoute,
    Namespace,
    Service,
    EndpointSlice,
    Pod,
    AuthorizationPolicy,
    RequestAuthentication,
    DestinationRule,
    XBackendTrafficPolicy,
    VirtualService,
    ServiceEntry,
    WorkloadEntry,
    BackendTLSPolicy,
    /// A ConfigMap with certificates; not that of the mesh.
    #[serde(rename = "ConfigMap")]
    CaBundle,
    TrafficPolicy,
    Telemetry,
    CiliumNetworkPolicy,
    CiliumClusterwideNetworkPolicy,
    CiliumEnvoyConfig,
    CiliumClusterwideEnvoyConfig,
    /// Calico's.
    NetworkPolicy,
    /// That of Kubernetes itself; its name has the group, for Calico's has the same kind.
    #[serde(rename = "NetworkPolicy.networking.k8s.io")]
    KubeNetworkPolicy,
    GlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    Tier,
    NetworkSet,
    GlobalNetworkSet,
    ConfigMap,
}

impl Kind {
    /// Whether objects of the kind are never enforced, but tried.
    pub fn is_staged(self) -> bool {
        matches!(
            self,
            Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy
        )
    }

    /// The Kubernetes kind, as written in YAML; with its group where two groups have the same.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::HTTPRoute => "HTTPRoute",
            Kind::GRPCRoute => "GRPCRoute",
            Kind::TLSRoute => "TLSRoute",
            Kind::TCPRoute => "TCPRoute",
            Kind::Namespace => "Namespace",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Pod => "Pod",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::RequestAuthentication => "RequestAuthentication",
            Kind::DestinationRule => "DestinationRule",
            Kind::XBackendTrafficPolicy => "XBackendTrafficPolicy",
            Kind::VirtualService => "VirtualService",
            Kind::ServiceEntry => "ServiceEntry",
            Kind::BackendTLSPolicy => "BackendTLSPolicy",
            Kind::WorkloadEntry => "WorkloadEntry",
            Kind::TrafficPolicy => "TrafficPolicy",
            Kind::Telemetry => "Telemetry",
            Kind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Kind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Kind::CiliumEnvoyConfig => "CiliumEnvoyConfig",
            Kind::CiliumClusterwideEnvoyConfig => "CiliumClusterwideEnvoyConfig",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::KubeNetworkPolicy => "NetworkPolicy.networking.k8s.io",
            Kind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Kind::StagedNetworkPolicy => "StagedNetworkPolicy",
            Kind::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Kind::Tier => "Tier",
            Kind::NetworkSet => "NetworkSet",
            Kind::GlobalNetworkSet => "GlobalNetworkSet",
            Kind::ConfigMap | Kind::CaBundle => "ConfigMap",
        }
    }

    /// The kind as written in YAML, without a group.
    pub fn bare(self) -> &'static str {
        let name = self.as_str();
        name.split_once('.').map_or(name, |(kind, _)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The user's object behind a route, a policy or a service. One object of the user's is one object
/// of the snapshot; rules are numbered from 0 in the order they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    /// Kind of the object.
    pub kind: Kind,
    /// Namespace and name of the object.
    pub key: ObjectKey,
}

impl fmt::Display for Origin {
    /// `Kind/namespace/name`, the form of the access log's `policy` field (DESIGN section 8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key)
    }
}
