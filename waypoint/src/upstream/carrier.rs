//! A byte stream to an endpoint, whatever carries it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::tunnel_pool::{StreamLease, Underneath};
use crate::dead_peer::GiveUp;
use crate::tls::TlsStream;
use crate::tunnel_stream::TunnelStream;

/// A byte stream to an endpoint.
#[derive(Debug)]
pub enum Carrier {
    /// A stream of an HBONE tunnel, counted as long as it lives.
    Tunnel {
        /// The stream.
        stream: Box<TunnelStream>,
        /// Its place in the tunnel.
        lease: StreamLease,
    },
    /// The stream of a tunnel inside of a stream of another one.
    Inner(Box<InnerStream>),
    /// A TCP connection.
    Plain(TcpStream),
    /// TLS inside one of the others.
    Tls(Box<TlsStream<Carrier>>),
}

/// The stream of a tunnel inside of a stream of another one, which holds its place in that.
#[derive(Debug)]
pub struct InnerStream {
    pub(super) stream: TunnelStream,
    pub(super) underneath: Underneath,
    /// Tells the inner tunnel that nobody needs it any more.
    pub(super) _held: oneshot::Sender<Infallible>,
}

impl GiveUp for Carrier {
    /// Of a TCP connection of its own; a tunnel looks after itself.
    fn give_up_dead(&self) {
        let mut carrier = self;
        while let Self::Tls(tls) = carrier {
            carrier = tls.get_ref().0;
        }
        if let Self::Plain(tcp) = carrier {
            tcp.give_up_dead();
        }
    }
}

impl Carrier {
    /// A descriptor of its own for the TCP connection underneath: a unique number for the engine's
    /// pool, whose reuse check asks the kernel for its peer.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        match self {
            Self::Tunnel { lease, .. } => lease.underneath().descriptor(),
            Self::Inner(inner) => inner.underneath.descriptor(),
            Self::Plain(tcp) => tcp.as_fd().try_clone_to_owned(),
            Self::Tls(tls) => tls.get_ref().0.descriptor(),
        }
    }

    /// Ends the stream with an error in place of a proper end, which would tell the endpoint that it
    /// has got everything.
    pub async fn break_off(&mut self) {
        let mut carrier = self;
        while let Self::Tls(tls) = carrier {
            carrier = tls.get_mut().0;
        }
        match carrier {
            Self::Tunnel { stream, .. } => stream.break_off().await,
            Self::Inner(inner) => inner.stream.break_off().await,
            // Closing with linger 0 is how a socket sends a reset. Fails only on a dead socket.
            Self::Plain(tcp) => drop(tcp.set_zero_linger()),
            Self::Tls(_) => {}
        }
    }

    /// Our end of the TCP connection underneath: the tunnel's, or the one to the endpoint itself.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tunnel { lease, .. } => lease.underneath().local_address(),
            Self::Inner(inner) => inner.underneath.local_address(),
            Self::Plain(tcp) => tcp.local_addr().ok(),
            Self::Tls(tls) => tls.get_ref().0.local_address(),
        }
    }
}

/// Applies one method to whatever carries the stream.
macro_rules! carried {
    ($self:ident, $method:ident ( $($arg:expr),* )) => {
        match $self.get_mut() {
            Carrier::Tunnel { stream, .. } => Pin::new(stream.as_mut()).$method($($arg),*),
            Carrier::Inner(inner) => Pin::new(&mut inner.stream).$method($($arg),*),
            Carrier::Plain(tcp) => Pin::new(tcp).$method($($arg),*),
            Carrier::Tls(tls) => Pin::new(tls.as_mut()).$method($($arg),*),
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        carried!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        carried!(self, poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, poll_shutdown(cx))
    }
}

/// Where a carrier goes, shared by everything that pools connections to it.
pub type SharedDestination = Arc<super::Destination>;
