//! Matches of a VirtualService's rule (specs/policies.md 2.6, specs/istio-waypoint.md 4.5).
//!
//! A match that can not be understood breaks its rule, and then matches as widely as could have been
//! meant (as `route_matches` has it): what the user wanted this rule to take is answered 500 and not
//! sent where a later rule says.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use http::header::{HOST, HeaderName};

use super::paths::{canonical, never_seen};
use super::policy_values::without_last_dot;
use super::virtual_rules::Reading;
use super::virtual_services::MESH;
use crate::diagnostics::Code;
use crate::resources::virtual_service::{HttpMatch as Written, HttpRoute, StringMatch};
use crate::snapshot::{
    ClaimMatch, HeaderMatch, HttpMatch, Labels, MoreConditions, PathMatch, PathNormalization,
    Pattern, QueryMatch, TextMatch,
};

/// Keys of `headers` that Istio ignores: they have fields of their own.
const PSEUDO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

type TextMap = BTreeMap<String, Option<StringMatch>>;

/// The matches of a rule for requests to one service port; without any, everything.
pub(super) fn read(
    rule: &HttpRoute,
    port: u16,
    mode: PathNormalization,
    reading: &mut Reading<'_>,
) -> Vec<HttpMatch> {
    let written = rule.r#match.as_deref().unwrap_or_default();
    if written.is_empty() {
        return vec![HttpMatch {
            path: any_path(),
            ..HttpMatch::default()
        }];
    }
    let mut matches = Vec::with_capacity(written.len());
    for (index, one) in written.iter().enumerate() {
        let at = format!("{}.match[{index}]", reading.path);
        let mut block = Block {
            at,
            mode,
            reading: &mut *reading,
        };
        if let Some(matched) = block.read(one, port) {
            matches.push(matched);
        }
    }
    matches
}

/// Every path of a request for something: all but `*`, the target of OPTIONS.
fn any_path() -> PathMatch {
    PathMatch::Begins {
        text: "/".into(),
        ignore_case: false,
    }
}

/// `sourceLabels`.
pub(super) fn caller_labels(written: Option<&BTreeMap<String, String>>) -> Labels {
    let labels = written.into_iter().flatten();
    labels
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect()
}

/// One block of `match`, all of whose parts must hold.
struct Block<'r, 'a> {
    at: String,
    mode: PathNormalization,
    reading: &'r mut Reading<'a>,
}

impl Block<'_, '_> {
    /// `None`: it is for other requests than those that come to this port of the mesh.
    fn read(&mut self, written: &Written, port: u16) -> Option<HttpMatch> {
        self.look_for_conditions(written);
        let gateways = written.gateways.as_deref().unwrap_or_default();
        let of_others = !gateways.is_empty() && !gateways.iter().any(|g| g == MESH);
        if of_others || written.port.is_some_and(|wanted| wanted != port) {
            return None;
        }
        if !self.scheme_holds(written.scheme.as_ref()) {
            return None;
        }
        let path = self.path(written);
        let (method, other_method) = self.method(written.method.as_ref());
        let (mut headers, claims) = self.headers(written.headers.as_ref(), "headers");
        headers.extend(self.authority(written.authority.as_ref()));
        let without = written.without_headers.as_ref();
        let (without_headers, without_claims) = self.headers(without, "withoutHeaders");
        let caller = written
            .source_namespace
            .as_deref()
            .filter(|n| !n.is_empty());
        let more = MoreConditions {
            method: other_method,
            without_headers,
            caller_namespace: caller.map(Arc::from),
            caller_labels: caller_labels(written.source_labels.as_ref()),
            claims,
            without_claims,
        };
        let asked = more != MoreConditions::default();
        Some(HttpMatch {
            path,
            method,
            headers,
            query: self.query(written.query_params.as_ref()),
            more: asked.then(|| Box::new(more)),
        })
    }

    /// A block without a condition is not valid (specs/policies.md 2.6).
    fn look_for_conditions(&mut self, written: &Written) {
        let empty = Written {
            name: written.name.clone(),
            stat_prefix: written.stat_prefix.clone(),
            ignore_uri_case: written.ignore_uri_case,
            ..Written::default()
        };
        if *written == empty {
            let message = "a match without a condition; leave the list out to match everything";
            self.reading.fail(Code::MissingField, &self.at, message);
        }
        if written.stat_prefix.is_some() {
            let at = format!("{}.statPrefix", self.at);
            let message = "statPrefix names statistics of Envoy";
            let effect = "metrics are as without it";
            self.reading.warn(Code::Unsupported, &at, message, effect);
        }
    }

    /// Requests reach a waypoint in the clear.
    fn scheme_holds(&mut self, written: Option<&StringMatch>) -> bool {
        let Some(written) = written else {
            return true;
        };
        let at = format!("{}.scheme", self.at);
        let Some(wanted) = self.reading.text(written, &at) else {
            return true;
        };
        let holds = match &wanted {
            TextMatch::Exact(text) => **text == *"http",
            TextMatch::Prefix(text) => "http".starts_with(&**text),
            TextMatch::Regex(pattern) => pattern.matches("http"),
            TextMatch::Present => true,
        };
        if !holds {
            let message = "requests reach a waypoint with the scheme http";
            let effect = "the match holds for none";
            self.reading.warn(Code::BadValue, &at, message, effect);
        }
        holds
    }

    fn path(&mut self, written: &Written) -> PathMatch {
        let Some(uri) = &written.uri else {
            return any_path();
        };
        let at = format!("{}.uri", self.at);
        let ignore_case = written.ignore_uri_case.unwrap_or(false);
        match self.reading.text(uri, &at) {
            None | Some(TextMatch::Present) => any_path(),
            Some(TextMatch::Regex(pattern)) => {
                if ignore_case {
                    let message = "ignoreUriCase means nothing for a regular expression";
                    let effect = "the expression is matched as it is written";
                    let at = format!("{}.ignoreUriCase", self.at);
                    self.reading.warn(Code::BadValue, &at, message, effect);
                }
                PathMatch::Regex(pattern)
            }
            Some(TextMatch::Exact(text)) => {
                let text = self.literal(&text, &at);
                match ignore_case {
                    false => PathMatch::Exact(text),
                    true => {
                        Pattern::of_any_case(&text).map_or_else(|_| any_path(), PathMatch::Regex)
                    }
                }
            }
            Some(TextMatch::Prefix(text)) => PathMatch::Begins {
                text: self.literal(&text, &at),
                ignore_case,
            },
        }
    }

    /// A path as normalised requests have it.
    fn literal(&mut self, text: &str, at: &str) -> Arc<str> {
        let path = canonical(text, self.mode);
        let wrong = match never_seen(&path, self.mode) {
            None if !path.starts_with('/') => Some("it does not begin with '/'"),
            wrong => wrong,
        };
        if let Some(wrong) = wrong {
            let message = format!("'{text}' is the path of no request: {wrong}");
            self.reading
                .warn(Code::BadValue, at, message, "the match holds for none");
        }
        path.into()
    }

    fn method(&mut self, written: Option<&StringMatch>) -> (Option<Method>, Option<TextMatch>) {
        let Some(written) = written else {
            return (None, None);
        };
        let at = format!("{}.method", self.at);
        match self.reading.text(written, &at) {
            None | Some(TextMatch::Present) => (None, None),
            Some(TextMatch::Exact(name)) => match Method::from_bytes(name.as_bytes()) {
                Ok(method) => (Some(method), None),
                Err(_) => {
                    let message = format!("'{name}' is not a method");
                    self.reading.fail(Code::BadValue, &at, message);
                    (None, None)
                }
            },
            Some(other) => (None, Some(other)),
        }
    }

    fn authority(&mut self, written: Option<&StringMatch>) -> Option<HeaderMatch> {
        let at = format!("{}.authority", self.at);
        let value = match self.reading.text(written?, &at)? {
            TextMatch::Exact(text) => TextMatch::Exact(without_last_dot(&text).into()),
            other => other,
        };
        Some(HeaderMatch { name: HOST, value })
    }

    /// Headers, and claims that are written among them.
    fn headers(
        &mut self,
        written: Option<&TextMap>,
        field: &str,
    ) -> (Vec<HeaderMatch>, Vec<ClaimMatch>) {
        let (mut headers, mut claims) = (Vec::new(), Vec::new());
        for (key, value) in written.into_iter().flatten() {
            let at = format!("{}.{field}.{key}", self.at);
            if PSEUDO_HEADERS.contains(&key.as_str()) {
                let message =
                    format!("'{key}' is no header; the field {key} of the match is meant");
                let effect = "the condition is ignored, as in Istio";
                self.reading.warn(Code::BadValue, &at, message, effect);
                continue;
            }
            let none = StringMatch::default();
            let value = value.as_ref().unwrap_or(&none);
            if key.starts_with('@') {
                let Some(path) = claim_path(key) else {
                    let message = format!("'{key}' is no claim: @request.auth.claims[NAME]");
                    self.reading.fail(Code::BadValue, &at, message);
                    continue;
                };
                let value = self.reading.text(value, &at);
                claims.extend(value.map(|value| ClaimMatch { path, value }));
                continue;
            }
            let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
                let message = format!("'{key}' is not the name of a header");
                self.reading.fail(Code::BadValue, &at, message);
                continue;
            };
            if let Some(value) = self.reading.text(value, &at) {
                headers.push(HeaderMatch { name, value });
            }
        }
        (headers, claims)
    }

    fn query(&mut self, written: Option<&TextMap>) -> Vec<QueryMatch> {
        let mut query = Vec::new();
        for (name, value) in written.into_iter().flatten() {
            let at = format!("{}.queryParams.{name}", self.at);
            let none = StringMatch::default();
            let value = value.as_ref().unwrap_or(&none);
            if let Some(value) = self.reading.text(value, &at) {
                let name = name.as_str().into();
                query.push(QueryMatch { name, value });
            }
        }
        query
    }
}

/// The names in `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.
fn claim_path(key: &str) -> Option<Vec<Arc<str>>> {
    let rest = key.strip_prefix("@request.auth.claims")?;
    let names: Vec<&str> = match rest.strip_prefix('.') {
        Some(names) => names.split('.').collect(),
        None => {
            let names = rest.strip_prefix('[')?.strip_suffix(']')?;
            names.split("][").collect()
        }
    };
    let legal = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    (names.iter().all(legal)).then(|| names.into_iter().map(Arc::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_named_with_dots_or_brackets() {
        let path = |key| claim_path(key).map(|names| names.join("|"));
        for (key, expected) in [
            ("@request.auth.claims.sub", Some("sub")),
            ("@request.auth.claims.a.b", Some("a|b")),
            ("@request.auth.claims[a][b.c]", Some("a|b.c")),
            (
                "@request.auth.claims[https://x/roles]",
                Some("https://x/roles"),
            ),
            ("@request.auth.claims", None),
            ("@request.auth.claims.", None),
            ("@request.auth.claims[]", None),
            ("@request.auth.claims[a", None),
            ("@request.auth.claims[a][", None),
            ("@request.auth.claims[a]b]", None),
            ("@request.auth.principal", None),
        ] {
            assert_eq!(path(key).as_deref(), expected, "{key}");
        }
    }
}
