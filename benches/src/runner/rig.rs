//! What every part needs: certificates, the backend, and ways to start proxies and load.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tempfile::TempDir;

use super::options::{Options, cpus};
use crate::backend::Addresses;
use crate::cell::{self, Cell, Exchange, Mode};
use crate::load::{Order, Outcome};
use crate::pki::Authority;
use crate::process::Running;
use crate::proxy::mesh::{
    APP_ACCOUNT, CLIENT_ACCOUNT, Mesh, STRANGER_ACCOUNT, WAYPOINT_ACCOUNT, vip,
};
use crate::proxy::{Launch, Product, Proxy};

/// The set-up that lasts for a run.
pub struct Rig {
    /// What to measure.
    pub options: Options,
    /// Where the backend listens.
    pub backend: Addresses,
    _backend: Running,
    // Last, so that processes end before their files go.
    folder: TempDir,
}

impl Rig {
    /// Makes certificates and starts the backend.
    pub async fn new(options: Options) -> anyhow::Result<Self> {
        for &product in &options.products {
            let program = program(&options, product);
            ensure!(
                program.is_file(),
                "there is no {product} at {}; give its place with --{product}, or leave it out with --products",
                program.display()
            );
        }
        let folder = tempfile::tempdir().context("can not make a temporary folder")?;
        let authority = Authority::new()?;
        for account in [
            CLIENT_ACCOUNT,
            WAYPOINT_ACCOUNT,
            APP_ACCOUNT,
            STRANGER_ACCOUNT,
        ] {
            authority.write_identity(&folder.path().join(account), account)?;
        }
        let (backend, process) = start_backend(&options, &folder.path().join(APP_ACCOUNT))?;
        Ok(Self {
            options,
            backend,
            _backend: process,
            folder,
        })
    }

    /// A folder of this name for a proxy's files.
    pub fn work_folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Folder of a service account's certificate.
    pub fn identity_folder(&self, account: &str) -> PathBuf {
        self.folder.path().join(account)
    }

    /// How a proxy is started for this run.
    pub fn launch(&self, product: Product, work_folder: PathBuf) -> Launch {
        Launch {
            program: program(&self.options, product).to_owned(),
            workers: self.options.workers,
            cpus: cpus(&self.options.proxy_cpus).map(str::to_owned),
            access_log: self.options.access_log,
            variables: Vec::new(),
            manifest: None,
            identity_folder: self.identity_folder(WAYPOINT_ACCOUNT),
            work_folder,
            upstream_tunnel_port: self.backend.tunnel.port(),
        }
    }

    /// Starts every proxy of the run with the table's mesh and sees that each does its work.
    pub async fn start_all(&self) -> anyhow::Result<Vec<Proxy>> {
        let mesh = Mesh::of_table(&self.backend, !self.options.no_route);
        let mut proxies = Vec::new();
        for &product in &self.options.products {
            let folder = self.work_folder(&format!("table-{product}"))?;
            proxies.push(Proxy::start(product, &self.launch(product, folder), &mesh).await?);
        }
        Ok(proxies)
    }

    /// Sees that a proxy answers every exchange on both paths, and denies a stranger: a fast proxy
    /// that does less would win every cell.
    pub async fn verify(&self, proxy: &Proxy) -> anyhow::Result<()> {
        for path in [cell::Path::Plain, cell::Path::Hbone] {
            for &exchange in Exchange::value_variants() {
                let order = Order {
                    exchange,
                    authority: format!("{}:{}", vip(path), exchange.service_port()),
                    ..self.probe(proxy, path)
                };
                crate::load::once(&order).await.with_context(|| {
                    format!("{} does not do {exchange} over {path}", proxy.product)
                })?;
            }
            let stranger = Order {
                identity_folder: self.identity_folder(STRANGER_ACCOUNT),
                ..self.probe(proxy, path)
            };
            let answer = crate::load::once(&stranger).await;
            let denied = answer.is_err_and(|e| e.to_string() == "answered 403 Forbidden");
            ensure!(denied, "{} does not deny a stranger 403", proxy.product);
        }
        Ok(())
    }

    /// The order for a cell at a proxy.
    pub fn order(&self, proxy: &Proxy, cell: Cell) -> Order {
        Order {
            to: proxy.tunnel,
            authority: format!("{}:{}", vip(cell.path), cell.exchange.service_port()),
            identity_folder: self.identity_folder(CLIENT_ACCOUNT),
            exchange: cell.exchange,
            connections: cell.connections,
            lanes_per_connection: cell.lanes_per_connection(self.options.in_flight),
            mode: cell.mode,
            sheds: false,
            pace: self.options.pace(),
            measured: Some(proxy.process.id()),
        }
    }

    /// The order for one request, to see that a proxy works.
    pub fn probe(&self, proxy: &Proxy, path: cell::Path) -> Order {
        let cell = Cell {
            path,
            exchange: Exchange::Get1k,
            connections: 1,
            mode: Mode::Saturated,
        };
        self.order(proxy, cell)
    }

    /// Runs an order in a load process of its own, pinned, and waits for what came of it.
    pub async fn load(&self, order: &Order) -> anyhow::Result<Outcome> {
        let exe = std::env::current_exe()?;
        let mut load = Running::start(&exe, cpus(&self.options.load_cpus), |command| {
            command
                .args(crate::load::arguments(order))
                .stdout(Stdio::piped());
        })?;
        let latest = Instant::now() + order.pace.warm_up + order.pace.measure + LOAD_GRACE;
        let status = loop {
            if let Some(status) = load.child().try_wait()? {
                break status;
            }
            ensure!(Instant::now() < latest, "the load generator does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        if !status.success() {
            bail!("the load generator failed: {status}");
        }
        let mut text = String::new();
        let mut stdout = load.child().stdout.take().context("no output")?;
        stdout.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Beyond the cell itself: start, connecting, end.
const LOAD_GRACE: Duration = Duration::from_secs(30);

/// Where a proxy's program is.
pub fn program(options: &Options, product: Product) -> &Path {
    match product {
        Product::Envoy => &options.envoy,
        Product::Cairn => &options.cairn,
    }
}

fn start_backend(options: &Options, identity: &Path) -> anyhow::Result<(Addresses, Running)> {
    let exe = std::env::current_exe()?;
    let mut process = Running::start(&exe, cpus(&options.load_cpus), |command| {
        command
            .arg("backend")
            .arg("--identity-dir")
            .arg(identity)
            .stdout(Stdio::piped());
    })?;
    let stdout = process.child().stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let addresses = serde_json::from_str(&line).context("the backend did not start")?;
    Ok((addresses, process))
}
