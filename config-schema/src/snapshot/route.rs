//! HTTP routes attached to services (specs/gateway-api.md 1.4); GRPCRoutes are routes on paths too.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use regex::Regex;
use serde::Serialize;

use super::{ClusterKey, Cors, ExternalProvider, Labels, RuleTraffic};
use crate::origin::{Kind, Origin};

/// One HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, Serialize)]
pub struct HttpRoute {
    /// The object.
    pub origin: Origin,
    /// `creationTimestamp` in seconds since 1970; objects without one count as youngest.
    pub created_s: Option<i64>,
    /// Rules in the order written.
    pub rules: Vec<HttpRule>,
    /// Set when the object could not be read at all: its only rule matches what no other route
    /// matches and answers 500.
    pub broken: bool,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct HttpRule {
    /// The rule's name, when it has one.
    pub name: Option<Arc<str>>,
    /// Any of these must match. Empty only where a VirtualService means other ports: never matched.
    pub matches: Vec<HttpMatch>,
    /// Applied in this order.
    pub filters: Vec<Filter>,
    /// Weighted targets; those of weight 0 left out, unless the rule has sessions. Empty: 500, unless a
    /// filter redirects.
    pub backends: Vec<Backend>,
    /// Timeouts and retries.
    pub traffic: RuleTraffic,
    /// Set when the rule has something Cairn can not honour: it still matches, and answers 500
    /// for this reason.
    pub broken: Option<Arc<str>>,
}

impl HttpRoute {
    /// Whether a match looks at the labels of the caller's pod.
    pub fn asks_for_caller_labels(&self) -> bool {
        let matches = self.rules.iter().flat_map(|rule| &rule.matches);
        let mut more = matches.filter_map(|matched| matched.more.as_deref());
        more.any(|more| !more.caller_labels.is_empty())
    }

    /// Whether the rules are asked in the order they are written, as those of a VirtualService are
    /// (specs/policies.md 2.6), and Envoy's own. Otherwise the most specific match goes first.
    pub fn in_order(&self) -> bool {
        matches!(
            self.origin.kind,
            Kind::VirtualService | Kind::CiliumEnvoyConfig | Kind::CiliumClusterwideEnvoyConfig
        )
    }
}

/// One match: all of its parts must hold. The default is every path.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HttpMatch {
    /// On the normalised path without the query.
    pub path: PathMatch,
    /// On the method.
    #[serde(serialize_with = "as_display_option")]
    pub method: Option<Method>,
    /// On headers; only the first match of a name counts and is kept.
    pub headers: Vec<HeaderMatch>,
    /// On query parameters; only the first match of a name counts and is kept.
    pub query: Vec<QueryMatch>,
    /// What only a VirtualService can ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<Box<MoreConditions>>,
}

/// Conditions of a VirtualService that the Gateway API does not have (specs/policies.md 2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MoreConditions {
    /// On the method, where it is not one method.
    pub method: Option<TextMatch>,
    /// None of these may hold; a header that is absent does not.
    pub without_headers: Vec<HeaderMatch>,
    /// Namespace in the certificate of the caller.
    pub caller_namespace: Option<Arc<str>>,
    /// Labels that the caller's pod must have. Where they are not known the match holds, and its rule answers 500.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub caller_labels: Labels,
    /// On claims of the verified token (specs/istio-waypoint.md 4.5).
    pub claims: Vec<ClaimMatch>,
    /// None of these may hold; without a token none does.
    pub without_claims: Vec<ClaimMatch>,
}

/// A match on one claim of a verified token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimMatch {
    /// Names from the outermost map to the claim.
    pub path: Vec<Arc<str>>,
    /// On the claim if it is a text, or on any item if it is a list.
    pub value: TextMatch,
}

/// A match on the path.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// The whole path, case-sensitive.
    Exact(Arc<str>),
    /// Whole segments. Kept without a trailing slash, so that `/` is the empty string.
    Prefix(Arc<str>),
    /// A VirtualService's prefix: of the text, whatever its segments.
    Begins {
        /// What the path begins with.
        text: Arc<str>,
        /// ASCII letters are the same in either case (`ignoreUriCase`).
        ignore_case: bool,
    },
    /// The whole path.
    Regex(Pattern),
}

impl Default for PathMatch {
    /// Every path.
    fn default() -> Self {
        Self::Prefix("".into())
    }
}

/// A match on one header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    /// Name, compared case-insensitively.
    #[serde(serialize_with = "as_display")]
    pub name: HeaderName,
    /// Value; several values of one header are joined by a comma first.
    pub value: TextMatch,
}

/// A match on one query parameter.
#[derive(Clone, Debug, Serialize)]
pub struct QueryMatch {
    /// Name, exact.
    pub name: Arc<str>,
    /// Percent-decoded value of the first parameter of that name.
    pub value: TextMatch,
}

/// A match on a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextMatch {
    /// Equal.
    Exact(Arc<str>),
    /// It begins so. VirtualServices only.
    Prefix(Arc<str>),
    /// It is there, whatever it is. VirtualServices only.
    Present,
    /// The whole text matches.
    Regex(Pattern),
}

/// A compiled regular expression in linear time; of whole texts unless made by `compile_within`.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Arc<str>,
    regex: Regex,
    rank: (usize, usize),
}

/// How an expression begins that folds the case of ASCII alone.
const ASCII_IN_ANY_CASE: &str = "(?i-u:";

impl Pattern {
    /// Compiles an expression in RE2 syntax; `Err` is the reason in words.
    pub fn compile(source: &str) -> Result<Self, String> {
        // Both anchors around a group, for `a|b` must not become `^a|b$`.
        let regex = regex::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(crate::limits::REGEX_BYTES_MAX)
            .build()
            .map_err(|e| e.to_string())?;
        // `a)(b` would compile inside our group; it must be an expression by itself.
        regex_syntax_is_closed(source)?;
        Ok(Self {
            source: source.into(),
            regex,
            rank: (0, 0),
        })
    }

    /// Compiles an expression that may match within a text.
    pub fn compile_within(source: &str) -> Result<Self, String> {
        let regex = regex::RegexBuilder::new(source)
            .size_limit(crate::limits::REGEX_BYTES_MAX)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            source: source.into(),
            regex,
            rank: (0, 0),
        })
    }

    /// An expression for one path, whatever its case. It is none of RE2's, where ASCII can not be folded by itself:
    /// who writes it elsewhere asks [`Self::in_any_case`].
    pub fn of_any_case(path: &str) -> Result<Self, String> {
        Self::compile(&format!("{ASCII_IN_ANY_CASE}{})", regex::escape(path)))
    }

    /// The path of [`Self::of_any_case`], if it is such an expression.
    pub fn in_any_case(&self) -> Option<String> {
        let escaped = self.source.strip_prefix(ASCII_IN_ANY_CASE)?;
        let escaped = escaped.strip_suffix(')')?;
        let mut path = String::with_capacity(escaped.len());
        let mut chars = escaped.chars();
        while let Some(c) = chars.next() {
            path.push(if c == '\\' { chars.next()? } else { c });
        }
        (regex::escape(&path) == escaped).then_some(path)
    }

    /// How many groups it has.
    pub fn groups(&self) -> usize {
        self.regex.captures_len().saturating_sub(1)
    }

    /// Replaces every match; `${1}` in the replacement is a group.
    pub fn replace_all<'t>(&self, text: &'t str, replacement: &str) -> Cow<'t, str> {
        self.regex.replace_all(text, replacement)
    }

    /// The same, ranked among the paths of a port: what a GRPCRoute says of service and method, in
    /// characters.
    pub fn ranked(self, service: usize, method: usize) -> Self {
        Self {
            rank: (service, method),
            ..self
        }
    }

    /// The higher goes first; (0, 0) for whatever is not of a GRPCRoute.
    pub fn rank(&self) -> (usize, usize) {
        self.rank
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn regex_syntax_is_closed(source: &str) -> Result<(), String> {
    Regex::new(source).map(|_| ()).map_err(|e| e.to_string())
}

impl Eq for Pattern {}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

/// A weighted target.
#[derive(Clone, Debug, Serialize)]
pub struct Backend {
    /// Share of the sum over all backends of the rule. 0, if the rule has sessions: nothing but what
    /// is left of them.
    pub weight: u32,
    /// Where it goes.
    pub target: BackendTarget,
    /// Filters for this target alone, after those of the rule.
    pub filters: Vec<Filter>,
}

/// Where a share of a rule goes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendTarget {
    /// A service port.
    Cluster(ClusterKey),
    /// Nothing that could be resolved: this share is answered with 500, for this reason.
    Invalid(Arc<str>),
    /// The same, of a VirtualService: 503 (specs/istio-waypoint.md 4.5).
    Unknown(Arc<str>),
}

/// A filter of a rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderChange),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderChange),
    /// `RequestRedirect`.
    Redirect(Redirect),
    /// `URLRewrite`.
    Rewrite(Rewrite),
    /// `RequestMirror`; several in a row are several copies.
    Mirror(Mirror),
    /// `CORS`.
    Cors(Arc<Cors>),
    /// `ExternalAuth`: asked after policy and before any other filter of the rule.
    ExternalAuth(Arc<ExternalProvider>),
    /// A VirtualService's `directResponse`: nothing is sent on.
    Respond(Arc<DirectResponse>),
}

/// An answer that a route gives by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectResponse {
    /// Its status.
    #[serde(serialize_with = "as_display")]
    pub status: StatusCode,
    /// Its body, `text/plain`; may be empty. Shown as text, for people.
    #[serde(serialize_with = "as_text")]
    pub body: Arc<[u8]>,
}

/// Copies of a share of the requests for another destination, whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Where copies go.
    pub target: ClusterKey,
    /// Of so many requests.
    pub denominator: u32,
    /// So many are copied; at most `denominator`.
    pub numerator: u32,
}

/// Header changes, applied as set, add, remove.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeaderChange {
    /// Replace all values.
    #[serde(serialize_with = "as_pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Append a value.
    #[serde(serialize_with = "as_pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Remove all values.
    #[serde(serialize_with = "as_display_list")]
    pub remove: Vec<HeaderName>,
}

/// A redirect.
#[derive(Clone, Debug, Serialize)]
pub struct Redirect {
    /// Scheme, that of the request when absent.
    pub scheme: Option<RedirectScheme>,
    /// Host, that of the request when absent.
    pub hostname: Option<Arc<str>>,
    /// Port; see specs/gateway-api.md 1.4 for what an absent one means.
    pub port: Option<u16>,
    /// Path, that of the request (with its query) when absent.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    #[serde(serialize_with = "as_display")]
    pub status: StatusCode,
}

/// Scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum RedirectScheme {
    Http,
    Https,
}

/// A rewrite.
#[derive(Clone, Debug, Serialize)]
pub struct Rewrite {
    /// New Host or :authority.
    #[serde(serialize_with = "as_debug_option")]
    pub hostname: Option<HeaderValue>,
    /// New path; the query stays.
    pub path: Option<PathRewrite>,
}

/// A change of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// `ReplaceFullPath`.
    Full(Arc<str>),
    /// `ReplacePrefixMatch`: the prefix that matched is replaced.
    Prefix(Arc<str>),
    /// A VirtualService's `rewrite.uri`: the prefix that matched is replaced, else the whole path.
    Matched(Arc<str>),
    /// `uriRegexRewrite`: every match is replaced by the text, in which `${1}` is a group.
    Regex(Pattern, Arc<str>),
}

pub(super) fn as_display<T: std::fmt::Display, S: serde::Serializer>(
    v: &T,
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_str(v)
}

fn as_text<S: serde::Serializer>(v: &[u8], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&String::from_utf8_lossy(v))
}

fn as_display_option<T: std::fmt::Display, S: serde::Serializer>(
    v: &Option<T>,
    s: S,
) -> Result<S::Ok, S::Error> {
    match v {
        Some(v) => s.collect_str(v),
        None => s.serialize_none(),
    }
}

fn as_debug_option<S: serde::Serializer>(v: &Option<HeaderValue>, s: S) -> Result<S::Ok, S::Error> {
    match v {
        Some(v) => s.serialize_str(&String::from_utf8_lossy(v.as_bytes())),
        None => s.serialize_none(),
    }
}

fn as_display_list<T: std::fmt::Display, S: serde::Serializer>(
    v: &[T],
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(v.iter().map(ToString::to_string))
}

fn as_pairs<S: serde::Serializer>(
    v: &[(HeaderName, HeaderValue)],
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(
        v.iter()
            .map(|(n, v)| (n.as_str(), String::from_utf8_lossy(v.as_bytes()))),
    )
}
