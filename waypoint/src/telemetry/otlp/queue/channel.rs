//! Where the records of one signal for one receiver go: how much of it waits, and when it is a message. Holds none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::super::endpoint::Signal;
use super::super::environment::Batching;
use super::super::pack::{Head, Share, UnderWay};
use crate::limits::{OTLP_MESSAGE_BYTES_MAX, OTLP_QUEUE_BYTES_MAX};
use crate::telemetry::counters;
use crate::telemetry::trace::settings::Receiver;

/// A receiver's records may be so many times what is free of [`OTLP_QUEUE_BYTES_MAX`], three quarters of it if it is alone:
/// one that takes nothing leaves room to the others.
const SHARE_OF_FREE: usize = 3;

/// Where the records of one signal for one receiver go; all workers share it.
#[derive(Debug)]
pub(in super::super) struct Channel {
    pub(in super::super) signal: Signal,
    pub(in super::super) receiver: Receiver,
    pub(in super::super) batching: Batching,
    pub(super) head: Arc<Head>,
    /// Exchanges that wait, in buffers and messages.
    pub(super) waiting: AtomicUsize,
    /// Exchanges of them in messages under way, of all workers.
    pub(super) under_way: AtomicUsize,
    /// Bytes of the records in those.
    pub(super) under_way_bytes: AtomicUsize,
    /// What is under way leaves now, with all workers: together it is a message. Said once for each time that the thread
    /// comes, which takes it from one worker after the other.
    pub(super) leaves: AtomicBool,
    pub(in super::super) bytes: Arc<Share>,
    /// Bytes that a worker had under way when it was last looked at: it will have about as many.
    pub(super) expected: AtomicUsize,
}

impl Channel {
    /// Nothing waits. `bytes`: where those of its records are counted.
    pub(super) fn new(
        (signal, receiver): (Signal, &Receiver),
        batching: Batching,
        head: Head,
        bytes: Share,
    ) -> Self {
        Self {
            signal,
            receiver: receiver.clone(),
            batching,
            head: head.into(),
            waiting: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            under_way_bytes: AtomicUsize::new(0),
            leaves: AtomicBool::new(false),
            bytes: bytes.into(),
            expected: AtomicUsize::new(0),
        }
    }

    pub(super) fn is(&self, signal: Signal, receiver: &Receiver) -> bool {
        self.signal == signal && self.receiver.is(receiver)
    }

    /// What a worker has under way became more or less. Whether by that the workers together have enough for a message:
    /// one alone may never have, and the room is for all of them.
    pub(super) fn under_way_changed(&self, before: UnderWay, after: UnderWay) -> bool {
        let exchanges = (before.exchanges, after.exchanges);
        let by_number = reaches(&self.under_way, exchanges, self.batching.batch_max);
        let bytes = (before.bytes, after.bytes);
        reaches(&self.under_way_bytes, bytes, OTLP_MESSAGE_BYTES_MAX) || by_number
    }

    /// What is under way leaves now: it is a message, or there is no room for more of it.
    pub(super) fn is_filled(&self) -> bool {
        let under_way = self.under_way.load(Relaxed);
        under_way >= self.batching.batch_max
            || self.under_way_bytes.load(Relaxed) >= OTLP_MESSAGE_BYTES_MAX
            || under_way > 0 && self.has_no_room()
    }

    /// It has as much as it may have, by number or by bytes.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Relaxed) >= self.batching.queue_max || self.has_no_room()
    }

    /// It has as many bytes as others leave it: perhaps fewer than a message has.
    pub(super) fn has_no_room(&self) -> bool {
        let free = OTLP_QUEUE_BYTES_MAX.saturating_sub(self.bytes.of_all());
        self.bytes.own() >= free.saturating_mul(SHARE_OF_FREE)
    }

    /// So many exchanges are on their way to the receiver.
    pub(in super::super) fn left(&self, exchanges: usize) {
        self.waiting.fetch_sub(exchanges, Relaxed);
    }

    /// No record waits.
    pub(in super::super) fn is_idle(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// A message is dropped, and the exchanges that wait with it are not told of. One with none has a part of an exchange
    /// that is longer than a message, and counts as one.
    pub(in super::super) fn dropped(&self, exchanges: usize) {
        self.left(exchanges);
        counters::OTLP_DROPPED.add(self.signal.as_str(), exchanges.max(1) as u64);
    }
}

/// Adds the difference to a sum; whether that took it to a limit. Under the lock of the worker whose part it is, so that
/// no part is taken away before it was added.
fn reaches(sum: &AtomicUsize, (before, after): (usize, usize), limit: usize) -> bool {
    let by = after.wrapping_sub(before);
    let was = sum.fetch_add(by, Relaxed);
    was < limit && was.wrapping_add(by) >= limit
}
