//! One CONNECT stream as a byte stream, on both sides of the waypoint.
//!
//! Writes are gathered into one DATA frame until they are flushed; reads hand out what the frame
//! held and give the window back as it is consumed, so that a slow reader stops its own writer and
//! nobody else's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WRITE_BUFFER_BYTES;

/// A CONNECT stream. Dropped, it ends as a TCP connection would: what was written is delivered, then
/// the end of the stream.
pub struct TunnelStream {
    recv: RecvStream,
    send: SendStream<Bytes>,
    unread: Bytes,
    released: usize,
    unsent: BytesMut,
    read_ended: bool,
    write_ended: bool,
}

impl TunnelStream {
    /// The stream made of the two halves h2 gives.
    pub fn new(recv: RecvStream, send: SendStream<Bytes>) -> Self {
        Self {
            recv,
            send,
            unread: Bytes::new(),
            released: 0,
            unsent: BytesMut::new(),
            read_ended: false,
            write_ended: false,
        }
    }

    /// The next bytes as h2 received them, without a copy; `None` at the end.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| {
            if self.unread.is_empty() {
                ready!(self.poll_fill(cx))?;
            }
            let chunk = std::mem::take(&mut self.unread);
            self.release(chunk.len());
            Poll::Ready(Ok((!chunk.is_empty()).then_some(chunk)))
        })
        .await
    }

    /// Puts bytes back in front of what is still to be read: what a protocol sniff looked at.
    /// Their window was given back when they were taken; `released` keeps it from being done twice.
    pub fn push_back(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty());
        self.released = bytes.len();
        self.unread = bytes;
    }

    /// Ends the stream with an error, so that the peer does not take what it got for everything: what
    /// RFC 9113 8.5 asks of a proxy whose other connection broke. What was written goes first, as far
    /// as the peer has room for it.
    pub async fn break_off(&mut self) {
        let unsent = self.unsent.split().freeze();
        // Fails only when the stream is gone, and then nobody needs a reset either.
        let _ = self.send.send_data(unsent, false);
        // h2 forgets what is queued for a stream that is reset: the connection's task writes it first.
        tokio::task::yield_now().await;
        self.reset();
    }

    /// Resets the stream; what was not sent yet is thrown away.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
        self.write_ended = true;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.read_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(chunk)) => self.unread = chunk,
                Some(Err(error)) if is_clean_end(&error) => self.read_ended = true,
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => self.read_ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self, bytes: usize) {
        let already = self.released.min(bytes);
        self.released -= already;
        let bytes = bytes - already;
        // Fails only when the stream is gone, and then there is no window to give back.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            self.send.reserve_capacity(self.unsent.len());
            while self.send.capacity() == 0 {
                match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            let granted = self.send.capacity().min(self.unsent.len());
            let frame = self.unsent.split_to(granted).freeze();
            self.send.send_data(frame, false).map_err(into_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if self.write_ended {
            return;
        }
        // Without this h2 would reset the stream, and a peer that is reset may throw away what it
        // has not read yet. Both fail only when the stream is gone already.
        let unsent = self.unsent.split().freeze();
        if unsent.is_empty() || self.send.send_data(unsent, false).is_ok() {
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }
}

/// Takes as much of `data` as a stream holds back until it is flushed, and answers how much that was.
pub fn gather(unsent: &mut BytesMut, data: &[u8]) -> usize {
    let room = WRITE_BUFFER_BYTES.saturating_sub(unsent.len());
    let n = room.min(data.len());
    unsent.extend_from_slice(data.get(..n).unwrap_or_default());
    n
}

/// The peer reset the stream to say that it is done with it, after everything was delivered.
fn is_clean_end(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}

fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::Other.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let n = self.unread.len().min(buf.remaining());
        let taken = self.unread.split_to(n);
        buf.put_slice(&taken);
        self.release(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.unsent.len() >= WRITE_BUFFER_BYTES {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(gather(&mut self.unsent, data)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        if !self.write_ended {
            self.write_ended = true;
            self.send.send_data(Bytes::new(), true).map_err(into_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelStream")
            .field("stream", &self.recv.stream_id())
            .field("read_ended", &self.read_ended)
            .field("write_ended", &self.write_ended)
            .finish()
    }
}
