//! Who may be at the other end: SPIFFE verification of clients and of endpoints.
//!
//! A client needs a chain to the mesh roots and exactly one SPIFFE URI SAN in an accepted trust
//! domain (specs/istio-waypoint.md 2.1). An endpoint must be the very workload that was picked:
//! Envoy accepts any identity of the trust domain there, which Cairn does not copy (2.6).

use std::sync::Arc;

use arc_swap::ArcSwap;
use cairn_config_schema::identity::{Identity, IdentityError};
use cairn_config_schema::snapshot::Mesh;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::LocalIdentity;
use super::trust::Roots;

/// Why a certificate's identity is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not an X.509 certificate.
    #[error("the certificate can not be parsed")]
    Unparsable,
    /// None, or more than one: the identity would be ambiguous.
    #[error("the certificate has {0} URI SANs, exactly one SPIFFE ID is required")]
    UriSans(usize),
    /// The URI is not a SPIFFE ID.
    #[error("the URI SAN is not a SPIFFE ID: {0}")]
    NotSpiffe(#[source] IdentityError),
    /// The trust domain is neither the mesh's nor an alias.
    #[error("trust domain {0} is not accepted; meshConfig.trustDomainAliases can add it")]
    TrustDomain(String),
    /// Nobody vouches for the trust domain: there is no bundle of a federation for it.
    #[error(
        "there are no roots for trust domain {0}; the SPIFFE Workload API gave no bundle for it"
    )]
    NoRoots(String),
    /// The endpoint is somebody else.
    #[error("the endpoint is {found}, expected {expected}")]
    OtherIdentity {
        /// Whom the certificate names.
        found: String,
        /// Whom the configuration says.
        expected: String,
    },
}

/// The one SPIFFE ID of a certificate.
///
/// # Errors
/// [`VerifyError`] unless there is exactly one URI SAN and it is a SPIFFE ID.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<Identity, VerifyError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| VerifyError::Unparsable)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| VerifyError::Unparsable)?;
    let mut uris = names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|n| match n {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Identity::parse(uri).map_err(VerifyError::NotSpiffe),
        (None, _) => Err(VerifyError::UriSans(0)),
        (Some(_), more) => Err(VerifyError::UriSans(more + 1)),
    }
}

/// End of validity, seconds since 1970.
pub(super) fn not_after_s(certificate: &CertificateDer<'_>) -> Result<i64, VerifyError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| VerifyError::Unparsable)?;
    Ok(parsed.validity().not_after.timestamp())
}

/// TLS 1.3 only, so that rustls never asks for it.
const TLS12_NOT_OFFERED: Error = Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered);

fn rejected(error: VerifyError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Verifies clients against the roots and trust domains in force at the time of the handshake.
#[derive(Debug)]
pub struct ClientVerifier {
    local: Arc<ArcSwap<LocalIdentity>>,
    mesh: Arc<ArcSwap<Mesh>>,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// A verifier that follows both as they change.
    pub fn new(local: Arc<ArcSwap<LocalIdentity>>, mesh: Arc<ArcSwap<Mesh>>) -> Self {
        let provider = local.load().provider.clone();
        Self {
            local,
            mesh,
            provider,
        }
    }
}

/// The roots that vouch for an identity, by its trust domain.
fn roots_of<'a>(local: &'a LocalIdentity, identity: &Identity) -> Result<&'a Roots, Error> {
    let trust_domain = identity.trust_domain();
    let nobody = || rejected(VerifyError::NoRoots(trust_domain.to_owned()));
    local.trust.of(trust_domain).ok_or_else(nobody)
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: they would change with the roots, and mesh clients have one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = peer_identity(end_entity).map_err(rejected)?;
        let local = self.local.load();
        // What the certificate says of itself chooses who has to vouch for it; only then it counts.
        let clients = &roots_of(&local, &identity)?.clients;
        let verified = clients.verify_client_cert(end_entity, intermediates, now)?;
        let trust_domain = identity.trust_domain();
        if !self.mesh.load().accepts_trust_domain(trust_domain) {
            return Err(rejected(VerifyError::TrustDomain(trust_domain.to_owned())));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_NOT_OFFERED)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Who may be at the other end of a connection that we open.
#[derive(Debug)]
pub enum Expected {
    /// The workload that the configuration says lives there, and no other.
    Workload(Identity),
    /// Any of these: behind the gateway of another network it is not known which of them answers.
    OneOf(Arc<[Identity]>),
    /// Any workload of the mesh: for debugging clients only, the data path knows whom it dials.
    AnyWorkload,
}

impl Expected {
    fn includes(&self, found: &Identity) -> bool {
        match self {
            Self::Workload(expected) => found == expected,
            Self::OneOf(expected) => expected.contains(found),
            Self::AnyWorkload => true,
        }
    }
}

/// Identities that are named where one of them is expected; the rest is counted.
const IDENTITIES_SHOWN_MAX: usize = 5;

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(expected) => write!(f, "{expected}"),
            Self::OneOf(expected) => {
                let first = expected.iter().take(IDENTITIES_SHOWN_MAX);
                let first: Vec<&str> = first.map(Identity::uri).collect();
                write!(f, "{}", first.join(" or "))?;
                match expected.len() - first.len() {
                    0 => Ok(()),
                    more => write!(f, " or one of {more} more"),
                }
            }
            Self::AnyWorkload => f.write_str("any workload"),
        }
    }
}

/// Verifies the other end of a connection that we open.
#[derive(Debug)]
pub struct EndpointVerifier {
    /// Roots and provider of the connection's epoch.
    pub local: Arc<LocalIdentity>,
    /// Who may be there.
    pub expected: Expected,
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let found = peer_identity(end_entity).map_err(rejected)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots_of(&self.local, &found)?.store,
            intermediates,
            now,
            self.local.provider.signature_verification_algorithms.all,
        )?;
        if !self.expected.includes(&found) {
            return Err(rejected(VerifyError::OtherIdentity {
                found: found.to_string(),
                expected: self.expected.to_string(),
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_NOT_OFFERED)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.local.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.local
            .provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_who_are_expected_the_first_are_named() {
        let expected = |count: usize| {
            let each = (0..count).map(|n| Identity::of_workload("td", "shop", &format!("a{n}")));
            let all: Vec<Identity> = each.filter_map(Result::ok).collect();
            Expected::OneOf(all.into()).to_string()
        };
        let two = "spiffe://td/ns/shop/sa/a0 or spiffe://td/ns/shop/sa/a1";
        assert_eq!(expected(2), two);
        let many = expected(5_000);
        assert!(
            many.starts_with(two) && many.ends_with("/a4 or one of 4995 more"),
            "{many}"
        );
    }
}
