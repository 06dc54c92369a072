//! HBONE as the load generator and the backend speak it: a CONNECT stream as a byte stream, with
//! ztunnel's HTTP/2 settings (specs/istio-waypoint.md 2.2). No pool, no PING, no GOAWAY.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, bail};
use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Stream window in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Connection window in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Frame size in bytes.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// The client side of one tunnel.
#[derive(Clone)]
pub struct Tunnel {
    send: SendRequest<Bytes>,
}

impl Tunnel {
    /// Connects, shakes hands and spawns the connection's driver on the current `LocalSet`.
    pub async fn connect(to: SocketAddr, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(to)
            .await
            .context("can not connect to the proxy")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(to.ip());
        let tls = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .context("the TLS handshake with the proxy failed")?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .enable_push(false)
            .handshake(tls)
            .await
            .context("the HTTP/2 handshake with the proxy failed")?;
        tokio::task::spawn_local(async move {
            // An error here shows up again in the exchange that it breaks.
            let _ = connection.await;
        });
        Ok(Self { send })
    }

    /// Opens a stream to `authority`, a virtual IP and port.
    pub async fn open(&self, authority: &str) -> anyhow::Result<TunnelStream> {
        let mut send = self.send.clone().ready().await?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(())?;
        let (response, stream) = send.send_request(request, false)?;
        let response = response.await.context("no answer to CONNECT")?;
        if response.status() != StatusCode::OK {
            bail!("CONNECT {authority} was answered {}", response.status());
        }
        Ok(TunnelStream::new(stream, response.into_body()))
    }
}

/// The bytes of one CONNECT stream, either side.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    unread: Bytes,
}

impl TunnelStream {
    /// Joins the two halves of a stream.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self {
            send,
            recv,
            unread: Bytes::new(),
        }
    }
}

fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(frame)) => self.unread = frame,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buf.remaining());
        let taken = self.unread.split_to(count);
        buf.put_slice(taken.chunk());
        // Fails only when the stream is gone, which the next poll_data tells.
        let _ = self.recv.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = self.send.capacity().min(buf.len());
        let part = buf.get(..count).unwrap_or(buf);
        self.send
            .send_data(Bytes::copy_from_slice(part), false)
            .map_err(io_error)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Already closed by a reset is closed enough.
        let _ = self.send.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
