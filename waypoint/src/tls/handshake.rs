//! The two handshakes of a waypoint, so that no other folder needs to know rustls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::Mesh;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::rotate::client_config;
use super::{Expected, IdentitySource, LocalIdentity, peer_identity};

const H2: &[u8] = b"h2";

/// A client's connection after its handshake.
pub type ClientConnection = server::TlsStream<TcpStream>;

/// A connection to an endpoint after its handshake.
pub type EndpointConnection = client::TlsStream<TcpStream>;

/// Accepts clients.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// An acceptor that follows the identity and the mesh settings as they change.
    ///
    /// # Errors
    /// When the provider has no TLS 1.3 suite.
    pub fn new(identity: &IdentitySource, mesh: Arc<ArcSwap<Mesh>>) -> Result<Self, rustls::Error> {
        Ok(Self(TlsAcceptor::from(identity.server_config(mesh)?)))
    }

    /// One handshake: the connection and the client's verified identity.
    ///
    /// # Errors
    /// Whatever makes this client no peer: the message says what.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(ClientConnection, Identity)> {
        let tls = self.0.accept(tcp).await?;
        let (_, session) = tls.get_ref();
        // rustls refuses a wrong protocol, but lets a client pass that offers none.
        require_h2(session.alpn_protocol())?;
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| io::Error::other("no client certificate"))?;
        let identity = peer_identity(leaf).map_err(io::Error::other)?;
        Ok((tls, identity))
    }
}

/// A handshake with the workload that must be at the other end. No SNI, as ztunnel.
///
/// # Errors
/// Whatever makes the other end not that workload: the message says what.
pub async fn connect<S>(
    local: Arc<LocalIdentity>,
    expected: Expected,
    address: SocketAddr,
    stream: S,
) -> io::Result<client::TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = client_config(local, expected).map_err(io::Error::other)?;
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(config).connect(name, stream).await?;
    require_h2(tls.get_ref().1.alpn_protocol())?;
    Ok(tls)
}

fn require_h2(negotiated: Option<&[u8]>) -> io::Result<()> {
    match negotiated {
        Some(H2) => Ok(()),
        _ => Err(io::Error::other("the peer does not speak h2 (ALPN)")),
    }
}
