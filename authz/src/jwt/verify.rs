//! One token against one request's rules: form, times, issuer, audience, signature. Looks for no
//! token and remembers none.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_config_schema::snapshot::{JwtRule, KeySource};
use http::header::{HeaderName, HeaderValue};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::keys::KeySet;
use super::status::Status;
use super::unique::Unique;
use super::{CLOCK_SKEW_S, KEYS_TRIED_MAX, SIGNATURES_PER_REQUEST_MAX, TOKEN_BYTES_MAX};
use crate::token::Token;

/// Signatures that may still be checked for a request.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    /// That of a request that has spent nothing.
    pub(super) fn new() -> Self {
        Self {
            left: SIGNATURES_PER_REQUEST_MAX,
        }
    }

    fn spend(&mut self) -> Result<(), Status> {
        self.left = self.left.checked_sub(1).ok_or(Status::TooManySignatures)?;
        Ok(())
    }

    /// How many were checked.
    pub(super) fn spent(&self) -> u64 {
        SIGNATURES_PER_REQUEST_MAX.saturating_sub(self.left) as u64
    }
}

/// A token whose form is right and whose signature nobody has looked at.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// Header and payload, as signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// `iss`; empty when absent, which no rule has.
    pub(super) issuer: String,
    subject: Option<String>,
    audiences: Vec<String>,
    pub(super) times: Times,
    claims: Map<String, Value>,
}

/// When a token is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    not_before_s: Option<i64>,
    expires_s: Option<i64>,
}

impl Times {
    /// Whether it is valid now, give or take the skew.
    pub(super) fn check(self, now_s: i64) -> Result<(), Status> {
        let early = |from: i64| from.saturating_sub(CLOCK_SKEW_S) > now_s;
        if self.not_before_s.is_some_and(early) {
            return Err(Status::NotYetValid);
        }
        let late = |until: i64| until.saturating_add(CLOCK_SKEW_S) < now_s;
        match self.expires_s.is_some_and(late) {
            true => Err(Status::Expired),
            false => Ok(()),
        }
    }
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Status> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Status::Form);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Status::Form)?;
        let (header, payload) = message.split_once('.').ok_or(Status::Form)?;
        if payload.contains('.') {
            return Err(Status::Form);
        }
        let header = object(header, Status::HeaderBase64, Status::HeaderJson)?;
        let claims = object(payload, Status::PayloadBase64, Status::PayloadJson)?;
        if URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(Status::SignatureBase64);
        }
        // RFC 7515 4.1.11: what must be understood and is not.
        if header.contains_key("crit") {
            return Err(Status::UnsupportedAlgorithm);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Status::HeaderKeyId),
        };
        let text_of = |name: &str, wrong: Status| match claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong),
        };
        Ok(Self {
            algorithm: algorithm(&header)?,
            key_id,
            message,
            payload,
            signature,
            issuer: text_of("iss", Status::IssuerNotString)?.unwrap_or_default(),
            subject: text_of("sub", Status::SubjectNotString)?,
            audiences: audiences(&claims)?,
            times: Times {
                not_before_s: seconds(&claims, "nbf", f64::ceil)?,
                expires_s: seconds(&claims, "exp", f64::floor)?,
            },
            claims,
        })
    }

    /// Whether the token is valid by this rule.
    pub(super) fn check(
        &self,
        rule: &JwtRule,
        keys: Option<&KeySet>,
        now_s: i64,
        budget: &mut Budget,
    ) -> Result<(), Status> {
        if self.issuer.is_empty() || self.issuer != *rule.issuer {
            return Err(Status::UnknownIssuer);
        }
        if rule.broken.is_some() {
            return Err(Status::BadSignature);
        }
        self.times.check(now_s)?;
        if !is_for(rule, || self.audiences.iter().map(String::as_str)) {
            return Err(Status::WrongAudience);
        }
        let keys = keys.ok_or(match &rule.keys {
            KeySource::Remote(_) => Status::NoKeys,
            // Keys that stand in the object and can not be used: nothing was fetched.
            KeySource::Inline(_) => Status::NoSuchKey,
        })?;
        let mut candidates = keys
            .candidates(self.key_id.as_deref(), self.algorithm)
            .take(KEYS_TRIED_MAX)
            .peekable();
        if candidates.peek().is_none() {
            return Err(Status::NoSuchKey);
        }
        let message = self.message.as_bytes();
        for key in candidates {
            budget.spend()?;
            if key.verifies(message, self.signature, self.algorithm) {
                return Ok(());
            }
        }
        Err(Status::BadSignature)
    }

    /// The token and the headers that a rule writes from it. To be asked once `check` has passed.
    pub(super) fn taken(self, rule: &JwtRule) -> (Token, Vec<(HeaderName, HeaderValue)>) {
        let mut outputs = Vec::new();
        for output in &rule.output_claims {
            if let Some(value) = claim_text(&self.claims, &output.claim) {
                outputs.push((output.header.clone(), value));
            }
        }
        if let Some(header) = &rule.output_payload
            && let Ok(value) = HeaderValue::from_str(self.payload)
        {
            outputs.push((header.clone(), value));
        }
        let mut claims = self.claims;
        for name in &rule.space_delimited_claims {
            if let Some(claim) = claims.get_mut(&**name)
                && let Value::String(words) = claim
            {
                let words = words.split(' ').filter(|word| !word.is_empty());
                *claim = words.map(Value::from).collect();
            }
        }
        let token = Token {
            issuer: self.issuer,
            subject: self.subject,
            claims,
        };
        (token, outputs)
    }
}

/// `none` and what is not known are refused here; whether a key may verify it says the key.
fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Status> {
    let Some(name) = header.get("alg").and_then(Value::as_str) else {
        return Err(Status::HeaderAlgorithm);
    };
    match name.parse::<Algorithm>() {
        Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => {
            Err(Status::UnsupportedAlgorithm)
        }
        Ok(algorithm) => Ok(algorithm),
    }
}

fn object(part: &str, base64: Status, json: Status) -> Result<Map<String, Value>, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| base64)?;
    match serde_json::from_slice(&bytes) {
        Ok(Unique(Value::Object(members))) => Ok(members),
        _ => Err(json),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Status> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(many)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let all: Option<Vec<String>> = many.iter().map(text).collect();
            all.ok_or(Status::AudienceNotString)
        }
        Some(_) => Err(Status::AudienceNotString),
    }
}

/// A time claim. RFC 7519 2 allows fractions; they are rounded so that the token is valid for less.
fn seconds(
    claims: &Map<String, Value>,
    name: &str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, Status> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let whole = value.as_i64().or_else(|| {
        let rounded = round(value.as_f64()?);
        // Beyond that a float has no seconds; a token for so long is not from this world.
        (rounded.abs() < 9e15).then_some(rounded as i64)
    });
    whole
        .filter(|seconds| *seconds >= 0)
        .map(Some)
        .ok_or(Status::TimeNotNumber)
}

/// Whether one of a token's audiences is one that the rule asks for.
pub(super) fn is_for<'a, A: Iterator<Item = &'a str>>(
    rule: &JwtRule,
    audiences: impl Fn() -> A,
) -> bool {
    let is_one = |wanted: &Arc<str>| {
        let wanted = bare_audience(wanted);
        audiences().any(|audience| bare_audience(audience) == wanted)
    };
    rule.audiences.is_empty() || rule.audiences.iter().any(is_one)
}

/// As Envoy compares audiences: without the scheme and a slash at the end.
fn bare_audience(audience: &str) -> &str {
    let bare = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

/// A claim as a header's value: a string, a whole number or a truth value. `None` also for text that
/// no header can hold, so that nothing can be smuggled in.
fn claim_text(claims: &Map<String, Value>, path: &str) -> Option<HeaderValue> {
    let nested = || {
        let mut names = path.split('.');
        let mut value = claims.get(names.next()?)?;
        for name in names {
            value = value.get(name)?;
        }
        Some(value)
    };
    let value = claims.get(path).or_else(nested)?;
    match value {
        Value::String(text) => HeaderValue::from_bytes(text.as_bytes()).ok(),
        Value::Number(number) if !number.is_f64() => {
            HeaderValue::from_str(&number.to_string()).ok()
        }
        Value::Bool(truth) => Some(HeaderValue::from_static(if *truth {
            "true"
        } else {
            "false"
        })),
        _ => None,
    }
}
