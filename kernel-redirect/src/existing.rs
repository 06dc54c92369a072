//! Direct connections that were there before a service was flagged: counted and closed through
//! sock_diag(7), in the calling thread's network namespace. Decides nothing; steered connections
//! have another address and are not found.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

use crate::netlink::{self, ACKNOWLEDGE, DUMP, REQUEST, answers};

/// Commands of sock_diag(7).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Size of `inet_diag_sockid`.
const SOCKET_ID: usize = 48;

/// ESTABLISHED, SYN_SENT, SYN_RECV and CLOSE_WAIT: what still carries an application's bytes.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8;

/// How the kernel names one socket: `struct inet_diag_sockid`.
type SocketId = [u8; SOCKET_ID];

/// How many direct TCP connections to `to` there are, IPv4-mapped ones included.
///
/// # Errors
/// What the kernel answers; `EPERM` without CAP_NET_ADMIN.
pub fn count(to: SocketAddr) -> io::Result<usize> {
    Ok(connections(&open()?, to)?.len())
}

/// Closes the direct TCP connections to `to`: their owners see ECONNABORTED and connect anew.
/// Returns how many were closed.
///
/// # Errors
/// What the kernel answers; `EOPNOTSUPP` if it is built without CONFIG_INET_DIAG_DESTROY, `EPERM`
/// without CAP_NET_ADMIN.
pub fn destroy(to: SocketAddr) -> io::Result<usize> {
    let socket = open()?;
    let mut closed = 0;
    for (family, id) in connections(&socket, to)? {
        match close(&socket, family, &id) {
            Ok(()) => closed += 1,
            // Ended by itself meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(closed)
}

/// Whether the kernel would close a connection for us: it says of one that does not exist that it
/// does not exist.
#[cfg(kernel)]
pub(crate) fn can_destroy() -> bool {
    open()
        .and_then(|socket| close(&socket, FAMILY_V4, &[0xff; SOCKET_ID]))
        .is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT))
}

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

fn open() -> io::Result<Socket> {
    netlink::open(netlink::SOCK_DIAG)
}

/// Family and name of each connection to `to`.
fn connections(socket: &Socket, to: SocketAddr) -> io::Result<Vec<(u8, SocketId)>> {
    let mut found = Vec::new();
    for family in [FAMILY_V4, FAMILY_V6] {
        // The kernel filters by port; the address is ours to compare.
        let mut id = [0; SOCKET_ID];
        let port = to.port().to_be_bytes();
        id.iter_mut()
            .skip(2)
            .zip(port)
            .for_each(|(at, byte)| *at = byte);
        socket.send(&request(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, &id))?;
        answers(socket, |body| {
            if let Some((family, id)) = connection(body)
                && destination(family, &id) == Some((to.ip().to_canonical(), to.port()))
            {
                found.push((family, id));
            }
        })?;
    }
    Ok(found)
}

fn close(socket: &Socket, family: u8, id: &SocketId) -> io::Result<()> {
    socket.send(&request(SOCK_DESTROY, REQUEST | ACKNOWLEDGE, family, id))?;
    answers(socket, |_| {})
}

/// With `inet_diag_req_v2`.
fn request(command: u16, flags: u16, family: u8, id: &SocketId) -> Vec<u8> {
    let mut body = vec![family, 6 /* TCP */, 0, 0];
    body.extend(STATES.to_ne_bytes());
    body.extend(id);
    netlink::request(command, flags, &body)
}

/// `inet_diag_msg`: family and name of a socket.
fn connection(body: &[u8]) -> Option<(u8, SocketId)> {
    Some((*body.first()?, *body.get(4..)?.first_chunk()?))
}

/// Where a socket is connected to: the destination port is at 2, its address at 20.
fn destination(family: u8, id: &SocketId) -> Option<(IpAddr, u16)> {
    let port = u16::from_be_bytes(*id.get(2..)?.first_chunk()?);
    let address = id.get(20..)?;
    let address = match family {
        FAMILY_V4 => IpAddr::from(*address.first_chunk::<4>()?),
        FAMILY_V6 => IpAddr::from(*address.first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_to_an_address_are_counted_over_both_families() {
        let server = TcpListener::bind("[::]:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let to = |address: &str| SocketAddr::new(address.parse().unwrap(), port);
        assert_eq!(count(to("127.0.0.3")).unwrap(), 0);
        let first = TcpStream::connect(to("127.0.0.3")).unwrap();
        let _second = TcpStream::connect(to("127.0.0.3")).unwrap();
        let _mapped = TcpStream::connect(to("::ffff:127.0.0.3")).unwrap();
        let _other = TcpStream::connect(to("127.0.0.4")).unwrap();
        assert_eq!(count(to("127.0.0.3")).unwrap(), 3);
        assert_eq!(count(to("::ffff:127.0.0.3")).unwrap(), 3);
        drop(first);
        assert_eq!(count(to("127.0.0.3")).unwrap(), 2);
    }
}
