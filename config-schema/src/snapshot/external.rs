//! External authorization: whom to ask, what it is told, and what of its answer is used
//! (specs/istio-waypoint.md 4.8, CUSTOM; specs/gateway-api.md 3, ExternalAuth). Asks nobody.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::{ClusterKey, StringMatch};

/// Headers that say where a message ends or what becomes of its connection. They belong to the
/// proxy: a route or provider that changed them could make two parsers disagree.
pub const FRAMING_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whom a CUSTOM policy asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// This one.
    Ask(Arc<ExternalProvider>),
    /// Nobody, for this reason: what the policy matches is denied.
    Unusable(Arc<str>),
}

/// An authorization service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExternalProvider {
    /// Name in `meshConfig.extensionProviders`; for a route's filter, what it points to.
    pub name: Arc<str>,
    /// Where it is.
    pub cluster: ClusterKey,
    /// How long an answer may take, connecting included, in milliseconds.
    pub timeout_ms: u64,
    /// Without an answer the request passes; otherwise it is answered `status_on_error`.
    pub fail_open: bool,
    /// Status of requests for which there was no answer.
    pub status_on_error: u16,
    /// The route is looked for again after headers were changed.
    pub clear_route_cache: bool,
    /// How much of a request's body it gets. `None`: nothing.
    pub body: Option<BodyInCheck>,
    /// What is spoken with it.
    pub protocol: CheckProtocol,
}

/// How much of a body an authorization service gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BodyInCheck {
    /// Largest part in bytes.
    pub max_bytes: usize,
    /// A longer body is cut for the check; otherwise its request is answered 413.
    pub allow_partial: bool,
    /// gRPC: as bytes, where text would have to be UTF-8.
    pub pack_as_bytes: bool,
}

/// What is spoken with an authorization service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckProtocol {
    /// The request's method and path, over HTTP. 200 allows.
    Http(HttpCheck),
    /// Envoy's `envoy.service.auth.v3.Authorization/Check`.
    Grpc(GrpcCheck),
}

/// A check over HTTP. Method, path, Host and Authorization are sent in any case.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HttpCheck {
    /// In front of the path. Empty, or with a leading slash and no trailing one.
    pub path_prefix: Arc<str>,
    /// Request headers that are sent.
    pub request_headers: HeaderNames,
    /// Headers that are sent with these values, whatever the request has.
    #[serde(serialize_with = "header_pairs")]
    pub additional_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of an allowing answer that replace those of the request.
    pub to_upstream_on_allow: HeaderNames,
    /// Headers of an allowing answer that are added to the response.
    pub to_client_on_allow: HeaderNames,
    /// Headers of a denying answer that the client gets. `None`: all of them.
    pub to_client_on_deny: Option<HeaderNames>,
}

/// A check over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GrpcCheck {
    /// Request headers that are sent. `None`: all of them.
    pub request_headers: Option<HeaderNames>,
}

/// Names of headers: exact, `prefix*`, `*suffix` or `*`, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct HeaderNames(pub Vec<StringMatch>);

impl HeaderNames {
    /// Whether one of them is, or covers, this name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.0.iter().any(|pattern| match pattern {
            StringMatch::Any => true,
            StringMatch::Exact(exact) | StringMatch::Glob(exact) => **exact == *name,
            StringMatch::Prefix(prefix) => name.starts_with(&**prefix),
            StringMatch::Suffix(suffix) => name.ends_with(&**suffix),
        })
    }
}

/// Values may be secrets, so that a dump has the names alone.
fn header_pairs<S: serde::Serializer>(
    pairs: &[(HeaderName, HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(name, _)| name.as_str()))
}
