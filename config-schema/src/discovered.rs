//! What istiod tells of workloads (`istio.workload.Address`), reduced to what counts here. It is an account,
//! not the truth: what follows from it beside what the cluster itself says is decided when it is resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::Identity;
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
    /// Who may answer for a service, by `namespace/hostname`: its `subject_alt_names`, as far as they are identities. A
    /// service without any is left out.
    pub identities: BTreeMap<Arc<str>, Arc<[Identity]>>,
}

impl Discovered {
    /// Whether a workload is of this waypoint's own cluster. One that does not say is.
    pub fn is_own(&self, workload: &DiscoveredWorkload) -> bool {
        workload.cluster.is_empty() || workload.cluster == self.cluster
    }

    /// Whether a workload is a Pod, by the form of its uid: `CLUSTER//Pod/NAMESPACE/NAME`. The kubelet says what its
    /// addresses are; those of all others are what somebody wrote into an object of a namespace.
    pub fn is_pod(&self, uid: &str, workload: &DiscoveredWorkload) -> bool {
        let cluster = match &*workload.cluster {
            "" => &*self.cluster,
            cluster => cluster,
        };
        let name = uid
            .strip_prefix(cluster)
            .and_then(|rest| rest.strip_prefix("//Pod/"))
            .and_then(|rest| rest.strip_prefix(&*workload.namespace))
            .and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    }
}

/// Whether a workload stands for the gateway of a network, by the form of its uid: `NetworkGateway/...`, or
/// `NAMESPACE/GATEWAY/ADDRESS`. Istiod makes these of Gateways; what is written into a namespace as an entry has another.
pub fn is_network_gateway(uid: &str, workload: &DiscoveredWorkload) -> bool {
    if uid.starts_with("NetworkGateway/") {
        return true;
    }
    let mut parts = uid.split('/');
    let (namespace, name, address) = (parts.next(), parts.next(), parts.next());
    let has_address = |text: &str| {
        let address = text.parse::<IpAddr>();
        address.is_ok_and(|ip| workload.addresses.contains(&ip.to_canonical()))
    };
    parts.next().is_none()
        && namespace == Some(&*workload.namespace)
        && name.is_some_and(|name| !name.is_empty())
        && address.is_some_and(has_address)
}

/// Ports of a service, and the ports of a workload that they lead to.
pub type TargetPorts = Box<[(u16, u16)]>;

/// How a workload is reached: `tunnel_protocol` (specs/istio-waypoint.md 6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tunnel {
    /// In plain text.
    #[default]
    None,
    /// By HBONE.
    Hbone,
    /// By the mTLS of a sidecar, which Cairn does not speak.
    LegacyMtls,
}

/// Where the gateway of a network is: `network_gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredGateway {
    /// `destination`.
    pub destination: GatewayDestination,
    /// `hbone_mtls_port`; the usual one when it was left out.
    pub port: u16,
}

/// What leads to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayDestination {
    /// An address of a network.
    Address {
        /// The network.
        network: Arc<str>,
        /// The address, in its canonical form.
        ip: IpAddr,
    },
    /// A name.
    Host(Arc<str>),
    /// Nothing was told.
    Nowhere,
}

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
    /// `tunnel_protocol`.
    pub tunnel: Tunnel,
    /// `trust_domain`; empty when it was left out.
    pub trust_domain: Arc<str>,
    /// `service_account`; empty: `default`.
    pub service_account: Arc<str>,
    /// `network_gateway`: what it is reached through from other networks.
    pub gateway: Option<DiscoveredGateway>,
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
