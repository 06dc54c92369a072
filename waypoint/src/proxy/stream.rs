//! A client's byte stream as the engine wants it, which guards the request header. Those to endpoints
//! are in `endpoint_stream`.
//!
//! The engine bounds neither the time nor, below 1 MiB, the size of a header block
//! (specs/pingora.md section 4); a client could hold a stream open for ever at a byte a minute. And
//! what it can not read it answers by itself, unseen by its hooks: whatever it writes before the
//! gate has seen a request is such an answer, and the guard gives its own in its place.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
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

use super::head::Head;
use super::stream_context::StreamContext;
use super::unread::Unread;
use crate::client_stream::ClientStream;
use crate::limits::{REQUEST_HEADER_BYTES_MAX, REQUEST_HEADER_TIMEOUT};
use crate::recheck::Closing;

/// A client's stream.
pub struct Downstream {
    io: ClientStream,
    digest: Arc<ProxyDigest>,
    context: Arc<StreamContext>,
    /// What came of the present header.
    head: Head,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The request that `head` and `deadline` are about, as `StreamContext` counts.
    request: u64,
    refused: bool,
    /// The last bytes that the engine got.
    tail: [u8; 3],
}

impl Downstream {
    /// Wraps a stream.
    pub fn new(io: ClientStream, context: Arc<StreamContext>) -> io::Result<Self> {
        // The engine hands user data through only as part of the answer of a CONNECT proxy.
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let user_data: Box<dyn std::any::Any + Send + Sync> = Box::new(context.clone());
        Ok(Self {
            io,
            digest: Arc::new(ProxyDigest::new(Box::new(response), Some(user_data))),
            context,
            head: Head::new(),
            deadline: None,
            request: 0,
            refused: false,
            tail: [0; 3],
        })
    }

    /// Answers in the place of the engine, which sees the end of the stream and closes it.
    fn refuse(&mut self, cx: &mut Context<'_>, unread: Unread) {
        self.refused = true;
        // Fits the empty write buffer; if the client is gone nobody needs it.
        let _ = Pin::new(&mut self.io).poll_write(cx, &unread.answer());
        self.context.tell(unread, self.head.bytes());
    }

    /// The engine could not take the request and is writing its answer.
    fn refuse_unread(&mut self, cx: &mut Context<'_>) {
        let begun = self.request == self.context.requests() && self.head.bytes() > 0;
        let unread = if begun {
            self.head.explain()
        } else {
            // It came with the request before it, pipelined.
            Unread::unknown()
        };
        self.refuse(cx, unread);
    }

    /// The client ended or broke the stream: is there a begun request to be told of?
    fn end_of_header(&mut self, cx: &mut Context<'_>, broken: Option<&io::Error>) {
        if self.head.is_blank() {
            return;
        }
        match broken {
            None => {
                let unread = self.head.cut_off();
                self.refuse(cx, unread);
            }
            Some(error) => {
                self.refused = true;
                let reason = format!("the client broke off within the header: {error}");
                let unread = Unread::because(Outcome::ClientGone, reason);
                self.context.tell(unread, self.head.bytes());
            }
        }
    }

    /// An error once policy closed what was upgraded; until then the task is woken when it does.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(closing) = self.context.closing() else {
            return Ok(());
        };
        if closing.poll(cx).is_pending() {
            return Ok(());
        }
        self.io.reset();
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "policy changed",
        ))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// A request without a body that is answered here causes no read while the guard rests, so each
    /// read asks whether it is the first of another request.
    fn begin_header_if_new(&mut self) {
        let request = self.context.requests();
        if self.request != request {
            self.request = request;
            self.deadline = self.begun_behind_the_last().then(header_deadline);
            self.head.clear();
        }
    }

    /// Whether the engine has the begin of this request already: it came pipelined, and the engine
    /// asks for more. A request ends with an empty line, but for a body of stated length, whose end
    /// can not be told from a begun header here: then the time counts from the next byte.
    fn begun_behind_the_last(&self) -> bool {
        let ended = self.tail.ends_with(b"\n\n") || self.tail == *b"\n\r\n";
        !ended && !self.context.stated_length()
    }

    fn note_tail(&mut self, read: &[u8]) {
        let [_, b, c] = self.tail;
        self.tail = match *read {
            [] => return,
            [x] => [b, c, x],
            [x, y] => [c, x, y],
            [.., x, y, z] => [x, y, z],
        };
    }

    fn poll_header(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.begin_header_if_new();
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Err(error)) => {
                self.end_of_header(cx, Some(&error));
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(())) => {
                let read = buf.filled().get(before..).unwrap_or_default();
                if read.is_empty() {
                    self.end_of_header(cx, None);
                }
                self.head.take(read);
                self.note_tail(read);
                if self.head.bytes() > REQUEST_HEADER_BYTES_MAX {
                    buf.set_filled(before);
                    let reason = "the header is larger than 60 KiB";
                    self.refuse(cx, Unread::because(Outcome::HeadersTooLarge, reason));
                } else if self.deadline.is_none() && self.head.bytes() > 0 {
                    self.deadline = Some(header_deadline());
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                std::task::ready!(self.poll_deadline(cx));
                let reason = "the header did not arrive within 10 s";
                self.refuse(cx, Unread::because(Outcome::HeadersTooSlow, reason));
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for Downstream {
    /// What policy closed and nobody read or wrote since must not look like a proper end either.
    fn drop(&mut self) {
        if self.context.closing().and_then(Closing::why).is_some() {
            self.io.reset();
        }
    }
}

fn header_deadline() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(REQUEST_HEADER_TIMEOUT))
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
        if self.context.awaits_header() {
            return self.poll_header(cx, buf);
        }
        self.deadline = None;
        self.poll_closing(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note_tail(buf.filled().get(before..).unwrap_or_default());
        if read.is_pending() && !self.context.is_http2() {
            // The engine flushes a body of known length at its end only. Whoever waits for the
            // client has no more to write at the moment: the client gets what is there. An error
            // shows at the next write.
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        read
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
        if self.context.awaits_header() {
            self.refuse_unread(cx);
            return Poll::Ready(Ok(data.len()));
        }
        self.poll_closing(cx)?;
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
        self.context.is_http2().then_some(ALPN::H2)
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
