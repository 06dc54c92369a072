//! TLS of the load generator and of the backend, as ztunnel's: 1.3, ALPN h2, no resumption
//! (specs/istio-waypoint.md 2.1). Does not check SPIFFE IDs: it talks to its own run only.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// The suites and curves of ztunnel: what a handshake costs the proxy depends on them.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    }
}

/// Chain, key and roots out of an identity folder.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl Identity {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let certificates = |name: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            CertificateDer::pem_file_iter(folder.join(name))
                .and_then(Iterator::collect)
                .with_context(|| format!("can not read {name}"))
        };
        let mut roots = RootCertStore::empty();
        for root in certificates("root-cert.pem")? {
            roots.add(root)?;
        }
        Ok(Self {
            chain: certificates("cert-chain.pem")?,
            key: PrivateKeyDer::from_pem_file(folder.join("key.pem"))
                .context("can not read key.pem")?,
            roots: Arc::new(roots),
        })
    }
}

/// The client side of a tunnel.
pub fn client(identity_folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let identity = Identity::read(identity_folder)?;
    let provider = Arc::new(provider());
    let verifier = Arc::new(ChainOnly(
        WebPkiServerVerifier::builder_with_provider(identity.roots, provider.clone()).build()?,
    ));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The server side of a tunnel. A client certificate is required.
pub fn server(identity_folder: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let identity = Identity::read(identity_folder)?;
    let provider = Arc::new(provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(identity.roots, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Verifies chain and signature, not the name: SPIFFE certificates have no DNS name.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match chain {
            // The name comes last, so a chain that fails never ends here.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
