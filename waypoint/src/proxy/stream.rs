//! Our byte streams as the engine wants them: the downstream one guards the request header, the
//! upstream one has an identity for the engine's pool.
//!
//! The engine bounds neither the time nor, below 1 MiB, the size of a header block
//! (specs/pingora.md section 4); a client could hold a stream open for ever at a byte a minute.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use cairn_config_schema::snapshot::Service;
use cairn_filters::outcome::Outcome;
use pingora_core::protocols::l4::socket::SocketAddr as EngineAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use crate::limits::{REQUEST_HEADER_BYTES_MAX, REQUEST_HEADER_TIMEOUT};
use crate::listener::admit::Asked;
use crate::telemetry::exchange::{Exchange, HttpExchange, StreamOrigin};
use crate::telemetry::instruments::Tracked;
use crate::telemetry::{self, counters};
use crate::tunnel_stream::TunnelStream;
use crate::upstream::Carrier;

/// What requests of one tunnelled stream share.
#[derive(Debug)]
pub struct StreamContext {
    /// Where it comes from.
    pub origin: Arc<StreamOrigin>,
    /// What its CONNECT asked for.
    pub asked: Asked,
    /// The service it was for at that time; requests look it up again.
    pub service: Option<Arc<Service>>,
    /// Whether the header of the present request has been read: the guard rests until the next.
    header_read: AtomicBool,
    /// Requests before the present one.
    requests: AtomicU64,
}

impl StreamContext {
    /// The context of a stream whose first request is still to come.
    pub fn new(origin: Arc<StreamOrigin>, asked: Asked, service: Option<Arc<Service>>) -> Self {
        Self {
            origin,
            asked,
            service,
            header_read: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        }
    }

    /// The header of the present request has been read.
    pub fn header_read(&self) {
        self.header_read.store(true, Ordering::Relaxed);
    }

    /// The next request of an HTTP/1.1 connection begins.
    pub fn next_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.header_read.store(false, Ordering::Relaxed);
    }

    fn awaits_header(&self) -> bool {
        !self.header_read.load(Ordering::Relaxed)
    }

    /// Tells of a request that never became one: its header was too large or too slow.
    fn tell_refused(&self, outcome: Outcome, header_bytes: usize) {
        let row = outcome.row();
        let mut exchange = Exchange::begin(self.origin.clone());
        exchange.service.clone_from(&self.service);
        exchange.flags = row.flag;
        exchange.details = row.details.into();
        exchange.http = Some(HttpExchange {
            protocol: "HTTP/1.1",
            status: Some(row.status),
            request_header_bytes: header_bytes as u64,
            ..HttpExchange::default()
        });
        telemetry::finish(exchange);
    }
}

const HEADER_TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    content-type: text/plain\r\nconnection: close\r\ncontent-length: 43\r\n\r\n\
    request header block is larger than 60 KiB\n";
const HEADER_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain\r\nconnection: close\r\ncontent-length: 42\r\n\r\n\
    request header did not arrive within 10 s\n";

/// A client's stream.
pub struct Downstream {
    io: TunnelStream,
    digest: Arc<ProxyDigest>,
    context: Arc<StreamContext>,
    http2: bool,
    header_bytes: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The request that `header_bytes` and `deadline` are about, as `StreamContext` counts.
    request: u64,
    refused: bool,
}

impl Downstream {
    /// Wraps a stream; `http2` when its preface was seen.
    pub fn new(io: TunnelStream, context: Arc<StreamContext>, http2: bool) -> io::Result<Self> {
        // The engine hands user data through only as part of the answer of a CONNECT proxy.
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let user_data: Box<dyn std::any::Any + Send + Sync> = Box::new(context.clone());
        Ok(Self {
            io,
            digest: Arc::new(ProxyDigest::new(Box::new(response), Some(user_data))),
            context,
            http2,
            header_bytes: 0,
            deadline: None,
            request: 0,
            refused: false,
        })
    }

    /// Answers in the place of the engine, which sees the end of the stream and closes it.
    fn refuse(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Outcome,
        answer: &'static [u8],
    ) -> Poll<io::Result<()>> {
        self.refused = true;
        self.context.tell_refused(outcome, self.header_bytes);
        // Fits the empty write buffer; if the client is gone nobody needs it.
        let _ = Pin::new(&mut self.io).poll_write(cx, answer);
        Poll::Ready(Ok(()))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn poll_header(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A request without a body that is answered here causes no read while the guard rests.
        let request = self.context.requests.load(Ordering::Relaxed);
        if self.request != request {
            self.request = request;
            self.header_bytes = 0;
            self.deadline = None;
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                read?;
                self.header_bytes += buf.filled().len() - before;
                if self.header_bytes > REQUEST_HEADER_BYTES_MAX {
                    // A body that comes in the same frame counts too, up to the frame's size;
                    // the engine reads the header in small steps, so only headers get this far.
                    buf.set_filled(before);
                    return self.refuse(cx, Outcome::HeadersTooLarge, HEADER_TOO_LARGE);
                }
                if self.deadline.is_none() && self.header_bytes > 0 {
                    self.deadline = Some(Box::pin(tokio::time::sleep(REQUEST_HEADER_TIMEOUT)));
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => match self.poll_deadline(cx) {
                Poll::Ready(()) => self.refuse(cx, Outcome::HeadersTooSlow, HEADER_TOO_SLOW),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused {
            return Poll::Ready(Ok(()));
        }
        // HTTP/2 has its own bounds, in the engine's options.
        if !self.http2 && self.context.awaits_header() {
            return self.poll_header(cx, buf);
        }
        self.header_bytes = 0;
        self.deadline = None;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refused {
            // The answer is out already; whatever the engine would add goes nowhere.
            return Poll::Ready(Ok(data.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        // The client may be gone.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        // Downstream streams are not pooled; the number is only logged.
        -1
    }
}

impl Ssl for Downstream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

impl Peek for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let digest = SocketDigest::from_raw_fd(-1);
        // Set before anybody asks, or the digest would ask the kernel about descriptor -1.
        let peer = EngineAddr::Inet(self.context.origin.peer.address);
        let local = EngineAddr::Inet(self.context.origin.destination);
        let _ = digest.peer_addr.set(Some(peer));
        let _ = digest.local_addr.set(Some(local.clone()));
        let _ = digest.original_dst.set(Some(local));
        Some(Arc::new(digest))
    }
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.io.fmt(f)
    }
}

/// A stream to an endpoint.
#[derive(Debug)]
pub struct Upstream {
    io: Carrier,
    descriptor: OwnedFd,
    _counted: Tracked,
}

impl Upstream {
    /// Wraps a carrier.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(io: Carrier) -> io::Result<Self> {
        let descriptor = io.descriptor()?;
        Ok(Self {
            io,
            descriptor,
            _counted: counters::UPSTREAM_STREAMS.track(),
        })
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Upstream {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Upstream {
    fn id(&self) -> UniqueIDType {
        self.descriptor.as_raw_fd()
    }
}

impl Ssl for Upstream {}
impl Peek for Upstream {}

impl GetTimingDigest for Upstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Upstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Upstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_the_guard_say_their_own_length() {
        for answer in [HEADER_TOO_LARGE, HEADER_TOO_SLOW] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let stated = head.split("content-length: ").nth(1).unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), body.len());
        }
    }
}
