//! One signal on its way to one receiver: gathered into batches, encoded and handed to its [`Exporter`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Protocol, Signal};
use super::environment::Batching;
use super::export::Exporter;
use super::process::Process;
use super::queue::Ended;
use super::{logs, spans};
use crate::limits::OTLP_MESSAGE_BYTES_MAX;
use crate::telemetry::counters;
use crate::telemetry::trace::settings::Receiver;

/// Records taken at once: each time costs, and long ones are to be counted before there are too many.
const GATHERED: usize = 64;

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
        let mut bytes = first.bytes();
        batch.push(first);
        let until = Instant::now() + batching.delay;
        while batch.len() < batching.batch_max && bytes < OTLP_MESSAGE_BYTES_MAX {
            let (before, room) = (batch.len(), batching.batch_max - batch.len());
            let more = queue.recv_many(&mut batch, room.min(GATHERED));
            if !matches!(timeout_at(until, more).await, Ok(1..)) {
                break;
            }
            let more = batch.iter().skip(before);
            bytes += more.map(|ended| ended.bytes()).sum::<usize>();
        }
        let messages = encode(signal, &receiver, &batch, &process, exporter.protocol());
        // The exchanges are not held while the receiver takes its time.
        batch.clear();
        for (message, records) in messages {
            exporter.export(message, records).await;
        }
    }
}

/// A message, and how many records it has.
pub(super) type Encoded = (Bytes, u64);

/// The messages of a batch: one, unless its records are longer than they seemed.
fn encode(
    signal: Signal,
    receiver: &Receiver,
    batch: &[Arc<Ended>],
    process: &Process,
    protocol: Protocol,
) -> Vec<Encoded> {
    match signal {
        Signal::Traces => spans::encode(batch, process, protocol),
        Signal::Logs | Signal::Metrics => logs::encode(batch, process, receiver, protocol),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;

    use super::super::{fixtures, queue};
    use super::*;

    /// What a gRPC receiver takes unless it is told otherwise.
    const GRPC_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// Exchanges with paths as long as clients may make them.
    fn long(count: usize) -> Vec<Arc<Ended>> {
        let (outlet, mut records) = queue::Outlet::new(count, true);
        let one = |_| {
            let mut exchange = fixtures::sampled();
            exchange.http.as_mut().unwrap().path = format!("/{}", "x".repeat(60_000));
            outlet.take(exchange, Duration::ZERO, vec![]);
            records.try_recv().unwrap()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_batch_of_long_paths_becomes_messages_that_receivers_take() {
        let batch = long(200);
        let process = Process::default();
        for signal in [Signal::Traces, Signal::Logs] {
            let receiver = Receiver::Environment;
            let messages = encode(signal, &receiver, &batch, &process, Protocol::Http);
            assert!(messages.len() > 3, "{}", messages.len());
            let mut found = 0;
            for (message, records) in &messages {
                assert!(message.len() < GRPC_MESSAGE_BYTES_MAX, "{}", message.len());
                let held = match signal {
                    Signal::Traces => {
                        let read = ExportTraceServiceRequest::decode(message.clone()).unwrap();
                        read.resource_spans[0].scope_spans[0].spans.len()
                    }
                    _ => {
                        let read = ExportLogsServiceRequest::decode(message.clone()).unwrap();
                        read.resource_logs[0].scope_logs[0].log_records.len()
                    }
                };
                assert_eq!(held as u64, *records);
                found += held;
            }
            assert_eq!(found, 200, "each record is in one message");
        }
    }

    #[test]
    fn short_records_are_one_message_and_none_is_no_message() {
        let process = Process::default();
        let (outlet, mut records) = queue::Outlet::new(2, true);
        outlet.take(fixtures::sampled(), Duration::ZERO, vec![]);
        outlet.take(crate::telemetry::fixtures::http(), Duration::ZERO, vec![]);
        let batch = [records.try_recv().unwrap(), records.try_recv().unwrap()];
        let of = |signal, batch: &[Arc<Ended>]| {
            let receiver = Receiver::Environment;
            let messages = encode(signal, &receiver, batch, &process, Protocol::Http);
            messages.iter().map(|(_, n)| *n).collect::<Vec<_>>()
        };
        assert_eq!(of(Signal::Logs, &batch), [2]);
        assert_eq!(of(Signal::Traces, &batch), [1]);
        assert!(of(Signal::Traces, &batch[1..]).is_empty(), "not sampled");
    }
}
