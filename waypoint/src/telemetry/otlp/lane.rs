//! One signal on its way to one receiver: gathered into batches, encoded and handed to its [`Exporter`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::endpoint::Signal;
use super::environment::Batching;
use super::export::Exporter;
use super::process::Process;
use super::queue::Ended;
use super::{logs, spans};
use crate::telemetry::counters;
use crate::telemetry::trace::settings::Receiver;

/// The near end of a lane.
pub(super) struct Lane {
    signal: Signal,
    records: mpsc::Sender<Arc<Ended>>,
    task: JoinHandle<()>,
}

impl Lane {
    /// A lane that runs until it is closed.
    pub(super) fn start(
        (signal, receiver): (Signal, Receiver),
        batching: Batching,
        exporter: Exporter,
        process: Arc<Process>,
    ) -> Self {
        let (records, queue) = mpsc::channel(batching.queue_max);
        let run = run((signal, receiver), queue, batching, exporter, process);
        Self {
            signal,
            records,
            task: tokio::spawn(run),
        }
    }

    /// Takes a record, or drops and counts it.
    pub(super) fn offer(&self, ended: &Arc<Ended>) {
        match self.records.try_send(ended.clone()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                counters::OTLP_DROPPED.inc(self.signal.as_str());
            }
        }
    }

    /// No record is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.records.capacity() == self.records.max_capacity()
    }

    /// Takes nothing more; the task ends when what there is was exported.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.task
    }
}

async fn run(
    (signal, receiver): (Signal, Receiver),
    mut queue: mpsc::Receiver<Arc<Ended>>,
    batching: Batching,
    mut exporter: Exporter,
    process: Arc<Process>,
) {
    let mut batch = Vec::new();
    while let Some(first) = queue.recv().await {
        batch.push(first);
        let until = Instant::now() + batching.delay;
        while batch.len() < batching.batch_max {
            match timeout_at(until, queue.recv()).await {
                Ok(Some(ended)) => batch.push(ended),
                Ok(None) | Err(_) => break,
            }
        }
        let (message, records) = encode(signal, &receiver, &batch, &process);
        // The exchanges are not held while the receiver takes its time.
        batch.clear();
        exporter.export(message, records).await;
    }
}

/// The message of a batch, and how many records it has.
fn encode(
    signal: Signal,
    receiver: &Receiver,
    batch: &[Arc<Ended>],
    process: &Process,
) -> (Bytes, u64) {
    match signal {
        Signal::Traces => spans::encode(batch, process),
        Signal::Logs | Signal::Metrics => logs::encode(batch, process, receiver),
    }
}
