//! Maglev hashing (Eisenbud et al., NSDI 2016): a table in which every endpoint has as many entries as
//! it weighs, and few entries change hands when endpoints come and go. Lookup is one read.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::dice::mix;
use crate::endpoint::LiveEndpoint;

/// How many entries a key may be led to before the caller looks for itself.
const ENTRIES_TRIED: u64 = 16;

const FREE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Maglev(Box<[u32]>);

/// One endpoint's order of preference over the entries.
struct Preference {
    place: u64,
    skip: u64,
    weight: u64,
    /// Entries it has, scaled so that weights need no fractions.
    taken: u64,
}

impl Maglev {
    pub(super) fn build(members: &[Arc<LiveEndpoint>], size: u32) -> Self {
        let size = u64::from(size.max(2));
        let mut table = vec![FREE; size as usize];
        let mut preferences: Vec<_> = members.iter().map(|e| preference(e, size)).collect();
        let heaviest = preferences.iter().map(|p| p.weight).max().unwrap_or(0);
        let mut free = if heaviest == 0 { 0 } else { size };
        let mut round = 0u64;
        while free > 0 {
            round += 1;
            for (at, preference) in preferences.iter_mut().enumerate() {
                // The heaviest takes one each round, another as soon as it has fallen behind.
                if free == 0 || round * preference.weight < preference.taken + heaviest {
                    continue;
                }
                if take(&mut table, preference, at as u32, size) {
                    preference.taken += heaviest;
                    free -= 1;
                }
            }
        }
        Self(table.into())
    }

    /// The members for a key: the one it belongs to, then others that depend on nothing but the key.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let size = self.0.len() as u64;
        (0..ENTRIES_TRIED)
            .map(move |n| {
                if n == 0 {
                    hash
                } else {
                    mix(hash.wrapping_add(n))
                }
            })
            .filter_map(move |hash| self.0.get((hash % size.max(1)) as usize))
            .filter(|at| **at != FREE)
            .map(|at| *at as usize)
    }
}

fn preference(member: &Arc<LiveEndpoint>, size: u64) -> Preference {
    let name = member.endpoint.address.to_string();
    Preference {
        place: xxh64(name.as_bytes(), 0) % size,
        // With a prime size every skip leads through all entries.
        skip: xxh64(name.as_bytes(), 1) % (size - 1) + 1,
        weight: u64::from(member.endpoint.weight.max(1)),
        taken: 0,
    }
}

/// Takes the next free entry in the endpoint's order, or any where a size that is not prime leads
/// past all of them. `false`: there is none.
fn take(table: &mut [u32], preference: &mut Preference, at: u32, size: u64) -> bool {
    for _ in 0..size {
        let place = preference.place;
        preference.place = (place + preference.skip) % size;
        if let Some(entry) = table.get_mut(place as usize).filter(|e| **e == FREE) {
            *entry = at;
            return true;
        }
    }
    let free = table.iter_mut().find(|entry| **entry == FREE);
    free.map(|entry| *entry = at).is_some()
}
