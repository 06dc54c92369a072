//! Certificates of servers and clients outside the mesh, by names, as files. SPIFFE identities are
//! `cairn_conformance::identities`.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Somebody who issues certificates, and files of them in a folder.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>, PathBuf);

impl Issuer {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issuer = Self(issuer, folder.to_owned());
        fs::write(issuer.path(name, "pem"), issuer.0.pem()).unwrap();
        issuer
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.1.join(format!("{name}.{kind}"))
    }

    /// `NAME.pem` and `NAME.key`, a certificate for these names.
    pub fn issue(&self, name: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(self.path(name, "pem"), certificate.pem()).unwrap();
        fs::write(self.path(name, "key"), key.serialize_pem()).unwrap();
    }
}
