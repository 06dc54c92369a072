//! The last records, oldest overwritten: written by every worker without a lock, read by any number of
//! readers, each with a place of its own. Readers never hold up a writer; who is too slow loses
//! records, and learns how many. Knows nothing of what a record says.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use super::record::Record;

thread_local! {
    /// The record that was overwritten last, for the next one: thousands of records are more than caches hold, and to give
    /// memory back that none of them has takes longer than to write a record.
    static SPARE: Cell<Option<Arc<Kept>>> = const { Cell::new(None) };
}

/// A record with its number.
#[derive(Debug)]
pub struct Kept {
    /// Counted from 0 since the start.
    pub number: u64,
    /// Flows of all records before it.
    pub flows_before: u64,
    /// What is kept.
    pub record: Record,
}

/// What there is at a place.
#[derive(Debug)]
pub enum Read {
    /// The record.
    Record(Arc<Kept>),
    /// It was overwritten.
    Overwritten,
    /// Nothing yet.
    NotYet,
}

/// The last records.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[ArcSwapOption<Kept>]>,
    next: AtomicU64,
    flows: AtomicU64,
    /// A reader waits for the next record.
    awaited: AtomicBool,
    added: Notify,
}

impl Ring {
    /// Room for `capacity` records; at least one. A place takes 8 bytes until it is used.
    pub fn new(capacity: usize) -> Self {
        let slots = std::iter::repeat_with(ArcSwapOption::empty);
        Self {
            slots: slots.take(capacity.max(1)).collect(),
            next: AtomicU64::new(0),
            flows: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
            added: Notify::new(),
        }
    }

    /// Adds a record in place of the oldest.
    pub fn push(&self, record: Record) {
        self.push_in(|_| record);
    }

    /// The same of one that is made with room for its texts.
    pub(super) fn push_in(&self, make: impl FnOnce(Vec<u8>) -> Record) {
        // The thread-local is gone only while the thread is being torn down.
        let mut spare = SPARE.try_with(Cell::take).ok().flatten();
        let room = spare.as_mut().and_then(Arc::get_mut);
        let record = make(room.map(|kept| kept.record.take_room()).unwrap_or_default());
        let overwritten = self.put_record(record, spare);
        let _ = SPARE.try_with(|spare| spare.set(overwritten));
    }

    /// What it takes the place of. `spare`: a record that is overwritten.
    fn put_record(&self, record: Record, spare: Option<Arc<Kept>>) -> Option<Arc<Kept>> {
        let flows_before = self.flows.fetch_add(record.flows(), Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let kept = Kept {
            number,
            flows_before,
            record,
        };
        let slot = self.slot(number);
        let overwritten = slot.and_then(|slot| put(slot, in_place_of(spare, kept)));
        // Sequentially consistent, as in `added`: either the reader sees the record, or this sees that
        // the reader waits.
        if self.awaited.load(Ordering::SeqCst) && self.awaited.swap(false, Ordering::SeqCst) {
            self.added.notify_waiters();
        }
        overwritten
    }

    /// What is at a place.
    pub fn read(&self, number: u64) -> Read {
        let kept = self.slot(number).and_then(|slot| slot.load_full());
        match kept {
            Some(kept) if kept.number == number => Read::Record(kept),
            Some(kept) if kept.number > number => Read::Overwritten,
            // Its writer has taken the number and not yet stored it, unless a whole round has passed.
            _ if number < self.oldest() => Read::Overwritten,
            _ => Read::NotYet,
        }
    }

    /// The number that the next record gets.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// The number of the oldest record that is kept.
    pub fn oldest(&self) -> u64 {
        self.next().saturating_sub(self.capacity())
    }

    /// Records that it holds at most.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Records that are kept, and about how many bytes they are.
    pub fn size(&self) -> (usize, usize) {
        let kept = self.slots.iter().filter_map(|slot| slot.load_full());
        let size = |kept: Arc<Kept>| size_of::<Kept>() + kept.record.text_bytes();
        kept.fold((0, 0), |(n, bytes), kept| (n + 1, bytes + size(kept)))
    }

    /// Flows of all records since the start.
    pub fn flows_seen(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Waits until there is a record at `number` or later.
    pub async fn added(&self, number: u64) {
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            self.awaited.store(true, Ordering::SeqCst);
            if self.next() > number {
                return;
            }
            added.await;
        }
    }

    fn slot(&self, number: u64) -> Option<&ArcSwapOption<Kept>> {
        let place = number.checked_rem(self.capacity())?;
        self.slots.get(usize::try_from(place).ok()?)
    }
}

/// In the memory of one that nobody reads any more, if there is one.
fn in_place_of(spare: Option<Arc<Kept>>, kept: Kept) -> Arc<Kept> {
    let Some(mut spare) = spare else {
        return Arc::new(kept);
    };
    match Arc::get_mut(&mut spare) {
        Some(place) => {
            *place = kept;
            spare
        }
        // A reader has it.
        None => Arc::new(kept),
    }
}

/// Stores a record unless there is a later one: a writer that was held up for a whole round must not hide
/// what came after it. Returns the one that was there before.
fn put(slot: &ArcSwapOption<Kept>, kept: Arc<Kept>) -> Option<Arc<Kept>> {
    let mut seen = slot.load();
    while seen.as_ref().is_none_or(|seen| seen.number < kept.number) {
        let before = slot.compare_and_swap(&seen, Some(kept.clone()));
        let swapped = match (&*seen, &*before) {
            (Some(seen), Some(before)) => Arc::ptr_eq(seen, before),
            (None, None) => true,
            _ => false,
        };
        if swapped {
            drop(seen);
            return Guard::into_inner(before);
        }
        seen = before;
    }
    None
}

#[cfg(test)]
mod tests;
