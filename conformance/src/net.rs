//! Loopback addresses and free ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use tokio::net::TcpSocket;

/// A block 127.x.y.0/24 that no other laboratory of this process has; x comes from the process, so
/// that two test processes seldom share one.
#[derive(Debug)]
pub struct Subnet {
    process: u8,
    laboratory: u8,
    next: AtomicU8,
}

impl Subnet {
    /// The next block.
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        Self {
            process: (std::process::id() % 250 + 2) as u8,
            laboratory: NEXT.fetch_add(1, Ordering::Relaxed),
            next: AtomicU8::new(1),
        }
    }

    /// The next address.
    pub fn address(&self) -> IpAddr {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(host < 255, "the block is used up");
        Ipv4Addr::new(127, self.process, self.laboratory, host).into()
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self::new()
    }
}

/// Ports that are handed out: below the range from which the kernel takes the ports of outgoing
/// connections, any of which could be there first.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that is free on this address now, and that this process hands out once.
pub fn free_port(ip: IpAddr) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Scattered, so that a process with the next id, started at the same time, looks elsewhere.
    let first = (std::process::id().wrapping_mul(0x9e37_79b1) >> 16) as u16;
    loop {
        let offset =
            NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(first) % (PORTS.end - PORTS.start);
        let port = PORTS.start + offset;
        if is_free(SocketAddr::new(ip, port)) {
            return port;
        }
    }
}

/// Whether nobody listens there. Binds and does not listen: a process that another test is just
/// starting has a copy of the socket until it executes its program, and a copy that listened would
/// keep the address from whom it was found for.
fn is_free(address: SocketAddr) -> bool {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    socket.is_ok_and(|socket| socket.set_reuseaddr(true).is_ok() && socket.bind(address).is_ok())
}

/// An address with a free port.
pub fn free_address(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, free_port(ip))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::{free_address, is_free};

    #[test]
    fn an_address_is_free_until_somebody_listens() {
        let address = free_address(Ipv4Addr::LOCALHOST.into());
        let listener = TcpListener::bind(address).unwrap();
        assert!(!is_free(address));
        drop(listener);
        assert!(is_free(address));
    }

    #[test]
    fn a_copy_of_the_socket_that_found_an_address_does_not_keep_it() {
        let address = free_address(Ipv4Addr::LOCALHOST.into());
        let copy = tokio::net::TcpSocket::new_v4().unwrap();
        copy.set_reuseaddr(true).unwrap();
        copy.bind(address).unwrap();
        TcpListener::bind(address).unwrap();
    }
}
