//! Authorization policies as they apply at a waypoint (specs/istio-waypoint.md 4.8).

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use ipnet::IpNet;
use serde::Serialize;

use super::{Provider, RequestPrincipal};
use crate::origin::Origin;

/// One AuthorizationPolicy, attached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// The object.
    pub origin: Origin,
    /// What a matching rule means.
    pub action: Action,
    /// Annotation `istio.io/dry-run` or `cairn.dev/dry-run`: evaluated and reported, never enforced.
    pub dry_run: bool,
    /// Whom a CUSTOM policy asks; `None` for every other action.
    pub provider: Option<Provider>,
    /// Any of these may match. Empty matches nothing.
    pub rules: Vec<PolicyRule>,
    /// Set when the object could not be understood as a whole: everything in its scope is denied,
    /// for this reason; in a dry run, would be.
    pub broken: Option<Arc<str>>,
}

/// What a matching rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Allowed; and what no ALLOW rule matches is denied once one ALLOW policy applies.
    Allow,
    /// Denied.
    Deny,
    /// An external provider is asked, before DENY and ALLOW policies are.
    Custom,
    /// Recorded, and nothing else.
    Audit,
}

/// One rule: a source, an operation and all conditions must match. Empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PolicyRule {
    /// `from`: any of these.
    pub from: Vec<Source>,
    /// `to`: any of these.
    pub to: Vec<Operation>,
    /// `when`: all of these.
    pub when: Vec<Condition>,
    /// Set when a part of the rule can not be evaluated: a DENY, CUSTOM or AUDIT rule then matches
    /// everything, an ALLOW rule nothing, for this reason.
    pub broken: Option<Arc<str>>,
}

/// Values of one field and of its `not` twin: one of `any_of` must match (if there is one) and
/// none of `none_of`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Values<T> {
    /// The field itself.
    pub any_of: Vec<T>,
    /// The field with `not` in front.
    pub none_of: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            any_of: Vec::new(),
            none_of: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    /// Whether the field is absent, so that it matches everything.
    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }
}

/// Who: all set fields must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Source {
    /// Principals without `spiffe://`, trust domain aliases already expanded.
    pub principals: Values<StringMatch>,
    /// Namespaces of the identity.
    pub namespaces: Values<StringMatch>,
    /// `namespace/service account` of the identity, in any trust domain.
    pub service_accounts: Values<StringMatch>,
    /// Trust domains of the identity.
    pub trust_domains: Values<StringMatch>,
    /// Issuer and subject of a verified token. Only HTTP has it.
    pub request_principals: Values<RequestPrincipal>,
    /// Address of the TCP peer.
    pub ip_blocks: Values<IpNet>,
    /// Address after x-forwarded-for.
    pub remote_ip_blocks: Values<IpNet>,
}

/// What: all set fields must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Operation {
    /// `:authority` as sent, port included, case-insensitive. Kept in lower case.
    pub hosts: Values<StringMatch>,
    /// Method.
    pub methods: Values<StringMatch>,
    /// Normalised path without the query.
    pub paths: Values<PathPattern>,
    /// Service port.
    pub ports: Values<u16>,
}

impl Operation {
    /// Whether a field is set that only HTTP has.
    pub fn has_http_fields(&self) -> bool {
        !(self.hosts.is_empty() && self.methods.is_empty() && self.paths.is_empty())
    }
}

/// One `when` condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// `request.headers[name]`. Only HTTP has it.
    RequestHeader {
        /// Header name.
        #[serde(serialize_with = "header_name")]
        name: HeaderName,
        /// Its values.
        values: Values<StringMatch>,
    },
    /// `source.ip`.
    SourceIp(Values<IpNet>),
    /// `remote.ip`.
    RemoteIp(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<StringMatch>),
    /// `source.principal`.
    SourcePrincipal(Values<StringMatch>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<StringMatch>),
    /// `source.trustDomain`.
    SourceTrustDomain(Values<StringMatch>),
    /// `destination.ip`: the virtual IP at a waypoint.
    DestinationIp(Values<IpNet>),
    /// `destination.port`: the service port.
    DestinationPort(Values<u16>),
    /// `request.auth.principal`. Only HTTP has it, as the three below.
    RequestPrincipal(Values<RequestPrincipal>),
    /// `request.auth.audiences`: one of `aud`.
    Audience(Values<StringMatch>),
    /// `request.auth.presenter`: `azp`.
    Presenter(Values<StringMatch>),
    /// `request.auth.claims[a][b]`.
    Claim {
        /// The names in brackets.
        path: Arc<[Arc<str>]>,
        /// Its values: a string, or one of a list.
        values: Values<StringMatch>,
    },
}

fn header_name<S: serde::Serializer>(name: &HeaderName, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(name.as_str())
}

/// The string forms of Istio: only a leading or a trailing star is a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// `*`: present; for a path or principal also non-empty.
    Any,
    /// `abc`.
    Exact(Arc<str>),
    /// `abc*`.
    Prefix(Arc<str>),
    /// `*abc`.
    Suffix(Arc<str>),
    /// Stars anywhere, for namespaces only (specs/istio-waypoint.md 4.8, `source.namespaces`).
    Glob(Arc<str>),
}

impl StringMatch {
    /// Reads the form `abc`, `abc*`, `*abc` or `*`.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Any
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(text.into())
        }
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(s) | Self::Glob(s) => f.write_str(s),
            Self::Prefix(s) => write!(f, "{s}*"),
            Self::Suffix(s) => write!(f, "*{s}"),
        }
    }
}

impl Serialize for StringMatch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value of `paths`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PathPattern {
    /// One of the string forms.
    Text(StringMatch),
    /// A template with `{*}` or `{**}`.
    Template(PathTemplate),
}

/// A path template. Matching it is the business of `cairn-authz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    source: Arc<str>,
    segments: Vec<TemplateSegment>,
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateSegment {
    /// A literal segment.
    Literal(Arc<str>),
    /// `{*}`: one non-empty segment.
    One,
    /// `{**}`: any remainder, possibly empty; at most one, and no operator after it.
    Rest,
}

/// Why a path is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No leading slash.
    #[error("a path template begins with '/'")]
    NoLeadingSlash,
    /// Braces or stars that are not a whole-segment operator.
    #[error("segment '{0}' is neither '{{*}}' nor '{{**}}' nor a literal of path characters")]
    Segment(String),
    /// An operator after `{**}`.
    #[error("no operator may follow '{{**}}'")]
    OperatorAfterRest,
}

impl PathTemplate {
    /// Whether a path is meant as a template at all: it contains `{*}` or `{**}`.
    pub fn is_template(path: &str) -> bool {
        path.contains("{*}") || path.contains("{**}")
    }

    /// Reads a template (specs/istio-waypoint.md 4.8, path templates).
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let path = source
            .strip_prefix('/')
            .ok_or(TemplateError::NoLeadingSlash)?;
        let mut segments = Vec::new();
        for text in path.split('/') {
            let segment = template_segment(text)?;
            let operator = !matches!(segment, TemplateSegment::Literal(_));
            if operator && segments.contains(&TemplateSegment::Rest) {
                return Err(TemplateError::OperatorAfterRest);
            }
            segments.push(segment);
        }
        Ok(Self {
            source: source.into(),
            segments,
        })
    }

    /// The segments after the leading slash.
    pub fn segments(&self) -> &[TemplateSegment] {
        &self.segments
    }
}

fn template_segment(text: &str) -> Result<TemplateSegment, TemplateError> {
    // RFC 3986 pchar without the star, which Istio forbids in a literal of a template.
    let literal = |c: u8| c.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&c);
    match text {
        "{*}" => Ok(TemplateSegment::One),
        "{**}" => Ok(TemplateSegment::Rest),
        t if t.bytes().all(literal) => Ok(TemplateSegment::Literal(t.into())),
        t => Err(TemplateError::Segment(t.to_owned())),
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}
