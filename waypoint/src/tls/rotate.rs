//! The identity in force, and the TLS configurations that follow it.
//!
//! A new identity is for handshakes to come; connections that exist keep theirs. Where it comes from is
//! `crate::identity`'s business.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::Mesh;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::identity::provider;
use super::verify::{ClientVerifier, EndpointVerifier, Expected};
use super::{IdentityFiles, LoadError, LocalIdentity};

pub(super) const ALPN_H2: &[u8] = b"h2";

/// Holds the identity in force.
#[derive(Debug)]
pub struct IdentitySource {
    current: Arc<ArcSwap<LocalIdentity>>,
}

impl IdentitySource {
    /// With the first one.
    pub fn new(first: LocalIdentity) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(first)),
        }
    }

    /// Loads the first one from files.
    ///
    /// # Errors
    /// [`LoadError`]: a waypoint without identity can serve nobody.
    pub fn load(files: &IdentityFiles) -> Result<Self, LoadError> {
        Ok(Self::new(LocalIdentity::load(files, 1)?))
    }

    /// The identity in force.
    pub fn current(&self) -> Arc<LocalIdentity> {
        self.current.load_full()
    }

    /// The identity in force, for a look: cheaper than [`Self::current`], not to be kept.
    pub fn borrow(&self) -> arc_swap::Guard<Arc<LocalIdentity>> {
        self.current.load()
    }

    /// Puts another one in force, in the next epoch. `false`: it is what is in force already. To be
    /// called by one thread alone.
    pub fn install(&self, mut next: LocalIdentity) -> bool {
        let before = self.current.load();
        let same =
            next.certified.cert == before.certified.cert && next.trust.is_same(&before.trust);
        if !same {
            next.epoch = before.epoch + 1;
            self.current.store(Arc::new(next));
        }
        !same
    }

    /// TLS for clients: 1.3 only, ALPN h2 only, certificate required, no resumption, as ztunnel
    /// expects (specs/istio-waypoint.md 2.1).
    ///
    /// # Errors
    /// When the provider has no TLS 1.3 suite.
    pub fn server_config(
        &self,
        mesh: Arc<ArcSwap<Mesh>>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let verifier = Arc::new(ClientVerifier::new(self.current.clone(), mesh));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Current(self.current.clone())));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// TLS towards a workload, with the local identity of one epoch.
///
/// # Errors
/// When the provider has no TLS 1.3 suite.
pub fn client_config(
    local: Arc<LocalIdentity>,
    expected: Expected,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let certified = Arc::new(Fixed(local.certified.clone()));
    let mut config = ClientConfig::builder_with_provider(local.provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(EndpointVerifier { local, expected }))
        .with_client_cert_resolver(certified);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Current(Arc<ArcSwap<LocalIdentity>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified.clone())
    }
}

#[derive(Debug)]
pub(super) struct Fixed(pub(super) Arc<CertifiedKey>);

impl ResolvesClientCert for Fixed {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
