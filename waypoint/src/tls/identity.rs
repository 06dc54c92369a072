//! The waypoint's own certificate, key and the mesh roots, as one immutable value.
//!
//! Files are those of Istio's FILE_MOUNTED_CERTS: cert-chain.pem, key.pem, root-cert.pem
//! (specs/istio-waypoint.md section 3). Reading them again is `rotate`'s business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_config_schema::identity::{Identity, IdentityError};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

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

/// Certificate, key and roots in force at one time. Each version has its own epoch, which is part
/// of every pool key, so that connections of two versions are never mixed up.
#[derive(Debug)]
pub struct LocalIdentity {
    /// Counts up with every change of the files.
    pub epoch: u64,
    /// The waypoint's own SPIFFE ID.
    pub identity: Identity,
    /// End of the leaf's validity, seconds since 1970.
    pub not_after_s: i64,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) client_chain: Arc<dyn ClientCertVerifier>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl LocalIdentity {
    /// Loads the three files.
    ///
    /// # Errors
    /// [`LoadError`], which names the file at fault.
    pub fn load(files: &IdentityFiles, epoch: u64) -> Result<Self, LoadError> {
        let provider = provider();
        let chain = certificates(&files.chain())?;
        let key_path = files.key();
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|e| LoadError::File {
            path: key_path.display().to_string(),
            reason: e.to_string(),
        })?;
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|source| LoadError::Key {
                path: key_path.display().to_string(),
                source,
            })?;
        let leaf = certified.cert.first().ok_or_else(|| LoadError::File {
            path: files.chain().display().to_string(),
            reason: "no certificate".to_owned(),
        })?;
        let spiffe = |source| LoadError::Spiffe {
            path: files.chain().display().to_string(),
            source,
        };
        let identity = peer_identity(leaf).map_err(spiffe)?;
        let not_after_s = super::verify::not_after_s(leaf).map_err(spiffe)?;
        let roots = Arc::new(root_store(&files.roots())?);
        let client_chain =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|e| LoadError::Roots {
                    path: files.roots().display().to_string(),
                    reason: e.to_string(),
                })?;
        Ok(Self {
            epoch,
            identity,
            not_after_s,
            certified: Arc::new(certified),
            roots,
            client_chain,
            provider,
        })
    }
}

/// aws-lc-rs with Istio's suites: TLS 1.3 only (specs/istio-waypoint.md 2.1).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let fail = |reason: String| LoadError::File {
        path: path.display().to_string(),
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| fail(e.to_string()))?
        .collect();
    let found = found.map_err(|e| fail(e.to_string()))?;
    if found.is_empty() {
        return Err(fail("no certificate in this file".to_owned()));
    }
    Ok(found)
}

pub(super) fn root_store(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut store = RootCertStore::empty();
    for root in certificates(path)? {
        store.add(root).map_err(|e| LoadError::Roots {
            path: path.display().to_string(),
            reason: e.to_string(),
        })?;
    }
    Ok(store)
}

impl From<IdentityError> for VerifyError {
    fn from(source: IdentityError) -> Self {
        Self::NotSpiffe(source)
    }
}
