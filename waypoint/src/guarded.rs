//! Addresses that no name may lead to. Whoever may write a RequestAuthentication or a ServiceEntry in
//! some namespace may make the waypoint send a request; it must not reach what only the waypoint's own
//! machine can (specs/policies.md 5, SSRF by `jwksUri`). Looks at addresses after names were looked
//! up, so that no name leads around it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds tell machines and pods their secrets, where their documents give them.
const METADATA: [IpAddr; 13] = [
    // Nearly everybody
    ipv4(169, 254, 169, 254),
    // Amazon's credentials of tasks and of pods
    ipv4(169, 254, 170, 2),
    ipv4(169, 254, 170, 23),
    // Scaleway
    ipv4(169, 254, 42, 42),
    // Alibaba Cloud
    ipv4(100, 100, 100, 200),
    // Oracle Cloud
    ipv4(192, 0, 0, 192),
    // Azure's wire server
    ipv4(168, 63, 129, 16),
    // The same over IPv6: Amazon's machines and pods, Google, Oracle, Scaleway, OpenStack
    ipv6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254]),
    ipv6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0023]),
    ipv6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]),
    ipv6([0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
    ipv6([0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042]),
    ipv6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]),
];

const fn ipv4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn ipv6(of: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = of;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// Why nothing is fetched from or sent to an address that a name led to. `None`: they may be. Private addresses may: that is where
/// identity providers of a cluster are. `allow_local` leaves only metadata forbidden.
pub fn forbidden(address: IpAddr, allow_local: bool) -> Option<&'static str> {
    let address = embedded(address);
    if METADATA.contains(&address) {
        return Some("a metadata address");
    }
    match address {
        _ if allow_local => None,
        IpAddr::V4(v4) => of_v4(v4),
        IpAddr::V6(v6) => of_v6(v6),
    }
}

fn of_v4(v4: Ipv4Addr) -> Option<&'static str> {
    match v4 {
        _ if v4.is_loopback() => Some("a loopback address"),
        _ if v4.is_link_local() => Some("a link-local address"),
        _ if v4.is_multicast() || v4.is_broadcast() => Some("a multicast address"),
        // 0.0.0.0 reaches the machine itself.
        _ if v4.octets().first() == Some(&0) => Some("an unspecified address"),
        _ => None,
    }
}

fn of_v6(v6: Ipv6Addr) -> Option<&'static str> {
    match v6 {
        _ if v6.is_loopback() => Some("a loopback address"),
        _ if v6.is_unicast_link_local() => Some("a link-local address"),
        _ if v6.is_multicast() => Some("a multicast address"),
        _ if v6.is_unspecified() => Some("an unspecified address"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:a.b.c.d`), compatible (`::a.b.c.d`),
/// NAT64 (`64:ff9b::a.b.c.d`), 6to4 (`2002:ab:cd::`).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        // `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_to_the_machine_itself() {
        for text in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.1.1",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(forbidden(address, false).is_some(), "{text}");
        }
        for text in [
            "10.96.0.10",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(forbidden(address, false), None, "{text}");
        }
        for (text, allowed) in [
            ("127.0.0.1", true),
            ("fe80::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fd00:ec2::254", false),
            ("169.254.170.23", false),
            ("fe80::a9fe:a9fe", false),
            ("169.254.1.1", true),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(forbidden(address, true).is_none(), allowed, "{text}");
        }
    }
}
