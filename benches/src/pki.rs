//! A certificate authority that lives for one run, and identities as files. Not for anything else.

use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Trust domain of every identity of a run.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Namespace of every identity of a run.
pub const NAMESPACE: &str = "bench";

/// The authority. Its key never leaves memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

/// The SPIFFE ID of a service account of the run.
pub fn spiffe_id(service_account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service_account}")
}

impl Authority {
    /// A new authority with an ECDSA P-256 key, as istiod's.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            root_pem,
        })
    }

    /// Writes `cert-chain.pem`, `key.pem` and `root-cert.pem` of a service account into a folder,
    /// which is made.
    pub fn write_identity(&self, folder: &Path, service_account: &str) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.subject_alt_names = vec![SanType::URI(spiffe_id(service_account).try_into()?)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &self.issuer)?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join("cert-chain.pem"), leaf.pem()))
            .and_then(|()| std::fs::write(folder.join("key.pem"), key.serialize_pem()))
            .and_then(|()| std::fs::write(folder.join("root-cert.pem"), &self.root_pem))
            .with_context(|| format!("can not write the identity of {service_account}"))
    }
}
