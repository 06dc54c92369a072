//! HTTPS to servers outside the mesh, checked against the certificates that the system trusts
//! (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured). For keys of token issuers; the data path never
//! uses it.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

/// A client of web servers. Reads the system's certificates when it first needs them.
#[derive(Debug, Default)]
pub struct WebClient {
    config: OnceLock<Arc<ClientConfig>>,
}

impl WebClient {
    /// A handshake with a server of this name or address: TLS 1.3, or 1.2, which many identity providers
    /// still have and the mesh has not.
    ///
    /// # Errors
    /// Whatever makes the other end not that server: the message says what.
    pub async fn connect(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let config = match self.config.get() {
            Some(config) => config.clone(),
            None => {
                let config = config()?;
                self.config.get_or_init(|| config).clone()
            }
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, tcp).await
    }
}

fn config() -> io::Result<Arc<ClientConfig>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificates can not be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(io::Error::other(
            "the system has no certificates to trust; see SSL_CERT_FILE",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
