//! Messages of netlink(7): framing, and answers until the end or an error. What is asked is the
//! callers'.

use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Families of netlink(7).
#[cfg(kernel)]
pub(crate) const ROUTE: i32 = 0;
pub(crate) const SOCK_DIAG: i32 = 4;

/// Flags of a request.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACKNOWLEDGE: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;

const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

/// Size of `nlmsghdr`.
const HEADER: usize = 16;

/// The kernel answers at once; this is for one that does not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A socket of the calling thread's network namespace.
pub(crate) fn open(family: i32) -> io::Result<Socket> {
    let domain = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(family)))?;
    socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
    Ok(socket)
}

/// `nlmsghdr` and what follows it.
pub(crate) fn request(command: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(command.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence, sender
    message.extend(body);
    message
}

/// One attribute, padded to four bytes.
#[cfg(kernel)]
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(4 + value.len() + 3);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Kind and value of each attribute, until the end or the first that is cut.
#[cfg(kernel)]
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits say how the value is to be read.
        Some((kind & 0x3fff, value))
    })
}

/// Reads until the kernel says that it is done or what is wrong, showing the bodies before.
pub(crate) fn answers(mut socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(kernel)]
    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut bytes = attribute(3, b"eth0\0");
        bytes.extend(attribute(10, &7_u32.to_ne_bytes()));
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (10, &7_u32.to_ne_bytes()[..])]);
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() < 2, "{end}");
        }
    }

    #[test]
    fn a_cut_message_is_no_message() {
        let whole = request(21, REQUEST, &[7; 56]);
        let (kind, body, after) = message(&whole).unwrap();
        assert_eq!((kind, body.len(), after), (21, 56, &[][..]));
        for end in 0..whole.len() {
            assert!(message(&whole[..end]).is_none(), "{end}");
        }
    }
}
