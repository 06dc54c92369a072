//! A client's byte stream, whichever way it came: a CONNECT stream of a tunnel, or a connection that
//! the kernel redirect steered here. Nothing behind the listener knows the difference.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{STEERED_LINGER_TIMEOUT, WRITE_BUFFER_BYTES};
use crate::tunnel_stream::{TunnelStream, gather};

/// Bytes read at once where a chunk is asked for.
const CHUNK_BYTES: usize = 16 * 1024;

/// A client's byte stream.
#[derive(Debug)]
pub enum ClientStream {
    /// A CONNECT stream.
    Tunnel(TunnelStream),
    /// A steered connection.
    Steered(SteeredStream),
}

impl ClientStream {
    /// The next bytes; `None` at the end.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Tunnel(stream) => stream.next_chunk().await,
            Self::Steered(stream) => stream.next_chunk().await,
        }
    }

    /// Puts bytes back in front of what is still to be read.
    pub fn push_back(&mut self, bytes: Bytes) {
        match self {
            Self::Tunnel(stream) => stream.push_back(bytes),
            Self::Steered(stream) => stream.unread = bytes,
        }
    }

    /// Resets the stream; what was not sent yet is thrown away.
    pub fn reset(&mut self) {
        match self {
            Self::Tunnel(stream) => stream.reset(),
            Self::Steered(stream) => stream.reset(),
        }
    }

    /// Ends the stream with an error, so that the client does not take what it got for everything.
    pub async fn break_off(&mut self) {
        match self {
            Self::Tunnel(stream) => stream.break_off().await,
            Self::Steered(stream) => stream.break_off(),
        }
    }
}

/// Applies one method to whichever stream it is.
macro_rules! either {
    ($self:ident, $method:ident ( $($arg:expr),* )) => {
        match $self.get_mut() {
            ClientStream::Tunnel(stream) => Pin::new(stream).$method($($arg),*),
            ClientStream::Steered(stream) => Pin::new(stream).$method($($arg),*),
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}

/// A steered connection. Writes are gathered until they are flushed, as those of a tunnel are, so that
/// a header and its body are one packet. Dropped, it delivers what was written and then ends.
#[derive(Debug)]
pub struct SteeredStream {
    /// `None` only once it is dropped.
    tcp: Option<TcpStream>,
    unread: Bytes,
    unsent: BytesMut,
    read_ended: bool,
    broken_off: bool,
    /// Its place among the pod's connections, which it has until the socket is closed.
    permit: Option<OwnedSemaphorePermit>,
}

impl SteeredStream {
    /// The stream of an accepted connection, with its place among those of its pod.
    pub fn new(tcp: TcpStream, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            tcp: Some(tcp),
            unread: Bytes::new(),
            unsent: BytesMut::new(),
            read_ended: false,
            broken_off: false,
            permit,
        }
    }

    async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.unread.is_empty() {
            return Ok(Some(std::mem::take(&mut self.unread)));
        }
        let Some(tcp) = &mut self.tcp else {
            return Ok(None);
        };
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = tcp.read_buf(&mut chunk).await?;
        self.read_ended |= read == 0;
        Ok((read > 0).then(|| chunk.freeze()))
    }

    fn break_off(&mut self) {
        if let Some(tcp) = &self.tcp {
            // What was written goes first, as far as there is room for it. Fails on a dead socket.
            let _ = tcp.try_write(&self.unsent);
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.broken_off = true;
        if let Some(tcp) = &self.tcp {
            // Closing with linger 0 is how a socket sends a reset. Fails only on a dead socket.
            let _ = tcp.set_zero_linger();
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tcp) = &mut self.tcp else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut *tcp).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SteeredStream {
    fn drop(&mut self) {
        let Some(tcp) = self.tcp.take() else {
            return;
        };
        if self.broken_off || (self.read_ended && self.unsent.is_empty()) {
            return;
        }
        // A socket closed with unread bytes resets its peer, which may throw away an answer that it
        // has not read yet: the 403 to a large POST. Outside a runtime nobody is served any more.
        let unsent = self.unsent.split();
        let permit = self.permit.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                linger(tcp, unsent).await;
                drop(permit);
            });
        }
    }
}

/// Sends the rest and the end, then reads what still comes until the client is done too.
async fn linger(mut tcp: TcpStream, unsent: BytesMut) {
    let close = async {
        tcp.write_all(&unsent).await?;
        tcp.shutdown().await?;
        let mut scrap = [0; 4096];
        while tcp.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone, or does not stop, gets no more of our time.
    let _ = tokio::time::timeout(STEERED_LINGER_TIMEOUT, close).await;
}

impl AsyncRead for SteeredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            let n = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let Some(tcp) = &mut this.tcp else {
            return Poll::Ready(Ok(()));
        };
        let before = buf.filled().len();
        ready!(Pin::new(tcp).poll_read(cx, buf))?;
        this.read_ended |= buf.filled().len() == before && buf.remaining() > 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SteeredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.unsent.len() >= WRITE_BUFFER_BYTES {
            ready!(this.poll_send(cx))?;
        }
        if this.unsent.is_empty()
            && data.len() >= WRITE_BUFFER_BYTES
            && let Some(tcp) = &mut this.tcp
        {
            return Pin::new(tcp).poll_write(cx, data);
        }
        Poll::Ready(Ok(gather(&mut this.unsent, data)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        match &mut self.tcp {
            Some(tcp) => Pin::new(tcp).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    async fn pair() -> (SteeredStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (SteeredStream::new(accepted, None), client)
    }

    #[tokio::test]
    async fn a_connection_that_lingers_counts_among_its_pods() {
        let (mut steered, mut client) = pair().await;
        let room = Arc::new(Semaphore::new(1));
        steered.permit = Some(room.clone().try_acquire_owned().unwrap());
        drop(steered);
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(room.available_permits(), 0, "the client may still send");
        drop(client);
        drop(room.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn an_answer_arrives_although_the_request_was_not_read() {
        let (mut steered, mut client) = pair().await;
        client.write_all(&[b'x'; 200_000]).await.unwrap();
        steered.write_all(b"refused").await.unwrap();
        drop(steered);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"refused");
    }

    #[tokio::test]
    async fn broken_off_the_client_sees_an_error_and_not_the_end() {
        let (steered, mut client) = pair().await;
        let mut steered = ClientStream::Steered(steered);
        steered.break_off().await;
        drop(steered);
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_a_sniff_looked_at_is_read_again() {
        let (steered, mut client) = pair().await;
        let mut steered = ClientStream::Steered(steered);
        client.write_all(b"GET /").await.unwrap();
        let seen = steered.next_chunk().await.unwrap().unwrap();
        steered.push_back(seen);
        client.write_all(b" HTTP/1.1").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        steered.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"GET / HTTP/1.1");
    }
}
