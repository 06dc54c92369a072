//! Pods whose listener is in the host's network namespace, because their own can not be entered. Who
//! connects is told by the device that a packet comes in by: the listener is bound to the host's end of
//! the pod's own link, so that no other pod, and nobody on the host, reaches it, whatever addresses
//! they write into their packets (specs/kernel-redirect.md 2, A). Makes no sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::netlink::{self, ACKNOWLEDGE, REQUEST};
use crate::{EnrolledPod, RedirectError, listener, netns_cookie, slot};

/// Why connections can not be steered to this socket in the host's namespace, if so.
pub(crate) fn check(pod: &EnrolledPod, socket: BorrowedFd<'_>) -> Result<(), String> {
    let said = |e: io::Error| e.to_string();
    let own = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(said)?;
    let own = netns_cookie(own.as_fd()).map_err(said)?;
    if netns_cookie(socket).map_err(said)? != own {
        return Err("it is not in the host's network namespace".into());
    }
    listener::check_address(pod, socket)?;
    let socket = socket2::SockRef::from(&socket);
    if !matches!(socket.device().map_err(said)?, Some(device) if device != b"lo") {
        return Err(
            "it is not bound to the device of the pod, so that other pods could pass for it".into(),
        );
    }
    match socket.ip_transparent_v4().map_err(said)? {
        true => Ok(()),
        false => Err("it is not transparent (IP_TRANSPARENT), so that it could not answer".into()),
    }
}

/// Why the host's end of a pod's link does not tell who sends.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is none, or we may not ask.
    #[error("interface {0}: {1}; give the name of the host's end of the pod's veth")]
    Unknown(String, #[source] io::Error),
    /// Several pods reach the host through one interface.
    #[error(
        "interface {0} is part of a bridge or another interface: pods behind it can take each other's addresses, and nobody could tell them apart"
    )]
    Shared(String),
    /// Not a pair of which the pod has the other end.
    #[error("interface {0} is no veth whose other end is in another network namespace")]
    NotAPods(String),
}

/// The index of the host's end of a pod's link, if what comes in by it can only come from that pod.
///
/// # Errors
/// [`LinkError`].
pub fn pod_link(name: &str) -> Result<u32, LinkError> {
    let unknown = |e| LinkError::Unknown(name.to_owned(), e);
    let link = link(name).map_err(unknown)?;
    let index = link.index.ok_or(io::ErrorKind::InvalidData.into());
    let index = index.map_err(unknown)?;
    if link.has_master {
        return Err(LinkError::Shared(name.to_owned()));
    }
    if !link.is_pair || !link.leads_elsewhere {
        return Err(LinkError::NotAPods(name.to_owned()));
    }
    Ok(index)
}

/// What rtnetlink(7) tells of an interface.
#[derive(Default)]
struct Link {
    index: Option<u32>,
    has_master: bool,
    is_pair: bool,
    /// Its other end is in another network namespace.
    leads_elsewhere: bool,
}

fn link(name: &str) -> io::Result<Link> {
    const GET_LINK: u16 = 18;
    const NAME: u16 = 3;
    const MASTER: u16 = 10;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const OTHER_NAMESPACE: u16 = 37;
    /// Size of `ifinfomsg`; the index is at 4.
    const INTERFACE: usize = 16;
    let mut body = vec![0; INTERFACE];
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    body.extend(netlink::attribute(NAME, &name));
    let socket = netlink::open(netlink::ROUTE)?;
    socket.send(&netlink::request(GET_LINK, REQUEST | ACKNOWLEDGE, &body))?;
    let mut found = Link::default();
    netlink::answers(&socket, |body| {
        let index = body.get(4..).and_then(|at| at.first_chunk());
        found.index = index.map(|bytes| u32::from_ne_bytes(*bytes));
        for (kind, value) in netlink::attributes(body.get(INTERFACE..).unwrap_or_default()) {
            match kind {
                MASTER => found.has_master = true,
                OTHER_NAMESPACE => found.leads_elsewhere = true,
                INFO => {
                    let mut info = netlink::attributes(value);
                    found.is_pair = info.any(|(kind, value)| {
                        kind == INFO_KIND && matches!(value, b"veth\0" | b"netkit\0")
                    });
                }
                _ => {}
            }
        }
    })?;
    Ok(found)
}

/// Lets pods reach the host's slots at one TCP port, that of their listeners: what they send there is
/// delivered here and not routed on. At other ports, where anybody may listen who listens on every
/// address, the slots stay what they were, nobody's. So the route is in a table of its own, which a
/// rule leads to for this port only; and because the slots are thereby no addresses of this host, who
/// listens there must be transparent, and who finds nobody listening gets no answer. Returns whether it has slots of IPv6 too.
///
/// # Errors
/// [`RedirectError::HostRoute`] with what the kernel answers: `EPERM` without CAP_NET_ADMIN; and if the
/// addresses are in use here.
pub fn route_host_slots(port: u16) -> Result<bool, RedirectError> {
    let failed = |source| RedirectError::HostRoute { source };
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").map_err(failed)?;
    if let Some(device) = user_of_slots(&routes) {
        let why = format!("addresses of it are in use behind {device}");
        return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, why)));
    }
    V4.route(port).map_err(failed)?;
    // A host without IPv6 has no pods with it either.
    Ok(V6.route(port).is_ok())
}

/// The device of a route to addresses that are slots here, the default route left out, in the text of
/// /proc/net/route. The route of the slots themselves is in another table.
fn user_of_slots(routes: &str) -> Option<&str> {
    let number = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::from_be);
    let all = routes.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (device, destination) = (words.next()?, number(words.next()?)?);
        Some((device, destination, number(words.nth(5)?)?))
    });
    let mut using = all.filter(|(_, destination, mask)| {
        let both = mask & (u32::MAX << (32 - u32::from(slot::RANGE_BITS)));
        *mask != 0 && destination & both == slot::HOST_RANGE & both
    });
    using.next().map(|(device, ..)| device)
}

/// Undoes [`route_host_slots`], for all ports; nothing to undo is fine.
pub(crate) fn unroute_slots() -> io::Result<()> {
    V4.unroute()?;
    match V6.unroute() {
        // Without IPv6 there is nothing to undo.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        done => done,
    }
}

/// Table of the route to the slots, of Cairn alone: "cair" in ASCII.
const TABLE: u32 = 0x6361_6972;

/// Before the rules of others, most of which say where a pod's packets go.
const PRIORITY: u32 = 1;

/// The slots of one address family.
struct Slots<const N: usize> {
    family: u8,
    first: [u8; N],
    bits: u8,
}

const V4: Slots<4> = Slots {
    family: 2,
    first: slot::HOST_RANGE.to_be_bytes(),
    bits: slot::RANGE_BITS,
};
const V6: Slots<16> = Slots {
    family: 10,
    first: slot::FIRST_V6.octets(),
    bits: slot::BITS_V6,
};

/// Flags and errors that adding and removing are told by.
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

impl<const N: usize> Slots<N> {
    /// Both are there already when a pod was before.
    fn route(&self, port: u16) -> io::Result<()> {
        const NEW_ROUTE: u16 = 24;
        const NEW_RULE: u16 = 32;
        let there = |result: io::Result<()>| match result {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done,
        };
        there(ask(NEW_ROUTE, CREATE | EXCLUSIVE, &self.route_message()))?;
        there(ask(
            NEW_RULE,
            CREATE | EXCLUSIVE,
            &self.rule_message(Some(port)),
        ))
    }

    fn unroute(&self) -> io::Result<()> {
        const DELETE_ROUTE: u16 = 25;
        const DELETE_RULE: u16 = 33;
        // One for each port.
        while !gone(ask(DELETE_RULE, 0, &self.rule_message(None)))? {}
        gone(ask(DELETE_ROUTE, 0, &self.route_message())).map(drop)
    }

    /// `rtmsg` with destination, device and table, as rtnetlink(7) has them.
    fn route_message(&self) -> Vec<u8> {
        const IN_ATTRIBUTE: u8 = 252;
        const BY_ADMINISTRATOR: u8 = 4;
        const SCOPE_HOST: u8 = 254;
        const KIND_LOCAL: u8 = 2;
        const DESTINATION: u16 = 1;
        const DEVICE: u16 = 4;
        const IN_TABLE: u16 = 15;
        const LOOPBACK_INDEX: u32 = 1;
        let mut body = vec![self.family, self.bits, 0, 0];
        body.extend([IN_ATTRIBUTE, BY_ADMINISTRATOR, SCOPE_HOST, KIND_LOCAL]);
        body.extend([0; 4]);
        body.extend(netlink::attribute(DESTINATION, &self.first));
        body.extend(netlink::attribute(DEVICE, &LOOPBACK_INDEX.to_ne_bytes()));
        body.extend(netlink::attribute(IN_TABLE, &TABLE.to_ne_bytes()));
        body
    }

    /// `fib_rule_hdr` (linux/fib_rules.h) for TCP to the slots at one port, or at any.
    fn rule_message(&self, port: Option<u16>) -> Vec<u8> {
        const IN_ATTRIBUTE: u8 = 252;
        const TO_TABLE: u8 = 1;
        const DESTINATION: u16 = 1;
        const RULE_PRIORITY: u16 = 6;
        const IN_TABLE: u16 = 15;
        const PROTOCOL: u16 = 22;
        const PORTS: u16 = 24;
        const TCP: u8 = 6;
        let mut body = vec![self.family, self.bits, 0, 0, IN_ATTRIBUTE, 0, 0, TO_TABLE];
        body.extend([0; 4]);
        body.extend(netlink::attribute(DESTINATION, &self.first));
        body.extend(netlink::attribute(RULE_PRIORITY, &PRIORITY.to_ne_bytes()));
        body.extend(netlink::attribute(IN_TABLE, &TABLE.to_ne_bytes()));
        body.extend(netlink::attribute(PROTOCOL, &[TCP]));
        if let Some(port) = port {
            let [a, b] = port.to_ne_bytes();
            body.extend(netlink::attribute(PORTS, &[a, b, a, b]));
        }
        body
    }
}

/// Whether there was nothing to delete.
fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(true),
        Err(error) => Err(error),
    }
}

fn ask(command: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = netlink::open(netlink::ROUTE)?;
    socket.send(&netlink::request(
        command,
        REQUEST | ACKNOWLEDGE | flags,
        body,
    ))?;
    netlink::answers(&socket, |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(lines: &[&str]) -> String {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT";
        let line = |l: &&str| format!("\n{l}\t0\t0\t0");
        head.to_owned() + &lines.iter().map(line).collect::<String>()
    }

    #[test]
    fn addresses_that_are_in_use_are_no_slots() {
        // As the kernel writes it: the default, 10.0.0.0/8, 240.0.0.0/16.
        let others = [
            "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000",
            "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF",
            "cni0\t000000F0\t00000000\t0001\t0\t0\t0\t0000FFFF",
        ];
        assert_eq!(user_of_slots(&routes(&others)), None);
        // 240.0.0.0/4, and 240.200.0.0/16 within it.
        for taken in [
            "cni0\t000000F0\t00000000\t0001\t0\t0\t0\t000000F0",
            "cni0\t0000C8F0\t00000000\t0001\t0\t0\t0\t0000FFFF",
        ] {
            let lines = [others[0], taken];
            assert_eq!(user_of_slots(&routes(&lines)), Some("cni0"), "{taken}");
        }
        assert_eq!(user_of_slots(""), None);
    }

    #[test]
    fn loopback_and_what_is_not_there_are_no_pods() {
        assert!(matches!(pod_link("lo"), Err(LinkError::NotAPods(_))));
        assert!(matches!(pod_link("nowhere0"), Err(LinkError::Unknown(..))));
    }
}
