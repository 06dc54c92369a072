//! A byte stream to an endpoint as the engine wants it: it has an identity for the engine's pool, and
//! ends when the attempt that uses it has run out of time. Dials nothing.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::l4::socket::SocketAddr as EngineAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::deadline::{StreamDeadline, Timer};
use crate::dead_peer::GiveUp;
use crate::telemetry::counters;
use crate::telemetry::instruments::Tracked;
use crate::upstream::Carrier;

/// A stream to an endpoint.
#[derive(Debug)]
pub struct Upstream {
    io: Carrier,
    descriptor: OwnedFd,
    /// Holds our own address, which the access log is told.
    socket: Arc<SocketDigest>,
    /// Holds the deadline, which the attempt sets.
    digest: Arc<ProxyDigest>,
    timer: Timer,
    _counted: Tracked,
}

impl GiveUp for Upstream {
    fn give_up_dead(&self) {
        self.io.give_up_dead();
    }
}

impl Upstream {
    /// Wraps a carrier.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(io: Carrier) -> io::Result<Self> {
        let descriptor = io.descriptor()?;
        let socket = SocketDigest::from_raw_fd(descriptor.as_raw_fd());
        let local = io.local_address().map(EngineAddr::Inet);
        // Set before anybody asks, or the digest would ask the kernel each time it has none.
        let _ = socket.local_addr.set(local);
        // The engine hands user data through only as part of the answer of a CONNECT proxy.
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let deadline = Arc::<StreamDeadline>::default();
        let user_data: Box<dyn Any + Send + Sync> = Box::new(deadline.clone());
        Ok(Self {
            io,
            descriptor,
            socket: Arc::new(socket),
            digest: Arc::new(ProxyDigest::new(Box::new(response), Some(user_data))),
            timer: Timer::new(deadline),
            _counted: counters::UPSTREAM_STREAMS.track(),
        })
    }

    /// What came of a read or write, unless there is no more time for it.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.timer.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

/// The deadline of the stream behind an HTTP/1.1 connection of the engine.
pub(super) fn deadline_of(connection: &Digest) -> Option<&Arc<StreamDeadline>> {
    let digest = connection.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref()
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.in_time(cx, read)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, data);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.in_time(cx, flushed)
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
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Upstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}
