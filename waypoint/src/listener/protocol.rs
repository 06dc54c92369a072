//! What is spoken inside a tunnel: declared, or told from the first bytes within a deadline
//! (specs/istio-waypoint.md 2.5; specs/pingora.md section 1 on h2c detection).

use std::io;

use bytes::{Bytes, BytesMut};
use cairn_config_schema::snapshot::AppProtocol;

use crate::client_stream::ClientStream;
use crate::limits::SNIFF_TIMEOUT;

/// What is spoken inside a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// HTTP/1.1, or anything else on a declared HTTP port: the engine will answer 400.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Not HTTP.
    Tcp,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a method that a sniff waits for before it says that this is no HTTP.
const METHOD_BYTES_MAX: usize = 20;

/// Tells the protocol, and leaves the stream as if nothing had been read. `None`: the client left
/// without a byte.
///
/// # Errors
/// When the stream breaks.
pub async fn detect(stream: &mut ClientStream, declared: AppProtocol) -> io::Result<Option<Inner>> {
    let sniffs = matches!(declared, AppProtocol::Sniff);
    let mut seen = BytesMut::new();
    let outcome = if sniffs {
        match tokio::time::timeout(SNIFF_TIMEOUT, read_until(stream, &mut seen, sniffed)).await {
            Ok(read) => read?.or((!seen.is_empty()).then_some(Inner::Tcp)),
            // A server-first protocol, or a client that takes its time: not for us to decide.
            Err(_) => Some(Inner::Tcp),
        }
    } else {
        declared_http(stream, &mut seen).await?
    };
    stream.push_back(seen.freeze());
    Ok(outcome)
}

/// A client may keep a connection open before its first request: no deadline until the first byte. The
/// preface comes in one piece; what begins like it and stops is HTTP/1.1 to us, whose header
/// deadline covers the rest.
async fn declared_http(
    stream: &mut ClientStream,
    seen: &mut BytesMut,
) -> io::Result<Option<Inner>> {
    let Some(first) = stream.next_chunk().await? else {
        return Ok(None);
    };
    append(seen, first);
    if let Some(inner) = http_version(seen) {
        return Ok(Some(inner));
    }
    let more = read_until(stream, seen, http_version);
    match tokio::time::timeout(SNIFF_TIMEOUT, more).await {
        Ok(read) => Ok(read?.or(Some(Inner::Http1))),
        Err(_) => Ok(Some(Inner::Http1)),
    }
}

async fn read_until(
    stream: &mut ClientStream,
    seen: &mut BytesMut,
    verdict: fn(&[u8]) -> Option<Inner>,
) -> io::Result<Option<Inner>> {
    loop {
        let Some(chunk) = stream.next_chunk().await? else {
            return Ok(None);
        };
        append(seen, chunk);
        if let Some(inner) = verdict(seen) {
            return Ok(Some(inner));
        }
    }
}

fn append(seen: &mut BytesMut, chunk: Bytes) {
    if seen.is_empty() {
        *seen = chunk.into();
    } else {
        seen.extend_from_slice(&chunk);
    }
}

/// On a declared HTTP port: the preface of HTTP/2, or HTTP/1.1. `None`: too few bytes to tell.
fn http_version(seen: &[u8]) -> Option<Inner> {
    let n = seen.len().min(PREFACE.len());
    if seen.get(..n) != PREFACE.get(..n) {
        return Some(Inner::Http1);
    }
    (n == PREFACE.len()).then_some(Inner::Http2)
}

/// On an undeclared port: also whether it is HTTP at all. A request line is a method in capitals, a
/// space, and a target that begins with `/`, `*` or `http`.
fn sniffed(seen: &[u8]) -> Option<Inner> {
    let n = seen.len().min(PREFACE.len());
    if seen.get(..n) == PREFACE.get(..n) {
        return (n == PREFACE.len()).then_some(Inner::Http2);
    }
    let method = seen
        .iter()
        .take_while(|c| c.is_ascii_uppercase() || **c == b'-')
        .count();
    if method > METHOD_BYTES_MAX {
        return Some(Inner::Tcp);
    }
    match (seen.get(method), seen.get(method + 1)) {
        (None, _) => None,
        (Some(b' '), None) if method > 0 => None,
        (Some(b' '), Some(b'/' | b'*' | b'h')) if method > 0 => Some(Inner::Http1),
        _ => Some(Inner::Tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (seen, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Inner::Http1)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Inner::Http1)),
            (b"PROPFIND /dav", Some(Inner::Http1)),
            (b"GET http://web/", Some(Inner::Http1)),
            (PREFACE, Some(Inner::Http2)),
            (b"PRI * HT", None),
            (b"PRI", None),
            (b"GE", None),
            (b"GET ", None),
            (b"\x16\x03\x01", Some(Inner::Tcp)),
            (b"get key\r\n", Some(Inner::Tcp)),
            (b"EHLO mail", Some(Inner::Tcp)),
            (b" /", Some(Inner::Tcp)),
            (b"SSH-2.0-x", Some(Inner::Tcp)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAA", Some(Inner::Tcp)),
        ] {
            assert_eq!(
                sniffed(seen),
                expected,
                "{:?}",
                String::from_utf8_lossy(seen)
            );
        }
    }

    #[test]
    fn a_declared_http_port_only_asks_which_version() {
        assert_eq!(http_version(b"PR"), None);
        assert_eq!(http_version(b"PUT /"), Some(Inner::Http1));
        assert_eq!(http_version(b"\x16\x03"), Some(Inner::Http1));
        assert_eq!(http_version(PREFACE), Some(Inner::Http2));
    }
}
