//! The demo's mesh while it runs: its folder, its pods, its waypoint, its clients. It asks nothing by
//! itself; see `tour`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cairn_config_schema::identity::Identity;

use super::app::App;
use super::destination::DestinationTunnel;
use crate::client::{ClientError, HttpClient, Tunnel};
use crate::hubble;
use crate::identity;
use crate::names::Servers;
use crate::telemetry::otlp::environment::Environment;
use crate::tls::{IdentityFiles, LocalIdentity};
use crate::tunnel_stream::TunnelStream;
use crate::{admin, log, pki, run};

const MESH: &str = include_str!("mesh.yaml");

/// The policies as they are at first.
pub(super) const POLICIES: &str = include_str!("policies.yaml");

/// Whose tokens are taken; `KEYS` stands for the public key of the demo's issuer.
const TOKENS: &str = include_str!("tokens.yaml");

/// Certificates of the demo; it is over long before.
const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long requests in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// How often another port is tried for the tunnels, which must have the same on every address.
const PORT_TRIES_MAX: usize = 50;

/// What the pods are, by name.
const PODS: [(&str, Ipv4Addr, Kind); 4] = [
    ("web-v1-a", Ipv4Addr::new(127, 10, 0, 1), Kind::Hbone("web")),
    ("web-v1-b", Ipv4Addr::new(127, 10, 0, 2), Kind::Hbone("web")),
    ("web-v2", Ipv4Addr::new(127, 10, 0, 3), Kind::Plain),
    ("db", Ipv4Addr::new(127, 10, 0, 4), Kind::Tcp("db")),
];

/// What a pod runs, and the service account of its tunnel.
#[derive(Clone, Copy)]
enum Kind {
    Hbone(&'static str),
    Plain,
    Tcp(&'static str),
}

impl Kind {
    fn account(self) -> Option<&'static str> {
        match self {
            Self::Hbone(account) | Self::Tcp(account) => Some(account),
            Self::Plain => None,
        }
    }
}

/// A pod: its application and the tunnel in front of it.
struct Pod {
    app: App,
    _tunnel: Option<DestinationTunnel>,
}

/// A mesh that runs until it is dropped.
pub struct Lab {
    pods: BTreeMap<&'static str, Pod>,
    ports: BTreeMap<&'static str, u16>,
    tunnel_port: u16,
    authority: pki::Folder,
    /// Signs the tokens that the mesh takes.
    pub issuer: pki::Issuer,
    /// The waypoint.
    pub waypoint: run::Running,
    // Last, for what is above uses its files.
    folder: Folder,
}

/// A folder that goes with the lab; it holds private keys, so nobody else may look into it.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let name = format!(
            "cairn-demo-{}-{:04x}",
            std::process::id(),
            fastrand::u16(..)
        );
        let path = std::env::temp_dir().join(name);
        // Fails if it exists, also as somebody else's symlink.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing could be done about it at the end.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    /// Starts everything: certificates, pods, waypoint.
    ///
    /// # Errors
    /// When a folder, a socket or a certificate can not be had; above all when 127.10.0.0/16 is not on
    /// loopback, as it is on Linux.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = Folder::create().context("create the demo's folder")?;
        let authority = pki::Folder::open_or_create(&folder.0.join("pki"), VALIDITY)?;
        for (namespace, account) in [
            ("shop", "waypoint"),
            ("shop", "web"),
            ("shop", "db"),
            ("shop", "frontend"),
            ("guest", "visitor"),
        ] {
            authority.issue(&workload(namespace, account)?, VALIDITY)?;
        }
        let (pods, tunnel_port) = start_pods(&folder.0).await?;
        let ports: BTreeMap<_, _> = pods
            .iter()
            .map(|(name, pod)| (*name, pod.app.address().port()))
            .collect();
        let config = folder.0.join("mesh");
        fs::create_dir(&config)?;
        fs::write(config.join("mesh.yaml"), mesh_yaml(&ports))?;
        fs::write(config.join("policies.yaml"), POLICIES)?;
        let issuer = pki::Issuer::new()?;
        let tokens = TOKENS.replacen("KEYS", issuer.jwks(), 1);
        fs::write(config.join("tokens.yaml"), tokens)?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let waypoint = run::start(run::Settings {
            kube: None,
            discovery: None,
            config: vec![config],
            gateway: None,
            identity: identity::Source::Files(IdentityFiles {
                dir: folder.0.join("pki/shop/waypoint"),
            }),
            expected: identity::Expected::default(),
            hbone_addr: any,
            addresses: admin::Addresses {
                metrics: any,
                ready: any,
                admin: any,
            },
            upstream_hbone_port: tunnel_port,
            workers: 1,
            trust_domain: None,
            cluster_domain: None,
            locality: None,
            strict: false,
            access_log_format: None,
            network: None,
            jwks_allow_local: true,
            dns_servers: Servers::System,
            dns_allow_local: true,
            explain_denials: false,
            metrics_idle: None,
            // What the tour prints is all there is of it.
            otel: Environment {
                disabled: true,
                ..Environment::default()
            },
            drain: DRAIN,
            flows: hubble::Settings {
                address: Some(any),
                ..hubble::Settings::default()
            },
            set_log_filter: log::set_filter,
        })?;
        Ok(Self {
            pods,
            ports,
            tunnel_port,
            authority,
            issuer,
            waypoint,
            folder,
        })
    }

    /// The folder of everything: `mesh/` the configuration, `pki/` the certificates.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// A client with an identity of the mesh.
    ///
    /// # Errors
    /// When it has no certificate or the waypoint can not be reached.
    pub async fn client(&self, namespace: &str, account: &str) -> anyhow::Result<Client> {
        let dir = self.folder.0.join("pki").join(namespace).join(account);
        let local = Arc::new(LocalIdentity::load(&IdentityFiles { dir }, 1)?);
        let waypoint = workload("shop", "waypoint")?;
        let via = self.waypoint.hbone_addr();
        let tunnel = Tunnel::connect(via, local, Some(&waypoint)).await?;
        Ok(Client {
            name: format!("{namespace}/{account}"),
            tunnel,
        })
    }

    /// Connects with a certificate of the same authority, but of another trust domain, and opens a
    /// stream.
    ///
    /// # Errors
    /// That is what should come: [`ClientError`].
    pub async fn stranger(&self, authority: &str) -> anyhow::Result<Result<(), ClientError>> {
        let identity = Identity::of_workload("elsewhere.example", "shop", "frontend")?;
        let dir = self.folder.0.join("stranger");
        let issued = self.authority.authority().issue(&identity, VALIDITY)?;
        pki::write_identity(&dir, &issued)?;
        let local = Arc::new(LocalIdentity::load(&IdentityFiles { dir }, 1)?);
        let via = self.waypoint.hbone_addr();
        let opened = match Tunnel::connect(via, local, None).await {
            Ok(tunnel) => tunnel.open(authority).await.map(drop),
            Err(error) => Err(error),
        };
        Ok(opened)
    }

    /// Kills a pod: its connections are cut, nothing listens any more.
    pub fn kill(&mut self, pod: &str) {
        self.pods.remove(pod);
    }

    /// Starts a pod that was killed, at its old address.
    ///
    /// # Errors
    /// When there is no such pod, or its ports have been taken.
    pub async fn revive(&mut self, pod: &str) -> anyhow::Result<()> {
        let (name, ip, kind) = PODS
            .into_iter()
            .find(|(name, ..)| *name == pod)
            .with_context(|| format!("there is no pod {pod}"))?;
        let port = self.ports.get(name).copied().unwrap_or(0);
        let pki = self.folder.0.join("pki");
        let revived = start_pod(name, ip, kind, port, self.tunnel_port, &pki).await?;
        self.pods.insert(name, revived);
        Ok(())
    }

    /// Saves the policies as an editor does: a new file renamed over the old.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn save_policies(&self, yaml: &str) -> io::Result<()> {
        let file = self.folder.0.join("mesh/policies.yaml");
        let beside = file.with_extension("yaml.new");
        fs::write(&beside, yaml)?;
        fs::rename(beside, file)
    }

    /// Version of the configuration in force.
    pub fn version(&self) -> u64 {
        self.waypoint.in_force().runtime.load().snapshot.version
    }
}

fn workload(namespace: &str, account: &str) -> anyhow::Result<Identity> {
    Ok(Identity::of_workload("cluster.local", namespace, account)?)
}

fn mesh_yaml(ports: &BTreeMap<&str, u16>) -> String {
    let mut yaml = MESH.to_owned();
    for (pod, port) in ports {
        yaml = yaml.replace(&format!("@{pod}@"), &port.to_string());
    }
    yaml
}

/// Starts every pod. Their tunnels listen on the same port of different addresses, as on nodes.
async fn start_pods(folder: &Path) -> anyhow::Result<(BTreeMap<&'static str, Pod>, u16)> {
    let pki = folder.join("pki");
    for _ in 0..PORT_TRIES_MAX {
        // A port that is free on the first address is most likely free on the others.
        let free = std::net::TcpListener::bind((Ipv4Addr::new(127, 10, 0, 1), 0))
            .context("listen on 127.10.0.1")?;
        let tunnel_port = free.local_addr()?.port();
        drop(free);
        let mut pods = BTreeMap::new();
        for (name, ip, kind) in PODS {
            match start_pod(name, ip, kind, 0, tunnel_port, &pki).await {
                Ok(pod) => pods.insert(name, pod),
                Err(error) if is_taken(&error) => break,
                Err(error) => return Err(error.context(format!("start pod {name}"))),
            };
        }
        if pods.len() == PODS.len() {
            return Ok((pods, tunnel_port));
        }
    }
    bail!("no port is free on all of 127.10.0.1 to 127.10.0.4")
}

fn is_taken(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::AddrInUse)
}

async fn start_pod(
    name: &str,
    ip: Ipv4Addr,
    kind: Kind,
    port: u16,
    tunnel_port: u16,
    pki: &Path,
) -> anyhow::Result<Pod> {
    let ip = IpAddr::V4(ip);
    let address = SocketAddr::new(ip, port);
    let app = match kind {
        // What answers is the version, whichever pod it is.
        Kind::Hbone(_) => {
            App::http(address, name.trim_end_matches("-a").trim_end_matches("-b")).await?
        }
        Kind::Plain => App::http(address, name).await?,
        Kind::Tcp(_) => App::tcp(address, name).await?,
    };
    let tunnel = match kind.account() {
        None => None,
        Some(account) => {
            let identity = pki.join("shop").join(account);
            let address = SocketAddr::new(ip, tunnel_port);
            Some(DestinationTunnel::start(address, &identity).await?)
        }
    };
    Ok(Pod {
        app,
        _tunnel: tunnel,
    })
}

/// A client with its tunnel to the waypoint.
pub struct Client {
    /// `namespace/service account`.
    pub name: String,
    tunnel: Tunnel,
}

impl Client {
    /// A stream to `authority`.
    ///
    /// # Errors
    /// [`ClientError`], above all `Refused`.
    pub async fn open(&self, authority: &str) -> Result<TunnelStream, ClientError> {
        self.tunnel.open(authority).await
    }

    /// HTTP over a stream to `authority`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn http(&self, authority: &str, http2: bool) -> Result<HttpClient, ClientError> {
        HttpClient::over(self.open(authority).await?, http2).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_mesh_belongs_to_a_pod() {
        let ports = PODS.iter().map(|(name, ..)| (*name, 1)).collect();
        assert!(!mesh_yaml(&ports).contains(": @"));
    }
}
