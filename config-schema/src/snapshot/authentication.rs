//! Request authentication as it applies at a waypoint: whose tokens are taken, from where, and what
//! becomes of them (specs/istio-waypoint.md 4.9). Holds no token and shows no key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use serde::Serialize;

use super::StringMatch;
use crate::origin::{ObjectKey, Origin};

/// Every RequestAuthentication, attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Authentications {
    /// Those of the Gateway or its class; all that applies to the addresses of workloads.
    pub waypoint: Vec<Arc<RequestAuthentication>>,
    /// All that apply to a served service, those of the waypoint among them. Services without any
    /// are left out.
    #[serde(serialize_with = "super::by_text")]
    pub services: BTreeMap<ObjectKey, Vec<Arc<RequestAuthentication>>>,
}

impl Authentications {
    /// What applies to a served service.
    pub fn of_service(&self, key: &ObjectKey) -> &[Arc<RequestAuthentication>] {
        self.services.get(key).map_or(&[], Vec::as_slice)
    }

    /// Each once.
    pub fn all(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        let services = self.services.values().flatten();
        let mut seen: Vec<*const RequestAuthentication> = Vec::new();
        self.waypoint.iter().chain(services).filter(move |a| {
            let address = Arc::as_ptr(a);
            let is_new = !seen.contains(&address);
            if is_new {
                seen.push(address);
            }
            is_new
        })
    }
}

/// One RequestAuthentication, attached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestAuthentication {
    /// The object.
    pub origin: Origin,
    /// Annotation `istio.io/dry-run` or `cairn.dev/dry-run`: evaluated and reported, never enforced.
    pub dry_run: bool,
    /// A token has to be valid by one of these.
    pub rules: Vec<JwtRule>,
    /// Set when the object could not be understood as a whole: every HTTP request in its scope is
    /// refused, for this reason. Letting those without a token pass would not do: which headers the
    /// object would have kept clients from writing (`outputClaimToHeaders`) is not known either.
    pub broken: Option<Arc<str>>,
}

/// An issuer that is trusted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JwtRule {
    /// `iss`, exactly.
    pub issuer: Arc<str>,
    /// `aud` must have one of these; empty: anything.
    pub audiences: Vec<Arc<str>>,
    /// Keys that verify.
    pub keys: KeySource,
    /// Headers that hold a token.
    pub from_headers: Vec<TokenHeader>,
    /// Query parameters that hold a token.
    pub from_params: Vec<Arc<str>>,
    /// Cookies that hold a token.
    pub from_cookies: Vec<Arc<str>>,
    /// Leaves the token in the request.
    pub forward_original_token: bool,
    /// Header that gets the payload, in base64url.
    #[serde(serialize_with = "optional_name")]
    pub output_payload: Option<HeaderName>,
    /// Headers that get a claim.
    pub output_claims: Vec<ClaimHeader>,
    /// Claims that are lists with spaces in between, such as `scope`.
    pub space_delimited_claims: Vec<Arc<str>>,
    /// How long fetching keys may take, in milliseconds.
    pub timeout_ms: u64,
    /// Set when a part of the rule can not be honoured: every token of this issuer is refused, for
    /// this reason.
    pub broken: Option<Arc<str>>,
}

/// A header that holds a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenHeader {
    /// Header.
    #[serde(serialize_with = "name")]
    pub name: HeaderName,
    /// What stands before the token.
    pub prefix: Option<Arc<str>>,
    /// Whether the prefix is an authentication scheme, compared without regard to case
    /// (RFC 9110 11.1): that of the default place is.
    pub scheme: bool,
}

/// A header that gets a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClaimHeader {
    /// Header.
    #[serde(serialize_with = "name")]
    pub header: HeaderName,
    /// Claim; dots lead into maps.
    pub claim: Arc<str>,
}

/// Where keys come from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key Set that stands in the object.
    Inline(Arc<str>),
    /// To be fetched.
    Remote(RemoteKeys),
}

/// Keys to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RemoteKeys {
    /// An http or https URL.
    pub url: Arc<str>,
    /// The URL is that of an OpenID provider's configuration, which says where the keys are.
    pub discovery: bool,
}

impl fmt::Display for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What is inline is not shown: it may hold more than public keys.
impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("inline"),
            Self::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl Serialize for KeySource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(_) => serializer.serialize_str("inline"),
            Self::Remote(remote) => remote.serialize(serializer),
        }
    }
}

/// A value of `requestPrincipals`: issuer and subject apart, as Istio compares them, because
/// `https://a` with subject `b/c` and `https://a/b` with subject `c` are not the same user
/// (specs/istio-waypoint.md 4.8, "split at the last `/` for sub").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPrincipal {
    /// `iss`; never matches an absent one.
    pub issuer: StringMatch,
    /// `sub`; never matches an absent one.
    pub subject: StringMatch,
    written: Arc<str>,
}

impl RequestPrincipal {
    /// Reads `iss/sub`, `*`, `prefix*` or `*suffix`.
    pub fn parse(written: &str) -> Self {
        let exact = |text: &str| StringMatch::Exact(text.into());
        let (issuer, subject) = match written.rsplit_once('/') {
            _ if written == "*" => (StringMatch::Any, StringMatch::Any),
            Some((issuer, subject)) => {
                let issuer = match issuer.strip_prefix('*') {
                    Some("") => StringMatch::Any,
                    Some(suffix) => StringMatch::Suffix(suffix.into()),
                    None => exact(issuer),
                };
                // With a star in front, one at the end is a character like any other.
                let subject = match subject.strip_suffix('*') {
                    Some("") if !written.starts_with('*') => StringMatch::Any,
                    Some(prefix) if !written.starts_with('*') => StringMatch::Prefix(prefix.into()),
                    _ => exact(subject),
                };
                (issuer, subject)
            }
            None => match (written.strip_prefix('*'), written.strip_suffix('*')) {
                (Some(suffix), _) => (StringMatch::Any, StringMatch::Suffix(suffix.into())),
                (None, Some(prefix)) => (StringMatch::Prefix(prefix.into()), StringMatch::Any),
                (None, None) => (exact(written), exact("")),
            },
        };
        Self {
            issuer,
            subject,
            written: written.into(),
        }
    }
}

impl fmt::Display for RequestPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for RequestPrincipal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

fn name<S: serde::Serializer>(name: &HeaderName, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(name.as_str())
}

fn optional_name<S: serde::Serializer>(name: &Option<HeaderName>, s: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(HeaderName::as_str).serialize(s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_principal_is_an_issuer_and_a_subject() {
        use StringMatch::{Any, Exact, Prefix, Suffix};
        for (written, issuer, subject) in [
            ("*", Any, Any),
            (
                "https://a/b/c",
                Exact("https://a/b".into()),
                Exact("c".into()),
            ),
            ("https://a/*", Exact("https://a".into()), Any),
            ("a/us*", Exact("a".into()), Prefix("us".into())),
            ("*/user", Any, Exact("user".into())),
            (
                "*example.com/user",
                Suffix("example.com".into()),
                Exact("user".into()),
            ),
            ("*user", Any, Suffix("user".into())),
            ("joe*", Prefix("joe".into()), Any),
            ("joe", Exact("joe".into()), Exact("".into())),
        ] {
            let read = RequestPrincipal::parse(written);
            assert_eq!((read.issuer, read.subject), (issuer, subject), "{written}");
        }
    }

    #[test]
    fn inline_keys_are_never_shown() {
        let keys = KeySource::Inline("{\"keys\":[{\"d\":\"secret\"}]}".into());
        assert_eq!(format!("{keys:?}"), "inline");
        assert_eq!(
            serde_json::to_string(&keys).ok().as_deref(),
            Some("\"inline\"")
        );
    }
}
