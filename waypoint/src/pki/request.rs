//! A key that was made here, and the request to an authority for a certificate of it. The key is in memory
//! and nowhere else.

use std::fmt;

use cairn_config_schema::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

use super::PkiError;

/// A request for a certificate, with the key it is for.
#[derive(Clone)]
pub struct SigningRequest {
    /// PKCS#10, PEM.
    pub csr_pem: String,
    /// Private key, ECDSA P-256, PKCS#8, DER.
    pub key: Vec<u8>,
}

impl fmt::Debug for SigningRequest {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest").finish_non_exhaustive()
    }
}

impl SigningRequest {
    /// A new key, and a request for a certificate of an identity. Istio's CA issues what the token says,
    /// and does not look at the name asked for; others do.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn new(identity: &Identity) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = identity.uri().try_into()?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        Ok(Self {
            csr_pem: params.serialize_request(&key)?.pem()?,
            key: key.serialize_der(),
        })
    }
}
