//! Which other origins a browser may let in (specs/gateway-api.md 1.4, "CORS").

use std::sync::Arc;

use serde::Serialize;

use super::TextMatch;

/// A CORS policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cors {
    /// Any of these. Empty: none.
    pub allow_origins: Vec<OriginPattern>,
    /// Requests may carry cookies and the like.
    pub allow_credentials: bool,
    /// For preflights.
    pub allow_methods: Names,
    /// For preflights.
    pub allow_headers: Names,
    /// Response headers that scripts may read.
    pub expose_headers: Names,
    /// Preflights of other origins go on as other requests do; else they are answered without headers.
    pub forwards_unmatched: bool,
    /// How long a browser may keep the answer to a preflight, in seconds.
    pub max_age_s: u32,
}

/// Names of methods or headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// All.
    Any,
    /// These, joined by a comma; empty for none.
    Listed(Arc<str>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Listed("".into())
    }
}

/// An origin, or many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginPattern {
    /// All of them.
    Any,
    /// Those whose text matches, of a VirtualService.
    Text(TextMatch),
    /// Those of this form.
    Of {
        /// Scheme in lower case.
        scheme: Arc<str>,
        /// Host in lower case; what follows a leading `*` is its end, over any number of labels.
        host: HostPattern,
        /// Port, the scheme's own if none was written. `None`: any.
        port: Option<u16>,
    },
}

/// A host, or many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPattern {
    /// This one.
    Exact(Arc<str>),
    /// Whatever ends with this and is longer.
    EndsWith(Arc<str>),
}

/// The port of an origin that names none. `None`: the scheme has none that we know.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}
