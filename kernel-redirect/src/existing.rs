//! Direct connections that were there before a service was flagged: counted and closed through
//! sock_diag(7), in the calling thread's network namespace. Decides nothing; steered connections
//! have another address and are not found.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Commands and flags of netlink(7) and sock_diag(7).
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

/// Sizes of `nlmsghdr`, `inet_diag_sockid`.
const HEADER: usize = 16;
const SOCKET_ID: usize = 48;

/// ESTABLISHED, SYN_SENT, SYN_RECV and CLOSE_WAIT: what still carries an application's bytes.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8;

/// The kernel answers at once; this is for one that does not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

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
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
    Ok(socket)
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

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(command: u16, flags: u16, family: u8, id: &SocketId) -> Vec<u8> {
    let mut body = vec![family, 6 /* TCP */, 0, 0];
    body.extend(STATES.to_ne_bytes());
    body.extend(id);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(command.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence, sender
    message.extend(body);
    message
}

/// Reads until the kernel says that it is done or what is wrong, showing the bodies before.
fn answers(mut socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = socket.read(&mut buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                MESSAGE_DONE => return Ok(()),
                MESSAGE_ERROR => return error(body),
                _ => each(body),
            }
            rest = after;
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Type and body of the first netlink message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

/// `nlmsgerr`: zero, or an error number made negative.
fn error(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
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

    #[test]
    fn a_cut_message_is_no_message() {
        let whole = request(SOCK_DESTROY, REQUEST, FAMILY_V4, &[7; SOCKET_ID]);
        let (kind, body, after) = message(&whole).unwrap();
        assert_eq!((kind, body.len(), after), (SOCK_DESTROY, 56, &[][..]));
        for end in 0..whole.len() {
            assert!(message(&whole[..end]).is_none(), "{end}");
        }
    }
}
