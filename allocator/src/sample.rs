//! When an allocation is sampled, and where that is noted: for one asker at a time. Keeps out of its own way: what this
//! file itself does while it notes something is not noticed.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::table::{Living, Room, Sampled, Table};

/// Bytes between two samples, on average: as at Go, tcmalloc and jemalloc.
pub const PERIOD_BYTES: usize = 512 * 1024;

/// Frames of a stack that are noted, the innermost.
const DEPTH_MAX: usize = 128;

/// The number of the profile that is being taken; 0: none.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// How many were begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Where samples are, with the number of the profile they are for. A thread that was held up since an earlier profile
/// notes nothing in a later one.
static TABLE: Mutex<Option<(u64, Table)>> = Mutex::new(None);

/// A bit for each address at which a sample may be: nearly all that is freed was never sampled, and waits for no lock.
static MAYBE: [AtomicU64; MAYBE_WORDS] = [const { AtomicU64::new(0) }; MAYBE_WORDS];
const MAYBE_WORDS: usize = 4_096;

/// Chance: each use moves it on.
static CHANCE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread is noting something.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Bytes until its next sample; 0: not drawn yet. What is left when a profile ends is right for the next one: how far
    /// away a sample is does not depend on how long there was none.
    static UNTIL_NEXT: Cell<usize> = const { Cell::new(0) };
}

/// A profile that is being taken, for as long as it lives.
#[derive(Debug)]
pub struct Taking(u64);

/// Begins to sample. `None`: somebody does.
#[must_use]
pub fn start(room: Room) -> Option<Taking> {
    let table = Table::new(room);
    let number = {
        let _inside = Inside::enter()?;
        let mut place = lock();
        if place.is_some() {
            drop(place);
            return None;
        }
        let number = BEGUN.fetch_add(1, Relaxed) + 1;
        MAYBE.iter().for_each(|word| word.store(0, Relaxed));
        *place = Some((number, table));
        number
    };
    CHANCE.fetch_xor(seed(), Relaxed);
    TAKEN.store(number, Relaxed);
    Some(Taking(number))
}

/// Other processes, and other starts, are to sample other allocations.
fn seed() -> u64 {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since_1970.as_nanos() as u64
}

impl Taking {
    /// Ends it, and tells what was sampled.
    #[must_use]
    pub fn end(self) -> Sampled {
        let table = self.take();
        table.map(Table::told).unwrap_or_default()
    }

    fn take(&self) -> Option<Table> {
        TAKEN.store(0, Relaxed);
        let _inside = Inside::enter()?;
        let mut place = lock();
        let is_its = place.as_ref().is_some_and(|(number, _)| *number == self.0);
        let taken = if is_its { place.take() } else { None };
        drop(place);
        taken.map(|(_, table)| table)
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        // Only if nobody asked what was sampled; else there is nothing any more.
        drop(self.take());
    }
}

/// The number of the profile that is being taken. The one thing that every call pays for.
#[inline]
pub(crate) fn taken() -> Option<u64> {
    match TAKEN.load(Relaxed) {
        0 => None,
        number => Some(number),
    }
}

/// So many bytes were allocated.
#[cold]
pub(crate) fn allocated(number: u64, at: usize, bytes: usize) {
    // Null: there was no memory.
    if at == 0 || !is_due(bytes) {
        return;
    }
    let Some(_inside) = Inside::enter() else {
        return;
    };
    let (mut frames, mut depth) = ([0_usize; DEPTH_MAX], 0);
    trace(|frame| match frames.get_mut(depth) {
        Some(place) => {
            *place = frame;
            depth += 1;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    });
    with(number, |table| {
        let frames = frames.get(..depth).unwrap_or_default();
        if table.allocated(at, bytes, frames) {
            maybe(at, |word, bit| {
                word.fetch_or(bit, Relaxed);
            });
        }
    });
}

/// What is there is given back; what was noted of it.
#[cold]
pub(crate) fn freed(number: u64, at: usize) -> Option<Living> {
    let mut was_noted = false;
    // Who frees it got its address from who allocated it, and with that the bit.
    maybe(at, |word, bit| was_noted = word.load(Relaxed) & bit != 0);
    if !was_noted {
        return None;
    }
    let _inside = Inside::enter()?;
    with(number, |table| table.freed(at)).flatten()
}

/// What was there still is.
pub(crate) fn kept(number: u64, at: usize, before: Option<Living>) {
    let (Some(before), Some(_inside)) = (before, Inside::enter()) else {
        return;
    };
    with(number, |table| table.kept(at, before));
}

/// Counts bytes; whether this allocation is to be sampled.
fn is_due(bytes: usize) -> bool {
    UNTIL_NEXT.with(|until| {
        let left = match until.get() {
            0 => draw(),
            left => left,
        };
        if left > bytes {
            until.set(left - bytes);
            return false;
        }
        until.set(draw());
        true
    })
}

/// Bytes until a sample, so that each byte is as likely as any other to be the one.
fn draw() -> usize {
    // Above 0 and at most 1, of 53 bits.
    let chance = ((next_chance() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-chance.ln() * PERIOD_BYTES as f64) as usize + 1
}

/// SplitMix64 (Steele, Lea and Flood 2014), whose state any thread may move on.
fn next_chance() -> u64 {
    let mut mixed = CHANCE
        .fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The bit of an address.
fn maybe(at: usize, with: impl FnOnce(&AtomicU64, u64)) {
    let hash = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let word = (hash >> 6) as usize % MAYBE_WORDS;
    if let Some(word) = MAYBE.get(word) {
        with(word, 1 << (hash % 64));
    }
}

#[allow(
    unsafe_code,
    reason = "the safe one waits for whoever looks up names of functions"
)]
fn trace(mut each: impl FnMut(usize) -> ControlFlow<()>) {
    // SAFETY: what has to be synchronised is dbghelp of Windows; here it is the unwinder's own business, which any
    // threads may ask at once. It allocates nothing.
    unsafe {
        backtrace::trace_unsynchronized(|frame| each(frame.ip().addr()).is_continue());
    }
}

/// The table of this profile, if it is still being taken. To be called inside alone: a thread that allocated while it
/// has the lock would wait for itself.
fn with<T>(number: u64, use_it: impl FnOnce(&mut Table) -> T) -> Option<T> {
    let mut place = lock();
    let (of, table) = place.as_mut()?;
    (*of == number).then(|| use_it(table))
}

fn lock() -> MutexGuard<'static, Option<(u64, Table)>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks that this thread is noting something, until it is dropped.
struct Inside;

impl Inside {
    /// `None`: it is doing so already.
    fn enter() -> Option<Self> {
        INSIDE.with(|inside| (!inside.replace(true)).then_some(Self))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}
