//! The last records, oldest overwritten: written by every worker without a lock, read by any number of
//! readers, each with a place of its own. Readers never hold up a writer; who is too slow loses
//! records, and learns how many. Knows nothing of what a record says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::record::Record;

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
        let flows_before = self.flows.fetch_add(record.flows(), Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if let Some(slot) = self.slot(number) {
            put(
                slot,
                Arc::new(Kept {
                    number,
                    flows_before,
                    record,
                }),
            );
        }
        // Sequentially consistent, as in `added`: either the reader sees the record, or this sees that
        // the reader waits.
        if self.awaited.load(Ordering::SeqCst) && self.awaited.swap(false, Ordering::SeqCst) {
            self.added.notify_waiters();
        }
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

/// Stores a record unless there is a later one: a writer that was held up for a whole round must not hide
/// what came after it.
fn put(slot: &ArcSwapOption<Kept>, kept: Arc<Kept>) {
    let mut seen = slot.load();
    while seen.as_ref().is_none_or(|seen| seen.number < kept.number) {
        let before = slot.compare_and_swap(&seen, Some(kept.clone()));
        let swapped = match (&*seen, &*before) {
            (Some(seen), Some(before)) => Arc::ptr_eq(seen, before),
            (None, None) => true,
            _ => false,
        };
        if swapped {
            return;
        }
        seen = before;
    }
}

#[cfg(test)]
mod tests;
