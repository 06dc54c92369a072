//! What a verified token changes in a request, and what is said to those whose token is refused
//! (specs/istio-waypoint.md 4.9). Verifies nothing: `cairn-authz` does.

use std::sync::Arc;

use cairn_authz::Token;
use cairn_authz::jwt::{Authenticator, Failure, Login, Place, Status, without_cookies};
use cairn_routing::Claims;
use http::header::{COOKIE, HeaderName, HeaderValue};

use crate::header_change::Headers;
use crate::hygiene::{X_FORWARDED_PROTO, reads_as};
use crate::outcome::Outcome;

/// Characters of a path that a challenge names.
const REALM_PATH_MAX: usize = 256;

/// Takes the token out, unless the application is to have it, and writes the claims that it is to
/// have. Headers that only claims may write are removed first, whether there is a token or not, and
/// with them those that an application may take for one ([`reads_as`]).
pub fn apply(authenticator: &Authenticator, login: Option<&Login>, headers: &mut impl Headers) {
    let outputs = authenticator.output_headers();
    let is_output = |name: &&HeaderName| outputs.iter().any(|output| reads_as(name, output));
    // An empty Vec does not allocate, and it is empty for an honest client.
    let found: Vec<HeaderName> = headers.names().filter(is_output).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
    let Some(login) = login else { return };
    let mut cookies: Vec<Arc<str>> = Vec::new();
    for place in login.removed() {
        match place {
            Place::Header(header) => headers.remove(&header.name),
            Place::Cookie(name) => cookies.push(name.clone()),
            // The query is not a header; `Decision::change_request` does it.
            Place::Param(_) => {}
        }
    }
    if !cookies.is_empty() {
        remove_cookies(headers, &cookies);
    }
    for (name, value) in login.outputs() {
        headers.set(name, value.clone());
    }
}

fn remove_cookies(headers: &mut impl Headers, names: &[Arc<str>]) {
    let values: Vec<HeaderValue> = headers
        .get_all(&COOKIE)
        .filter_map(|value| without_cookies(value.as_bytes(), names))
        .filter_map(|left| HeaderValue::from_bytes(&left).ok())
        .collect();
    headers.remove(&COOKIE);
    for value in values {
        headers.append(&COOKIE, value);
    }
}

/// Query parameters whose tokens are not for the application.
pub(crate) fn removed_params(login: &Login) -> Vec<Arc<str>> {
    let places = login.removed().iter();
    let params = places.filter_map(|place| match place {
        Place::Param(name) => Some(name.clone()),
        Place::Header(_) | Place::Cookie(_) => None,
    });
    params.collect()
}

/// The row of the table of outcomes. A token for somebody else is 403, as at Envoy.
pub fn outcome(failure: &Failure) -> Outcome {
    match failure.status {
        Status::WrongAudience => Outcome::WrongAudience,
        _ => Outcome::Unauthenticated,
    }
}

/// Envoy's response code details.
pub fn details(failure: &Failure) -> String {
    let message = failure.status.message().replace(' ', "_");
    format!("jwt_authn_access_denied{{{message}}}")
}

/// `www-authenticate`: what was asked for, without the query, in which a token may be.
pub fn challenge(headers: &impl Headers, authority: &str, path: &str) -> HeaderValue {
    let scheme = headers.get(&X_FORWARDED_PROTO);
    let scheme = scheme.and_then(|value| value.to_str().ok());
    let scheme = scheme.filter(|s| s.bytes().all(|c| c.is_ascii_alphanumeric()));
    let mut realm = String::new();
    for c in path.chars().take(REALM_PATH_MAX) {
        match c {
            '"' => realm.push_str("%22"),
            '\\' => realm.push_str("%5C"),
            c => realm.push(c),
        }
    }
    let scheme = scheme.unwrap_or("http");
    let text = format!("Bearer realm=\"{scheme}://{authority}{realm}\", error=\"invalid_token\"");
    HeaderValue::try_from(text)
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

/// A token's claims, for routes.
#[derive(Debug)]
pub(crate) struct TokenClaims<'a>(pub &'a Token);

impl Claims for TokenClaims<'_> {
    fn has(&self, path: &[Arc<str>]) -> bool {
        self.0.has(path)
    }

    fn any(&self, path: &[Arc<str>], holds: &dyn Fn(&str) -> bool) -> bool {
        self.0.claim(path).any(holds)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_challenge_names_what_was_asked_for_and_can_not_be_broken_out_of() {
        let mut headers = HeaderMap::new();
        let shown = |headers: &HeaderMap, path| {
            let value = challenge(headers, "web.shop", path);
            value.to_str().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(
            shown(&headers, "/a"),
            "Bearer realm=\"http://web.shop/a\", error=\"invalid_token\""
        );
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        assert_eq!(
            shown(&headers, "/\"x\\"),
            "Bearer realm=\"https://web.shop/%22x%5C\", error=\"invalid_token\""
        );
        let long = "/a".repeat(1_000);
        assert!(shown(&headers, &long).len() < 400);
    }
}
