//! Who may be at the other end of TLS that configuration asks for: a server whose certificate has a
//! name that was configured. Nobody of the mesh: that is `verify`'s business.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A server outside the mesh.
#[derive(Debug)]
pub(super) struct OutsideServer {
    /// `None`: whoever answers (`insecureSkipVerify`), as long as it holds the key of the certificate it
    /// shows.
    pub expected: Option<Named>,
    pub provider: Arc<CryptoProvider>,
}

/// A server with a chain to the roots and one of the names.
#[derive(Debug)]
pub(super) struct Named {
    pub roots: Arc<RootCertStore>,
    /// Of DNS, addresses or URIs; none: the server name of the handshake.
    pub names: Vec<Arc<str>>,
}

/// No name of the certificate is one that is expected.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has none of the names {0}")]
struct OtherName(String);

impl Named {
    fn has_name(&self, end_entity: &CertificateDer<'_>) -> Result<bool, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        Ok(self.names.iter().any(|name| match name.contains("://") {
            true => has_uri(end_entity, name),
            false => ServerName::try_from(&**name)
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok()),
        }))
    }
}

/// Whether a URI is among the certificate's, letter by letter.
fn has_uri(certificate: &CertificateDer<'_>, wanted: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return false;
    };
    let mut names = names.value.general_names.iter();
    names.any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
}

impl ServerCertVerifier for OutsideServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(expected) = &self.expected else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &expected.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if expected.names.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else if !expected.has_name(end_entity)? {
            let other = OtherName(expected.names.join(", "));
            let error = CertificateError::Other(OtherError(Arc::new(other)));
            return Err(Error::InvalidCertificate(error));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
