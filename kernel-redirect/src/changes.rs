//! The changes between the flagged services that are in the kernel and those that are wanted. Pure;
//! the maps are written elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::{FlaggedService, LeftOut, LeftOutReason, SLOT_MAX};

impl FlaggedService {
    /// What the kernel looks it up by.
    pub(crate) fn key(&self) -> (IpAddr, u16) {
        (self.address.to_canonical(), self.port)
    }
}

/// Services by address and port.
pub(crate) type Services = BTreeMap<(IpAddr, u16), FlaggedService>;

/// How to come from what is to what is wanted; to be done in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub remove: Vec<FlaggedService>,
    pub put: Vec<FlaggedService>,
    pub left_out: Vec<LeftOut>,
}

/// The changes from `current` to `wanted`. Of two that collide the first is taken.
pub(crate) fn changes(current: &Services, wanted: &[FlaggedService]) -> Changes {
    let mut changes = Changes::default();
    let mut taken = Services::new();
    let mut slots = BTreeSet::new();
    for service in wanted {
        match no_room_beside(service, &taken, &slots) {
            Some(reason) => changes.left_out.push(LeftOut {
                service: *service,
                reason,
            }),
            None => {
                taken.insert(service.key(), *service);
                slots.insert(service.slot);
            }
        }
    }
    changes.remove = current
        .iter()
        .filter(|(key, _)| !taken.contains_key(key))
        .map(|(_, service)| *service)
        .collect();
    changes.put = taken
        .into_values()
        .filter(|wanted| {
            current
                .get(&wanted.key())
                .is_none_or(|now| !same(now, wanted))
        })
        .collect();
    changes
}

/// Why a service can not be steered beside those taken before it, if so.
fn no_room_beside(
    service: &FlaggedService,
    taken: &Services,
    slots: &BTreeSet<u32>,
) -> Option<LeftOutReason> {
    if service.port == 0 || service.address.is_unspecified() {
        Some(LeftOutReason::NoDestination)
    } else if service.slot > SLOT_MAX {
        Some(LeftOutReason::NoSuchSlot)
    } else if taken.contains_key(&service.key()) {
        Some(LeftOutReason::AddressTaken)
    } else if slots.contains(&service.slot) {
        Some(LeftOutReason::SlotTaken)
    } else {
        None
    }
}

/// Whether the kernel would do the same for both, given that they have the same key.
fn same(a: &FlaggedService, b: &FlaggedService) -> bool {
    a.slot == b.slot && a.fail_open == b.fail_open
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(address: &str, port: u16, slot: u32) -> FlaggedService {
        FlaggedService {
            address: address.parse().unwrap(),
            port,
            fail_open: false,
            slot,
        }
    }

    fn current(services: &[FlaggedService]) -> Services {
        services.iter().map(|s| (s.key(), *s)).collect()
    }

    #[test]
    fn what_did_not_change_is_left_alone() {
        let web = service("10.0.0.1", 80, 1);
        let moved = service("10.0.0.2", 80, 2);
        let gone = service("10.0.0.3", 80, 3);
        let now = FlaggedService { slot: 7, ..moved };
        let opened = FlaggedService {
            fail_open: true,
            ..web
        };
        let is = current(&[web, moved, gone]);
        let to = changes(&is, &[web, now]);
        assert_eq!((to.remove, to.put), (vec![gone], vec![now]));
        let to = changes(&is, &[opened, moved, gone]);
        assert_eq!((to.remove, to.put), (vec![], vec![opened]));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let is = current(&[service("10.0.0.1", 80, 1)]);
        assert_eq!(
            changes(&is, &[service("::ffff:10.0.0.1", 80, 1)]),
            Changes::default()
        );
    }

    #[test]
    fn what_can_not_be_steered_is_told_with_the_reason() {
        let first = service("10.0.0.1", 80, 1);
        let reasons: Vec<_> = changes(
            &Services::new(),
            &[
                first,
                service("10.0.0.1", 80, 2),
                service("10.0.0.2", 80, 1),
                service("10.0.0.3", 0, 3),
                service("::", 80, 4),
                service("10.0.0.4", 80, SLOT_MAX + 1),
            ],
        )
        .left_out
        .into_iter()
        .map(|l| l.reason)
        .collect();
        use LeftOutReason::{AddressTaken, NoDestination, NoSuchSlot, SlotTaken};
        assert_eq!(
            reasons,
            [
                AddressTaken,
                SlotTaken,
                NoDestination,
                NoDestination,
                NoSuchSlot
            ]
        );
    }

    prop_compose! {
        fn any_service()(address in 0..4u8, port in 0..4u16, slot in 0..6u32, fail_open: bool) -> FlaggedService {
            FlaggedService { address: IpAddr::from([10, 0, 0, address]), port, fail_open, slot }
        }
    }

    proptest! {
        /// Applied one by one, the changes end where filling an empty kernel would.
        #[test]
        fn changes_lead_to_what_is_wanted(
            before in proptest::collection::vec(any_service(), 0..12),
            wanted in proptest::collection::vec(any_service(), 0..12),
        ) {
            let apply = |mut kernel: Services, changes: &Changes| {
                for gone in &changes.remove {
                    assert!(kernel.remove(&gone.key()).is_some());
                }
                for put in &changes.put {
                    kernel.insert(put.key(), *put);
                }
                kernel
            };
            let fresh = |wanted: &[FlaggedService]| {
                apply(Services::new(), &changes(&Services::new(), wanted))
            };
            let is = fresh(&before);
            let to = changes(&is, &wanted);
            let after = apply(is, &to);
            prop_assert_eq!(&after, &fresh(&wanted));
            prop_assert_eq!(after.len() + to.left_out.len(), wanted.len());
            let slots: BTreeSet<_> = after.values().map(|s| s.slot).collect();
            prop_assert_eq!(slots.len(), after.len(), "a slot stands for one service");
        }
    }
}
