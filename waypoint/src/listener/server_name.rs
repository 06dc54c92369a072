//! Reads the server name that a TLS client asks for, where the route of its connection depends on it
//! (specs/istio-waypoint.md 4.4), and leaves the stream as if nothing had been read.

use std::io;

use bytes::BytesMut;
use cairn_routing::ServerName;

use crate::client_stream::ClientStream;
use crate::limits::{CLIENT_HELLO_BYTES_MAX, CLIENT_HELLO_TIMEOUT};
use crate::tls::ClientHello;

/// The server name, [`ServerName::NotTls`] for whatever says none in time or within the limit: a client
/// that waits for the server to speak first is one.
///
/// # Errors
/// When the stream breaks.
pub async fn read(stream: &mut ClientStream) -> io::Result<ServerName> {
    let mut seen = BytesMut::new();
    let reading = tokio::time::timeout(CLIENT_HELLO_TIMEOUT, read_into(&mut seen, stream)).await;
    stream.push_back(seen.freeze());
    match reading {
        Ok(found) => found,
        Err(_) => Ok(ServerName::NotTls),
    }
}

async fn read_into(seen: &mut BytesMut, stream: &mut ClientStream) -> io::Result<ServerName> {
    let mut hello = ClientHello::default();
    while seen.len() < CLIENT_HELLO_BYTES_MAX {
        let Some(chunk) = stream.next_chunk().await? else {
            break;
        };
        seen.extend_from_slice(&chunk);
        if let Some(found) = hello.take(&chunk) {
            return Ok(found);
        }
    }
    Ok(ServerName::NotTls)
}
