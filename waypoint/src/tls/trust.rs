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
    /// # Errors
    /// What is wrong with the roots.
    pub fn new(anchors: &Anchors, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        Ok(match anchors {
            Anchors::Everybody(certificates) => {
                Self::Everybody(Roots::new(certificates, provider)?)
            }
            Anchors::ByDomain(domains) => {
                let roots = domains.iter().map(|(domain, certificates)| {
                    let roots = Roots::new(certificates, provider);
                    let roots = roots.map_err(|e| format!("trust domain {domain}: {e}"))?;
                    Ok((domain.clone(), roots))
                });
                Self::ByDomain(roots.collect::<Result<_, String>>()?)
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
