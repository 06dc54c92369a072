//! TLS of the flow API (`hubble`), on both sides: a server certificate of its own, the clients it lets in if
//! it asks for certificates, and `cairn observe` as a client. No SPIFFE IDs: names, as web servers have.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::LoadError;
use super::identity::{certificates, provider};
use super::rotate::ALPN_H2;
use super::web::system_roots;

/// The files of the server.
#[derive(Clone, Debug)]
pub struct ApiFiles {
    /// Leaf first, then intermediates; PEM.
    pub certificate: PathBuf,
    /// Its key; PEM.
    pub key: PathBuf,
    /// Who signs the certificates of clients; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// What a client goes by.
#[derive(Clone, Debug, Default)]
pub struct ApiClientFiles {
    /// Who signs the server's certificate; `None`: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key of the client.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have; `None`: the host that is dialled.
    pub server_name: Option<String>,
}

/// The server's side, with the files as they were read last.
#[derive(Debug)]
pub struct ApiTls {
    files: ApiFiles,
    loaded: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    certified: Arc<CertifiedKey>,
    /// Roots of clients, to tell whether they changed.
    clients: Vec<Vec<u8>>,
    /// The first DNS name of the certificate.
    name: Option<String>,
}

impl ApiTls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`LoadError`], which names the file at fault.
    pub fn load(files: ApiFiles) -> Result<Self, LoadError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files)?);
        Ok(Self { files, loaded })
    }

    /// Reads the files again, for connections to come. `Ok(false)`: they hold what is in force.
    ///
    /// # Errors
    /// [`LoadError`]; what is in force stays.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let next = Loaded::read(&self.files)?;
        let before = self.loaded.load();
        let same = next.certified.cert == before.certified.cert && next.clients == before.clients;
        if !same {
            self.loaded.store(Arc::new(next));
        }
        Ok(!same)
    }

    /// Whether clients must show certificates.
    pub fn knows_its_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// The name that a client at this node should look for in the certificate: its first DNS name; of a
    /// wildcard, the one with the node's name in its place. Empty: it has none.
    pub fn server_name(&self, node: &str) -> String {
        let loaded = self.loaded.load();
        name_at(loaded.name.as_deref().unwrap_or_default(), node)
    }

    /// A handshake with a client.
    ///
    /// # Errors
    /// Whatever keeps it out: the message says what.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let config = self.loaded.load().config.clone();
        TlsAcceptor::from(config).accept(tcp).await
    }
}

impl Loaded {
    fn read(files: &ApiFiles) -> Result<Self, LoadError> {
        let certified = certified(&files.certificate, &files.key)?;
        let name = certified.cert.first().and_then(|leaf| dns_name(leaf));
        let of = |path: &Path, error: &dyn std::fmt::Display| LoadError::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| of(&files.certificate, &error))?;
        let mut clients = Vec::new();
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                clients.extend(certificates(path)?);
                let roots = Arc::new(root_store(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| of(path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let resolver = SingleCertAndKey::from(certified.clone());
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            certified,
            clients,
            name,
        })
    }
}

fn certified(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, LoadError> {
    let path = || key.display().to_string();
    let parsed = PrivateKeyDer::from_pem_file(key).map_err(|error| LoadError::File {
        path: path(),
        reason: error.to_string(),
    })?;
    let chain = certificates(chain)?
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    let certified = CertifiedKey::from_der(chain, parsed, &provider());
    certified.map(Arc::new).map_err(|source| LoadError::Key {
        path: path(),
        source,
    })
}

fn root_store(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut store = RootCertStore::empty();
    for root in certificates(path)? {
        let added = store.add(CertificateDer::from(root));
        added.map_err(|error| LoadError::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
    }
    Ok(store)
}

fn name_at(name: &str, node: &str) -> String {
    match name.strip_prefix('*') {
        // One label: a dot would make it two.
        Some(rest) => format!("{}{rest}", node.replace('.', "-")),
        None => name.to_owned(),
    }
}

/// The first of a certificate.
fn dns_name(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
}

/// A handshake with a server at `host`.
///
/// # Errors
/// Files that can not be used; whatever makes the other end not that server: the message says what.
pub async fn connect_to_api(
    files: &ApiClientFiles,
    host: &str,
    tcp: TcpStream,
) -> io::Result<client::TlsStream<TcpStream>> {
    let roots = match &files.ca {
        Some(path) => root_store(path).map_err(io::Error::other)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let certified = certified(chain, key).map_err(io::Error::other)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    let name = files.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Cilium's own certificates are: one for all nodes.
    #[test]
    fn a_wildcard_has_the_name_of_the_node() {
        let wildcard = "*.default.hubble-grpc.cilium.io";
        let expected = "node-1-example.default.hubble-grpc.cilium.io";
        assert_eq!(name_at(wildcard, "node-1.example"), expected);
        assert_eq!(name_at("flows.example", "node-1"), "flows.example");
        assert_eq!(name_at("", "node-1"), "");
    }
}
