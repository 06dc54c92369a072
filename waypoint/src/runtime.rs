//! A snapshot made ready to run: chains compiled, addresses indexed, clusters alive.
//!
//! A request loads one [`Runtime`] and sees nothing else of the configuration, so it can never mix
//! two snapshots. Clusters outlive snapshots, because balancing has a memory and endpoints carry no
//! permission.

mod live;
mod requested;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    AppProtocol, Binding, ClusterKey, Discovery, Endpoint, Service, Snapshot, Workload,
};
use cairn_filters::chain::{Common, PortChain};
use cairn_routing::{Cluster, LiveEndpoint};
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use self::live::{dialled, live_clusters, protocols, with_names};
use self::requested::RequestedHosts;
use crate::clock::now_ms;
use crate::guarded::forbidden;
use crate::listener::admit::{Asked, Refusal};
use crate::names::Names;
use crate::names::answer::{Answer, MeshAddresses};
use crate::telemetry::exchange::StreamOrigin;
use crate::telemetry::settings::{AllSettings, Settings};
use crate::throttle::Limiters;

/// A snapshot made ready to run.
pub struct Runtime {
    /// What it was made of.
    pub snapshot: Arc<Snapshot>,
    by_address: FxHashMap<SocketAddr, Arc<Target>>,
    /// Several where namespaces declare one host.
    by_hostname: FxHashMap<(Arc<str>, u16), Vec<Arc<Target>>>,
    /// Blocks of addresses, the smallest first.
    by_block: Vec<(IpNet, Vec<Arc<Target>>)>,
    served_ips: FxHashMap<IpAddr, ()>,
    served_hostnames: FxHashMap<Arc<str>, ()>,
    workload_chain: Option<Arc<PortChain>>,
    clusters: FxHashMap<ClusterKey, Arc<Cluster>>,
    protocols: FxHashMap<ClusterKey, AppProtocol>,
    /// Of names inside of wildcards, as requests ask for them.
    requested: RequestedHosts,
    has_wildcards: bool,
    mesh: MeshAddresses,
    limiters: Limiters,
    /// What is told of each service.
    pub telemetry: AllSettings,
    /// Some destination has sessions, whatever routes say.
    pub has_sessions: bool,
}

/// Something this waypoint serves: what a CONNECT authority stands for.
#[derive(Clone)]
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
    /// What is told of it.
    pub telemetry: Arc<Settings>,
}

impl Target {
    /// Whether a caller of a namespace may use it.
    fn is_visible_to(&self, caller: Option<&str>) -> bool {
        let service = self.service.as_ref();
        service.is_none_or(|service| service.is_visible_to(caller.unwrap_or_default()))
    }

    fn is_of(&self, caller: Option<&str>) -> bool {
        let namespace = self.service.as_ref().map(|s| &*s.key.namespace);
        namespace.is_some() && namespace == caller
    }

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
        Self::compile(Arc::new(Snapshot::default()), None, &Names::default())
    }

    /// Compiles a snapshot. Clusters of `previous` that still exist are kept and given their new
    /// endpoints. `names`: what is known of endpoints that have names.
    pub fn compile(snapshot: Arc<Snapshot>, previous: Option<&Runtime>, names: &Names) -> Self {
        let mesh = MeshAddresses::of(&snapshot);
        let clusters = live_clusters(&snapshot, previous, &mesh, names);
        let mut discoveries = snapshot.discoveries.values();
        let is_wildcard = |d: &Arc<Discovery>| matches!(**d, Discovery::RequestedHost { .. });
        let mut runtime = Self {
            by_address: FxHashMap::default(),
            by_hostname: FxHashMap::default(),
            by_block: Vec::new(),
            served_ips: FxHashMap::default(),
            served_hostnames: FxHashMap::default(),
            workload_chain: None,
            clusters,
            protocols: protocols(&snapshot),
            requested: RequestedHosts::default(),
            has_wildcards: discoveries.any(is_wildcard),
            mesh,
            limiters: Limiters::new(&snapshot, previous.map(|p| &p.limiters)),
            telemetry: AllSettings::compile(&snapshot.telemetry, previous.map(|p| &p.telemetry)),
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
        let common = Common::compile(&snapshot);
        for service in snapshot.served() {
            runtime.add_service(&snapshot, &common, service);
        }
        let size = |(block, _): &(IpNet, _)| (std::cmp::Reverse(block.prefix_len()), *block);
        runtime.by_block.sort_by_key(size);
        if waypoint.serves_workloads {
            let chain = PortChain::for_workload_sharing(&snapshot, &common);
            runtime.workload_chain = Some(Arc::new(chain));
        }
        runtime
    }

    fn add_service(&mut self, snapshot: &Snapshot, common: &Common, service: &Arc<Service>) {
        self.served_hostnames.insert(service.hostname.clone(), ());
        for ip in &service.addresses {
            self.served_ips.insert(*ip, ());
        }
        // A host without an address is served by its name (specs/istio-waypoint.md 4.2).
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let first = service.addresses.first().copied().unwrap_or(nowhere);
        let mut of_block = Vec::new();
        for port in &service.ports {
            let key = ClusterKey::new(service.key.clone(), port.number);
            let Some(cluster) = self.clusters.get(&key).cloned() else {
                continue;
            };
            let dialled_port = self.dialled_port(&key);
            let chain = Arc::new(PortChain::compile_sharing(snapshot, common, service, port));
            let telemetry = self.telemetry.of_service(Some(&service.key)).clone();
            let target = |ip: IpAddr| {
                Arc::new(Target {
                    service: Some(service.clone()),
                    protocol: port.protocol,
                    chain: chain.clone(),
                    cluster: match dialled_port.filter(|_| !ip.is_unspecified()) {
                        Some(port) => dialled(&cluster, SocketAddr::new(ip, port)),
                        None => cluster.clone(),
                    },
                    destination: SocketAddr::new(ip, port.number),
                    telemetry: telemetry.clone(),
                })
            };
            for ip in &service.addresses {
                self.by_address
                    .insert(SocketAddr::new(*ip, port.number), target(*ip));
            }
            let by_name = target(first);
            of_block.push(by_name.clone());
            self.by_hostname
                .entry((service.hostname.clone(), port.number))
                .or_default()
                .push(by_name);
        }
        for block in &service.blocks {
            self.by_block.push((*block, of_block.clone()));
        }
    }

    /// What a CONNECT authority stands for, to a caller of a namespace.
    ///
    /// # Errors
    /// [`Refusal`] for whatever is not declared and served by this waypoint, or not exported to the
    /// caller's namespace.
    pub fn find(&self, asked: &Asked, caller: Option<&str>) -> Result<Arc<Target>, Refusal> {
        match &self.snapshot.waypoint {
            Some(waypoint) if waypoint.blocked.is_none() => {}
            _ => return Err(Refusal::NoGateway),
        }
        match asked {
            Asked::Address(address) => {
                let target = self.find_address(*address)?;
                match target.is_visible_to(caller) {
                    true => Ok(target),
                    false => Err(Refusal::NotServed),
                }
            }
            Asked::Hostname(host, port) => {
                // A map keyed by a pair can not be asked with a borrowed string; hostnames are rare.
                let key = (Arc::from(host.as_str()), *port);
                let Some(targets) = self.by_hostname.get(&key) else {
                    return Err(match self.served_hostnames.contains_key(&key.0) {
                        true => Refusal::UndeclaredPort,
                        false => Refusal::NotServed,
                    });
                };
                let seen = targets.iter().filter(|t| t.is_visible_to(caller));
                let nearest = seen.min_by_key(|target| !target.is_of(caller));
                nearest.cloned().ok_or(Refusal::NotServed)
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
        let by_block = || self.find_in_block(address);
        self.find_workload(address).map_or_else(by_block, Ok)
    }

    /// An address of a block that a ServiceEntry declares. What a Service or a pod has is theirs.
    fn find_in_block(&self, address: SocketAddr) -> Result<Arc<Target>, Refusal> {
        let ip = address.ip();
        if self.mesh.contains(ip) {
            return Err(Refusal::NotServed);
        }
        let mut blocks = self.by_block.iter();
        let (_, ports) = blocks
            .find(|(block, _)| block.contains(&ip))
            .ok_or(Refusal::NotServed)?;
        let mut ports = ports.iter();
        let target = ports
            .find(|target| target.destination.port() == address.port())
            .ok_or(Refusal::UndeclaredPort)?;
        let cluster = match self.dialled_port(target.cluster.key()) {
            // Whoever wrote the block may not have thought of what only this machine reaches.
            Some(_) if forbidden(ip, false).is_some() => return Err(Refusal::NotServed),
            Some(port) => dialled(&target.cluster, SocketAddr::new(ip, port)),
            None => target.cluster.clone(),
        };
        Ok(Arc::new(Target {
            destination: address,
            cluster,
            ..Target::clone(target)
        }))
    }

    /// The port of a cluster whose endpoint is the address that was dialled.
    fn dialled_port(&self, key: &ClusterKey) -> Option<u16> {
        match **self.snapshot.discoveries.get(key)? {
            Discovery::DialledAddress { port } => Some(port),
            _ => None,
        }
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
            telemetry: self.telemetry.of_service(None).clone(),
        }))
    }

    /// Whether an address may be dialled by itself: a workload's, or one that a ServiceEntry takes in.
    pub fn knows(&self, ip: IpAddr) -> bool {
        let mut blocks = self.by_block.iter();
        self.snapshot.workloads.contains_key(&ip)
            || self.served_ips.contains_key(&ip)
            || blocks.any(|(block, _)| block.contains(&ip))
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

    /// Gives clusters the endpoints that a name has now. The caller holds [`Names::hold`].
    pub fn renew(&self, name: &str, names: &Names) {
        for (key, discovery) in &self.snapshot.discoveries {
            let Discovery::Names {
                names: of_cluster, ..
            } = &**discovery
            else {
                continue;
            };
            if !of_cluster.iter().any(|named| *named.name == *name) {
                continue;
            }
            let listed = self.snapshot.clusters.get(key);
            if let (Some(cluster), Some(listed)) = (self.clusters.get(key), listed) {
                let (endpoints, reason) =
                    with_names(&self.snapshot, &self.mesh, key, listed, names);
                cluster.update(&endpoints, cluster.settings(), now_ms());
                cluster.explain_absence(reason);
            }
        }
    }

    /// How a cluster finds the host that a request asks for, if it is a wildcard's.
    pub fn wildcard(&self, key: &ClusterKey) -> Option<&Discovery> {
        if !self.has_wildcards {
            return None;
        }
        let discovery = &**self.snapshot.discoveries.get(key)?;
        matches!(discovery, Discovery::RequestedHost { .. }).then_some(discovery)
    }

    /// The cluster of one host inside of a wildcard. Clusters of a snapshot are its own: they are
    /// balanced and limited as it says.
    pub fn requested(&self, all: &Cluster, host: &Arc<str>, answer: &Arc<Answer>) -> Arc<Cluster> {
        let key = (all.key().clone(), host.clone());
        if let Some(cluster) = self.requested.find(&key, answer) {
            return cluster;
        }
        let port = match self.wildcard(all.key()) {
            Some(Discovery::RequestedHost { port, .. }) => *port,
            _ => all.key().port,
        };
        self.requested.renew(key, port, all, answer, &self.mesh)
    }

    /// Clusters of hosts inside of wildcards that requests have asked for.
    pub fn all_requested(&self) -> Vec<Arc<Cluster>> {
        self.requested.clusters()
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

    /// What TrafficPolicies let through.
    pub fn limiters(&self) -> &Limiters {
        &self.limiters
    }

    /// Every live cluster.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }
}
