//! The thread that exports: takes what the workers queued, shares it out among lanes, ends in good order.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::Collector;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::endpoint::{Destination, Signal};
use super::environment::{Batching, Environment};
use super::export::Exporter;
use super::lane::Lane;
use super::metrics::{self, Scrape};
use super::process::Process;
use super::queue::{self, Ended};
use super::transport::{Mesh, Transport, Way};
use crate::limits::{OTLP_FLUSH_TIMEOUT, OTLP_GATHER_INTERVAL, OTLP_RECEIVERS_MAX};
use crate::runtime::Runtime;
use crate::telemetry::counters;
use crate::telemetry::trace;
use crate::telemetry::trace::sampler::Sampler;
use crate::telemetry::trace::settings::{Receiver, Tracing};
use crate::upstream::Dialer;

/// How often metrics are exported, as the specification has it.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// Records taken out of the queue at once.
const GATHERED: usize = 512;

/// What exporting needs of the rest of the process.
pub struct Parts {
    /// What the variables say.
    pub environment: Environment,
    /// This process.
    pub process: Process,
    /// The way to receivers in the mesh.
    pub dialer: Dialer,
    /// The configuration in force, which says where those are.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// Makes a scrape.
    pub scrape: Box<dyn Fn() -> crate::telemetry::exposition::Exposition + Send + Sync>,
}

/// Exports while it lives; what is left is sent when it is dropped, for as long as the limit allows.
pub struct Exports {
    closing: watch::Sender<bool>,
    done: blocking::Receiver<()>,
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        // Ended or not in time: there is nothing more to do about it.
        let _ = self.done.recv_timeout(OTLP_FLUSH_TIMEOUT);
    }
}

/// Says how requests are traced for which the configuration names nobody. To be called before the first
/// configuration is in force.
pub fn prepare(environment: &Environment) {
    if environment.traces.is_some() {
        trace::set_default(of_environment(environment));
    }
}

/// Starts exporting. `None`: it is forbidden, or was started before.
///
/// # Errors
/// When the thread can not be started.
pub fn start(parts: Parts) -> std::io::Result<Option<Exports>> {
    let environment = &parts.environment;
    for warning in &environment.warnings {
        tracing::warn!("{warning}");
    }
    if environment.disabled {
        return Ok(None);
    }
    let signals = [Signal::Traces, Signal::Logs, Signal::Metrics].map(Signal::as_str);
    for counter in [
        &counters::OTLP_EXPORTED,
        &counters::OTLP_DROPPED,
        &counters::OTLP_FAILED,
    ] {
        counter.preset(signals);
    }
    let logs = environment.logs.is_some();
    let Some(records) = queue::open(environment.spans.queue_max, logs) else {
        return Ok(None);
    };
    if let Some(to) = &environment.traces {
        tracing::info!(receiver = ?to, "traces are exported");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (closing, closes) = watch::channel(false);
    let (ended, done) = blocking::channel();
    let thread = std::thread::Builder::new().name("otlp".to_owned());
    thread.spawn(move || {
        runtime.block_on(run(parts, records, closes));
        // Nobody listens any more if it took too long.
        let _ = ended.send(());
    })?;
    Ok(Some(Exports { closing, done }))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How requests are traced for which the configuration names nobody. Every trace without a decision of the
/// client's is kept, as the specification has it, unless the variables say otherwise.
fn of_environment(environment: &Environment) -> Tracing {
    Tracing {
        sampler: environment.sampler.unwrap_or(Sampler::parent_or(1.0)),
        propagation: environment.propagation.unwrap_or_default(),
        tags: Vec::new(),
        reports: true,
        istio_tags: true,
        receiver: Receiver::Environment,
    }
}

async fn run(
    parts: Parts,
    mut records: mpsc::Receiver<Arc<Ended>>,
    mut closes: watch::Receiver<bool>,
) {
    let mesh = Mesh {
        dialer: parts.dialer,
        runtime: parts.runtime,
    };
    let environment = parts.environment;
    let mut lanes = Lanes {
        open: Vec::new(),
        process: Arc::new(parts.process),
        mesh: Arc::new(mesh),
        closing: closes.clone(),
        environment,
    };
    let metrics = lanes.metrics(parts.scrape);
    let mut gathered = Vec::with_capacity(GATHERED);
    loop {
        tokio::select! {
            taken = records.recv_many(&mut gathered, GATHERED) => if taken == 0 { break },
            // Once it is closed, what is in it is still received.
            _ = closes.changed() => records.close(),
        }
        for ended in gathered.drain(..) {
            lanes.offer(&ended);
        }
        if records.is_empty() && !*closes.borrow() {
            // A worker wakes this thread at most so often, and not with each request.
            tokio::select! {
                () = tokio::time::sleep(OTLP_GATHER_INTERVAL) => {}
                _ = closes.changed() => records.close(),
            }
        }
    }
    for task in lanes.close().into_iter().chain(metrics) {
        // A task that panicked has nothing left to send.
        let _ = task.await;
    }
}

/// The lanes that are open.
struct Lanes {
    open: Vec<((Signal, Receiver), Lane)>,
    process: Arc<Process>,
    mesh: Arc<Mesh>,
    closing: watch::Receiver<bool>,
    environment: Environment,
}

impl Lanes {
    fn offer(&mut self, ended: &Arc<Ended>) {
        if let Some(recording) = ended.exchange.trace.recording() {
            self.offer_to(Signal::Traces, &recording.tracing.receiver, ended);
        }
        if self.environment.logs.is_some() {
            self.offer_to(Signal::Logs, &Receiver::Environment, ended);
        }
        for line in &ended.lines {
            self.offer_to(Signal::Logs, &Receiver::Log(line.to.clone()), ended);
        }
    }

    fn offer_to(&mut self, signal: Signal, receiver: &Receiver, ended: &Arc<Ended>) {
        let is_it = |((s, r), _): &((Signal, Receiver), Lane)| *s == signal && r == receiver;
        if !self.open.iter().any(is_it) {
            if self.open.len() >= OTLP_RECEIVERS_MAX {
                self.open.retain(|(_, lane)| !lane.is_idle());
            }
            if let Some(lane) = self.lane(signal, receiver) {
                self.open.push(((signal, receiver.clone()), lane));
            }
        }
        match self.open.iter().find(|lane| is_it(lane)) {
            Some((_, lane)) => lane.offer(ended),
            None => counters::OTLP_DROPPED.inc(signal.as_str()),
        }
    }

    fn lane(&self, signal: Signal, receiver: &Receiver) -> Option<Lane> {
        if self.open.len() >= OTLP_RECEIVERS_MAX {
            return None;
        }
        let exporter = self.exporter(signal, receiver)?;
        let process = self.process.clone();
        let batching = self.batching(signal);
        let of = (signal, receiver.clone());
        Some(Lane::start(of, batching, exporter, process))
    }

    fn batching(&self, signal: Signal) -> Batching {
        match signal {
            Signal::Traces => self.environment.spans,
            Signal::Logs | Signal::Metrics => self.environment.records,
        }
    }

    fn exporter(&self, signal: Signal, receiver: &Receiver) -> Option<Exporter> {
        let (to, way) = match receiver {
            Receiver::Environment => (self.destination(signal)?, Way::Outside),
            Receiver::Collector(collector) => self.in_mesh(collector),
            Receiver::Log(log) => self.in_mesh(&log.collector),
        };
        let transport = Transport::new(signal, to, way);
        Some(Exporter::new(signal, transport, self.closing.clone()))
    }

    fn in_mesh(&self, collector: &Collector) -> (Destination, Way) {
        let way = Way::Mesh(collector.cluster.clone(), self.mesh.clone());
        (Destination::of_collector(collector, variable), way)
    }

    fn destination(&self, signal: Signal) -> Option<Destination> {
        match signal {
            Signal::Traces => self.environment.traces.clone(),
            Signal::Logs => self.environment.logs.clone(),
            Signal::Metrics => self.environment.metrics.clone(),
        }
    }

    /// The task that exports metrics, if anybody wants them.
    fn metrics(&self, scrape: Scrape) -> Option<JoinHandle<()>> {
        let exporter = self.exporter(Signal::Metrics, &Receiver::Environment)?;
        let every = self.environment.metric_interval.unwrap_or(METRIC_INTERVAL);
        let (process, closing) = (self.process.clone(), self.closing.clone());
        Some(tokio::spawn(metrics::run(
            scrape, every, exporter, process, closing,
        )))
    }

    fn close(self) -> Vec<JoinHandle<()>> {
        let lanes = self.open.into_iter();
        lanes.map(|(_, lane)| lane.close()).collect()
    }
}
