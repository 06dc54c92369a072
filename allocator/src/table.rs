//! What was sampled, in room that was set aside before: stacks with what they allocated, and which samples still live.
//! Knows neither threads nor the allocator.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault};

use rustc_hash::FxHasher;

use crate::amount::Amount;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<FxHasher>>;

/// Frames that room is set aside for, for each stack; deep ones use what shallow ones leave.
const FRAMES_PER_STACK: usize = 48;

/// How much is kept at the most; what finds no room is counted.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Stacks that differ.
    pub stacks: usize,
    /// Samples that were not freed yet.
    pub living: usize,
}

/// What was sampled.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// By stack.
    pub stacks: Vec<Stack>,
    /// What found no room, estimated like the rest.
    pub dropped: Amount,
}

/// A stack, and what it allocated.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Return addresses, the innermost first.
    pub frames: Vec<usize>,
    /// Allocated in all.
    pub allocated: Amount,
    /// What of it was not freed.
    pub in_use: Amount,
}

/// A sample that was not freed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Living {
    stack: usize,
    bytes: usize,
}

struct Seen {
    begin: usize,
    end: usize,
    allocated: Amount,
}

pub(crate) struct Table {
    room: Room,
    frames: Vec<usize>,
    stacks: Vec<Seen>,
    by_hash: Map<u64, usize>,
    living: Map<usize, Living>,
    dropped: Amount,
}

impl Table {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            room,
            frames: Vec::with_capacity(room.stacks * FRAMES_PER_STACK),
            stacks: Vec::with_capacity(room.stacks),
            by_hash: Map::with_capacity_and_hasher(room.stacks, BuildHasherDefault::default()),
            // Twice what is used: a map that is half full makes room for more by tidying up, and does not grow.
            living: Map::with_capacity_and_hasher(room.living * 2, BuildHasherDefault::default()),
            dropped: Amount::default(),
        }
    }

    /// Notes a sample; `false`: it found no room, and is counted as that.
    pub(crate) fn allocated(&mut self, at: usize, bytes: usize, frames: &[usize]) -> bool {
        // An address is given out again only after it was freed: whoever was there is gone.
        self.living.remove(&at);
        let amount = Amount::of_sample(bytes);
        let has_room = self.living.len() < self.room.living;
        let Some(stack) = self.stack(frames).filter(|_| has_room) else {
            self.dropped.add(amount);
            return false;
        };
        if let Some(seen) = self.stacks.get_mut(stack) {
            seen.allocated.add(amount);
        }
        self.living.insert(at, Living { stack, bytes });
        true
    }

    /// What was there, if it was sampled.
    pub(crate) fn freed(&mut self, at: usize) -> Option<Living> {
        self.living.remove(&at)
    }

    /// It was not freed after all.
    pub(crate) fn kept(&mut self, at: usize, living: Living) {
        if self.living.len() < self.room.living {
            self.living.insert(at, living);
        }
    }

    fn stack(&mut self, frames: &[usize]) -> Option<usize> {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(frames);
        if let Some(known) = self.by_hash.get(&hash) {
            let seen = self.stacks.get(*known)?;
            let same = self.frames.get(seen.begin..seen.end) == Some(frames);
            return same.then_some(*known);
        }
        let (begin, end) = (self.frames.len(), self.frames.len() + frames.len());
        if self.stacks.len() >= self.room.stacks || end > self.frames.capacity() {
            return None;
        }
        self.frames.extend_from_slice(frames);
        self.stacks.push(Seen {
            begin,
            end,
            allocated: Amount::default(),
        });
        self.by_hash.insert(hash, self.stacks.len() - 1);
        Some(self.stacks.len() - 1)
    }

    /// What there is, told by stack.
    pub(crate) fn told(self) -> Sampled {
        let told = |seen: &Seen| Stack {
            frames: self
                .frames
                .get(seen.begin..seen.end)
                .unwrap_or_default()
                .to_vec(),
            allocated: seen.allocated,
            in_use: Amount::default(),
        };
        let mut stacks: Vec<_> = self.stacks.iter().map(told).collect();
        for living in self.living.values() {
            if let Some(stack) = stacks.get_mut(living.stack) {
                stack.in_use.add(Amount::of_sample(living.bytes));
            }
        }
        Sampled {
            stacks,
            dropped: self.dropped,
        }
    }
}

#[cfg(test)]
mod tests;
