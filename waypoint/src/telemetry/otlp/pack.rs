//! Records on their way into messages: encoded one by one as they are made, each as a field of the message around it, so
//! that none is held, none is moved again, and lengths are counted once. Protobuf alone: JSON is made of it (`message`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::pairs::{begin, message};
use super::spares::Spares;
use crate::limits::{OTLP_MESSAGE_BYTES_MAX, OTLP_ROOM_BYTES_MAX};

/// The first field of every message around a record: `resource_spans`, `resource_logs`; `resource`; `scope`.
const FIRST: u32 = 1;

/// Where what is inside stands: `scope_spans`, `scope_logs`; `spans`, `log_records`.
const INSIDE: u32 = 2;

/// What begins a field around others: its number and a length.
const FRAME_BYTES_MAX: usize = 1 + 10;

/// `resource` and `scope`, as the messages around records begin: made once for all of them.
#[derive(Debug)]
pub(super) struct Head {
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// The field that a record is.
    record: u32,
    /// The field around all records, where there is none but one.
    around: Option<u32>,
}

impl Head {
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let (mut of_resource, mut of_scope) = (Vec::new(), Vec::new());
        message(FIRST, resource, &mut of_resource);
        message(FIRST, scope, &mut of_scope);
        Self {
            resource: of_resource,
            scope: of_scope,
            record: INSIDE,
            around: None,
        }
    }

    /// Of messages whose records are fields of one field, without anything else.
    pub(super) fn of_entries(around: u32) -> Self {
        Self {
            resource: Vec::new(),
            scope: Vec::new(),
            record: FIRST,
            around: Some(around),
        }
    }

    /// What begins a message with so many bytes of records.
    fn begins(&self, records: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.bytes_max());
        if let Some(around) = self.around {
            begin(around, records, &mut head);
            return head;
        }
        let mut inner = self.resource.clone();
        begin(INSIDE, self.scope.len() + records, &mut inner);
        inner.extend_from_slice(&self.scope);
        begin(FIRST, inner.len() + records, &mut head);
        head.append(&mut inner);
        head
    }

    fn bytes_max(&self) -> usize {
        self.resource.len() + self.scope.len() + 2 * FRAME_BYTES_MAX
    }
}

/// Bytes of a receiver's records that are held, and of all records.
#[derive(Debug, Default)]
pub(super) struct Share {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
    spares: Arc<Spares>,
}

impl Share {
    /// `spares`: of all receivers.
    pub(super) fn part_of(all: Arc<AtomicUsize>, spares: Arc<Spares>) -> Self {
        Self {
            own: AtomicUsize::new(0),
            all,
            spares,
        }
    }

    pub(super) fn own(&self) -> usize {
        self.own.load(Relaxed)
    }

    pub(super) fn of_all(&self) -> usize {
        self.all.load(Relaxed)
    }

    /// Gives memory back that is kept for the next messages: nothing comes any more, or seldom.
    pub(super) fn let_go_of_spares(&self) {
        self.spares.let_go();
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Relaxed);
        self.all.fetch_add(bytes, Relaxed);
    }
}

/// Bytes that are held, as long as anybody holds them.
#[derive(Debug)]
struct Held {
    bytes: usize,
    of: Arc<Share>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.own.fetch_sub(self.bytes, Relaxed);
        self.of.all.fetch_sub(self.bytes, Relaxed);
    }
}

/// What is in a message that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnderWay {
    pub exchanges: usize,
    /// Of its records.
    pub bytes: usize,
}

/// A message that is whole.
#[derive(Debug)]
pub(super) struct Parcel {
    pub message: Bytes,
    /// Spans or records of a log in it.
    pub records: u64,
    /// Exchanges that end in it: each counts in the message that has its last record. 0: it has a part of one that is longer
    /// than a message.
    pub exchanges: usize,
    _held: Held,
}

/// Messages under way, of at most [`OTLP_MESSAGE_BYTES_MAX`]; a record that is longer alone is one of its own.
#[derive(Debug)]
pub(super) struct Pack {
    head: Arc<Head>,
    full: Vec<Parcel>,
    /// Empty, or room for what begins the message, whose lengths are known at its end; then its records, each as a
    /// field. Megabytes are written once and never moved.
    message: Vec<u8>,
    records: u64,
    exchanges: usize,
    /// What is held, these records among it.
    held: Arc<Share>,
}

impl Pack {
    /// Without a record, and with room for about so many bytes. `held`: where its bytes are counted.
    pub(super) fn new(head: Arc<Head>, held: Arc<Share>, expected: usize) -> Self {
        Self {
            head,
            full: Vec::new(),
            message: held.spares.take(room(expected)),
            records: 0,
            exchanges: 0,
            held,
        }
    }

    /// What is in the message that is under way.
    pub(super) fn under_way(&self) -> UnderWay {
        UnderWay {
            exchanges: self.exchanges,
            bytes: self.records_bytes(),
        }
    }

    fn records_bytes(&self) -> usize {
        self.message.len().saturating_sub(self.head.bytes_max())
    }

    /// Takes a span, or a record of a log, encoded.
    pub(super) fn add(&mut self, record: &[u8]) {
        self.begin();
        let before = self.message.len();
        begin(self.head.record, record.len(), &mut self.message);
        self.message.extend_from_slice(record);
        let written = self.message.len() - before;
        if self.records > 0 && self.records_bytes() > OTLP_MESSAGE_BYTES_MAX {
            let last = self.message.split_off(before);
            self.close();
            self.begin();
            self.message.extend_from_slice(&last);
        }
        self.held.add(written);
        self.records += 1;
    }

    /// What was added is all of an exchange; the message is whole with `max` of them.
    pub(super) fn end_exchange(&mut self, max: usize) {
        self.exchanges += 1;
        if self.exchanges >= max {
            self.close();
        }
    }

    /// Takes the message that is under way elsewhere, too, with at most `max` exchanges in all.
    pub(super) fn append(&mut self, other: Self, max: usize) {
        self.full.extend(other.full);
        let bytes = self.records_bytes() + other.message.len();
        if self.exchanges + other.exchanges > max || bytes > OTLP_MESSAGE_BYTES_MAX {
            self.seal();
        }
        if self.records == 0 {
            self.message = other.message;
        } else {
            let records = other.message.get(self.head.bytes_max()..);
            self.message.extend_from_slice(records.unwrap_or_default());
            self.held.spares.give(other.message);
        }
        self.records += other.records;
        self.exchanges += other.exchanges;
    }

    /// Messages that are whole.
    pub(super) fn whole(&self) -> usize {
        self.full.len()
    }

    /// Bytes of its longest message: one that was whole just now leaves none under way.
    pub(super) fn longest(&self) -> usize {
        let whole = self.full.iter().map(|parcel| parcel.message.len());
        whole.fold(self.under_way().bytes, usize::max)
    }

    /// The messages that are whole, without the one that is under way.
    pub(super) fn take_whole(&mut self) -> Self {
        let mut whole = Self::new(self.head.clone(), self.held.clone(), 0);
        std::mem::swap(&mut whole.full, &mut self.full);
        whole
    }

    /// All messages.
    pub(super) fn finish(mut self) -> Vec<Parcel> {
        self.seal();
        // Room for a message of which nothing came.
        self.held.spares.give(std::mem::take(&mut self.message));
        self.full
    }

    /// Makes room for what begins a message.
    fn begin(&mut self) {
        if self.message.is_empty() {
            self.message.resize(self.head.bytes_max(), 0);
        }
    }

    /// Makes the message under way whole, with room for the next one: it will be about as long.
    fn close(&mut self) {
        let next = room(self.message.len());
        self.seal();
        self.message = self.held.spares.take(next);
    }

    /// Makes the message under way whole.
    fn seal(&mut self) {
        if self.records == 0 {
            return;
        }
        let (room, records) = (self.head.bytes_max(), self.records_bytes());
        let head = self.head.begins(records);
        // There is always room for it.
        let start = room.saturating_sub(head.len());
        if let Some(place) = self.message.get_mut(start..room) {
            place.copy_from_slice(&head);
        }
        let message = std::mem::take(&mut self.message);
        self.full.push(Parcel {
            message: self.held.spares.lend(message, start),
            records: std::mem::take(&mut self.records),
            exchanges: std::mem::take(&mut self.exchanges),
            _held: Held {
                bytes: records,
                of: self.held.clone(),
            },
        });
    }
}

/// For a message after one of so many bytes: it will be about as long, and one that outgrows its room is copied. Of few sizes,
/// so that buffers of messages that were sent have as much.
fn room(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => (bytes + bytes / 8)
            .next_power_of_two()
            .min(OTLP_ROOM_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests;
