//! One worker: one thread with a runtime of its own, its own listening socket, its own pools.
//! Workers share the configuration and nothing that changes with a request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::drain::{Drain, InFlight};
use crate::external::Clients;
use crate::jwks::Jwks;
use crate::listener::accept;
use crate::listener::admit::Refusal;
use crate::listener::steered::{self, PodListener};
use crate::names::Names;
use crate::node::Beat;
use crate::proxy::connector::Shared;
use crate::proxy::engine::Engine;
use crate::recheck::{self, Closing, Kept, Open, Registered};
use crate::runtime::Runtime;
use crate::telemetry;
use crate::tls::{Acceptor, IdentitySource};
use crate::upstream::tunnel_pool::FORGET_INTERVAL;
use crate::upstream::{Destination, Dialer, Egress};

/// What the tasks of one worker share.
pub struct Worker {
    /// The configuration in force.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// What is in flight in the whole process.
    pub in_flight: Arc<InFlight>,
    /// Whether the process is going away.
    pub drain: Drain,
    /// The local identity.
    pub identity: Arc<IdentitySource>,
    /// Keys that verify tokens.
    pub jwks: Arc<Jwks>,
    /// Addresses of endpoints that have names.
    pub names: Arc<Names>,
    /// Connections to authorization services.
    pub external: Clients,
    /// A denial says why in its body.
    pub explain_denials: bool,
    /// What is judged again when policy changes.
    pub open: Arc<Open>,
    engine: OnceLock<Engine>,
}

/// What a worker is made of.
pub struct Parts {
    /// The configuration in force.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// What is in flight in the whole process.
    pub in_flight: Arc<InFlight>,
    /// Whether the process is going away.
    pub drain: Drain,
    /// The local identity.
    pub identity: Arc<IdentitySource>,
    /// Keys that verify tokens.
    pub jwks: Arc<Jwks>,
    /// Addresses of endpoints that have names.
    pub names: Arc<Names>,
    /// A denial says why in its body.
    pub explain_denials: bool,
    /// Series are forgotten when nothing is counted in them for so long; `None`: never.
    pub metrics_idle: Option<Duration>,
    /// TLS for clients.
    pub acceptor: Acceptor,
    /// The worker's own socket.
    pub listener: std::net::TcpListener,
    /// The worker's own way to endpoints.
    pub dialer: Dialer,
    /// Version of the snapshot in force.
    pub version: watch::Receiver<u64>,
    /// Listeners of pods, as they are handed over.
    pub pods: mpsc::Receiver<PodListener>,
    /// Shows that the worker is alive.
    pub beat: Arc<Beat>,
}

impl Worker {
    /// Serves until the process ends, on the worker's own thread. `ready` is called once it does.
    ///
    /// # Errors
    /// When the engine can not be built.
    pub async fn run(parts: Parts, ready: impl FnOnce()) -> anyhow::Result<()> {
        let worker = Arc::new(Self {
            runtime: parts.runtime,
            in_flight: parts.in_flight,
            drain: parts.drain,
            identity: parts.identity,
            jwks: parts.jwks,
            names: parts.names,
            external: Clients::default(),
            explain_denials: parts.explain_denials,
            open: Arc::default(),
            engine: OnceLock::new(),
        });
        let connections = Shared::new(parts.dialer);
        let engine = Engine::start(&worker, connections).await?;
        if worker.engine.set(engine).is_err() {
            anyhow::bail!("the worker was started twice");
        }
        let listener = TcpListener::from_std(parts.listener)?;
        ready();
        tokio::join!(
            accept::run(listener, parts.acceptor, worker.clone()),
            steered::take(parts.pods, worker.clone()),
            parts.beat.keep(),
            recheck::follow(&worker, parts.version),
            sweep(&worker),
            async {
                if let Some(idle) = parts.metrics_idle {
                    telemetry::metrics::let_go(idle).await;
                }
            },
        );
        Ok(())
    }

    /// The HTTP engine. `None` before the worker listens.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// From now on it is judged again when policy changes. `judged`: version of the snapshot that
    /// allowed it; 0 for none.
    pub fn keep_judging(&self, kept: Kept, judged: u64, closing: Arc<Closing>) -> Registered {
        let runtime = self.runtime.load();
        self.open.register(kept, judged, closing, &runtime)
    }

    /// Counts a refused CONNECT.
    pub fn refused(&self, refusal: Refusal) {
        telemetry::counters::TUNNEL_REFUSED.inc(refusal.as_str());
    }

    /// Counts a client that did not get through the handshake.
    pub fn handshake_failed(&self, reason: &'static str) {
        telemetry::counters::HANDSHAKE_FAILED.inc(reason);
    }
}

/// Forgets connections to endpoints that are gone, and closes idle ones.
async fn sweep(worker: &Worker) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        let Some(engine) = worker.engine() else {
            continue;
        };
        let runtime = worker.runtime.load_full();
        let epoch = worker.identity.current().epoch;
        let alive: std::collections::HashSet<_> = runtime
            .clusters()
            .cloned()
            .chain(runtime.all_requested())
            .flat_map(|c| {
                c.endpoints()
                    .iter()
                    .map(|e| e.endpoint.address)
                    .collect::<Vec<_>>()
            })
            .collect();
        let is_alive = |destination: &Destination| {
            destination.epoch == epoch
                && destination.egress.as_ref().is_none_or(Egress::is_open)
                && (alive.contains(&destination.address) || runtime.knows(destination.address.ip()))
        };
        engine.connections().retain(is_alive);
        worker.external.retain(is_alive);
    }
}
