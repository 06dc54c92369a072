//! Slot addressing: which service a steered connection was meant for is the loopback address that
//! it arrives at. Pure arithmetic; who has which slot is the caller's table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Slot 0. The range is 127.128.0.0/9, which every network namespace routes to its loopback.
const FIRST: u32 = u32::from_be_bytes([127, 128, 0, 0]);

/// The highest slot: the address after it, 127.255.255.255, is loopback's broadcast address.
pub const SLOT_MAX: u32 = (1 << 23) - 2;

/// The slot of the address at which a steered connection arrived (`getsockname()` of the accepted
/// socket, IPv4 or IPv4-mapped), or `None` if it was not steered.
#[must_use]
pub fn slot_of(local: SocketAddr) -> Option<u32> {
    let IpAddr::V4(address) = local.ip().to_canonical() else {
        return None;
    };
    address
        .to_bits()
        .checked_sub(FIRST)
        .filter(|slot| *slot <= SLOT_MAX)
}

/// The address of a slot, or `None` if there is no such slot.
#[must_use]
pub fn address_of(slot: u32) -> Option<Ipv4Addr> {
    (slot <= SLOT_MAX).then(|| Ipv4Addr::from_bits(FIRST | slot))
}

/// Slot 0 of the range as the program adds to it, in host byte order.
#[cfg(kernel)]
pub(crate) const RANGE: u32 = FIRST;

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
    }

    #[test]
    fn other_addresses_are_not() {
        for address in [
            "127.0.0.1",
            "127.127.255.255",
            "127.255.255.255",
            "128.0.0.0",
            "10.0.0.1",
            "::1",
            "fd00::1",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
        assert_eq!(address_of(SLOT_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn a_slot_survives_its_address(slot in 0..=SLOT_MAX) {
            let address = address_of(slot).unwrap();
            prop_assert!(address.is_loopback() && address.octets()[1] >= 128);
            prop_assert_eq!(slot_of(SocketAddr::new(address.into(), 1)), Some(slot));
        }
    }
}
