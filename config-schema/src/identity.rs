//! SPIFFE identities of the form Istio issues (specs/istio-waypoint.md section 3).

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

const SCHEME: &str = "spiffe://";

/// A SPIFFE ID. `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` is what Istio issues;
/// an ID with another path is a valid peer without namespace and service account, unless it has
/// `ns` or `sa` segments in some other place: Istio's patterns would find a namespace there, a DENY
/// on it must not miss the peer, and two readings of one name are one too many.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    uri: Arc<str>,
    trust_domain_end: u32,
    workload: Option<WorkloadSpan>,
}

/// Byte ranges of namespace and service account inside the URI.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct WorkloadSpan {
    namespace: (u32, u32),
    service_account: (u32, u32),
}

/// Why a string is not a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The scheme is missing or different.
    #[error("a SPIFFE ID begins with spiffe://")]
    Scheme,
    /// The trust domain is empty or has characters other than a-z, 0-9, '.', '-' and '_'.
    #[error(
        "the trust domain of a SPIFFE ID has only a-z, 0-9, '.', '-' and '_', and is not empty"
    )]
    TrustDomain,
    /// The path is missing, has an empty or relative segment or a forbidden character.
    #[error(
        "the path of a SPIFFE ID has non-empty segments of a-z, A-Z, 0-9, '.', '-' and '_', none of them '.' or '..'"
    )]
    Path,
    /// `ns` or `sa` segments that are not Istio's form.
    #[error(
        "a SPIFFE ID with the segments 'ns' or 'sa' has the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
    )]
    Ambiguous,
    /// Longer than the 2,048 bytes the SPIFFE standard allows.
    #[error("a SPIFFE ID is at most 2048 bytes long")]
    Length,
}

impl Identity {
    /// Parses a SPIFFE ID as the SPIFFE standard defines it (no port, user, query or fragment).
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        if uri.len() > 2048 {
            return Err(IdentityError::Length);
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        if trust_domain.is_empty() || !trust_domain.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain);
        }
        let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
        let valid = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(legal);
        if !path.split('/').all(valid) {
            return Err(IdentityError::Path);
        }
        let workload = workload_span(path, SCHEME.len() + trust_domain.len() + 1);
        if workload.is_none() && path.split('/').any(|s| s == "ns" || s == "sa") {
            return Err(IdentityError::Ambiguous);
        }
        Ok(Self {
            uri: Arc::from(uri),
            trust_domain_end: (SCHEME.len() + trust_domain.len()) as u32,
            workload,
        })
    }

    /// The identity Istio gives to a service account.
    pub fn of_workload(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        Self::parse(&format!(
            "{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"
        ))
    }

    /// The whole ID, `spiffe://...`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The ID without `spiffe://`: what `principals` of a policy is compared with.
    pub fn principal(&self) -> &str {
        self.slice(SCHEME.len() as u32, self.uri.len() as u32)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        self.slice(SCHEME.len() as u32, self.trust_domain_end)
    }

    /// The namespace, if the path is `/ns/<namespace>/sa/<service account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.workload
            .map(|w| self.slice(w.namespace.0, w.namespace.1))
    }

    /// The service account, if the path is `/ns/<namespace>/sa/<service account>`.
    pub fn service_account(&self) -> Option<&str> {
        self.workload
            .map(|w| self.slice(w.service_account.0, w.service_account.1))
    }

    fn slice(&self, start: u32, end: u32) -> &str {
        self.uri
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }
}

fn workload_span(path: &str, offset: usize) -> Option<WorkloadSpan> {
    let mut segments = path.split('/');
    let (ns, namespace) = (segments.next()?, segments.next()?);
    let (sa, account) = (segments.next()?, segments.next()?);
    if ns != "ns" || sa != "sa" || segments.next().is_some() {
        return None;
    }
    let start = offset + 3;
    let account_start = start + namespace.len() + 4;
    Some(WorkloadSpan {
        namespace: (start as u32, (start + namespace.len()) as u32),
        service_account: (account_start as u32, (account_start + account.len()) as u32),
    })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_identity_has_all_parts() {
        let id = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), Some("shop"));
        assert_eq!(id.service_account(), Some("web"));
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/web");
        assert_eq!(
            id,
            Identity::of_workload("cluster.local", "shop", "web").unwrap()
        );
    }

    #[test]
    fn other_paths_are_peers_without_namespace() {
        let id = Identity::parse("spiffe://td/team/a/b").unwrap();
        assert_eq!((id.namespace(), id.service_account()), (None, None));
        assert_eq!(id.trust_domain(), "td");
    }

    #[test]
    fn malformed_ids_are_refused() {
        for (uri, error) in [
            ("https://td/ns/a/sa/b", IdentityError::Scheme),
            ("spiffe://td", IdentityError::Path),
            ("spiffe:///ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://TD/ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://td:80/ns/a/sa/b", IdentityError::TrustDomain),
            ("spiffe://td/", IdentityError::Path),
            ("spiffe://td/ns//sa/b", IdentityError::Path),
            ("spiffe://td/ns/../sa/b", IdentityError::Path),
            ("spiffe://td/ns/a/sa/b/c", IdentityError::Ambiguous),
            ("spiffe://td/x/ns/a/sa/b", IdentityError::Ambiguous),
            ("spiffe://td/ns/a", IdentityError::Ambiguous),
            ("spiffe://td/ns/a/sa/b?x", IdentityError::Path),
            ("spiffe://td/ns/a/sa/b%2f", IdentityError::Path),
        ] {
            assert_eq!(Identity::parse(uri), Err(error), "{uri}");
        }
    }
}
