//! Slots: the numbers by which steered connections say which service port they were dialled to. The
//! kernel writes the number into the address it connects to instead (specs/kernel-redirect.md 1).
//! Assigns and looks up; the kernel's maps are filled elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cairn_config_schema::snapshot::L7Port;
use cairn_kernel_redirect::SLOT_MAX;
use rustc_hash::FxHashMap;

/// Which slot stands for which service port. A slot never changes its meaning while it is used, and a
/// free one is used again only after all others were: a connection that waits to be accepted must not
/// find another service behind its number.
#[derive(Clone, Debug)]
pub struct Slots {
    by_slot: FxHashMap<u32, SocketAddr>,
    by_address: BTreeMap<SocketAddr, u32>,
    /// Those that were given up last: connections may still wait that were steered before.
    retired: FxHashMap<u32, SocketAddr>,
    last: u32,
    max: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self::up_to(SLOT_MAX)
    }
}

impl Slots {
    /// None taken, and none above `max`.
    fn up_to(max: u32) -> Self {
        Self {
            by_slot: FxHashMap::default(),
            by_address: BTreeMap::new(),
            retired: FxHashMap::default(),
            last: 0,
            max,
        }
    }

    /// Goes on with the slots that an earlier process left in the kernel: those of services that are
    /// flagged, and all that it has names for.
    pub fn resume(flagged: &[(u32, SocketAddr)], named: &[(u32, SocketAddr)]) -> Self {
        let mut slots = Self::default();
        for (slot, address) in flagged {
            slots.by_slot.insert(*slot, *address);
            slots.by_address.insert(*address, *slot);
        }
        for (slot, address) in named {
            if !slots.by_slot.contains_key(slot) {
                slots.retired.insert(*slot, *address);
            }
        }
        let all = slots.by_slot.keys().chain(slots.retired.keys());
        slots.last = all.copied().max().unwrap_or_default();
        slots
    }

    /// Gives each of these ports its slot and gives up all others. Answers the ports for which there
    /// is none left.
    pub fn assign<'p>(&mut self, ports: &'p [L7Port]) -> Vec<&'p L7Port> {
        let wanted: BTreeSet<_> = ports.iter().map(|p| p.address).collect();
        let unwanted = |(_, address): &(&u32, &SocketAddr)| !wanted.contains(address);
        let gone: FxHashMap<u32, SocketAddr> = self
            .by_slot
            .iter()
            .filter(unwanted)
            .map(|(slot, address)| (*slot, *address))
            .collect();
        for (slot, address) in &gone {
            self.by_slot.remove(slot);
            self.by_address.remove(address);
        }
        if !gone.is_empty() {
            self.retired = gone;
        }
        let mut left_out = Vec::new();
        for port in ports {
            if self.by_address.contains_key(&port.address) {
                continue;
            }
            match self.free() {
                Some(slot) => {
                    self.retired.remove(&slot);
                    self.by_slot.insert(slot, port.address);
                    self.by_address.insert(port.address, slot);
                }
                None => left_out.push(port),
            }
        }
        left_out
    }

    /// The slot of a service port.
    pub fn slot(&self, address: SocketAddr) -> Option<u32> {
        self.by_address.get(&address).copied()
    }

    /// The service port a slot stands for, or stood for until the last change. Whether that is
    /// served is for the configuration to say.
    pub fn address(&self, slot: u32) -> Option<SocketAddr> {
        let found = self.by_slot.get(&slot).or_else(|| self.retired.get(&slot));
        found.copied()
    }

    fn free(&mut self) -> Option<u32> {
        if self.by_slot.len() >= self.max as usize {
            return None;
        }
        let mut slot = self.last;
        loop {
            slot = if slot >= self.max { 1 } else { slot + 1 };
            if !self.by_slot.contains_key(&slot) {
                self.last = slot;
                return Some(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::ObjectKey;
    use proptest::prelude::*;

    use super::*;

    fn port(number: u16) -> L7Port {
        L7Port {
            address: SocketAddr::from(([10, 0, 0, 1], number)),
            service: ObjectKey::new("shop", "web"),
            fails_open: false,
        }
    }

    #[test]
    fn a_slot_stays_while_others_come_and_go() {
        let mut slots = Slots::default();
        slots.assign(&[port(80), port(81)]);
        let kept = slots.slot(port(81).address).unwrap();
        slots.assign(&[port(81), port(82), port(83)]);
        assert_eq!(slots.slot(port(81).address), Some(kept));
        assert_eq!(slots.slot(port(80).address), None);
    }

    #[test]
    fn a_freed_slot_is_not_used_again_at_once() {
        let mut slots = Slots::default();
        slots.assign(&[port(80)]);
        let freed = slots.slot(port(80).address).unwrap();
        slots.assign(&[port(81)]);
        assert_ne!(slots.slot(port(81).address), Some(freed));
        // For connections that were steered just before; the next change forgets it.
        assert_eq!(slots.address(freed), Some(port(80).address));
        slots.assign(&[port(82)]);
        assert_eq!(slots.address(freed), None);
    }

    #[test]
    fn an_earlier_process_is_continued() {
        let (web, api, old) = (port(80), port(81), port(79));
        let flagged = [(7, web.address), (9, api.address)];
        let mut slots = Slots::resume(&flagged, &[(7, web.address), (11, old.address)]);
        assert_eq!(slots.address(11), Some(old.address));
        slots.assign(&[port(80), port(82)]);
        assert_eq!(slots.slot(web.address), Some(7));
        assert_eq!(slots.slot(port(82).address), Some(12));
    }

    #[test]
    fn ports_beyond_the_last_slot_are_named() {
        let all: Vec<L7Port> = (1..=4).map(port).collect();
        let mut slots = Slots::up_to(3);
        let left_out = slots.assign(&all);
        assert_eq!(left_out, [&port(4)]);
        assert_eq!(slots.slot(port(4).address), None);
    }

    proptest! {
        /// Against a naive reading: every wanted port has a slot, both ways agree, no two share one.
        #[test]
        fn both_ways_agree(rounds in prop::collection::vec(prop::collection::btree_set(1u16..40, 0..20), 1..20)) {
            let mut slots = Slots::default();
            let mut before = BTreeMap::new();
            for wanted in rounds {
                let ports: Vec<L7Port> = wanted.iter().copied().map(port).collect();
                prop_assert!(slots.assign(&ports).is_empty());
                let now: BTreeMap<_, _> = ports.iter().map(|p| (p.address, slots.slot(p.address).unwrap())).collect();
                for (address, slot) in &now {
                    prop_assert_eq!(slots.address(*slot), Some(*address));
                    if let Some(earlier) = before.get(address) {
                        prop_assert_eq!(earlier, slot);
                    }
                }
                before = now;
            }
        }
    }
}
