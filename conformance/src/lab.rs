//! A mesh on loopback: services, pods with addresses of their own, Envoy on both sides, Cairn in
//! the middle. A test adds its policies and routes as YAML and asks.

mod manifests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::manifests::{MESH, Pod, Service};
pub use self::manifests::{Port, Reach};
use crate::app::App;
use crate::cairn::Cairn;
use crate::envoy::{ClientTunnel, DestinationTunnel, Entrance};
use crate::identities::{Identities, identity};
use crate::net::{Subnet, free_address, free_port};
use crate::process::Process;

/// The one namespace of a laboratory.
pub const NAMESPACE: &str = "shop";

/// A mesh on loopback.
#[derive(Debug)]
pub struct Lab {
    // Processes first, so that they end before their folder goes.
    cairn: Option<Cairn>,
    destinations: BTreeMap<String, Process>,
    /// Certificates.
    pub identities: Identities,
    network: Network,
    hbone_port: u16,
    destination_streams_max: u32,
    own_tunnels: bool,
    services: BTreeMap<String, Service>,
    pods: Vec<Pod>,
    variables: Vec<(String, String)>,
    folder: TempDir,
}

/// Where a laboratory has its addresses from.
#[derive(Debug)]
enum Network {
    Ipv4(Subnet),
    Ipv6,
}

impl Network {
    /// An address to listen on: unused, unless there is only one.
    fn address(&self) -> IpAddr {
        match self {
            Self::Ipv4(subnet) => subnet.address(),
            Self::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Virtual IP of a service.
    fn virtual_ip(&self, host: u8) -> IpAddr {
        match self {
            Self::Ipv4(_) => IpAddr::from([10, 96, 1, host]),
            Self::Ipv6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
        }
    }
}

/// A client pod: real Envoy that tunnels to the waypoint.
#[derive(Debug)]
pub struct Client {
    /// Its Envoy.
    pub envoy: Process,
    /// The pod's address, the source of its tunnels.
    pub address: IpAddr,
    entrances: BTreeMap<(String, u16), SocketAddr>,
}

impl Client {
    /// Where an application of this pod connects to reach a service port.
    pub fn to(&self, service: &str, port: u16) -> SocketAddr {
        self.entrances[&(service.to_owned(), port)]
    }
}

impl Lab {
    /// A mesh without services: namespace `shop`, its waypoint, certificates.
    pub fn new() -> Self {
        Self::on(Network::Ipv4(Subnet::new()))
    }

    /// The same over IPv6. There is one IPv6 loopback address, so that all pods share it; `None` on
    /// a machine that lacks it.
    pub fn new_ipv6() -> Option<Self> {
        std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
        Some(Self::on(Network::Ipv6))
    }

    fn on(network: Network) -> Self {
        let folder = TempDir::with_prefix("cairn-lab-").expect("a folder");
        std::fs::create_dir_all(folder.path().join("config")).expect("a folder");
        let lab = Self {
            cairn: None,
            destinations: BTreeMap::new(),
            identities: Identities::new(&folder.path().join("identities")),
            hbone_port: free_port(network.address()),
            destination_streams_max: 200,
            own_tunnels: false,
            network,
            services: BTreeMap::new(),
            pods: Vec::new(),
            variables: Vec::new(),
            folder,
        };
        lab.write("mesh", MESH);
        lab
    }

    /// Streams that the destination Envoy allows on a connection.
    pub fn destination_streams_max(&mut self, streams: u32) {
        self.destination_streams_max = streams;
    }

    /// Adds a service and gives its virtual IP. Its service account has the same name.
    pub fn service(&mut self, name: &str, ports: &[Port]) -> IpAddr {
        let host = u8::try_from(self.services.len() + 1).expect("few services");
        let address = self.network.virtual_ip(host);
        let service = Service {
            address,
            ports: ports.to_vec(),
        };
        self.write(
            &format!("service-{name}"),
            &manifests::service(name, &service),
        );
        self.services.insert(name.to_owned(), service);
        self.write_endpoints(name);
        address
    }

    /// Adds a pod of a service that has one application on all its ports, started by `app` on the
    /// address it is given.
    pub fn pod(
        &mut self,
        service: &str,
        name: &str,
        reach: Reach,
        app: impl FnOnce(SocketAddr) -> App,
    ) -> App {
        let app = app(free_address(self.network.address()));
        self.pod_at(service, name, reach, app.address);
        app
    }

    /// Adds a pod whose application somebody else runs.
    pub fn pod_at(&mut self, service: &str, name: &str, reach: Reach, address: SocketAddr) {
        let identity = self.identities.folder_of(&format!("{NAMESPACE}/{service}"));
        self.pods.push(Pod {
            name: name.to_owned(),
            service: service.to_owned(),
            address,
            reach,
            identity,
        });
        self.write_endpoints(service);
    }

    /// An unused address with a free port, for a pod.
    pub fn free_address(&self) -> SocketAddr {
        free_address(self.network.address())
    }

    /// Takes a pod out of its service's EndpointSlice, as Kubernetes does with one that is gone.
    pub fn remove_pod(&mut self, name: &str) {
        let at = self.pods.iter().position(|pod| pod.name == name);
        let pod = self.pods.remove(at.expect("a pod"));
        self.write_endpoints(&pod.service);
    }

    /// Virtual IP of a service.
    pub fn virtual_ip(&self, service: &str) -> IpAddr {
        self.services[service].address
    }

    /// Writes one file of configuration, in one step, as the editor of a careful user does.
    pub fn write(&self, name: &str, yaml: &str) {
        let new = self.config().join(format!(".{name}.new"));
        std::fs::write(&new, yaml).expect("a file");
        std::fs::rename(&new, self.config().join(format!("{name}.yaml"))).expect("a rename");
    }

    /// Removes a file of configuration.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.config().join(format!("{name}.yaml"))).expect("a file");
    }

    /// Folder of the configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Folder for logs and whatever a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets a variable of Cairn's environment, for its start.
    pub fn variable(&mut self, name: &str, value: impl ToString) {
        self.variables.push((name.to_owned(), value.to_string()));
    }

    /// Starts the destination Envoy and Cairn.
    pub async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// Starts the destination Envoy and Cairn with more flags.
    pub async fn start_with(&mut self, flags: &[&str]) {
        self.start_destination().await;
        let cairn = Cairn::start(
            self.network.address(),
            &self.config(),
            &self.waypoint_identity(),
            self.hbone_port,
            (flags, &self.variables),
            self.folder.path(),
        )
        .await;
        self.cairn = Some(cairn);
    }

    /// Starts the destination Envoys alone.
    pub async fn start_destination(&mut self) {
        let hbone = |pod: &&Pod| pod.reach == Reach::Hbone;
        let mut groups: BTreeMap<String, Vec<(IpAddr, &Path)>> = BTreeMap::new();
        for pod in self.pods.iter().filter(hbone) {
            // Pods share a node's tunnel, as with ztunnel, unless a test wants to kill one.
            let group = match self.own_tunnels {
                true => format!("destination-{}", pod.name),
                false => "destination".to_owned(),
            };
            let at = (pod.address.ip(), pod.identity.as_path());
            groups.entry(group).or_default().push(at);
        }
        for (name, pods) in groups {
            let tunnel = DestinationTunnel {
                port: self.hbone_port,
                pods,
                streams_max: self.destination_streams_max,
            };
            let process = tunnel.start(&name, self.folder.path()).await;
            self.destinations.insert(name, process);
        }
    }

    /// Gives every pod a destination Envoy of its own.
    pub fn own_tunnels(&mut self) {
        self.own_tunnels = true;
    }

    /// Kills the destination Envoy of a pod that has its own.
    pub fn kill_tunnel(&mut self, pod: &str) {
        let killed = self.destinations.remove(&format!("destination-{pod}"));
        drop(killed.expect("own_tunnels() first"));
    }

    /// Cairn.
    pub fn cairn(&self) -> &Cairn {
        self.cairn.as_ref().expect("start() first")
    }

    /// Cairn, to signal it or wait for it.
    pub fn cairn_mut(&mut self) -> &mut Cairn {
        self.cairn.as_mut().expect("start() first")
    }

    /// Folder with the waypoint's certificate.
    pub fn waypoint_identity(&self) -> PathBuf {
        self.identities.folder_of("shop/waypoint")
    }

    /// An unused loopback address, for a client of the test's own.
    pub fn client_address(&self) -> IpAddr {
        self.network.address()
    }

    /// Starts a client pod of service account `workload` (`namespace/account`) with an entrance to
    /// every port of every service.
    pub async fn client(&self, workload: &str) -> Client {
        let authorities = self.services.iter().flat_map(|(name, service)| {
            service.ports.iter().map(move |port| {
                let authority = SocketAddr::new(service.address, port.number).to_string();
                ((name.clone(), port.number), authority)
            })
        });
        self.client_of(workload, self.cairn().hbone, "shop/waypoint", authorities)
            .await
    }

    /// Starts a client pod that tunnels to `next_hop`.
    pub async fn client_of(
        &self,
        workload: &str,
        next_hop: SocketAddr,
        next_hop_identity: &str,
        authorities: impl IntoIterator<Item = ((String, u16), String)>,
    ) -> Client {
        let address = self.network.address();
        let mut entrances = BTreeMap::new();
        let mut listeners = Vec::new();
        for (key, authority) in authorities {
            let listen = free_address(address);
            entrances.insert(key, listen);
            listeners.push(Entrance { listen, authority });
        }
        let tunnel = ClientTunnel {
            identity: &self.identities.folder_of(workload),
            source: address,
            waypoint: next_hop,
            waypoint_id: identity(next_hop_identity).to_string(),
            entrances: listeners,
        };
        let name = format!("client-{}", workload.replace('/', "-"));
        Client {
            envoy: tunnel.start(&name, self.folder.path()).await,
            address,
            entrances,
        }
    }

    /// HBONE address of a pod.
    pub fn pod_hbone(&self, name: &str) -> SocketAddr {
        let pod = self.pods.iter().find(|pod| pod.name == name);
        SocketAddr::new(pod.expect("a pod").address.ip(), self.hbone_port)
    }

    /// Rewrites the EndpointSlices and Pods of a service.
    fn write_endpoints(&self, service: &str) {
        let ports = &self.services[service].ports;
        let pods = self.pods.iter().filter(|pod| pod.service == service);
        let yaml: String = pods.map(|pod| manifests::pod(pod, ports)).collect();
        self.write(&format!("endpoints-{service}"), &yaml);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
