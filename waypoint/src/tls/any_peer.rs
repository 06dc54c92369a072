//! A handshake with whatever workload of the mesh is at the other end, for debugging clients. The
//! data path never uses it: it knows whom it dials.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::handshake::EndpointConnection;
use super::rotate::{ALPN_H2, Fixed};
use super::verify::{EndpointVerifier, Expected};
use super::{LocalIdentity, peer_identity};

/// Connects to anyone with a chain to the mesh roots and one SPIFFE ID, and says who it is.
///
/// # Errors
/// Whatever makes the other end no workload of the mesh: the message says what.
pub async fn connect_to_any(
    local: Arc<LocalIdentity>,
    address: SocketAddr,
    tcp: TcpStream,
) -> io::Result<(EndpointConnection, Identity)> {
    let mut config = ClientConfig::builder_with_provider(local.provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(EndpointVerifier {
            local: local.clone(),
            expected: Expected::AnyWorkload,
        }))
        .with_client_cert_resolver(Arc::new(Fixed(local.certified.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let session = tls.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_H2) {
        return Err(io::Error::other("the peer does not speak h2 (ALPN)"));
    }
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| io::Error::other("no server certificate"))?;
    let identity = peer_identity(leaf).map_err(io::Error::other)?;
    Ok((tls, identity))
}
