//! A snapshot made ready to run: chains compiled, addresses indexed, clusters alive.
//!
//! A request loads one [`Runtime`] and sees nothing else of the configuration, so it can never mix
//! two snapshots. Clusters outlive snapshots, because balancing has a memory and endpoints carry no
//! permission.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::Egress;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    AppProtocol, Binding, ClusterKey, Endpoint, Service, Snapshot, Workload,
};
use cairn_filters::chain::PortChain;
use cairn_routing::{Cluster, LiveEndpoint};
use rustc_hash::FxHashMap;

use crate::clock::now_ms;
use crate::listener::admit::{Asked, Refusal};
use crate::telemetry::exchange::StreamOrigin;

/// A snapshot made ready to run.
pub struct Runtime {
    /// What it was made of.
    pub snapshot: Arc<Snapshot>,
    by_address: FxHashMap<SocketAddr, Arc<Target>>,
    by_hostname: FxHashMap<(Arc<str>, u16), Arc<Target>>,
    served_ips: FxHashMap<IpAddr, ()>,
    served_hostnames: FxHashMap<Arc<str>, ()>,
    workload_chain: Option<Arc<PortChain>>,
    clusters: FxHashMap<ClusterKey, Arc<Cluster>>,
    protocols: FxHashMap<ClusterKey, AppProtocol>,
    /// Some destination has sessions, whatever routes say.
    pub has_sessions: bool,
}

/// Something this waypoint serves: what a CONNECT authority stands for.
pub struct Target {
    /// The service; `None` for a workload's own address.
    pub service: Option<Arc<Service>>,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// Policy and routes.
    pub chain: Arc<PortChain>,
    /// Where requests go that no route sends elsewhere.
    pub cluster: Arc<Cluster>,
    /// Virtual IP or pod IP, and port.
    pub destination: SocketAddr,
}

impl Target {
    /// The identity that all its endpoints have.
    pub fn shared_identity(&self) -> Option<Identity> {
        let endpoints = self.cluster.endpoints();
        let identity = |live: &Arc<LiveEndpoint>| {
            let workload = live.endpoint.workload.as_ref();
            workload.map(|workload| workload.identity.clone())
        };
        let first = endpoints.first().and_then(identity)?;
        let same = endpoints
            .iter()
            .all(|e| identity(e).as_ref() == Some(&first));
        same.then_some(first)
    }
}

impl Runtime {
    /// The runtime of a process that has no configuration yet: it serves nothing.
    pub fn empty() -> Self {
        Self::compile(Arc::new(Snapshot::default()), None)
    }

    /// Compiles a snapshot. Clusters of `previous` that still exist are kept and given their new
    /// endpoints.
    pub fn compile(snapshot: Arc<Snapshot>, previous: Option<&Runtime>) -> Self {
        let clusters = live_clusters(&snapshot, previous);
        let mut runtime = Self {
            by_address: FxHashMap::default(),
            by_hostname: FxHashMap::default(),
            served_ips: FxHashMap::default(),
            served_hostnames: FxHashMap::default(),
            workload_chain: None,
            clusters,
            protocols: protocols(&snapshot),
            has_sessions: (snapshot.cluster_settings.values()).any(|s| s.session.is_some()),
            snapshot,
        };
        let snapshot = runtime.snapshot.clone();
        let Some(waypoint) = &snapshot.waypoint else {
            return runtime;
        };
        if waypoint.blocked.is_some() {
            return runtime;
        }
        let egress = Egress::compile(&snapshot.network);
        for service in snapshot.served() {
            runtime.add_service(&snapshot, &egress, service);
        }
        if waypoint.serves_workloads {
            let chain = PortChain::for_workload_sharing(&snapshot, &egress);
            runtime.workload_chain = Some(Arc::new(chain));
        }
        runtime
    }

    fn add_service(&mut self, snapshot: &Snapshot, egress: &Egress, service: &Arc<Service>) {
        self.served_hostnames.insert(service.hostname.clone(), ());
        for ip in &service.addresses {
            self.served_ips.insert(*ip, ());
        }
        let Some(first) = service.addresses.first() else {
            return;
        };
        for port in &service.ports {
            let key = ClusterKey::new(service.key.clone(), port.number);
            let Some(cluster) = self.clusters.get(&key).cloned() else {
                continue;
            };
            let chain = Arc::new(PortChain::compile_sharing(snapshot, egress, service, port));
            let target = |ip: IpAddr| {
                Arc::new(Target {
                    service: Some(service.clone()),
                    protocol: port.protocol,
                    chain: chain.clone(),
                    cluster: cluster.clone(),
                    destination: SocketAddr::new(ip, port.number),
                })
            };
            for ip in &service.addresses {
                self.by_address
                    .insert(SocketAddr::new(*ip, port.number), target(*ip));
            }
            self.by_hostname
                .insert((service.hostname.clone(), port.number), target(*first));
        }
    }

    /// What a CONNECT authority stands for.
    ///
    /// # Errors
    /// [`Refusal`] for whatever is not declared and served by this waypoint.
    pub fn find(&self, asked: &Asked) -> Result<Arc<Target>, Refusal> {
        match &self.snapshot.waypoint {
            Some(waypoint) if waypoint.blocked.is_none() => {}
            _ => return Err(Refusal::NoGateway),
        }
        match asked {
            Asked::Address(address) => self.find_address(*address),
            Asked::Hostname(host, port) => {
                // A map keyed by a pair can not be asked with a borrowed string; hostnames are rare.
                let key = (Arc::from(host.as_str()), *port);
                self.by_hostname.get(&key).cloned().ok_or_else(|| {
                    if self.served_hostnames.contains_key(&key.0) {
                        Refusal::UndeclaredPort
                    } else {
                        Refusal::NotServed
                    }
                })
            }
        }
    }

    fn find_address(&self, address: SocketAddr) -> Result<Arc<Target>, Refusal> {
        if let Some(target) = self.by_address.get(&address) {
            return Ok(target.clone());
        }
        if self.served_ips.contains_key(&address.ip()) {
            return Err(Refusal::UndeclaredPort);
        }
        self.find_workload(address).ok_or(Refusal::NotServed)
    }

    /// A pod's own address, any port (specs/istio-waypoint.md 2.5 no. 3).
    fn find_workload(&self, address: SocketAddr) -> Option<Arc<Target>> {
        let chain = self.workload_chain.clone()?;
        let workload = self.workload(address.ip())?;
        if workload.binding != Binding::Served {
            return None;
        }
        let key = ClusterKey::new(workload.key.clone(), address.port());
        let endpoint = Endpoint::new(address, Some(workload.clone()));
        Some(Arc::new(Target {
            service: None,
            protocol: AppProtocol::Sniff,
            chain,
            cluster: Arc::new(Cluster::new(key, &[endpoint], Arc::default(), now_ms())),
            destination: address,
        }))
    }

    /// The workload that has an address.
    pub fn workload(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.snapshot.workloads.get(&ip)
    }

    /// The client's workload, for telemetry: by its address, else as the node knows its pod.
    pub fn source(&self, origin: &StreamOrigin) -> Option<Arc<Workload>> {
        let known = self.workload(origin.peer.address.ip());
        let pod = origin.pod.as_ref().and_then(|pod| pod.workload.as_ref());
        known.or(pod).cloned()
    }

    /// The live cluster of a service port.
    pub fn cluster(&self, key: &ClusterKey) -> Option<&Arc<Cluster>> {
        self.clusters.get(key)
    }

    /// What a service port declares.
    pub fn protocol(&self, key: &ClusterKey) -> AppProtocol {
        self.protocols
            .get(key)
            .copied()
            .unwrap_or(AppProtocol::Sniff)
    }

    /// Every live cluster.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }
}

fn live_clusters(
    snapshot: &Snapshot,
    previous: Option<&Runtime>,
) -> FxHashMap<ClusterKey, Arc<Cluster>> {
    let mut clusters = FxHashMap::default();
    for (key, endpoints) in &snapshot.clusters {
        let settings = snapshot.cluster_settings.get(key).cloned();
        let settings = settings.unwrap_or_default();
        let cluster = match previous.and_then(|p| p.clusters.get(key)) {
            Some(live) => {
                live.update(endpoints, settings, now_ms());
                live.clone()
            }
            None => Arc::new(Cluster::new(key.clone(), endpoints, settings, now_ms())),
        };
        clusters.insert(key.clone(), cluster);
    }
    clusters
}

fn protocols(snapshot: &Snapshot) -> FxHashMap<ClusterKey, AppProtocol> {
    let of_service = |service: &Arc<Service>| {
        let key = service.key.clone();
        let ports: Vec<_> = service
            .ports
            .iter()
            .map(|p| (p.number, p.protocol))
            .collect();
        ports.into_iter().map(move |(port, protocol)| {
            let service = key.clone();
            (ClusterKey::new(service, port), protocol)
        })
    };
    let declared = snapshot.services.values().flat_map(of_service);
    let mut protocols: FxHashMap<ClusterKey, AppProtocol> = declared.collect();
    let subsets = snapshot.clusters.keys().filter(|k| k.subset.is_some());
    for key in subsets {
        let whole = ClusterKey::new(key.service.clone(), key.port);
        if let Some(protocol) = protocols.get(&whole).copied() {
            protocols.insert(key.clone(), protocol);
        }
    }
    protocols
}
