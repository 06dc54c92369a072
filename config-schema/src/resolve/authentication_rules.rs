//! One item of `jwtRules` (specs/istio-waypoint.md 4.9): issuer, keys, places of the token, headers
//! written. A part that can not be honoured breaks the rule, and every token of its issuer is
//! refused; the places and headers that could be read stay, so that such tokens are found and such
//! headers kept from clients. Where a place could not be read, tokens are looked for in the default
//! places as well.

use std::sync::Arc;

use http::Uri;
use http::header::{AUTHORIZATION, HeaderName};
use serde_json::Value;

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::limits::INLINE_JWKS_BYTES_MAX;
use crate::resources::Object;
use crate::resources::authentication::{self, RequestAuthenticationSpec};
use crate::snapshot::{ClaimHeader, JwtRule, KeySource, RemoteKeys, TokenHeader};

/// `jwksUri` is fetched within this, as Envoy does.
const TIMEOUT_MS: u64 = 5_000;
/// More than this nobody waits for.
const TIMEOUT_MS_MAX: u64 = 60_000;

/// The parameter that tokens are looked for in by default.
const ACCESS_TOKEN: &str = "access_token";

/// Claims that OAuth writes as words with spaces in between; Istio splits them too.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// Where OpenID providers say where their keys are (OpenID Connect Discovery 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Headers that steer the connection or the message; no claim may write them.
const RESERVED: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "expect",
    "x-forwarded-client-cert",
    "x-request-id",
];

/// A rule being read.
struct Reading<'a> {
    object: &'a Object<RequestAuthenticationSpec>,
    scope: &'a str,
    broken: Option<Arc<str>>,
    /// How many parts could not be honoured.
    failures: usize,
    findings: &'a mut Findings,
}

impl Reading<'_> {
    fn fail(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let message = message.into();
        self.failures += 1;
        self.broken.get_or_insert_with(|| message.as_str().into());
        let effect = format!("every token of this rule sent to {} is refused", self.scope);
        let finding = Diagnostic::error(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    fn warn(&mut self, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(Code::BadValue, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    fn header(&mut self, text: &str, path: &str) -> Option<HeaderName> {
        let parsed = HeaderName::from_bytes(text.as_bytes()).ok();
        if parsed.is_none() {
            let message = format!("'{text}' is not the name of a header");
            self.fail(Code::BadValue, path, message);
        }
        parsed
    }

    /// A header that a claim may write.
    fn output(&mut self, text: &str, path: &str) -> Option<HeaderName> {
        let name = self.header(text, path)?;
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("x-envoy-") {
            let message = format!("header {name} is not for claims to be written to");
            self.fail(Code::BadValue, path, message);
            return None;
        }
        Some(name)
    }

    /// Words that must not be empty.
    fn words(&mut self, written: &Option<Vec<String>>, path: &str) -> Vec<Arc<str>> {
        if written.as_ref().is_some_and(Vec::is_empty) {
            // To Istio it is as if absent: a template that rendered nobody would take everybody.
            self.fail(Code::MissingField, path, "an empty list says nothing");
        }
        let mut words = Vec::new();
        for (index, word) in written.iter().flatten().enumerate() {
            if word.is_empty() {
                let path = format!("{path}[{index}]");
                self.fail(Code::BadValue, &path, "an empty value matches nothing");
            }
            words.push(Arc::from(word.as_str()));
        }
        words
    }
}

/// Reads one rule.
pub(super) fn read(
    written: &authentication::JwtRule,
    path: &str,
    object: &Object<RequestAuthenticationSpec>,
    scope: &str,
    findings: &mut Findings,
) -> JwtRule {
    let mut reading = Reading {
        object,
        scope,
        broken: None,
        failures: 0,
        findings,
    };
    if written.issuer.is_empty() {
        reading.fail(Code::MissingField, path, "a rule has an issuer");
    }
    let keys = keys(written, path, &mut reading);
    let audiences = reading.words(&written.audiences, &format!("{path}.audiences"));
    let places = places(written, path, &mut reading);
    let output_payload = written
        .output_payload_to_header
        .as_deref()
        .and_then(|name| reading.output(name, &format!("{path}.outputPayloadToHeader")));
    let output_claims = output_claims(written, path, &mut reading);
    let mut space_delimited_claims: Vec<Arc<str>> = SPACE_DELIMITED.map(Arc::from).to_vec();
    let more = format!("{path}.spaceDelimitedClaims");
    space_delimited_claims.extend(reading.words(&written.space_delimited_claims, &more));
    let timeout_ms = timeout_ms(written, path, &mut reading);
    JwtRule {
        issuer: written.issuer.as_str().into(),
        audiences,
        keys,
        from_headers: places.headers,
        from_params: places.params,
        from_cookies: places.cookies,
        forward_original_token: written.forward_original_token.unwrap_or(false),
        output_payload,
        output_claims,
        space_delimited_claims,
        timeout_ms,
        broken: reading.broken,
    }
}

/// `jwks` before `jwksUri` before discovery.
fn keys(written: &authentication::JwtRule, path: &str, reading: &mut Reading<'_>) -> KeySource {
    if let Some(inline) = &written.jwks {
        if written.jwks_uri.is_some() {
            let message = "a rule has either jwks or jwksUri";
            let path = format!("{path}.jwksUri");
            reading.warn(&path, message, "jwks is used, jwksUri is not");
        }
        inline_keys(inline, &format!("{path}.jwks"), reading);
        return KeySource::Inline(inline.as_str().into());
    }
    let (url, discovery, path) = match &written.jwks_uri {
        Some(uri) => (uri.clone(), false, format!("{path}.jwksUri")),
        None => {
            let issuer = written.issuer.strip_suffix('/').unwrap_or(&written.issuer);
            (
                format!("{issuer}{DISCOVERY}"),
                true,
                format!("{path}.issuer"),
            )
        }
    };
    match check_url(&url) {
        Err(wrong) => {
            let message = match discovery {
                true => format!(
                    "without jwks and jwksUri the keys are looked for at the issuer, but '{}' {wrong}",
                    written.issuer
                ),
                false => format!("'{url}' {wrong}"),
            };
            reading.fail(Code::BadValue, &path, message);
        }
        Ok(parsed) if parsed.scheme_str() == Some("http") => {
            let message = format!("keys come from '{url}' without TLS");
            let effect = "who is on the way can put keys of their own in place";
            reading.warn(&path, message, effect);
        }
        Ok(_) => {}
    }
    KeySource::Remote(RemoteKeys {
        url: url.into(),
        discovery,
    })
}

/// The URL, if keys can be fetched from there.
fn check_url(url: &str) -> Result<Uri, &'static str> {
    let parsed: Uri = url.parse().map_err(|_| "is not a URL")?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) {
        return Err("is not an http or https URL");
    }
    match parsed.authority() {
        Some(authority) if authority.as_str().contains('@') => Err("has a user part"),
        Some(authority) if !authority.host().is_empty() => Ok(parsed),
        _ => Err("has no host"),
    }
}

/// Looks at keys that stand in the object; which of them verify what is `cairn-authz`'s to say.
fn inline_keys(text: &str, path: &str, reading: &mut Reading<'_>) {
    if text.len() > INLINE_JWKS_BYTES_MAX {
        let message = format!("jwks is larger than {INLINE_JWKS_BYTES_MAX} bytes");
        return reading.fail(Code::LimitExceeded, path, message);
    }
    let parsed: Value = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let message = format!("jwks is not JSON: {error}");
            return reading.fail(Code::BadValue, path, message);
        }
    };
    let Some(keys) = parsed.get("keys").and_then(Value::as_array) else {
        return reading.fail(Code::BadValue, path, "jwks has no list `keys`");
    };
    let kind = |key: &Value| key.get("kty").and_then(Value::as_str).map(str::to_owned);
    let is_known = |key: &&Value| matches!(kind(key).as_deref(), Some("RSA" | "EC" | "OKP"));
    if !keys.iter().any(|key| is_known(&key)) {
        let message = "jwks has no public key of a kind that is known (RSA, EC, OKP)";
        return reading.fail(Code::BadValue, path, message);
    }
    let curves: Vec<String> = keys.iter().filter_map(unsupported_curve).collect();
    if !curves.is_empty() {
        let message = format!("jwks has keys that can not be used: {}", curves.join(", "));
        if curves.len() == keys.iter().filter(is_known).count() {
            return reading.fail(Code::Unsupported, path, message);
        }
        reading.warn(path, message, "tokens that they signed are refused");
    }
    if keys.iter().any(|key| kind(key).as_deref() == Some("oct")) {
        let message = "a key of jwks is a shared secret (oct)";
        reading.warn(
            path,
            message,
            "it verifies nothing: whoever can read it could sign",
        );
    } else if keys.iter().any(|key| key.get("d").is_some()) {
        let message = "a key of jwks has its private part in it (d)";
        reading.warn(
            path,
            message,
            "whoever can read this object can sign tokens",
        );
    }
}

/// The curve of a key that no signature can be checked with, and whose algorithm that is. The
/// cryptography that TLS has for tokens knows neither P-521 nor Ed448 (docs/configuration.md).
fn unsupported_curve(key: &Value) -> Option<String> {
    let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("kty"), text("crv")) {
        ("EC", "P-256" | "P-384") | ("OKP", "Ed25519") => None,
        ("EC", "P-521") => Some("curve P-521 (ES512)".to_owned()),
        ("EC" | "OKP", curve) => Some(format!("curve {curve}")),
        _ => None,
    }
}

/// Where a rule's tokens are.
struct Places {
    headers: Vec<TokenHeader>,
    params: Vec<Arc<str>>,
    cookies: Vec<Arc<str>>,
}

/// Places that are written replace the default ones. One that can not be read replaces nothing: a rule
/// that looks nowhere would find no token to refuse.
fn places(written: &authentication::JwtRule, path: &str, reading: &mut Reading<'_>) -> Places {
    let failures = reading.failures;
    let mut places = Places {
        params: reading.words(&written.from_params, &format!("{path}.fromParams")),
        cookies: reading.words(&written.from_cookies, &format!("{path}.fromCookies")),
        headers: from_headers(written, path, reading),
    };
    let none = places.headers.is_empty() && places.params.is_empty() && places.cookies.is_empty();
    if none || reading.failures > failures {
        let (header, param) = (bearer(), Arc::from(ACCESS_TOKEN));
        if !places.headers.contains(&header) {
            places.headers.push(header);
        }
        if !places.params.contains(&param) {
            places.params.push(param);
        }
    }
    places
}

/// `Authorization: Bearer`, the one place of that header's tokens however it is written: two places
/// would find the same token twice, each for its own rules alone.
fn bearer() -> TokenHeader {
    TokenHeader {
        name: AUTHORIZATION,
        prefix: Some("Bearer ".into()),
        scheme: true,
    }
}

fn from_headers(
    written: &authentication::JwtRule,
    path: &str,
    reading: &mut Reading<'_>,
) -> Vec<TokenHeader> {
    if written.from_headers.as_ref().is_some_and(Vec::is_empty) {
        let path = format!("{path}.fromHeaders");
        reading.fail(Code::MissingField, &path, "an empty list says nothing");
    }
    let mut headers = Vec::new();
    for (index, from) in written.from_headers.iter().flatten().enumerate() {
        let path = format!("{path}.fromHeaders[{index}].name");
        let Some(name) = reading.header(&from.name, &path) else {
            continue;
        };
        if name == http::header::HOST || name == http::header::COOKIE {
            let message = format!("header {name} is no place for a token");
            reading.fail(Code::BadValue, &path, message);
            continue;
        }
        let prefix = from.prefix.as_deref().filter(|prefix| !prefix.is_empty());
        let is_bearer = |prefix: &str| prefix.trim().eq_ignore_ascii_case("bearer");
        if name == AUTHORIZATION && prefix.is_some_and(is_bearer) {
            headers.push(bearer());
            continue;
        }
        headers.push(TokenHeader {
            name,
            prefix: prefix.map(Arc::from),
            scheme: false,
        });
    }
    headers
}

fn output_claims(
    written: &authentication::JwtRule,
    path: &str,
    reading: &mut Reading<'_>,
) -> Vec<ClaimHeader> {
    let mut headers = Vec::new();
    for (index, output) in written.output_claim_to_headers.iter().flatten().enumerate() {
        let path = format!("{path}.outputClaimToHeaders[{index}]");
        let Some(header) = reading.output(&output.header, &format!("{path}.header")) else {
            continue;
        };
        if output.claim.is_empty() {
            let path = format!("{path}.claim");
            reading.fail(Code::MissingField, &path, "an output has a claim");
        }
        // Kept without a claim, too: clients must not write it.
        headers.push(ClaimHeader {
            header,
            claim: output.claim.as_str().into(),
        });
    }
    headers
}

/// A duration of protobuf's JSON form: seconds with an `s`.
fn timeout_ms(written: &authentication::JwtRule, path: &str, reading: &mut Reading<'_>) -> u64 {
    let Some(text) = &written.timeout else {
        return TIMEOUT_MS;
    };
    let seconds = text.strip_suffix('s').and_then(|s| s.parse::<f64>().ok());
    match seconds.map(|s| s * 1000.0) {
        Some(ms) if ms >= 1.0 && ms <= TIMEOUT_MS_MAX as f64 => ms as u64,
        _ => {
            let message = format!("'{text}' is not a duration between 1 ms and 60 s, like 5s");
            let path = format!("{path}.timeout");
            reading.warn(&path, message, "keys are fetched within 5 s or not");
            TIMEOUT_MS
        }
    }
}
