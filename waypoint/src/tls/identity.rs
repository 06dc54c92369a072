//! The waypoint's own certificate, key and the mesh roots, as one immutable value.
//!
//! Files are those of Istio's FILE_MOUNTED_CERTS: cert-chain.pem, key.pem, root-cert.pem
//! (specs/istio-waypoint.md section 3). Where else it comes from, and when again, is `crate::identity`'s
//! business.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_config_schema::identity::{Identity, IdentityError};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust::{Anchors, Trust};
use super::verify::{VerifyError, peer_identity};

/// The three files of an identity folder.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// Folder that holds them.
    pub dir: PathBuf,
}

impl IdentityFiles {
    /// Leaf first, then intermediates.
    pub fn chain(&self) -> PathBuf {
        self.dir.join("cert-chain.pem")
    }
    /// Private key, PKCS#8, SEC1 or PKCS#1.
    pub fn key(&self) -> PathBuf {
        self.dir.join("key.pem")
    }
    /// Mesh roots, several during a rotation.
    pub fn roots(&self) -> PathBuf {
        self.dir.join("root-cert.pem")
    }
}

/// Why an identity could not be loaded; the message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing or is not PEM.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("{path}: {source}")]
    Key {
        /// The key file.
        path: String,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The certificate has no usable SPIFFE ID.
    #[error("{path}: {source}")]
    Spiffe {
        /// The chain file.
        path: String,
        /// What is wrong with the certificate.
        source: VerifyError,
    },
    /// No root was usable.
    #[error("{path}: {reason}")]
    Roots {
        /// The roots file.
        path: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// A certificate, its key and roots as whoever issues them hands them out.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Leaf first, then intermediates, DER.
    pub chain: Vec<Vec<u8>>,
    /// Private key of the leaf, DER: PKCS#8, SEC1 or PKCS#1.
    pub key: Vec<u8>,
    /// Whom peers are verified with.
    pub anchors: Anchors,
}

impl fmt::Debug for Material {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// Why a certificate, a key and roots are no identity.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// There is no certificate.
    #[error("there is no certificate")]
    NoCertificate,
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("the key does not go with the certificate: {0}")]
    Key(rustls::Error),
    /// The certificate has no usable SPIFFE ID.
    #[error(transparent)]
    Spiffe(VerifyError),
    /// No root was usable.
    #[error("the roots can not be used: {0}")]
    Roots(String),
    /// Nobody with these roots would take the certificate, now.
    #[error("the certificate has no chain to the roots, or is not valid now: {0}")]
    Chain(rustls::Error),
}

/// Certificate, key and roots in force at one time. Each version has its own epoch, which is part
/// of every pool key, so that connections of two versions are never mixed up.
#[derive(Debug)]
pub struct LocalIdentity {
    /// Counts up with every change.
    pub epoch: u64,
    /// The waypoint's own SPIFFE ID.
    pub identity: Identity,
    /// End of the leaf's validity, seconds since 1970.
    pub not_after_s: i64,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(super) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl LocalIdentity {
    /// Loads the three files.
    ///
    /// # Errors
    /// [`LoadError`], which names the file at fault.
    pub fn load(files: &IdentityFiles, epoch: u64) -> Result<Self, LoadError> {
        let named = |path: PathBuf| path.display().to_string();
        let chain = certificates(&files.chain())?;
        let key = PrivateKeyDer::from_pem_file(files.key());
        let key = key.map_err(|e| LoadError::File {
            path: named(files.key()),
            reason: e.to_string(),
        })?;
        let material = Material {
            chain,
            key: key.secret_der().to_vec(),
            anchors: Anchors::Everybody(certificates(&files.roots())?),
        };
        Self::new(material, epoch).map_err(|error| match error {
            MaterialError::Key(source) => LoadError::Key {
                path: named(files.key()),
                source,
            },
            MaterialError::Spiffe(source) => LoadError::Spiffe {
                path: named(files.chain()),
                source,
            },
            MaterialError::Roots(reason) => LoadError::Roots {
                path: named(files.roots()),
                reason,
            },
            other => LoadError::File {
                path: named(files.chain()),
                reason: other.to_string(),
            },
        })
    }

    /// An identity out of what was issued. Whether anybody would take its certificate is for
    /// [`Self::check_chain`].
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn new(material: Material, epoch: u64) -> Result<Self, MaterialError> {
        let provider = provider();
        let chain = material.chain.into_iter().map(CertificateDer::from);
        let chain: Vec<CertificateDer<'static>> = chain.collect();
        let leaf = chain.first().ok_or(MaterialError::NoCertificate)?;
        let identity = peer_identity(leaf).map_err(MaterialError::Spiffe)?;
        let not_after_s = super::verify::not_after_s(leaf).map_err(MaterialError::Spiffe)?;
        let key = PrivateKeyDer::try_from(material.key)
            .map_err(|words| MaterialError::Key(rustls::Error::General(words.to_owned())))?;
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(MaterialError::Key)?;
        let trust = Trust::new(&material.anchors, identity.trust_domain(), &provider)
            .map_err(MaterialError::Roots)?;
        Ok(Self {
            epoch,
            identity,
            not_after_s,
            certified: Arc::new(certified),
            trust,
            provider,
        })
    }

    /// Whether a peer with the same roots takes this certificate now.
    ///
    /// # Errors
    /// [`MaterialError::Chain`], and [`MaterialError::Roots`] when there are none for its trust domain.
    pub fn check_chain(&self) -> Result<(), MaterialError> {
        let (leaf, intermediates) = self
            .certified
            .cert
            .split_first()
            .ok_or(MaterialError::NoCertificate)?;
        let trust_domain = self.identity.trust_domain();
        let nobody = || MaterialError::Roots(format!("there are none for {trust_domain}"));
        let roots = self.trust.of(trust_domain).ok_or_else(nobody)?;
        let leaf = ParsedCertificate::try_from(leaf).map_err(MaterialError::Chain)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let now = UnixTime::now();
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots.store,
            intermediates,
            now,
            algorithms,
        )
        .map_err(MaterialError::Chain)
    }
}

/// aws-lc-rs with Istio's suites: TLS 1.3 only (specs/istio-waypoint.md 2.1).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The certificates of a PEM file, DER.
pub(super) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, LoadError> {
    let fail = |reason: String| LoadError::File {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    certificates_of_pem(&text).map_err(fail)
}

/// The certificates of a PEM text, DER.
///
/// # Errors
/// When it is not PEM, or there are none in it.
pub fn certificates_of_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found = CertificateDer::pem_slice_iter(text);
    let found = found.map(|certificate| Ok(certificate?.to_vec()));
    let found: Result<Vec<_>, rustls::pki_types::pem::Error> = found.collect();
    let found = found.map_err(|e| e.to_string())?;
    match found.is_empty() {
        true => Err("no certificate in it".to_owned()),
        false => Ok(found),
    }
}

/// Whether a certificate names itself as its issuer, as roots do. Its signature is not looked at.
pub fn is_self_issued(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.issuer() == certificate.subject())
}

impl From<IdentityError> for VerifyError {
    fn from(source: IdentityError) -> Self {
        Self::NotSpiffe(source)
    }
}
