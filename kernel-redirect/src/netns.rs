//! What is asked of and done to a network namespace by way of a socket that was made in it: its
//! cookie, and the route to the IPv6 slots. Enters none.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_NETNS_COOKIE`; missing in some C libraries' headers.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the network namespace in which the socket `fd` was made. It is never used twice
/// while the kernel runs. Needs kernel 5.14.
///
/// # Errors
/// What getsockopt(2) says; `ENOPROTOOPT` on older kernels.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: `cookie` has the 8 bytes that `length` says, and both live across the call.
    #[allow(unsafe_code, reason = "no crate wraps this socket option")]
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `struct in6_rtmsg`, whose fields the C library's binding keeps to itself.
#[cfg(kernel)]
#[repr(C)]
struct Ipv6Route {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_bits: u16,
    source_bits: u16,
    metric: u32,
    expires: libc::c_ulong,
    flags: u32,
    device: libc::c_int,
}

/// Routes the IPv6 slots to loopback in the network namespace of `listener`, an IPv6 socket: IPv6 has
/// no range there as 127.0.0.0/8 is one. Nothing else in the namespace sees the route.
///
/// # Errors
/// What the kernel answers: `EACCES` where IPv6 is disabled for loopback. `InvalidInput` for a socket
/// of another family.
#[cfg(kernel)]
pub fn route_ipv6_slots(listener: BorrowedFd<'_>) -> io::Result<()> {
    // Of include/uapi/linux/{ipv6_route,route,rtnetlink}.h, and the index that loopback always has.
    const LOCAL_ROUTE: u32 = 2;
    const UP: u32 = 0x1;
    const LOCAL: u32 = 0x8000_0000;
    const LOOPBACK_INDEX: libc::c_int = 1;
    // An IPv4 socket takes the same number for a structure of another size.
    if socket2::SockRef::from(&listener).domain()? != socket2::Domain::IPV6 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let route = Ipv6Route {
        destination: crate::slot::FIRST_V6.octets(),
        source: [0; 16],
        gateway: [0; 16],
        kind: LOCAL_ROUTE,
        destination_bits: crate::slot::BITS_V6.into(),
        source_bits: 0,
        metric: 0,
        expires: 0,
        flags: UP | LOCAL,
        device: LOOPBACK_INDEX,
    };
    // SAFETY: on an IPv6 socket SIOCADDRT reads one `in6_rtmsg`, as which this
    // is laid out and which lives across the call.
    #[allow(unsafe_code, reason = "no crate wraps this for a socket that is given")]
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SIOCADDRT,
            std::ptr::from_ref(&route),
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}
