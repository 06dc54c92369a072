//! The bytes in the maps: the other half of the structures in ebpf/redirect.bpf.c. Whoever changes
//! one changes both and raises [`LAYOUT`].

use std::net::{IpAddr, Ipv6Addr};

use crate::{EnrolledPod, FlaggedService, Sizes, is_host_key, slot};

/// Version of the maps; the folder of the pins is named after it. It goes up with every change of a
/// structure, also one that leaves all sizes as they are: old programs would read new values. Pods of
/// the older versions are carried over ([`earlier`](crate::earlier)), which reads their keys; it must
/// learn to if the size of their values changes.
///
/// 1: no flags in [`Pod`], no cgroups in [`About`]. 2: these.
pub(crate) const LAYOUT: u32 = 2;

/// A map as the program declares it; its number of entries is what it has if nobody asks for another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub name: &'static str,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
}

const fn shape(name: &'static str, key_size: u32, value_size: u32, max_entries: u32) -> Shape {
    Shape {
        name,
        key_size,
        value_size,
        max_entries,
    }
}

impl Sizes {
    /// A map with the room it has at these sizes.
    pub(crate) fn of(self, map: Shape) -> Shape {
        let max_entries = match map.name {
            name if name == SERVICES.name || name == SLOTS.name => self.services,
            name if name == PODS.name || name == LISTENERS.name => self.pods,
            _ => map.max_entries,
        };
        Shape { max_entries, ..map }
    }
}

pub(crate) const SERVICES: Shape = shape("cairn_services", 20, 8, 65536);
pub(crate) const SLOTS: Shape = shape("cairn_slots", 4, 20, 65536);
pub(crate) const PODS: Shape = shape("cairn_pods", 8, 8, 4096);
pub(crate) const LISTENERS: Shape = shape("cairn_listeners", 8, 4, 4096);
pub(crate) const COUNTERS: Shape = shape("cairn_counters", 4, 8, 6);
pub(crate) const ABOUT: Shape = shape("cairn_about", 4, 16, 1);
pub(crate) const MAPS: [Shape; 6] = [SERVICES, SLOTS, PODS, LISTENERS, COUNTERS, ABOUT];

/// The programs, in the order in which they are attached: whoever is steered finds its peer's name
/// hidden already. A pin of a link is named `<program>_link`.
pub(crate) const PROGRAMS: [&str; 4] = [
    "cairn_getpeername4",
    "cairn_getpeername6",
    "cairn_connect4",
    "cairn_connect6",
];

/// An address and port: IPv6 or IPv4-mapped, port in network byte order.
pub(crate) type Endpoint = [u8; 20];
pub(crate) type Service = [u8; 8];
pub(crate) type Pod = [u8; 8];
pub(crate) type About = [u8; 16];

const FAIL_OPEN: u32 = 1;

/// Bits of the flags of a [`Pod`].
const IPV6_SLOTS: u16 = 1;
const IN_HOST: u16 = 2;

/// Bit of [`About`]: refused connections see ECONNREFUSED and not EPERM.
pub(crate) const WITH_RETVAL: u32 = 1;

pub(crate) fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 20];
    let (head, tail) = bytes.split_at_mut(16);
    head.copy_from_slice(&address.octets());
    let (port_bytes, _) = tail.split_at_mut(2);
    port_bytes.copy_from_slice(&port.to_be_bytes());
    bytes
}

pub(crate) fn read_endpoint(bytes: &Endpoint) -> (IpAddr, u16) {
    let [address @ .., high, low, _, _] = *bytes;
    (
        IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
        u16::from_be_bytes([high, low]),
    )
}

pub(crate) fn service(service: &FlaggedService) -> Service {
    let flags = if service.fail_open { FAIL_OPEN } else { 0 };
    pair(service.slot, flags)
}

pub(crate) fn read_service(key: &Endpoint, value: &Service) -> FlaggedService {
    let (address, port) = read_endpoint(key);
    let (slot, flags) = read_pair(value);
    FlaggedService {
        address,
        port,
        fail_open: flags & FAIL_OPEN != 0,
        slot,
    }
}

pub(crate) fn pod(pod: &EnrolledPod) -> Pod {
    let (range, in_host) = match is_host_key(pod.netns_cookie) {
        true => (slot::HOST_RANGE, IN_HOST),
        false => (slot::RANGE, 0),
    };
    let [a, b, c, d] = range.to_ne_bytes();
    let [high, low] = pod.listener_port.to_be_bytes();
    let ipv6_slots = if pod.ipv6_slots { IPV6_SLOTS } else { 0 };
    let [e, f] = (ipv6_slots | in_host).to_ne_bytes();
    [a, b, c, d, high, low, e, f]
}

pub(crate) fn read_pod_has_ipv6(value: &Pod) -> bool {
    let [_, _, _, _, _, _, e, f] = *value;
    u16::from_ne_bytes([e, f]) & IPV6_SLOTS != 0
}

pub(crate) fn read_pod_port(value: &Pod) -> u16 {
    let [_, _, _, _, high, low, _, _] = *value;
    u16::from_be_bytes([high, low])
}

/// `by_cgroup`: whether there are pods that are known by their cgroup.
pub(crate) fn about(own_cgroup: u64, features: u32, by_cgroup: bool) -> About {
    let mut bytes = [0; 16];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&own_cgroup.to_ne_bytes());
    tail.copy_from_slice(&pair(features, u32::from(by_cgroup)));
    bytes
}

/// The cgroup that is not steered, and the features in use.
pub(crate) fn read_about(bytes: &About) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, features @ ..] = *bytes;
    let own = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    (own, read_pair(&features).0)
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

fn read_pair(bytes: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *bytes;
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_endpoint_is_in_network_byte_order_and_mapped() {
        assert_eq!(
            endpoint("10.1.2.3".parse().unwrap(), 0x1234),
            [
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3, 0x12, 0x34, 0, 0
            ]
        );
    }

    #[test]
    fn what_a_map_has_room_for_is_what_was_asked_for() {
        let usual = Sizes::default();
        for map in MAPS {
            assert_eq!(usual.of(map).max_entries, map.max_entries, "{}", map.name);
        }
        let small = Sizes {
            services: 3,
            pods: 2,
        };
        let room = MAPS.map(|map| small.of(map).max_entries);
        assert_eq!(room, [3, 3, 2, 2, 6, 1]);
    }

    #[test]
    fn the_source_declares_maps_of_these_sizes() {
        let source = include_str!("../ebpf/redirect.bpf.c");
        for map in MAPS {
            let at = source.find(&format!("{} SEC", map.name)).unwrap();
            let declared = source[at..].split(';').next().unwrap();
            let entries = match map.name {
                "cairn_counters" => "COUNTERS".to_owned(),
                _ => map.max_entries.to_string(),
            };
            assert!(
                declared.contains(&format!(".max_entries = {entries},")),
                "{declared}"
            );
            assert!(map.name.len() < 16, "the kernel keeps 15 characters");
        }
    }

    #[test]
    fn the_program_looks_for_cgroups_as_deep_as_is_said() {
        let source = include_str!("../ebpf/redirect.bpf.c");
        let declared = format!("#define CGROUP_DEPTH {}\n", crate::CGROUP_DEPTH_MAX);
        assert!(source.contains(&declared));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(address: [u8; 16], v4: bool, port: u16, slot: u32, fail_open: bool, own: u64, bits: u32) {
            let address = if v4 {
                IpAddr::from([address[0], address[1], address[2], address[3]])
            } else {
                IpAddr::from(address).to_canonical()
            };
            let flagged = FlaggedService { address, port, fail_open, slot };
            let key = endpoint(address, port);
            prop_assert_eq!(read_service(&key, &service(&flagged)), flagged);
            prop_assert_eq!(read_about(&about(own, bits, v4)), (own, bits));
            let enrolled = EnrolledPod { netns_cookie: own, listener_port: port, ipv6_slots: fail_open };
            let value = pod(&enrolled);
            prop_assert_eq!((read_pod_port(&value), read_pod_has_ipv6(&value)), (port, fail_open));
        }
    }
}
