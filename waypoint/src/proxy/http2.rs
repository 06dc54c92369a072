//! HTTP/2 inside a tunnel, up to its requests: the engine's own accept loop, written out because the
//! engine answers malformed requests in it and tells nobody. Frames and their rules are the library's.

use std::sync::Arc;

use cairn_filters::outcome::Outcome;
use h2::Reason;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, H2Options, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest};
use tokio::sync::watch;

use super::engine::Proxy;
use super::stream::Downstream;
use super::stream_context::StreamContext;
use super::unread::Unread;
use crate::limits::{
    INNER_HEADER_BYTES_MAX, INNER_MALFORMED_STREAMS_MAX, INNER_STREAMS_MAX,
    TUNNEL_CONNECTION_WINDOW_BYTES, TUNNEL_STREAM_WINDOW_BYTES,
};

fn options() -> H2Options {
    let mut options = default_h2_options();
    options
        .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(INNER_HEADER_BYTES_MAX)
        .max_concurrent_streams(INNER_STREAMS_MAX);
    options
}

/// Serves the requests of an HTTP/2 connection until it ends.
pub(super) async fn serve(
    proxy: &Arc<Proxy>,
    io: Downstream,
    context: &StreamContext,
    draining: &watch::Receiver<bool>,
) {
    let digest = Arc::new(Digest {
        proxy_digest: io.get_proxy_digest(),
        socket_digest: io.get_socket_digest(),
        ..Digest::default()
    });
    let mut connection = match handshake(Box::new(io), Some(options())).await {
        Ok(connection) => connection,
        // The client left before its first frame: there is no request to tell of.
        Err(error) => return tracing::debug!(%error, "no HTTP/2 connection came to be"),
    };
    let mut drain = draining.clone();
    let mut going = false;
    let mut malformed = 0;
    loop {
        let next = HttpSession::from_h2_conn(&mut connection, digest.clone());
        let next = tokio::select! {
            biased;
            // Also when the sender has gone: the process ends.
            _ = drain.changed(), if !going => {
                connection.graceful_shutdown();
                going = true;
                continue;
            }
            next = next => next,
        };
        match next {
            Ok(Some(H2Accept::Session(session))) => {
                let (proxy, draining) = (proxy.clone(), draining.clone());
                tokio::spawn(async move {
                    let session = ServerSession::new_http2(session);
                    proxy.process_new_http(session, &draining).await;
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                context.tell(rejected(), 0);
                malformed += 1;
                if malformed == INNER_MALFORMED_STREAMS_MAX {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
            }
            // The client has gone, with or without saying so.
            Ok(None) | Err(_) => return,
        }
    }
}

/// The engine keeps the request to itself. Nearly always it is the authority, answered with 400; the
/// other case, Content-Length headers that contradict each other, is a reset (RFC 9113 8.1.1).
fn rejected() -> Unread {
    let reason = "Host is missing, doubled or differs from :authority, either has a user part, \
                  or :path or Content-Length is malformed";
    Unread::because(Outcome::BadAuthority, reason)
}
