//! Whom the roots vouch for: one set for every trust domain, as Istio has it, or a set for each, as SPIFFE
//! federation has it. Where roots come from is not known here.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// Roots as their source hands them out: DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchors {
    /// They vouch for identities of every trust domain that the mesh accepts.
    Everybody(Vec<Vec<u8>>),
    /// Those of a trust domain vouch for identities of that trust domain and no other: a partner's
    /// authority must not be able to name one of ours (SPIFFE Federation, section 4).
    ByDomain(BTreeMap<String, Vec<Vec<u8>>>),
}

/// One set of roots, ready to verify with.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub store: Arc<RootCertStore>,
    pub clients: Arc<dyn ClientCertVerifier>,
}

/// Roots, ready to verify with.
#[derive(Debug)]
pub(super) enum Trust {
    Everybody(Roots),
    ByDomain(BTreeMap<String, Roots>),
}

impl Trust {
    /// `own`: our trust domain. Another one whose roots can not be used vouches for nobody, for a partner's mistake
    /// must not keep us from our own certificate.
    ///
    /// # Errors
    /// What is wrong with the roots.
    pub fn new(
        anchors: &Anchors,
        own: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        Ok(match anchors {
            Anchors::Everybody(certificates) => {
                Self::Everybody(Roots::new(certificates, provider)?)
            }
            Anchors::ByDomain(domains) => {
                let mut usable = BTreeMap::new();
                for (domain, certificates) in domains {
                    match Roots::new(certificates, provider) {
                        Ok(roots) => drop(usable.insert(domain.clone(), roots)),
                        Err(error) if domain == own => {
                            return Err(format!("trust domain {domain}: {error}"));
                        }
                        Err(error) => {
                            tracing::error!(%domain, %error, "the roots of this federated trust domain can not be used: it vouches for nobody");
                        }
                    }
                }
                Self::ByDomain(usable)
            }
        })
    }

    /// The roots that vouch for identities of a trust domain.
    pub fn of(&self, trust_domain: &str) -> Option<&Roots> {
        match self {
            Self::Everybody(roots) => Some(roots),
            Self::ByDomain(domains) => domains.get(trust_domain),
        }
    }

    /// Whether both vouch for the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everybody(a), Self::Everybody(b)) => a.store.roots == b.store.roots,
            (Self::ByDomain(a), Self::ByDomain(b)) => {
                let same = |((name, a), (other, b)): ((_, &Roots), (_, &Roots))| {
                    name == other && a.store.roots == b.store.roots
                };
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            _ => false,
        }
    }
}

impl Roots {
    fn new(certificates: &[Vec<u8>], provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for root in certificates {
            let added = store.add(CertificateDer::from(root.clone()));
            added.map_err(|e| e.to_string())?;
        }
        let store = Arc::new(store);
        let clients =
            WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone()).build();
        Ok(Self {
            clients: clients.map_err(|e| e.to_string())?,
            store,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faulty_roots_of_a_partner_vouch_for_nobody_and_faulty_ones_of_ours_are_refused() {
        let provider = super::super::identity::provider();
        let day = std::time::Duration::from_secs(24 * 3600);
        let authority = crate::pki::Authority::generate(day).unwrap();
        let pem = authority.root_cert_pem();
        let root = super::super::certificates_of_pem(pem.as_bytes()).unwrap();
        let faulty = vec![root[0].clone(), vec![0x30, 0]];
        let domains = |ours: &Vec<Vec<u8>>, theirs: &Vec<Vec<u8>>| {
            let of = [("ours", ours), ("theirs", theirs)];
            Anchors::ByDomain(of.map(|(d, r)| (d.to_owned(), r.clone())).into())
        };
        let trust = Trust::new(&domains(&root, &faulty), "ours", &provider).unwrap();
        assert!(trust.of("ours").is_some());
        assert!(trust.of("theirs").is_none());
        assert!(Trust::new(&domains(&faulty, &root), "ours", &provider).is_err());
    }
}
