//! Pods whose listener is in the host's network namespace, because their own can not be entered. Who
//! connects is told by the device that a packet comes in by: the listener is bound to the host's end of
//! the pod's own link, so that no other pod, and nobody on the host, reaches it, whatever addresses
//! they write into their packets (specs/kernel-redirect.md 2, A). Makes no sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::netlink::{self, ACKNOWLEDGE, REQUEST};
use crate::{EnrolledPod, netns_cookie, slot};

/// Why connections can not be steered to this socket in the host's namespace, if so.
pub(crate) fn check(pod: &EnrolledPod, listener: BorrowedFd<'_>) -> Result<(), String> {
    let said = |e: io::Error| e.to_string();
    let own = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(said)?;
    let own = netns_cookie(own.as_fd()).map_err(said)?;
    if netns_cookie(listener).map_err(said)? != own {
        return Err("it is not in the host's network namespace".into());
    }
    crate::redirect::check_address(pod, listener)?;
    match socket2::SockRef::from(&listener).device().map_err(said)? {
        Some(device) if device != b"lo" => Ok(()),
        _ => Err(
            "it is not bound to the device of the pod, so that other pods could pass for it".into(),
        ),
    }
}

/// Makes the host's slots addresses of this host, so that what pods send there is delivered here and
/// not routed on. Nobody answers there but listeners that are bound to a pod's device.
///
/// # Errors
/// What the kernel answers: `EPERM` without CAP_NET_ADMIN.
pub(crate) fn route_slots() -> io::Result<()> {
    const NEW_ROUTE: u16 = 24;
    const CREATE: u16 = 0x400;
    const REPLACE: u16 = 0x100;
    change_route(NEW_ROUTE, CREATE | REPLACE)
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
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    let socket = netlink::open(netlink::ROUTE)?;
    socket.send(&netlink::request(
        command,
        REQUEST | ACKNOWLEDGE | flags,
        &body,
    ))?;
    netlink::answers(&socket, |_| {})
}
