//! Every rule that applies to a service, compiled, and what becomes of a request by them: refused,
//! or who it is from. Reads the request and changes nothing in it.

use std::sync::Arc;

use aws_lc_rs::digest;
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{JwtRule, KeySource, RemoteKeys, RequestAuthentication};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::TOKENS_PER_REQUEST_MAX;
use super::inline::InlineKeys;
use super::keys::{KeySet, KeySets};
use super::locate::{Found, Place};
use super::memory::{Digest, Memory};
use super::status::Status;
use super::verify::{Budget, Times, Unverified};
use crate::token::Token;

/// The request authentications of one service, compiled. Immutable.
#[derive(Debug, Default)]
pub struct Authenticator {
    /// Sorted by issuer, as Istio does.
    pub(super) rules: Vec<Rule>,
    places: Vec<Place>,
    /// Headers that only we write.
    outputs: Vec<HeaderName>,
    /// Of all rules; what is remembered under it is of these and no others.
    id: Digest,
    /// One that could not be read: nothing passes.
    broken: Option<(Origin, Arc<str>)>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) rule: JwtRule,
    origin: Origin,
    /// Its number in the object, from 0.
    index: usize,
    /// Indices of its places.
    places: Vec<usize>,
    /// Keys that stand in the object. `None`: they are fetched, or can not be used.
    inline: Option<Arc<KeySet>>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a Method,
    /// Headers as the client sent them.
    pub headers: &'a HeaderMap,
    /// Query without the question mark.
    pub query: Option<&'a str>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub status: Status,
    /// In words, for the log; no part of a token is in them.
    pub reason: String,
    /// The object and its rule, from 0, that refused; no rule if the object as a whole is broken.
    /// `None`: the token is for none of them.
    pub rule: Option<(Origin, Option<usize>)>,
    /// Keys that might verify it if they were fetched again.
    pub refresh: Option<RemoteKeys>,
}

/// Who a request is from, and what to change in it.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Valid tokens; the first says who it is from.
    pub(super) verified: Vec<Arc<Verified>>,
    /// Places to be emptied.
    remove: Vec<Place>,
}

/// A token that was verified, by which rule and with which keys.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) token: Token,
    rule: usize,
    keys: Digest,
    times: Times,
    outputs: Vec<(HeaderName, HeaderValue)>,
    pub(super) token_bytes: usize,
}

impl Login {
    /// Whom the request is from. `None`: it has no token.
    pub fn token(&self) -> Option<&Token> {
        self.verified.first().map(|verified| &verified.token)
    }

    /// Places whose tokens are not for the application.
    pub fn removed(&self) -> &[Place] {
        &self.remove
    }

    /// Headers to write: those of the token that says who the request is from. What another token
    /// says of somebody else is not said of them.
    pub fn outputs(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        // Written in this order, so that of two for one header the first comes last and stays.
        let outputs = self.verified.first().into_iter();
        let outputs = outputs.flat_map(|verified| verified.outputs.iter().rev());
        outputs.map(|(name, value)| (name, value))
    }
}

impl Authenticator {
    /// Compiles what applies: order and duplicates do not matter. Never fails: what can not be
    /// honoured refuses.
    pub fn compile(authentications: &[Arc<RequestAuthentication>]) -> Self {
        Self::compile_sharing(authentications, &InlineKeys::read(authentications))
    }

    /// The same, with keys that were read before.
    pub fn compile_sharing(
        authentications: &[Arc<RequestAuthentication>],
        keys: &InlineKeys,
    ) -> Self {
        let mut compiled = Self::default();
        let mut rules: Vec<(&Origin, usize, &JwtRule)> = Vec::new();
        for authentication in authentications {
            if let Some(reason) = &authentication.broken {
                let broken = || (authentication.origin.clone(), reason.clone());
                compiled.broken.get_or_insert_with(broken);
            }
            let of_this = authentication.rules.iter().enumerate();
            rules.extend(of_this.map(|(index, rule)| (&authentication.origin, index, rule)));
        }
        rules.sort_by(|a, b| (&a.2.issuer, &a.0.key).cmp(&(&b.2.issuer, &b.0.key)));
        let mut id = digest::Context::new(&digest::SHA256);
        for (origin, index, rule) in rules {
            id.update(format!("{rule:?}\n").as_bytes());
            let inline = match &rule.keys {
                KeySource::Inline(text) => {
                    id.update(text.as_bytes());
                    keys.of(text).cloned()
                }
                KeySource::Remote(_) => None,
            };
            let places = compiled.places_of(rule);
            compiled.rules.push(Rule {
                rule: rule.clone(),
                origin: origin.clone(),
                index,
                places,
                inline,
            });
            let claims = rule.output_claims.iter().map(|output| &output.header);
            for header in claims.chain(&rule.output_payload) {
                if !compiled.outputs.contains(header) {
                    compiled.outputs.push(header.clone());
                }
            }
        }
        compiled.id = to_digest(&id.finish());
        compiled
    }

    fn places_of(&mut self, rule: &JwtRule) -> Vec<usize> {
        let mut indices = Vec::new();
        for place in Place::of_rule(rule) {
            let known = self.places.iter().position(|p| *p == place);
            indices.push(known.unwrap_or_else(|| {
                self.places.push(place);
                self.places.len() - 1
            }));
        }
        indices
    }

    /// Whether nothing applies, so that every request is nobody's.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.broken.is_none()
    }

    /// Headers that only a verified token may write: incoming copies must go, token or not.
    pub fn output_headers(&self) -> &[HeaderName] {
        &self.outputs
    }

    /// Keys that have to be fetched, with the time in milliseconds that may take.
    pub fn remote_keys(&self) -> impl Iterator<Item = (&RemoteKeys, u64)> {
        self.rules.iter().filter_map(|r| match &r.rule.keys {
            KeySource::Remote(remote) => Some((remote, r.rule.timeout_ms)),
            KeySource::Inline(_) => None,
        })
    }

    /// The objects and their rules, from 0, by which the tokens of a request were verified.
    pub fn rules_of<'a>(&'a self, login: &'a Login) -> impl Iterator<Item = (&'a Origin, usize)> {
        let rules = login.verified.iter().filter_map(|v| self.rules.get(v.rule));
        rules.map(|rule| (&rule.origin, rule.index))
    }

    /// Who the request is from. `now_s` is in seconds since 1970. Allocates nothing for a request
    /// without a token.
    ///
    /// # Errors
    /// [`Failure`]: it has a token that is not valid.
    pub fn authenticate(
        &self,
        request: &Request<'_>,
        keys: &KeySets,
        memory: &mut Memory,
        now_s: i64,
    ) -> Result<Login, Failure> {
        self.refuse_if_broken()?;
        // A preflight is the browser's, which sends no token with it (specs/istio-waypoint.md 4.9).
        if self.rules.is_empty() || is_preflight(request) {
            return Ok(Login::default());
        }
        let mut found = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            place.find(index, request.headers, request.query, &mut found);
        }
        if found.is_empty() {
            return Ok(Login::default());
        }
        if found.len() > TOKENS_PER_REQUEST_MAX {
            return Err(self.failure(Status::TooMany, None, None));
        }
        self.verify_all(&found, keys, memory, now_s)
    }

    pub(super) fn refuse_if_broken(&self) -> Result<(), Failure> {
        let Some((origin, reason)) = &self.broken else {
            return Ok(());
        };
        Err(Failure {
            status: Status::BadSignature,
            reason: format!("{origin} is not in force: {reason}"),
            rule: Some((origin.clone(), None)),
            refresh: None,
        })
    }

    fn verify_all(
        &self,
        found: &[Found<'_>],
        keys: &KeySets,
        memory: &mut Memory,
        now_s: i64,
    ) -> Result<Login, Failure> {
        let mut budget = Budget::new();
        let verified: Result<Vec<_>, _> = found
            .iter()
            .map(|token| self.verify(token, keys, memory, now_s, &mut budget))
            .collect();
        memory.note_signatures(budget.spent());
        let mut login = Login::default();
        for (token, verified) in found.iter().zip(verified?) {
            let forwarded = self
                .rules
                .get(verified.rule)
                .is_some_and(|r| r.rule.forward_original_token);
            if !forwarded && let Some(place) = self.places.get(token.place) {
                login.remove.push(place.clone());
            }
            login.verified.push(verified);
        }
        // By issuer; a sort is stable, so that places stay in their order.
        login.verified.sort_by_key(|verified| verified.rule);
        Ok(login)
    }

    fn verify(
        &self,
        found: &Found<'_>,
        keys: &KeySets,
        memory: &mut Memory,
        now_s: i64,
        budget: &mut Budget,
    ) -> Result<Arc<Verified>, Failure> {
        let mut hashed = digest::Context::new(&digest::SHA256);
        hashed.update(&self.id);
        hashed.update(&(found.place as u64).to_le_bytes());
        hashed.update(found.text.as_bytes());
        let digest = to_digest(&hashed.finish());
        if let Some(verified) = memory.get(&digest) {
            if self.still_valid(&verified, keys, now_s) {
                return Ok(verified);
            }
            memory.forget(&digest);
        }
        let token =
            Unverified::parse(&found.text).map_err(|status| self.failure(status, None, None))?;
        let mut failed: Option<(Status, usize)> = None;
        let mut refresh: Option<&RemoteKeys> = None;
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.places.contains(&found.place) {
                continue;
            }
            let set = rule.keys(keys);
            match token.check(&rule.rule, set, now_s, budget) {
                Ok(()) => {
                    let times = token.times;
                    let (token, outputs) = token.taken(&rule.rule);
                    let verified = Arc::new(Verified {
                        token,
                        rule: index,
                        keys: set.map(|set| set.id).unwrap_or_default(),
                        times,
                        outputs,
                        token_bytes: found.text.len(),
                    });
                    memory.put(digest, verified.clone());
                    return Ok(verified);
                }
                Err(status) => {
                    refresh = rule.refresh(status, refresh);
                    let before = failed.map(|(status, _)| status);
                    let worse = status.or(before);
                    if failed.is_none() || before != Some(worse) {
                        failed = Some((worse, index));
                    }
                }
            }
        }
        let (status, rule) = failed.unwrap_or((Status::UnknownIssuer, usize::MAX));
        let failure = self.failure(status, self.rules.get(rule), Some(&token.issuer));
        Err(Failure {
            refresh: refresh.cloned(),
            ..failure
        })
    }

    /// Whether what was verified would be verified again: its keys are the same, and it is its time.
    fn still_valid(&self, verified: &Verified, keys: &KeySets, now_s: i64) -> bool {
        let set = self.rules.get(verified.rule).and_then(|r| r.keys(keys));
        set.is_some_and(|set| set.id == verified.keys) && verified.times.check(now_s).is_ok()
    }

    pub(super) fn failure(
        &self,
        status: Status,
        rule: Option<&Rule>,
        issuer: Option<&str>,
    ) -> Failure {
        let mut reason = status.message().to_owned();
        if let Some(issuer) = issuer.filter(|issuer| !issuer.is_empty()) {
            let shown: String = issuer
                .chars()
                .filter(|c| !c.is_control())
                .take(120)
                .collect();
            reason.push_str(&format!(", issuer {shown}"));
        }
        if let Some(rule) = rule {
            reason.push_str(&format!(" ({})", rule.origin));
            if let Some(why) = &rule.rule.broken {
                reason.push_str(&format!(": the rule is not in force: {why}"));
            }
        }
        Failure {
            status,
            reason,
            rule: rule.map(|rule| (rule.origin.clone(), Some(rule.index))),
            refresh: None,
        }
    }

    /// Query parameters that may hold a token. Empty without allocation where there are none.
    pub fn params(&self) -> Vec<Arc<str>> {
        let params = self.places.iter().filter_map(|place| match place {
            Place::Param(name) => Some(name.clone()),
            Place::Header(_) | Place::Cookie(_) => None,
        });
        params.collect()
    }
}

impl Rule {
    /// The source to be asked again, after this rule failed and those before said `asked`: whichever
    /// lacks a key, even if the answer speaks of another rule. One without any keys is tried again as
    /// it is, so that one with the wrong keys comes first.
    fn refresh<'a>(
        &'a self,
        status: Status,
        asked: Option<&'a RemoteKeys>,
    ) -> Option<&'a RemoteKeys> {
        match (&self.rule.keys, status) {
            (KeySource::Remote(own), Status::NoSuchKey) => Some(own),
            (KeySource::Remote(own), Status::NoKeys) => asked.or(Some(own)),
            _ => asked,
        }
    }

    fn keys<'a>(&'a self, fetched: &'a KeySets) -> Option<&'a KeySet> {
        match &self.rule.keys {
            KeySource::Inline(_) => self.inline.as_deref(),
            KeySource::Remote(remote) => fetched.by_source.get(remote).map(|set| &**set),
        }
    }
}

fn is_preflight(request: &Request<'_>) -> bool {
    *request.method == Method::OPTIONS
        && request.headers.contains_key(http::header::ORIGIN)
        && request
            .headers
            .contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn to_digest(hash: &digest::Digest) -> Digest {
    let mut digest = Digest::default();
    let bytes = digest.iter_mut().zip(hash.as_ref());
    bytes.for_each(|(to, from)| *to = *from);
    digest
}
