//! Expansion of principals over the mesh's trust domain and its aliases
//! (specs/istio-waypoint.md 3 and 4.8).

use std::sync::Arc;

use crate::snapshot::Mesh;

/// Always means the mesh's own trust domain, whatever that is called.
const LOCAL: &str = "cluster.local";

/// The mesh's trust domain and its aliases.
pub(super) struct TrustDomains<'a> {
    all: Vec<&'a Arc<str>>,
}

impl<'a> TrustDomains<'a> {
    /// Those of a mesh.
    pub fn of(mesh: &'a Mesh) -> Self {
        Self {
            all: std::iter::once(&mesh.trust_domain)
                .chain(&mesh.trust_domain_aliases)
                .collect(),
        }
    }

    /// A principal as written, for every trust domain it stands for. `None`: its trust domain is
    /// not of this mesh.
    ///
    /// A principal that begins with a star says nothing of the trust domain and stays as it is,
    /// and so does one without a slash. A star at the end of the trust domain picks those it
    /// matches; as with an exact one, the aliases of what it picks are meant too.
    pub fn expand(&self, principal: &str) -> Option<Vec<String>> {
        let Some((domain, rest)) = principal.split_once('/') else {
            return Some(vec![principal.to_owned()]);
        };
        if domain.starts_with('*') {
            return Some(vec![principal.to_owned()]);
        }
        let matches = |own: &str| match domain.strip_suffix('*') {
            Some(prefix) => own.starts_with(prefix),
            None => own == domain,
        };
        if domain != LOCAL && !self.all.iter().any(|own| matches(own)) {
            return None;
        }
        let mut expanded: Vec<String> = Vec::with_capacity(self.all.len());
        for own in &self.all {
            let principal = format!("{own}/{rest}");
            if !expanded.contains(&principal) {
                expanded.push(principal);
            }
        }
        Some(expanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(trust_domain: &str, aliases: &[&str]) -> Mesh {
        Mesh {
            trust_domain: trust_domain.into(),
            trust_domain_aliases: aliases.iter().map(|a| Arc::from(*a)).collect(),
            ..Mesh::default()
        }
    }

    #[test]
    fn one_trust_domain_stands_for_all_of_the_mesh() {
        let mesh = mesh("new-td", &["old-td"]);
        let domains = TrustDomains::of(&mesh);
        let both = |rest: &str| Some(vec![format!("new-td/{rest}"), format!("old-td/{rest}")]);
        for (written, expected) in [
            ("new-td/ns/a/sa/b", both("ns/a/sa/b")),
            ("old-td/ns/a/sa/b", both("ns/a/sa/b")),
            // The synonym for the local trust domain, though no peer has it.
            ("cluster.local/ns/a/sa/b", both("ns/a/sa/b")),
            ("old-td/ns/a/*", both("ns/a/*")),
            ("old-*/ns/a/sa/b", both("ns/a/sa/b")),
            ("*/ns/a/sa/b", Some(vec!["*/ns/a/sa/b".into()])),
            ("*-td/ns/a/sa/b", Some(vec!["*-td/ns/a/sa/b".into()])),
            ("*/sa/b", Some(vec!["*/sa/b".into()])),
            ("*", Some(vec!["*".into()])),
            ("new*", Some(vec!["new*".into()])),
            ("other/ns/a/sa/b", None),
            ("other-*/ns/a/sa/b", None),
        ] {
            assert_eq!(domains.expand(written), expected, "{written}");
        }
    }

    #[test]
    fn an_alias_equal_to_the_trust_domain_is_not_repeated() {
        let mesh = mesh("td", &["td"]);
        assert_eq!(
            TrustDomains::of(&mesh).expand("td/ns/a/sa/b"),
            Some(vec!["td/ns/a/sa/b".to_owned()])
        );
    }
}
