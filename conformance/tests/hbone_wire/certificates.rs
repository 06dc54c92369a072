//! Certificates that `cairn pki` does not make: intermediates, other names than a SPIFFE ID.

use cairn_conformance::hbone::Tls;
use cairn_waypoint::pki::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A leaf signed by the authority's root with any names.
pub fn signed_by_root(authority: &Authority, names: &[SanType]) -> Tls {
    let (chain, key) = leaf(&issuer(authority), names);
    Tls::with(chain, key)
}

/// A leaf signed by an intermediate, and the intermediate, which the root signed.
pub fn below_intermediate(authority: &Authority, uri: &str) -> (Tls, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "an intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let intermediate =
        CertifiedIssuer::signed_by(params, key, &issuer(authority)).expect("an intermediate");
    let (chain, key) = leaf(&intermediate, &[uri_name(uri)]);
    (Tls::with(chain, key), intermediate.pem())
}

/// A URI SAN.
pub fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("a URI"))
}

/// A DNS SAN.
pub fn dns_name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a name"))
}

fn issuer(authority: &Authority) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(authority.key_pem()).expect("a key");
    Issuer::from_ca_cert_pem(authority.root_cert_pem(), key).expect("a root")
}

fn leaf(issuer: &Issuer<'_, KeyPair>, names: &[SanType]) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a leaf");
    (certificate.pem(), key.serialize_pem())
}
