//! The authority itself, in memory: a self-signed root and leafs with a SPIFFE URI SAN. Writes no
//! file; see `folder` for that.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_config_schema::identity::Identity;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// How far in the past certificates begin to be valid, for clocks that are not quite the same.
const BACKDATE: Duration = Duration::from_secs(300);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused: a bad key, a bad certificate, a name that can not be encoded.
    #[error("can not make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The validity does not fit into a certificate's dates.
    #[error("the validity ends after the year 9999")]
    Validity,
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file or folder.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is there and may not be replaced.
    #[error("{0} exists already")]
    Exists(String),
    /// The certificate is not one that this module wrote.
    #[error("{0} is not a certificate with a SPIFFE ID")]
    Foreign(String),
    /// The identity is not `ns/<namespace>/sa/<service account>`, so it has no folder.
    #[error("{0} has no namespace and service account, so there is no folder for it")]
    NotWorkload(String),
}

/// A leaf as the caller wants it. Tests use it for certificates that must be refused.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// URI SANs; exactly one in a proper SPIFFE certificate.
    pub uris: Vec<String>,
    /// Begin of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

impl Leaf {
    /// A proper leaf for an identity, valid from five minutes ago for `validity` from now.
    pub fn of(identity: &Identity, validity: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            uris: vec![identity.uri().to_owned()],
            not_before: now - BACKDATE,
            not_after: after(now, validity),
        }
    }
}

/// A leaf and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The leaf alone: the root signs it directly, so there is no intermediate.
    pub cert_chain_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
    /// The roots to verify others with.
    pub root_cert_pem: String,
}

impl fmt::Debug for Issued {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("cert_chain_pem", &self.cert_chain_pem)
            .finish_non_exhaustive()
    }
}

/// A root certificate with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_cert_pem: String,
    key_pem: String,
}

impl fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("root_cert_pem", &self.root_cert_pem)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new root, ECDSA P-256, valid from five minutes ago for `validity` from now.
    pub fn generate(validity: Duration) -> Result<Self, PkiError> {
        let params = authority_params("Cairn test root", validity)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let key_pem = key.serialize_pem();
        let root = CertifiedIssuer::self_signed(params, key)?;
        Self::from_pem(&root.pem(), &key_pem)
    }

    /// An existing root, so that leafs can be added or issued anew.
    pub fn from_pem(root_cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(root_cert_pem, key)?,
            root_cert_pem: root_cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// The root certificate, PEM.
    pub fn root_cert_pem(&self) -> &str {
        &self.root_cert_pem
    }

    /// The root's private key, PEM, PKCS#8.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A leaf for an identity, usable as client and as server, as Istio issues them.
    pub fn issue(&self, identity: &Identity, validity: Duration) -> Result<Issued, PkiError> {
        self.issue_leaf(&Leaf::of(identity, validity))
    }

    /// Any leaf, proper or not.
    pub fn issue_leaf(&self, leaf: &Leaf) -> Result<Issued, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate: Certificate = leaf.params()?.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            root_cert_pem: self.root_cert_pem.clone(),
        })
    }

    /// Any leaf for the key of a request (PKCS#10, PEM), as PEM. Of the request nothing else counts, as with
    /// Istio's CA.
    pub fn sign(&self, csr_pem: &str, leaf: &Leaf) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        request.params = leaf.params()?;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// An authority below this one. Its `root_cert_pem` is its own certificate.
    pub fn intermediate(&self, validity: Duration) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let key_pem = key.serialize_pem();
        let params = authority_params("Cairn test intermediate", validity)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Self::from_pem(&certificate.pem(), &key_pem)
    }
}

/// What certificates of authorities have in common.
fn authority_params(common_name: &str, validity: Duration) -> Result<CertificateParams, PkiError> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - BACKDATE)?;
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(after(now, validity))?;
    Ok(params)
}

impl Leaf {
    fn params(&self) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        // No subject: the identity is the SAN, which an empty subject makes critical (RFC 5280 4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        for uri in &self.uris {
            let uri = uri.as_str().try_into()?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(self.not_before)?;
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(self.not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        Ok(params)
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, "cairn pki");
    name
}

/// `now + validity`, or the unrepresentable end of time, which [`since_1970`] refuses.
fn after(now: SystemTime, validity: Duration) -> SystemTime {
    let end = UNIX_EPOCH + Duration::from_secs(LATEST_S + 1);
    now.checked_add(validity).unwrap_or(end)
}

/// The end of what a certificate's date can say: 9999-12-31T23:59:59Z, seconds since 1970.
const LATEST_S: u64 = 253_402_300_799;

/// Time since 1970, checked to fit into a certificate.
fn since_1970(at: SystemTime) -> Result<Duration, PkiError> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since.as_secs() > LATEST_S {
        return Err(PkiError::Validity);
    }
    Ok(Duration::from_secs(since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn parse<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    #[test]
    fn leaf_is_what_istio_issues() {
        let authority = Authority::generate(DAY).unwrap();
        let identity = Identity::of_workload("cluster.local", "shop", "web").unwrap();
        let leaf = authority.issue(&identity, DAY).unwrap();
        parse(&leaf.cert_chain_pem, |certificate| {
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            let uri = GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web");
            assert_eq!(names.value.general_names, [uri]);
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && usage.server_auth);
            assert!(certificate.validity().is_valid());
            assert!(!certificate.is_ca());
        });
    }

    #[test]
    fn leaf_is_signed_by_the_root_also_after_the_root_was_read_again() {
        let first = Authority::generate(DAY).unwrap();
        let again = Authority::from_pem(first.root_cert_pem(), first.key_pem()).unwrap();
        let identity = Identity::of_workload("td", "a", "b").unwrap();
        let leaf = again.issue(&identity, DAY).unwrap();
        let issuer = parse(&leaf.cert_chain_pem, |c| c.issuer().to_string());
        parse(first.root_cert_pem(), |root| {
            assert!(root.is_ca());
            assert_eq!(root.subject().to_string(), issuer);
        });
    }

    #[test]
    fn validity_beyond_a_certificate_is_refused() {
        let result = Authority::generate(Duration::from_secs(LATEST_S));
        assert!(matches!(result, Err(PkiError::Validity)));
    }
}
