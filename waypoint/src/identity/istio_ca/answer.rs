//! What the CA handed out, judged: for our key, in our name, with a chain that a peer accepts. Nothing else is
//! taken, whoever sent it.

use std::time::SystemTime;

use cairn_config_schema::identity::Identity;

use crate::limits::CA_CERTIFICATES_MAX;
use crate::tls::{
    Anchors, LocalIdentity, Material, MaterialError, certificates_of_pem, is_self_issued,
};

/// Why a certificate of the CA is not used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not PEM, or no certificate.
    #[error("certificate chain: {0}")]
    Unreadable(String),
    /// There are too many.
    #[error("it has {0} certificates, {CA_CERTIFICATES_MAX} at most are taken")]
    TooMany(usize),
    /// Another trust domain.
    #[error(
        "the certificate is for {found}, of trust domain {domain}, and the mesh's is {expected}; set --trust-domain or meshConfig.trustDomain to the CA's"
    )]
    OtherTrustDomain {
        /// Whom the certificate names.
        found: Identity,
        /// Its trust domain.
        domain: String,
        /// The mesh's.
        expected: String,
    },
    /// Somebody else's.
    #[error("the certificate is for {found}, and this waypoint is {expected}")]
    OtherIdentity {
        /// Whom the certificate names.
        found: Identity,
        /// Who was asked for.
        expected: Identity,
    },
    /// It is no identity.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// What the CA handed out, once it was judged.
#[derive(Debug)]
pub(super) struct Issued {
    /// Leaf and intermediates.
    chain: Vec<Vec<u8>>,
    /// Private key of the leaf.
    key: Vec<u8>,
    /// Roots that came with it.
    roots: Vec<Vec<u8>>,
    /// End of validity, seconds since 1970.
    pub not_after_s: i64,
}

impl Issued {
    /// Judges an answer. `file_roots`: those of the ConfigMap.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn judge(
        answer: &[String],
        key: Vec<u8>,
        expected: &Identity,
        file_roots: &[Vec<u8>],
    ) -> Result<(Self, LocalIdentity), AnswerError> {
        let mut chain = Vec::new();
        for pem in answer {
            chain.extend(certificates_of_pem(pem.as_bytes()).map_err(AnswerError::Unreadable)?);
        }
        if chain.len() > CA_CERTIFICATES_MAX {
            return Err(AnswerError::TooMany(chain.len()));
        }
        if chain.is_empty() {
            return Err(MaterialError::NoCertificate.into());
        }
        // Roots come last, but an answer without them must not make a root of an intermediate.
        let above = chain.split_off(1);
        let is_root = |c: &Vec<u8>| is_self_issued(c) || file_roots.contains(c);
        let (roots, intermediates): (Vec<_>, Vec<_>) = above.into_iter().partition(is_root);
        chain.extend(intermediates);
        let mut issued = Self {
            chain,
            key,
            roots,
            not_after_s: 0,
        };
        let identity = issued.with(file_roots)?;
        let found = &identity.identity;
        if found.trust_domain() != expected.trust_domain() {
            return Err(AnswerError::OtherTrustDomain {
                found: found.clone(),
                domain: found.trust_domain().to_owned(),
                expected: expected.trust_domain().to_owned(),
            });
        }
        if found != expected {
            return Err(AnswerError::OtherIdentity {
                found: found.clone(),
                expected: expected.clone(),
            });
        }
        identity.check_chain()?;
        issued.not_after_s = identity.not_after_s;
        Ok((issued, identity))
    }

    /// The identity, with the roots of the ConfigMap and those of the answer.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn with(&self, file_roots: &[Vec<u8>]) -> Result<LocalIdentity, MaterialError> {
        let more = self.roots.iter().filter(|root| !file_roots.contains(root));
        LocalIdentity::new(self.material(file_roots.iter().chain(more)), 1)
    }

    /// Whether those who have the roots of the ConfigMap alone take the certificate.
    pub fn is_accepted_by(&self, file_roots: &[Vec<u8>]) -> bool {
        let seen = LocalIdentity::new(self.material(file_roots.iter()), 1);
        seen.is_ok_and(|identity| identity.check_chain().is_ok())
    }

    fn material<'a>(&self, roots: impl Iterator<Item = &'a Vec<u8>>) -> Material {
        Material {
            chain: self.chain.clone(),
            key: self.key.clone(),
            anchors: Anchors::Everybody(roots.cloned().collect()),
        }
    }

    /// One that ends then, and is no certificate.
    #[cfg(test)]
    pub fn until(not_after_s: i64) -> Self {
        let (chain, key, roots) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            chain,
            key,
            roots,
            not_after_s,
        }
    }

    /// How long it is valid still.
    pub fn left(&self, now: SystemTime) -> std::time::Duration {
        let seconds = u64::try_from(self.not_after_s).unwrap_or_default();
        let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        end.duration_since(now).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
