//! A waypoint is started: threads, listeners, what is followed. How it ends is in `running`, what operators have
//! of it in `operators`.

mod operators;
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::Options;
use cairn_config_schema::snapshot::{Locality, LogFormat};
use tokio::sync::{Notify, mpsc};

use self::operators::{admin_state, export, serve_operators};
use crate::admin::{self, NotReady};
use crate::drain::{Drain, InFlight};
use crate::hubble;
use crate::identity;
use crate::jwks;
use crate::limits::PODS_MAX;
use crate::listener::accept;
use crate::listener::admit::Refusal;
use crate::listener::steered::PodListener;
use crate::names;
use crate::node::Beat;
use crate::outliers;
use crate::proxy;
use crate::publish::{InForce, Publisher};
use crate::source;
use crate::telemetry::counters;
use crate::telemetry::otlp::environment::Environment;
use crate::telemetry::otlp::{self, Exports};
use crate::throttle;
use crate::tls::Acceptor;
use crate::upstream::Dialer;
use crate::worker::{self, Worker};

/// What a waypoint is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Files and folders of Kubernetes YAML.
    pub config: Vec<PathBuf>,
    /// The API server, whose objects count besides those of files; `None`: there are files alone.
    pub kube: Option<source::kube::Settings>,
    /// The network of this waypoint; `None`: the default one.
    pub network: Option<String>,
    /// Who tells of workloads of other clusters; `None`: nobody.
    pub discovery: Option<source::istiod::Asking>,
    /// The Gateway to serve; `None`: the only one there is.
    pub gateway: Option<ObjectKey>,
    /// Where the identity comes from.
    pub identity: identity::Source,
    /// Who this waypoint is meant to be.
    pub expected: identity::Expected,
    /// Where clients' tunnels arrive.
    pub hbone_addr: SocketAddr,
    /// Metrics, readiness and admin.
    pub addresses: admin::Addresses,
    /// Port on which endpoints listen for tunnels.
    pub upstream_hbone_port: u16,
    /// Threads that serve; at least one.
    pub workers: usize,
    /// In place of the trust domain of the ConfigMap `istio`.
    pub trust_domain: Option<String>,
    /// The end of Services' hostnames; `cluster.local` when absent.
    pub cluster_domain: Option<String>,
    /// Where this waypoint is.
    pub locality: Option<Locality>,
    /// Services with an L7 policy that is not enforced as it is written refuse traffic.
    pub strict: bool,
    /// Format of the access log, in place of that of the configuration.
    pub access_log_format: Option<LogFormat>,
    /// Keys of token issuers may come from loopback and link-local addresses, for labs.
    pub jwks_allow_local: bool,
    /// Who is asked for addresses of names.
    pub dns_servers: names::Servers,
    /// Names of endpoints may lead to loopback and link-local addresses, for labs.
    pub dns_allow_local: bool,
    /// A denial says why in its body.
    pub explain_denials: bool,
    /// Series of metrics are forgotten when nothing is counted in them for so long; `None`: never.
    pub metrics_idle: Option<Duration>,
    /// How long requests in flight may take to finish once the process is told to stop.
    pub drain: Duration,
    /// What the variables OTEL_* say.
    pub otel: Environment,
    /// Which exchanges are told of, to whom.
    pub flows: hubble::Settings,
    /// Sets the filter of the process's own log.
    pub set_log_filter: fn(&str) -> Result<(), String>,
}

/// A waypoint that serves.
pub struct Running {
    in_force: InForce,
    in_flight: Arc<InFlight>,
    drain: Drain,
    hbone_addr: SocketAddr,
    admin: admin::Server,
    hubble: Option<hubble::Server>,
    drain_deadline: Duration,
    reload: Arc<Notify>,
    stop: Arc<Notify>,
    sources: Sources,
    workers: Vec<WorkerThread>,
    _exports: Option<Exports>,
}

/// What the configuration is followed by.
struct Sources {
    files: source::Watch,
    _kube: Option<source::kube::Following>,
    _istiod: Option<source::istiod::Following>,
}

/// A worker as the rest of the process sees it.
pub struct WorkerThread {
    /// Takes the listeners of pods.
    pub pods: mpsc::Sender<PodListener>,
    /// Tells whether it is alive.
    pub beat: Arc<Beat>,
    _thread: JoinHandle<()>,
}

/// Starts a waypoint and returns once its configuration is in force and its sockets are open.
///
/// # Errors
/// When there is no identity to be had, an address not be opened or a thread not be started.
pub fn start(settings: Settings) -> anyhow::Result<Running> {
    // Before anything is compiled, for it says how requests are traced by default.
    otlp::prepare(&settings.otel);
    let in_force = InForce::default();
    let sources = follow(&settings, &in_force)?;
    let (in_flight, drain) = (Arc::<InFlight>::default(), Drain::default());
    let (stop, reload) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (admin, hubble) = serve_operators(&settings, &in_force, &stop)?;
    // Nobody is listened to before there is a certificate; operators are told meanwhile that there is none.
    let identity = identity::establish(identity::Following {
        source: settings.identity.clone(),
        expected: settings.expected.clone(),
        in_force: in_force.clone(),
        reload: reload.clone(),
        stop: stop.clone(),
    })?;
    let listeners = listen(settings.hbone_addr, settings.workers)?;
    let hbone_addr = listeners
        .first()
        .context("at least one worker is needed")?
        .local_addr()?;
    let bound = admin.addresses();
    let mut own = vec![hbone_addr, bound.metrics, bound.ready, bound.admin];
    own.extend(hubble.as_ref().map(hubble::Server::address));
    let own: Arc<[SocketAddr]> = own.into();

    let dialer = || {
        Dialer::new(
            identity.clone(),
            settings.upstream_hbone_port,
            own.clone(),
            in_force.originations.clone(),
        )
    };
    let scraped = admin_state(&settings, &in_force, &stop, None);
    let exports = export(&settings, &in_force, scraped, dialer())?;
    let mut workers = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let (pods, taken) = mpsc::channel(PODS_MAX as usize);
        let beat = Arc::<Beat>::default();
        let parts = worker::Parts {
            runtime: in_force.runtime.clone(),
            in_flight: in_flight.clone(),
            drain: drain.clone(),
            identity: identity.clone(),
            jwks: in_force.jwks.clone(),
            names: in_force.names.clone(),
            explain_denials: settings.explain_denials,
            metrics_idle: settings.metrics_idle,
            acceptor: Acceptor::new(&identity, in_force.mesh.clone())?,
            listener,
            version: in_force.version.subscribe(),
            dialer: dialer(),
            pods: taken,
            beat: beat.clone(),
        };
        workers.push(WorkerThread {
            pods,
            beat,
            _thread: spawn_worker(index, parts)?,
        });
    }
    in_force.readiness.remove(NotReady::NotListening);
    let flows = hubble.as_ref().map(|server| server.address().to_string());
    tracing::info!(hbone = %hbone_addr, metrics = %bound.metrics, ready = %bound.ready,
        admin = %bound.admin, hubble = flows.as_deref().unwrap_or("off"), workers = workers.len(), "serving");
    Ok(Running {
        in_force,
        in_flight,
        drain,
        hbone_addr,
        admin,
        hubble,
        drain_deadline: settings.drain,
        reload,
        stop,
        sources,
        workers,
        _exports: exports,
    })
}

/// Starts what follows the configuration and what it names.
fn follow(settings: &Settings, in_force: &InForce) -> anyhow::Result<Sources> {
    counters::TUNNEL_REFUSED.preset(Refusal::ALL.map(Refusal::as_str));
    counters::HANDSHAKE_FAILED.preset(accept::FAILURES);
    counters::CLOSED_BY_POLICY.preset(["tcp", "upgraded", "tunnel"]);
    proxy::preset_metrics();
    let sources = follow_config(settings, in_force)?;
    follow_keys(settings, in_force)?;
    follow_names(settings, in_force)?;
    outliers::start(in_force.runtime.clone()).context("start outlier detection")?;
    throttle::start(in_force.runtime.clone()).context("start the sweep of rate limits")?;
    Ok(sources)
}

fn listen(address: SocketAddr, workers: usize) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let listener =
            accept::listen(address).with_context(|| format!("open the tunnel port {address}"))?;
        // With port 0 the first socket gets a free port, and the others must share it.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn spawn_worker(index: usize, parts: worker::Parts) -> anyhow::Result<JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(anyhow::Error::from(error)))),
            };
            let ended = runtime.block_on(Worker::run(parts, || drop(ready.send(Ok(())))));
            if let Err(error) = ended {
                drop(ready.send(Err(error)));
            }
        })?;
    started.recv().context("the worker ended at once")??;
    Ok(thread)
}

fn follow_config(settings: &Settings, in_force: &InForce) -> anyhow::Result<Sources> {
    let options = Options {
        gateway: settings.gateway.clone(),
        trust_domain: settings.trust_domain.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        locality: settings.locality.clone(),
        strict: settings.strict,
        access_log_format: settings.access_log_format.clone(),
        network: settings.network.clone(),
        // As Kubernetes' downward API is usually spelled.
        node: std::env::var("NODE_NAME").ok(),
        ..Options::default()
    };
    let mut publisher = Publisher::new(options, in_force.clone());
    let mut files = source::Files::new(settings.config.clone());
    let noticed = Instant::now();
    files.refresh();
    let Some(kube) = settings.kube.clone() else {
        publisher.publish(files.sources(), noticed);
        let publisher = Arc::new(Mutex::new(publisher));
        let istiod = follow_istiod(settings, in_force, &publisher)?;
        let files = files.watch(move |sources| {
            let mut publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
            publisher.publish(sources, Instant::now());
        });
        return Ok(Sources {
            files: files.context("watch the configuration")?,
            _kube: None,
            _istiod: istiod,
        });
    };
    let mut beside = source::Beside::default();
    let gone = beside.gone(files.sources());
    publisher.take(files.sources(), &gone);
    let publisher = Arc::new(Mutex::new(publisher));
    let readiness = in_force.readiness.clone();
    let gateway = settings.gateway.clone();
    let following = source::kube::follow(kube, gateway, publisher.clone(), readiness.clone())
        .context("follow the API server")?;
    // After it: what istiod tells must not put in force what is there without the API server's objects.
    let istiod = follow_istiod(settings, in_force, &publisher)?;
    let files = files.watch(move |sources| {
        let gone = beside.gone(sources);
        let mut publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the objects of the API server these would be half a configuration.
        match readiness.reasons().contains(&NotReady::NotSynced) {
            true => publisher.take(sources, &gone),
            false => publisher.change(sources, &gone, Instant::now()),
        }
    });
    Ok(Sources {
        files: files.context("watch the configuration")?,
        _kube: Some(following),
        _istiod: istiod,
    })
}

/// Has istiod tell of workloads, if that is wanted.
fn follow_istiod(
    settings: &Settings,
    in_force: &InForce,
    publisher: &Arc<Mutex<Publisher>>,
) -> anyhow::Result<Option<source::istiod::Following>> {
    let Some(asking) = settings.discovery.clone() else {
        return Ok(None);
    };
    let readiness = in_force.readiness.clone();
    let following = source::istiod::follow(asking, publisher.clone(), readiness);
    following.map(Some).context("follow istiod")
}

/// Fetches the keys that the configuration in force names, from now on.
fn follow_keys(settings: &Settings, in_force: &InForce) -> anyhow::Result<()> {
    counters::TLS_FILES.preset(["success", "failure"]);
    counters::JWKS_FETCHES.preset(["success", "failure"]);
    let runtime = in_force.runtime.clone();
    jwks::start(
        in_force.jwks.clone(),
        settings.jwks_allow_local,
        in_force.version.subscribe(),
        move || runtime.load().snapshot.clone(),
    )
    .context("start fetching keys")
}

fn follow_names(settings: &Settings, in_force: &InForce) -> anyhow::Result<()> {
    names::start(names::Following {
        names: in_force.names.clone(),
        servers: settings.dns_servers.clone(),
        allow_local: settings.dns_allow_local,
        runtime: in_force.runtime.clone(),
        version: in_force.version.subscribe(),
    })
    .context("start looking names up")
}
