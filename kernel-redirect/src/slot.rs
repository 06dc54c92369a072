//! Slot addressing: which service a steered connection was meant for is the loopback address that
//! it arrives at. Pure arithmetic; who has which slot is the caller's table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Slot 0. The range is 127.128.0.0/9, which every network namespace routes to its loopback.
const FIRST: u32 = u32::from_be_bytes([127, 128, 0, 0]);

/// Slot 0 of those in the host's namespace: 240.128.0.0/9, of the addresses that are reserved for the
/// future (RFC 1112 4), which nobody has and Linux routes like any other.
const FIRST_IN_HOST: u32 = u32::from_be_bytes([240, 128, 0, 0]);

/// Slot 0 of IPv6, in a network of unique local addresses (RFC 4193) of 96 bits. Pods' namespaces
/// have no route to it until one is made.
pub(crate) const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd63, 0x6169, 0x726e, 0, 0, 0, 0, 0);

/// Bits of the address that all slots of IPv6 share.
#[cfg(kernel)]
pub(crate) const BITS_V6: u8 = 96;

/// The highest slot: the address after it, 127.255.255.255, is loopback's broadcast address.
pub const SLOT_MAX: u32 = (1 << 23) - 2;

/// The slot of the address at which a steered connection arrived (`getsockname()` of the accepted
/// socket, IPv4, IPv4-mapped or IPv6), or `None` if it was not steered.
#[must_use]
pub fn slot_of(local: SocketAddr) -> Option<u32> {
    let slot = match local.ip().to_canonical() {
        IpAddr::V4(address) => {
            let first = if address.is_loopback() {
                FIRST
            } else {
                FIRST_IN_HOST
            };
            address.to_bits().checked_sub(first)?
        }
        IpAddr::V6(address) => {
            u32::try_from(address.to_bits().checked_sub(FIRST_V6.to_bits())?).ok()?
        }
    };
    (slot <= SLOT_MAX).then_some(slot)
}

/// Whether an address is of the networks of the slots, of one that is a slot or not: a connection to
/// it from a pod meets the pod's own listener, or nobody.
#[must_use]
pub fn is_of_slots(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let range = address.to_bits() >> 23;
            range == FIRST >> 23 || range == FIRST_IN_HOST >> 23
        }
        IpAddr::V6(address) => address.to_bits() >> 32 == FIRST_V6.to_bits() >> 32,
    }
}

/// The address of a slot, or `None` if there is no such slot.
#[must_use]
pub fn address_of(slot: u32) -> Option<Ipv4Addr> {
    (slot <= SLOT_MAX).then(|| Ipv4Addr::from_bits(FIRST | slot))
}

/// Slot 0 of the range as the program adds to it, in host byte order.
#[cfg(kernel)]
pub(crate) const RANGE: u32 = FIRST;
/// The same for pods whose listener is in the host's namespace.
#[cfg(kernel)]
pub(crate) const HOST_RANGE: u32 = FIRST_IN_HOST;
/// Bits of the address that all slots of a range share.
#[cfg(kernel)]
pub(crate) const RANGE_BITS: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(address: &str) -> Option<u32> {
        slot_of(SocketAddr::new(address.parse().unwrap(), 15001))
    }

    #[test]
    fn addresses_of_the_range_are_slots_also_when_mapped() {
        assert_eq!(of("127.128.0.0"), Some(0));
        assert_eq!(of("127.128.1.2"), Some(258));
        assert_eq!(of("::ffff:127.128.0.9"), Some(9));
        assert_eq!(of("127.255.255.254"), Some(SLOT_MAX));
        assert_eq!(of("240.128.0.9"), Some(9));
        assert_eq!(of("fd63:6169:726e::"), Some(0));
        assert_eq!(of("fd63:6169:726e::1:2"), Some(65_538));
    }

    #[test]
    fn other_addresses_are_not() {
        for address in [
            "127.0.0.1",
            "127.127.255.255",
            "127.255.255.255",
            "128.0.0.0",
            "10.0.0.1",
            "240.127.255.255",
            "240.255.255.255",
            "241.128.0.0",
            "255.255.255.255",
            "::1",
            "fd00::1",
            "fd63:6169:726e::ffff:ffff",
            "fd63:6169:726e:0:0:1::",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
        assert_eq!(address_of(SLOT_MAX + 1), None);
    }

    #[test]
    fn the_networks_of_the_slots_are_wider_than_the_slots() {
        let of_slots = |address: &str| is_of_slots(address.parse().unwrap());
        for address in [
            "127.128.0.0",
            "127.255.255.255",
            "::ffff:127.128.0.9",
            "240.255.255.255",
        ] {
            assert!(of_slots(address), "{address}");
        }
        assert!(of_slots("fd63:6169:726e::") && of_slots("fd63:6169:726e::ffff:ffff"));
        for address in [
            "127.127.255.255",
            "128.0.0.0",
            "240.127.255.255",
            "fd63:6169:726e:0:0:1::",
            "::1",
        ] {
            assert!(!of_slots(address), "{address}");
        }
    }

    proptest! {
        #[test]
        fn a_slot_survives_its_address(slot in 0..=SLOT_MAX) {
            let address = address_of(slot).unwrap();
            prop_assert!(address.is_loopback() && address.octets()[1] >= 128);
            prop_assert_eq!(slot_of(SocketAddr::new(address.into(), 1)), Some(slot));
            let in_host = Ipv4Addr::from_bits(FIRST_IN_HOST | slot);
            prop_assert_eq!(slot_of(SocketAddr::new(in_host.into(), 1)), Some(slot));
            prop_assert!(is_of_slots(address.into()));
        }
    }
}
