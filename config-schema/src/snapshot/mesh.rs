//! Mesh-wide settings, from the ConfigMap `istio`.

use std::sync::Arc;

use serde::Serialize;

use super::RetryPolicy;

/// Mesh-wide settings with Istio's defaults, except path normalisation, which is strict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mesh {
    /// `meshConfig.trustDomain`.
    pub trust_domain: Arc<str>,
    /// `meshConfig.trustDomainAliases`.
    pub trust_domain_aliases: Vec<Arc<str>>,
    /// Namespace of mesh-wide policies: where the ConfigMap `istio` lives.
    pub root_namespace: Arc<str>,
    /// DNS suffix of services.
    pub cluster_domain: Arc<str>,
    /// How paths are normalised before policy and routing.
    pub path_normalization: PathNormalization,
    /// `meshConfig.connectTimeout`.
    pub connect_timeout_ms: u64,
    /// When requests are tried again whose rule says nothing of it: `meshConfig.defaultHttpRetryPolicy`.
    pub retry: RetryPolicy,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            cluster_domain: "cluster.local".into(),
            path_normalization: PathNormalization::Strict,
            connect_timeout_ms: 10_000,
            retry: RetryPolicy::DEFAULT,
        }
    }
}

impl Mesh {
    /// Whether a peer of this trust domain is accepted (specs/istio-waypoint.md 2.1).
    pub fn accepts_trust_domain(&self, trust_domain: &str) -> bool {
        trust_domain == &*self.trust_domain
            || self
                .trust_domain_aliases
                .iter()
                .any(|a| &**a == trust_domain)
    }
}

/// How paths are normalised (specs/istio-waypoint.md 4.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathNormalization {
    /// Cairn's default, nothing in meshConfig: merge slashes, resolve dot segments, decode
    /// unreserved characters, and answer 400 to whatever two parsers could read differently.
    #[default]
    Strict,
    /// `NONE`: the path as sent.
    None,
    /// `BASE` or `DEFAULT`: RFC 3986 dot segments, `\` to `/`.
    Base,
    /// `MERGE_SLASHES`: `BASE`, then repeated slashes become one.
    MergeSlashes,
    /// `DECODE_AND_MERGE_SLASHES`: `%2F` and `%5C` are decoded first, then `MERGE_SLASHES`.
    DecodeAndMergeSlashes,
}
