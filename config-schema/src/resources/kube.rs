//! Kubernetes core kinds, reduced to what a waypoint needs.

use std::net::IpAddr;
use std::sync::Arc;

pub use k8s_openapi::api::networking::v1::NetworkPolicySpec;

/// A Namespace: its labels and annotations are in the metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceSpec {}

/// A ConfigMap with certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaBundleSpec {
    /// `data["ca.crt"]`, as PEM.
    pub pem: Arc<str>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// `clusterIPs` (or `clusterIP`), without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `type: ExternalName`.
    pub external_name: bool,
    /// Labels that its pods have. Empty: there is no selector, and the endpoints are somebody else's
    /// business.
    pub selector: Box<[(Arc<str>, Arc<str>)]>,
    /// TCP ports; UDP and SCTP ones are left out.
    pub ports: Vec<ServicePort>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready_addresses: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_traffic_policy_local: bool,
    /// `trafficDistribution` prefers what is close, of the same node first if true.
    pub traffic_distribution: Option<bool>,
}

impl ServiceSpec {
    /// Whether Kubernetes itself finds the endpoints.
    pub fn has_selector(&self) -> bool {
        !self.selector.is_empty()
    }
}

/// One TCP port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, empty when absent.
    pub name: Arc<str>,
    /// `port`.
    pub port: u16,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSliceSpec {
    /// Label `kubernetes.io/service-name`; empty when absent, then nothing uses the slice.
    pub service_name: Arc<str>,
    /// Ports by name, as Kubernetes resolved them; the name equals that of the service port.
    pub ports: Box<[EndpointPort]>,
    /// Endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPort {
    /// `name`, empty when absent.
    pub name: Arc<str>,
    /// `port`; `None` means "all ports" in the API and nothing here.
    pub port: Option<u16>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses; the API says to use the first.
    pub addresses: Box<[IpAddr]>,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `targetRef` when its kind is Pod: namespace and name.
    pub pod: Option<crate::origin::ObjectKey>,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints.forZones`.
    pub for_zones: Box<[Arc<str>]>,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// `spec.serviceAccountName`, `default` when absent.
    pub service_account: Arc<str>,
    /// `spec.nodeName`, empty when absent.
    pub node: Arc<str>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.podIPs` (or `podIP`).
    pub pod_ips: Box<[IpAddr]>,
    /// `status.phase` is Succeeded or Failed.
    pub finished: bool,
    /// TCP ports of its containers that have a name, in lower case.
    pub named_ports: Box<[(Arc<str>, u16)]>,
    /// HTTP probes of its containers.
    pub probes: Box<[HttpProbe]>,
    /// Kind and name of the controlling owner.
    pub owner: Option<(Arc<str>, Arc<str>)>,
}

/// One `httpGet` of a liveness, readiness or startup probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Which: `livenessProbe`, `readinessProbe`, `startupProbe`.
    pub kind: &'static str,
    /// Path, `/` when absent; with the query if there is one.
    pub path: Arc<str>,
    /// Port of the container, a name resolved. `None`: a name that no port has.
    pub port: Option<u16>,
}
