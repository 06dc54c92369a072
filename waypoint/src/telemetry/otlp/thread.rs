//! The thread that exports: takes what the workers wrote, shares it out among lanes, ends in good order.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::Collector;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use super::endpoint::{Destination, Signal};
use super::entries;
use super::environment::Environment;
use super::export::Exporter;
use super::lane::Lane;
use super::metrics::{self, Scrape};
use super::process::Process;
use super::queue::{self, Batch, Channel, Queue};
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

/// [`Parts`], without what the workers need too.
struct Running {
    environment: Environment,
    dialer: Dialer,
    runtime: Arc<ArcSwap<Runtime>>,
    scrape: Scrape,
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
    if environment.disabled {
        trace::disable();
    } else if environment.traces.is_some() {
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
    counters::OTLP_STREAMED.preset([Signal::Logs.as_str()]);
    let logs = environment.logs.is_some();
    let batching = [environment.spans, environment.records];
    let Some(queue) = queue::open(Queue::new(parts.process, batching, logs)) else {
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
    let parts = Running {
        environment: parts.environment,
        dialer: parts.dialer,
        runtime: parts.runtime,
        scrape: parts.scrape,
    };
    thread.spawn(move || {
        runtime.block_on(run(parts, queue, closes));
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

async fn run(parts: Running, queue: Arc<Queue>, mut closes: watch::Receiver<bool>) {
    let mesh = Mesh {
        dialer: parts.dialer,
        runtime: parts.runtime,
    };
    let mut lanes = Lanes {
        open: Vec::new(),
        queue: queue.clone(),
        mesh: Arc::new(mesh),
        closing: closes.clone(),
        environment: parts.environment,
    };
    let metrics = lanes.metrics(parts.scrape);
    loop {
        let next = lanes.take();
        // A worker wakes this thread at most so often, and not with each request.
        tokio::select! {
            () = sleep(OTLP_GATHER_INTERVAL) => {}
            _ = closes.changed() => break,
        }
        let due = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => queue.stirred().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = queue.filled() => {}
            _ = closes.changed() => break,
        }
    }
    queue.close();
    lanes.take();
    for task in lanes.close().into_iter().chain(metrics) {
        // A task that panicked has nothing left to send.
        let _ = task.await;
    }
}

/// The lanes that are open.
struct Lanes {
    open: Vec<Lane>,
    queue: Arc<Queue>,
    mesh: Arc<Mesh>,
    closing: watch::Receiver<bool>,
    environment: Environment,
}

impl Lanes {
    /// Takes what is to leave, and says when to come again.
    fn take(&mut self) -> Option<Instant> {
        let queue = self.queue.clone();
        if self.open.len() >= OTLP_RECEIVERS_MAX {
            self.open.retain(|lane| !lane.is_idle());
        }
        let next = queue.drain(Instant::now(), |batch| self.offer(batch));
        self.open.iter_mut().for_each(Lane::send);
        next
    }

    fn offer(&mut self, batch: Batch) {
        let found = self.open.iter().position(|lane| lane.is_of(&batch.to));
        let lane = match found {
            Some(at) => self.open.get_mut(at),
            None => match self.lane(batch.to.clone()) {
                Some(lane) => {
                    self.open.push(lane);
                    self.open.last_mut()
                }
                None => None,
            },
        };
        match lane {
            Some(lane) => lane.gather(batch.pack),
            None => batch.give_up(),
        }
    }

    fn lane(&self, channel: Arc<Channel>) -> Option<Lane> {
        let exporter = self.exporter(channel.signal, &channel.receiver)?;
        Some(Lane::start(channel, exporter))
    }

    fn exporter(&self, signal: Signal, receiver: &Receiver) -> Option<Exporter> {
        let (to, way) = match receiver {
            Receiver::Environment => (self.destination(signal)?, Way::Outside),
            Receiver::Collector(collector) => self.in_mesh(collector),
            Receiver::Log(log) => self.in_mesh(&log.collector),
            Receiver::Entries(log) => self.in_mesh(&log.collector),
        };
        let mut transport = Transport::new(signal, to, way);
        if let Receiver::Entries(log) = receiver {
            transport.stream_entries(entries::identifier(log, self.queue.process()));
        }
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
        let (queue, closing) = (self.queue.clone(), self.closing.clone());
        Some(tokio::spawn(metrics::run(
            scrape, every, exporter, queue, closing,
        )))
    }

    fn close(self) -> Vec<JoinHandle<()>> {
        let lanes = self.open.into_iter();
        lanes.map(Lane::close).collect()
    }
}
