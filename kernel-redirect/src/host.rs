//! Pods whose listener is in the host's network namespace, because their own can not be entered. Who
//! connects is told by the device that a packet comes in by: the listener is bound to the host's end of
//! the pod's own link, so that no other pod, and nobody on the host, reaches it, whatever addresses
//! they write into their packets (specs/kernel-redirect.md 2, A). Makes no sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::netlink::{self, ACKNOWLEDGE, REQUEST};
use crate::{EnrolledPod, listener, netns_cookie, slot};

/// Folders between the root of all cgroups and a pod's, that one included: the program looks no deeper
/// for who connects.
pub const CGROUP_DEPTH_MAX: usize = 12;

/// Why connections can not be steered to this socket in the host's namespace, if so.
pub(crate) fn check(pod: &EnrolledPod, socket: BorrowedFd<'_>) -> Result<(), String> {
    let said = |e: io::Error| e.to_string();
    let own = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(said)?;
    let own = netns_cookie(own.as_fd()).map_err(said)?;
    if netns_cookie(socket).map_err(said)? != own {
        return Err("it is not in the host's network namespace".into());
    }
    listener::check_address(pod, socket)?;
    match socket2::SockRef::from(&socket).device().map_err(said)? {
        Some(device) if device != b"lo" => Ok(()),
        _ => Err(
            "it is not bound to the device of the pod, so that other pods could pass for it".into(),
        ),
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

/// Makes the host's slots addresses of this host, so that what pods send there is delivered here and
/// not routed on. Nobody answers there but listeners that are bound to a pod's device.
///
/// # Errors
/// What the kernel answers: `EPERM` without CAP_NET_ADMIN; and if the addresses are in use here.
pub(crate) fn route_slots() -> io::Result<()> {
    const NEW_ROUTE: u16 = 24;
    const CREATE: u16 = 0x400;
    const REPLACE: u16 = 0x100;
    let routes = std::fs::read_to_string("/proc/thread-self/net/route")?;
    if let Some(device) = user_of_slots(&routes) {
        let why = format!("addresses of it are in use behind {device}");
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    change_route(NEW_ROUTE, CREATE | REPLACE)
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

/// Undoes [`route_slots`]; nothing to undo is fine.
pub(crate) fn unroute_slots() -> io::Result<()> {
    const DELETE_ROUTE: u16 = 25;
    match change_route(DELETE_ROUTE, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        done => done,
    }
}

/// `rtmsg` with the destination and the device, as rtnetlink(7) has them.
fn change_route(command: u16, flags: u16) -> io::Result<()> {
    const TABLE_LOCAL: u8 = 255;
    const BY_ADMINISTRATOR: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const KIND_LOCAL: u8 = 2;
    const DESTINATION: u16 = 1;
    const DEVICE: u16 = 4;
    const LOOPBACK_INDEX: u32 = 1;
    let mut body = vec![2 /* AF_INET */, slot::RANGE_BITS, 0, 0];
    body.extend([TABLE_LOCAL, BY_ADMINISTRATOR, SCOPE_HOST, KIND_LOCAL]);
    body.extend([0; 4]);
    for (kind, value) in [
        (DESTINATION, slot::HOST_RANGE.to_be_bytes()),
        (DEVICE, LOOPBACK_INDEX.to_ne_bytes()),
    ] {
        body.extend(netlink::attribute(kind, &value));
    }
    let socket = netlink::open(netlink::ROUTE)?;
    socket.send(&netlink::request(
        command,
        REQUEST | ACKNOWLEDGE | flags,
        &body,
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
    fn the_program_looks_for_cgroups_as_deep_as_is_said() {
        let source = include_str!("../ebpf/redirect.bpf.c");
        assert!(source.contains(&format!("#define CGROUP_DEPTH {CGROUP_DEPTH_MAX}\n")));
    }

    #[test]
    fn loopback_and_what_is_not_there_are_no_pods() {
        assert!(matches!(pod_link("lo"), Err(LinkError::NotAPods(_))));
        assert!(matches!(pod_link("nowhere0"), Err(LinkError::Unknown(..))));
    }
}
