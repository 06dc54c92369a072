//! `cairn run` on the files of a case, with every pod address moved to loopback and an echo on each.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::app::App;
use cairn_conformance::cairn::Cairn;
use cairn_conformance::golden::engine::Judged;
use cairn_conformance::golden::format::{Ask, Stage};
use cairn_conformance::golden::mesh::{Mesh, files};
use cairn_conformance::hbone::{Refused, Tls, Tunnel};
use cairn_conformance::identities::{DAY, Identities};
use cairn_conformance::net::Subnet;
use cairn_conformance::process;
use cairn_waypoint::pki::Leaf;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::observe::{Observed, parse};

/// The blocks that pods of the cases are in: 10.0.0.0/16 and 10.244.0.0/16.
const PODS: [&str; 2] = ["10.0.", "10.244."];

/// First two bytes of the loopback block that stands for one of [`PODS`].
fn block(index: usize) -> String {
    let first = std::process::id() as usize % 100;
    format!("127.{}.", 50 + 2 * first + index)
}

/// Moves the pods of a text to loopback.
pub fn on_loopback(text: &str) -> String {
    let pods = PODS.iter().enumerate();
    pods.fold(text.to_owned(), |text, (index, pods)| {
        text.replace(pods, &block(index))
    })
}

/// Moves what an ask dials and where it comes from to loopback, as far as they are pods.
pub fn on_loopback_ask(ask: Ask) -> Ask {
    Ask {
        to: ask.to.as_deref().map(on_loopback),
        ip: ask.ip.as_deref().map(on_loopback),
        ..ask
    }
}

/// An echo on every endpoint, kept from case to case.
#[derive(Default)]
pub struct Apps {
    running: HashMap<SocketAddr, App>,
}

impl Apps {
    /// Starts those that are missing. An application is called by its address.
    pub fn start(&mut self, snapshot: &Snapshot) {
        let endpoints = snapshot.clusters.values().flat_map(|list| list.iter());
        for address in endpoints.map(|endpoint| endpoint.address) {
            if address.ip().is_loopback() && address.port() >= 1024 {
                self.running
                    .entry(address)
                    .or_insert_with(|| App::http(&address.to_string(), address));
            }
        }
    }

    /// Whether an application is there.
    pub fn is_running(&self, address: &SocketAddr) -> bool {
        self.running.contains_key(address)
    }
}

/// One case as its stages go by.
pub struct Replay {
    // The process first, so that its output is there when a failure shows it.
    cairn: Option<Cairn>,
    folder: TempDir,
    identities: Identities,
    subnet: Subnet,
    source: IpAddr,
    mesh: Mesh,
    gateway: Option<String>,
    /// By peer and address.
    tunnels: HashMap<(String, IpAddr), Tunnel>,
    asked: u32,
}

impl Default for Replay {
    fn default() -> Self {
        let folder = TempDir::with_prefix("cairn-replay-").unwrap();
        let subnet = Subnet::new();
        Self {
            identities: Identities::new(&folder.path().join("identities")),
            source: subnet.address(),
            subnet,
            folder,
            mesh: Mesh::default(),
            cairn: None,
            gateway: None,
            tunnels: HashMap::new(),
            asked: 0,
        }
    }
}

impl Replay {
    /// Puts the files of a stage in force and gives the snapshot that the engine makes of them.
    pub async fn stage(&mut self, case: &Path, stage: &Stage) -> Snapshot {
        let files: Vec<_> = files(case, stage)
            .into_iter()
            .map(|(name, text)| (name, on_loopback(&text)))
            .collect();
        let config = self.config();
        std::fs::create_dir_all(&config).unwrap();
        // A Gateway's name is a flag: another one is another process.
        let restart = stage.fresh || self.cairn.is_none() || self.gateway != stage.gateway;
        if restart {
            self.cairn = None;
            self.tunnels.clear();
        }
        let before = self.version().await;
        for (name, text) in &files {
            let new = config.join(format!(".{name}.new"));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, config.join(name)).unwrap();
        }
        self.gateway.clone_from(&stage.gateway);
        if restart {
            self.start().await;
        } else {
            process::until("the edit is in force", async || {
                self.version().await > before
            })
            .await;
        }
        self.mesh.load_files(stage, &files)
    }

    async fn start(&mut self) {
        let flags: Vec<&str> = match &self.gateway {
            Some(gateway) => vec!["--gateway", gateway],
            None => Vec::new(),
        };
        let identity = self.identities.folder_of("shop/waypoint");
        let cairn = Cairn::start_unready(
            self.subnet.address(),
            &self.config(),
            &identity,
            15008,
            &flags,
            self.folder.path(),
        )
        .await;
        self.cairn = Some(cairn);
    }

    async fn version(&self) -> f64 {
        match &self.cairn {
            Some(cairn) => cairn.metric("cairn_snapshot_version", &[]).await,
            None => 0.0,
        }
    }

    /// Folder of the configuration.
    pub fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("config")
    }

    /// `--gateway` of the stage.
    pub fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    /// Address that an ask comes from: its own, or that of this run.
    pub fn source(&self, ask: &Ask) -> IpAddr {
        let own = ask.ip.as_ref().map(|ip| ip.parse().unwrap());
        own.unwrap_or(self.source)
    }

    /// Sends one ask through a tunnel of its peer.
    pub async fn ask(&mut self, snapshot: &Snapshot, ask: &Ask) -> Observed {
        self.asked += 1;
        let source = self.source(ask);
        let peer = (ask.peer().to_string(), source);
        if !self.tunnels.contains_key(&peer) {
            let leaf = Leaf {
                uris: vec![peer.0.clone()],
                ..Leaf::of(&ask.peer(), DAY)
            };
            let issued = self.identities.issue_leaf(&leaf);
            let tls = Tls::with(issued.cert_chain_pem, issued.key_pem);
            let hbone = self.cairn.as_ref().unwrap().hbone;
            match Tunnel::connect(&tls, hbone, source).await {
                Ok(tunnel) => self.tunnels.insert(peer.clone(), tunnel),
                Err(error) => return Observed::NoTunnel(error),
            };
        }
        let tunnel = self.tunnels.get_mut(&peer).unwrap();
        let mut stream = match tunnel.open(&dialled(snapshot, ask)).await {
            Ok(stream) => stream,
            Err(Refused::Status(status)) => return Observed::Refused(status),
            // TLS 1.3 tells of a refused certificate only now.
            Err(Refused::Reset(error)) => return Observed::NoTunnel(error.to_string()),
        };
        if ask.is_tcp() {
            return Observed::Accepted;
        }
        let own = ask.header_map().get("x-request-id").cloned();
        let request_id = own.map_or_else(
            || format!("replay-{}", self.asked),
            |id| id.to_str().unwrap().to_owned(),
        );
        stream.write_all(&request(ask, &request_id)).await.unwrap();
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(n) = stream.read(&mut chunk).await {
            if n == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..n]);
        }
        parse(&bytes, request_id)
    }

    /// Compares the access log with what was asked in this stage.
    pub async fn compare_log(&self, asked: Vec<(Ask, Judged, Option<String>)>) -> Vec<String> {
        let mut wrong = Vec::new();
        let cairn = self.cairn.as_ref().unwrap();
        for (ask, judged, request_id) in asked {
            let Some(request_id) = request_id else {
                continue;
            };
            let is_it = |line: &Value| match &line["request_id"] {
                // Refused before its headers were read into fields.
                Value::Null => line["response_code_details"] == judged.details.as_str(),
                id => id == request_id.as_str(),
            };
            let what = format!("{} -> {} {}", ask.shown(), judged.answer, judged.details);
            let line = cairn.logged(&what, is_it).await;
            for difference in crate::compare_line(&judged, &line) {
                wrong.push(format!("{}: {difference}", ask.shown()));
            }
        }
        wrong
    }
}

/// The authority of the CONNECT: the virtual IP where the ask names a service that has one.
fn dialled(snapshot: &Snapshot, ask: &Ask) -> String {
    let to = ask.to();
    if to.parse::<SocketAddr>().is_ok() {
        return to.to_owned();
    }
    let (host, port) = to.rsplit_once(':').unwrap();
    let (name, namespace) = host.split_once('.').unwrap();
    let key = cairn_config_schema::origin::ObjectKey::new(namespace, name);
    match snapshot
        .services
        .get(&key)
        .and_then(|s| s.addresses.first())
    {
        Some(ip) => SocketAddr::new(*ip, port.parse().unwrap()).to_string(),
        None => format!("{name}.{namespace}.svc.cluster.local:{port}"),
    }
}

/// The bytes of a request, its target as written.
fn request(ask: &Ask, request_id: &str) -> Vec<u8> {
    let (method, target) = ask.method_and_target();
    let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    let headers = ask.header_map();
    for (name, value) in &headers {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    if !headers.contains_key("x-request-id") {
        head += &format!("x-request-id: {request_id}\r\n");
    }
    (head + "\r\n").into_bytes()
}
