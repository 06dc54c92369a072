//! What istiod tells of workloads (`istio.workload.Address`), reduced to what counts here. It is an account,
//! not the truth: what follows from it beside what the cluster itself says is decided when it is resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::snapshot::{Locality, WorkloadType};

/// Everything that istiod told, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// What istiod calls the cluster of this waypoint.
    pub cluster: Arc<str>,
    /// The network of this waypoint; empty: the default one.
    pub network: Arc<str>,
    /// Workloads by their uid.
    pub workloads: BTreeMap<Arc<str>, Arc<DiscoveredWorkload>>,
}

impl Discovered {
    /// Whether a workload is of this waypoint's own cluster. One that does not say is.
    pub fn is_own(&self, workload: &DiscoveredWorkload) -> bool {
        workload.cluster.is_empty() || workload.cluster == self.cluster
    }
}

/// Ports of a service, and the ports of a workload that they lead to.
pub type TargetPorts = Box<[(u16, u16)]>;

/// A workload as istiod tells of it. Fields are the protocol's (specs/istio-waypoint.md 6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveredWorkload {
    /// `name`: the pod's. Empty when it was left out.
    pub name: Arc<str>,
    /// `namespace`.
    pub namespace: Arc<str>,
    /// `cluster_id`.
    pub cluster: Arc<str>,
    /// `network`; empty: the default one.
    pub network: Arc<str>,
    /// `addresses`, in their canonical form. Empty: it is found by name, or behind a gateway alone.
    pub addresses: Vec<IpAddr>,
    /// `tunnel_protocol` is HBONE.
    pub hbone: bool,
    /// `trust_domain`; empty when it was left out.
    pub trust_domain: Arc<str>,
    /// `service_account`; empty: `default`.
    pub service_account: Arc<str>,
    /// `network_gateway` is set: it is reached through one.
    pub has_gateway: bool,
    /// `application_tunnel` asks for a protocol: it is a proxy that wants to be told who calls.
    pub wants_proxy_protocol: bool,
    /// `node`.
    pub node: Arc<str>,
    /// `canonical_name`.
    pub canonical_name: Arc<str>,
    /// `canonical_revision`.
    pub canonical_revision: Arc<str>,
    /// `workload_name`.
    pub workload_name: Arc<str>,
    /// `workload_type`. `None`: of a kind that is not known here.
    pub workload_type: Option<WorkloadType>,
    /// `services`: of each `namespace/hostname` the service ports and what they lead to.
    pub services: Box<[(Arc<str>, TargetPorts)]>,
    /// `status` is HEALTHY.
    pub is_healthy: bool,
    /// `locality`.
    pub locality: Locality,
    /// `network_mode` is HOST_NETWORK: its address is that of others, too.
    pub host_network: bool,
    /// `capacity`, 1 when it was left out.
    pub capacity: u32,
}
