//! The proxies under test: one description of a mesh, configured for each, started and probed.
//! Puts no load on them.

pub mod cairn;
pub mod envoy;
pub mod mesh;
pub mod telling;

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::process::{Running, free_port};
use mesh::Mesh;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the variants are the products
pub enum Product {
    Envoy,
    Cairn,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Envoy => "envoy",
            Self::Cairn => "cairn",
        })
    }
}

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its worker threads.
    pub workers: usize,
    /// The processors it may use, as `taskset` takes them.
    pub cpus: Option<String>,
    /// Whether it logs each request (to nowhere).
    pub access_log: bool,
    /// More variables of its environment.
    pub variables: Vec<(String, String)>,
    /// Folder with the waypoint's certificate.
    pub identity_folder: PathBuf,
    /// Folder for its configuration and log; must exist.
    pub work_folder: PathBuf,
    /// Port of the destination tunnels.
    pub upstream_tunnel_port: u16,
}

/// A proxy that is ready.
pub struct Proxy {
    /// Which one.
    pub product: Product,
    /// Its process.
    pub process: Running,
    /// Where its tunnels end.
    pub tunnel: SocketAddr,
    /// Time from start to ready.
    pub start_up: Duration,
}

/// Addresses of a proxy, all on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    /// HBONE.
    pub tunnel: SocketAddr,
    /// Administration.
    pub admin: SocketAddr,
    /// Readiness (Cairn).
    pub ready: SocketAddr,
    /// Metrics (Cairn).
    pub metrics: SocketAddr,
}

impl Listeners {
    fn choose() -> anyhow::Result<Self> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = || Ok::<_, anyhow::Error>(SocketAddr::new(ip, free_port(ip)?));
        Ok(Self {
            tunnel: address()?,
            admin: address()?,
            ready: address()?,
            metrics: address()?,
        })
    }
}

/// How long a proxy may take to be ready, large configurations included.
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Proxy {
    /// Configures a proxy for a mesh, starts it and waits until it is ready.
    pub async fn start(product: Product, launch: &Launch, mesh: &Mesh) -> anyhow::Result<Self> {
        let listeners = Listeners::choose()?;
        let log_path = launch.work_folder.join(format!("{product}.log"));
        let log = File::create(&log_path).context("can not create the proxy's log")?;
        let arguments = match product {
            Product::Envoy => envoy::configure(launch, mesh, &listeners)?,
            Product::Cairn => cairn::configure(launch, mesh, &listeners)?,
        };
        let mut process = Running::start(&launch.program, launch.cpus.as_deref(), |command| {
            command.args(arguments).stderr(log);
            command.envs(launch.variables.iter().cloned());
        })?;
        let (address, path) = match product {
            Product::Envoy => (listeners.admin, "/ready"),
            Product::Cairn => (listeners.ready, "/healthz/ready"),
        };
        let start_up = process
            .ready(address, path, READY_WITHIN)
            .await
            .with_context(|| format!("{product} said:\n{}", last_lines(&log_path)))?;
        Ok(Self {
            product,
            process,
            tunnel: listeners.tunnel,
            start_up,
        })
    }
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(20);
    lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
}
