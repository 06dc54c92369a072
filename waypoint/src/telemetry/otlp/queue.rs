//! From the workers to the exporting thread: each worker encodes what ended into buffers of its own, one for each signal
//! and receiver, while all of it is at hand; that thread takes the messages that are whole, and the rest once it has
//! waited long enough. A worker never waits; when receivers do not keep up, exchanges are dropped and counted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::endpoint::Signal;
use super::environment::Batching;
use super::known::Known;
use super::pack::{Head, Pack, Share, UnderWay};
use super::pairs::Pairs;
use super::process::Process;
use super::spares::Spares;
use super::{entries, logs, spans};
use crate::limits::OTLP_RECEIVERS_MAX;
use crate::telemetry::access_log::TimeText;
use crate::telemetry::counters;
use crate::telemetry::exchange::Seen;
use crate::telemetry::kept::Size;
use crate::telemetry::trace::settings::Receiver;

mod channel;
mod worker;

pub(super) use channel::Channel;
pub(super) use worker::{Room, Worker, open};
pub use worker::{known, let_go, of_snapshot, tell, waiting};

/// Records of one worker for one channel that wait.
#[derive(Debug)]
pub(super) struct Batch {
    pub to: Arc<Channel>,
    pub pack: Pack,
    /// When the first of the message that is under way came.
    began: Option<Instant>,
}

/// The records of one worker. The lock is held while records are written, and contended only while they are taken, which
/// is a few nanoseconds, some fifty times a second at most. Filters are asked without it.
type Buffer = Mutex<Vec<Batch>>;

/// The records of all workers.
#[derive(Debug)]
pub(super) struct Queue {
    process: Process,
    spans: Batching,
    records: Batching,
    /// The access log goes this way.
    logs: bool,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    channels: Mutex<Vec<Arc<Channel>>>,
    /// Bytes of all records, until they were sent.
    bytes: Arc<AtomicUsize>,
    /// Room for the next messages.
    spares: Arc<Spares>,
    /// What all workers keep of objects.
    known: Arc<Size>,
    closed: AtomicBool,
    /// There is something to take; nobody need be told again.
    pending: AtomicBool,
    stirred: Notify,
    filled: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// `logs`: the access log goes to the receiver that the environment names.
    pub(super) fn new(process: Process, [spans, records]: [Batching; 2], logs: bool) -> Self {
        Self {
            process,
            spans,
            records,
            logs,
            buffers: Mutex::default(),
            channels: Mutex::default(),
            bytes: Arc::default(),
            spares: Arc::default(),
            known: Arc::default(),
            closed: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            stirred: Notify::new(),
            filled: Notify::new(),
        }
    }

    /// This process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Buffers for a new worker.
    pub(super) fn join(&self) -> Worker {
        let buffer = Arc::<Buffer>::default();
        lock(&self.buffers).push(buffer.clone());
        Worker {
            buffer,
            room: Room {
                span: Pairs::default(),
                known: Known::new(self.known.clone()),
                record: Pairs::of_record(),
                time: TimeText::default(),
                text: Vec::new(),
            },
        }
    }

    /// Whether anybody may want to hear of an exchange.
    fn is_wanted(&self, seen: &Seen<'_>) -> bool {
        let settings = seen.exchange.settings.as_ref();
        let collected = settings.is_some_and(|settings| !settings.collected.is_empty());
        let entered = settings.is_some_and(|settings| !settings.entered.is_empty());
        self.logs || collected || entered || seen.exchange.trace.is_recorded()
    }

    /// Writes the records of an exchange into a worker's buffers.
    pub(super) fn tell(&self, worker: &mut Worker, seen: &Seen<'_>) {
        let Worker { buffer, room } = worker;
        if let Some(recording) = seen.exchange.trace.recording() {
            let receiver = &recording.tracing.receiver;
            // Much may be let go: not under the lock.
            room.known.of_snapshot(seen.exchange.snapshot);
            self.add(&mut lock(buffer), Signal::Traces, receiver, seen, |pack| {
                let Room { span, known, .. } = room;
                spans::add(seen, &self.process, (span, known), pack);
            });
        }
        if self.logs {
            let receiver = &Receiver::Environment;
            self.add(&mut lock(buffer), Signal::Logs, receiver, seen, |pack| {
                logs::add(seen, room, pack);
            });
        }
        // Their filters are asked without the lock.
        for log in logs::collected(seen) {
            let receiver = &Receiver::Log(log.to.clone());
            self.add(&mut lock(buffer), Signal::Logs, receiver, seen, |pack| {
                logs::add_written(seen, log, room, pack);
            });
        }
        for log in entries::entered(seen) {
            let receiver = &Receiver::Entries(log.to.clone());
            self.add(&mut lock(buffer), Signal::Logs, receiver, seen, |pack| {
                entries::add(seen, log, &mut room.time, pack);
            });
        }
    }

    /// Adds the records of an exchange for a receiver, or drops and counts them.
    fn add(
        &self,
        batches: &mut Vec<Batch>,
        signal: Signal,
        receiver: &Receiver,
        seen: &Seen<'_>,
        write: impl FnOnce(&mut Pack),
    ) {
        let Some(batch) = self.batch(batches, signal, receiver) else {
            counters::OTLP_DROPPED.inc(signal.as_str());
            // Perhaps a receiver of old can be let go.
            self.stir();
            return;
        };
        let Batch { to, pack, began } = batch;
        if to.is_full() || self.closed.load(Relaxed) {
            counters::OTLP_DROPPED.inc(signal.as_str());
            // Others may have taken the room since the last one was added.
            if to.is_filled() {
                self.filled.notify_one();
            }
            return;
        }
        to.waiting.fetch_add(1, Relaxed);
        began.get_or_insert(seen.exchange.started + seen.elapsed);
        let (whole, before) = (pack.whole(), pack.under_way());
        write(pack);
        pack.end_exchange(to.batching.batch_max);
        let after = pack.under_way();
        if after.exchanges == 0 {
            *began = None;
        }
        let filled = to.under_way_changed(before, after) || to.has_no_room();
        if filled || pack.whole() > whole {
            self.filled.notify_one();
        }
        self.stir();
    }

    /// Mostly the thread knows already, and workers share the flag without taking it from each other. One who added
    /// after that thread took its buffer sees that the flag was taken back before: by the lock.
    fn stir(&self) {
        let asleep = !self.pending.load(Ordering::Acquire);
        if asleep && !self.pending.swap(true, Ordering::AcqRel) {
            self.stirred.notify_one();
        }
    }

    /// The records of a worker for a receiver; `None` when there are too many receivers.
    fn batch<'b>(
        &self,
        batches: &'b mut Vec<Batch>,
        signal: Signal,
        receiver: &Receiver,
    ) -> Option<&'b mut Batch> {
        let found = batches.iter().position(|b| b.to.is(signal, receiver));
        let place = match found {
            Some(place) => place,
            None => {
                let to = self.channel(signal, receiver)?;
                let expected = to.expected.load(Relaxed);
                let pack = Pack::new(to.head.clone(), to.bytes.clone(), expected);
                batches.push(Batch {
                    to,
                    pack,
                    began: None,
                });
                batches.len() - 1
            }
        };
        batches.get_mut(place)
    }

    fn channel(&self, signal: Signal, receiver: &Receiver) -> Option<Arc<Channel>> {
        let mut channels = lock(&self.channels);
        let found = channels.iter().find(|channel| channel.is(signal, receiver));
        if let Some(found) = found {
            return Some(found.clone());
        }
        if channels.len() >= OTLP_RECEIVERS_MAX {
            channels.retain(|channel| Arc::strong_count(channel) > 1);
        }
        if channels.len() >= OTLP_RECEIVERS_MAX {
            return None;
        }
        let Process { scope, .. } = &self.process;
        let batching = match signal {
            Signal::Traces => self.spans,
            Signal::Logs | Signal::Metrics => self.records,
        };
        let head = match receiver {
            Receiver::Entries(log) => Head::of_entries(entries::field(log)),
            _ => Head::new(&self.process.resource_for(receiver), scope),
        };
        let bytes = Share::part_of(self.bytes.clone(), self.spares.clone());
        let channel = Arc::new(Channel::new((signal, receiver), batching, head, bytes));
        channels.push(channel.clone());
        Some(channel)
    }

    /// Takes the messages that are whole, those that are with what other workers have, and those that waited long enough at
    /// `now` for others. Returns when to come again at the latest; `None`: when there is something.
    pub(super) fn drain(&self, now: Instant, mut take: impl FnMut(Batch)) -> Option<Instant> {
        // First the flag: what is added from here on is told of again.
        self.pending.store(false, Ordering::Release);
        for channel in lock(&self.channels).iter() {
            channel.leaves.store(channel.is_filled(), Relaxed);
        }
        let buffers: Vec<_> = lock(&self.buffers).clone();
        let (mut next, mut taken) = (None, Vec::new());
        for buffer in buffers {
            let mut batches = lock(&buffer);
            for at in (0..batches.len()).rev() {
                let Some(batch) = batches.get_mut(at) else {
                    continue;
                };
                let due = batch.began.map(|began| began + batch.to.batching.delay);
                let leaves = batch.to.leaves.load(Relaxed) || self.closed.load(Relaxed);
                match due.filter(|due| *due > now && !leaves) {
                    None => {
                        let under_way = batch.pack.under_way();
                        batch.to.under_way_changed(under_way, UnderWay::default());
                        batch.to.expected.store(batch.pack.longest(), Relaxed);
                        taken.push(batches.swap_remove(at));
                    }
                    Some(due) => {
                        next = Some(next.map_or(due, |next: Instant| next.min(due)));
                        taken.extend(batch.whole());
                    }
                }
            }
            // To put them to others takes a while, and a worker may wait for the lock.
            drop(batches);
            taken.drain(..).for_each(&mut take);
        }
        // So much came meanwhile that it is too late to be told of it.
        if lock(&self.channels)
            .iter()
            .any(|channel| channel.is_filled())
        {
            return Some(now);
        }
        // What is added meanwhile for another signal may have to leave before.
        let soonest = now + self.spans.delay.min(self.records.delay);
        next.map(|next| next.min(soonest))
    }

    /// Waits until something is there that was not when it was drained.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Waits until a message is whole.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes nothing more: what comes from now on is dropped and counted.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Exchanges that wait for collectors, and the bytes of their records.
    fn waiting(&self) -> (usize, usize) {
        let channels = lock(&self.channels);
        let waiting = channels.iter().map(|channel| channel.waiting.load(Relaxed));
        (waiting.sum(), self.bytes.load(Relaxed))
    }

    /// Bytes of all records that are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Batch {
    /// Nobody takes it.
    pub(super) fn give_up(self) {
        for parcel in self.pack.finish() {
            self.to.dropped(parcel.exchanges);
        }
    }

    /// Its messages that are whole, if there are any; the one under way stays.
    fn whole(&mut self) -> Option<Self> {
        (self.pack.whole() > 0).then(|| Self {
            to: self.to.clone(),
            pack: self.pack.take_whole(),
            began: None,
        })
    }
}

#[cfg(test)]
mod tests;
