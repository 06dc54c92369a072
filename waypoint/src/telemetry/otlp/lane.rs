//! One signal on its way to one receiver: what the workers wrote put together, and message after message handed to its
//! [`Exporter`].

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::endpoint::{Protocol, Signal};
use super::export::Exporter;
use super::message;
use super::pack::{Pack, Parcel};
use super::queue::Channel;

/// The near end of a lane.
pub(super) struct Lane {
    channel: Arc<Channel>,
    /// What the workers have under way, until it is sent.
    gathered: Option<Pack>,
    parcels: mpsc::Sender<Parcel>,
    task: JoinHandle<()>,
}

impl Lane {
    /// A lane that runs until it is closed.
    pub(super) fn start(channel: Arc<Channel>, exporter: Exporter) -> Self {
        // No more exchanges wait than that, and a message has one at least, except for those that an exchange longer than a
        // message fills before its last one. What does not fit is dropped.
        let (parcels, queue) = mpsc::channel(channel.batching.queue_max.max(1));
        let run = run(channel.clone(), queue, exporter);
        Self {
            channel,
            gathered: None,
            parcels,
            task: tokio::spawn(run),
        }
    }

    pub(super) fn is_of(&self, channel: &Arc<Channel>) -> bool {
        Arc::ptr_eq(&self.channel, channel)
    }

    /// Puts what a worker has to what others have.
    pub(super) fn gather(&mut self, pack: Pack) {
        match &mut self.gathered {
            Some(gathered) => gathered.append(pack, self.channel.batching.batch_max),
            none => *none = Some(pack),
        }
    }

    /// Lets what was gathered go.
    pub(super) fn send(&mut self) {
        let gathered = self.gathered.take().map(Pack::finish);
        for parcel in gathered.into_iter().flatten() {
            match self.parcels.try_send(parcel) {
                Ok(()) => {}
                Err(TrySendError::Full(parcel) | TrySendError::Closed(parcel)) => {
                    self.channel.dropped(parcel.exchanges);
                }
            }
        }
    }

    /// No record is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.channel.is_idle()
    }

    /// Takes nothing more; the task ends when what there is was exported.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.task
    }
}

async fn run(channel: Arc<Channel>, mut queue: mpsc::Receiver<Parcel>, mut exporter: Exporter) {
    while let Some(parcel) = queue.recv().await {
        channel.left(parcel.exchanges);
        let message = formed(channel.signal, &parcel, exporter.protocol());
        exporter.export(message, parcel.records).await;
        drop(parcel);
        if channel.is_idle() {
            channel.bytes.let_go_of_spares();
        }
    }
    exporter.finish().await;
}

/// A message as its receiver reads it.
fn formed(signal: Signal, parcel: &Parcel, protocol: Protocol) -> Bytes {
    let message = parcel.message.clone();
    match signal {
        Signal::Traces => message::formed::<ExportTraceServiceRequest>(message, protocol),
        Signal::Logs | Signal::Metrics => {
            message::formed::<ExportLogsServiceRequest>(message, protocol)
        }
    }
}
