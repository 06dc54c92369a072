//! Sessions: which backend and endpoint a request is held to by the token it shows, and the token that
//! its response hands out (GEP-1619, specs/gateway-api.md 3). What a token says, and how long it is good,
//! is `cairn-routing`'s business.

use std::sync::Arc;

use cairn_config_schema::limits::SESSIONS_PER_NAME_MAX;
use cairn_config_schema::snapshot::{BackendTarget, HttpRule, SessionCarrier, SessionPersistence};
use cairn_filters::chain::{Answer, Decision};
use cairn_routing::{Cluster, Found, Hold, LiveEndpoint, RuleRef, Session, rule_id};
use http::HeaderMap;
use http::header::{HeaderValue, SET_COOKIE};
use pingora_error::Result;
use pingora_http::ResponseHeader;

use super::balance::cookies;
use crate::clock::unix_s;
use crate::runtime::Runtime;

/// The session of a request to a cluster.
pub struct Sticky {
    rules: Arc<SessionPersistence>,
    /// The rule that it is of.
    rule: u32,
    /// What the client showed, if it still holds.
    shown: Option<Session>,
    /// What the client has of other rules under the same name.
    others: Vec<Session>,
}

/// The backend of its rule that a request is held to, by number. `None`: the weights decide.
pub(super) fn held(
    decision: &Decision<'_>,
    runtime: &Runtime,
    headers: &HeaderMap,
) -> Option<usize> {
    let Some(Found::Rule(reference)) = &decision.found else {
        return None;
    };
    let rule = reference
        .rule()
        .filter(|_| decision.answer == Answer::Forward)?;
    if rule.traffic.session.is_none() && !runtime.has_sessions {
        return None;
    }
    let own = rule_id(Some(reference));
    // With one backend there is nothing to choose, unless it is left to sessions.
    if matches!(rule.backends.as_slice(), [only] if only.weight > 0) {
        return None;
    }
    let holds = rule.backends.iter().enumerate().map(|(index, backend)| {
        let cluster = match &backend.target {
            BackendTarget::Cluster(key) => runtime.cluster(key),
            BackendTarget::Invalid(_) | BackendTarget::Unknown(_) => None,
        };
        let hold = cluster.and_then(|cluster| {
            let rules = rules_of(Some(rule), cluster, runtime)?;
            Some(cluster.hold(&shown(&rules, own, headers)?))
        });
        match hold {
            // What is left to sessions gets no other endpoint of its own: it is to become empty.
            Some(Hold::Backend) if backend.weight == 0 => (Hold::None, index),
            hold => (hold.unwrap_or(Hold::None), index),
        }
    });
    // The first of the best.
    let (hold, index) = holds.min_by_key(|(hold, index)| (std::cmp::Reverse(*hold), *index))?;
    (hold != Hold::None).then_some(index)
}

/// The session of a request that goes to this cluster.
pub(super) fn sticky(
    rule: Option<&RuleRef>,
    cluster: &Cluster,
    runtime: &Runtime,
    headers: &HeaderMap,
) -> Option<Sticky> {
    let rules = rules_of(rule.and_then(RuleRef::rule), cluster, runtime)?;
    let rule = rule_id(rule);
    let held = |session: &Session| cluster.hold(session) == Hold::Endpoint;
    Some(Sticky {
        shown: shown(&rules, rule, headers).filter(held),
        others: all_shown(&rules, headers)
            .filter(|session| session.rule != rule)
            .take(SESSIONS_PER_NAME_MAX)
            .collect(),
        rules,
        rule,
    })
}

/// A rule's sessions come before those of the destination (GEP-1619, "Route Rule API").
fn rules_of(
    rule: Option<&HttpRule>,
    cluster: &Cluster,
    runtime: &Runtime,
) -> Option<Arc<SessionPersistence>> {
    let own = rule.and_then(|rule| rule.traffic.session.clone());
    let of_cluster = || runtime.has_sessions.then(|| cluster.sessions()).flatten();
    own.or_else(of_cluster)
}

/// The session of a rule that a client shows, if it is not over.
fn shown(rules: &SessionPersistence, rule: u32, headers: &HeaderMap) -> Option<Session> {
    let now_s = unix_s();
    let mut all = all_shown(rules, headers);
    all.find(|session| session.rule == rule && session.lasts(rules, now_s))
}

/// Whatever a client shows, of any rule and age.
fn all_shown<'a>(
    rules: &'a SessionPersistence,
    headers: &'a HeaderMap,
) -> impl Iterator<Item = Session> + 'a {
    let (cookie, header) = match &rules.carrier {
        SessionCarrier::Cookie { name, .. } => (Some(cookies(headers, name)), None),
        SessionCarrier::Header(name) => (None, headers.get(name)),
    };
    let header = header.map(HeaderValue::as_bytes);
    let values = cookie.into_iter().flatten().chain(header);
    values.flat_map(Session::all)
}

impl Sticky {
    /// The endpoint that the session is at.
    pub(super) fn endpoint(&self) -> Option<u64> {
        self.shown.map(|session| session.endpoint)
    }

    /// Puts the token into the response, if the client has none or an old one.
    pub(super) fn tell(
        &self,
        response: &mut ResponseHeader,
        cluster: &Cluster,
        endpoint: &LiveEndpoint,
    ) -> Result<()> {
        let now_s = unix_s();
        let used_s = u32::try_from(now_s).unwrap_or(u32::MAX);
        let kept = self.shown.filter(|s| s.endpoint == endpoint.session_id());
        let session = match kept {
            Some(kept) if self.rules.idle_timeout_s.is_none() || kept.used_s == used_s => {
                return Ok(());
            }
            Some(kept) => Session { used_s, ..kept },
            None => Session {
                rule: self.rule,
                backend: cluster.session_id(),
                endpoint: endpoint.session_id(),
                begun_s: used_s,
                used_s,
            },
        };
        let token = session.write_before(&self.others);
        match &self.rules.carrier {
            SessionCarrier::Header(name) => {
                response.insert_header(name.clone(), header_value(&token)?)
            }
            SessionCarrier::Cookie { name, permanent } => {
                let over_s = (self.rules.absolute_timeout_s)
                    .map(|most_s| u64::from(session.begun_s).saturating_add(most_s));
                let age = match over_s {
                    Some(over_s) if *permanent => {
                        format!("; Max-Age={}", over_s.saturating_sub(now_s))
                    }
                    _ => String::new(),
                };
                // A mesh speaks plain HTTP inside of its tunnels: `Secure` would have clients drop it.
                let line = format!("{name}={token}{age}; Path=/; HttpOnly; SameSite=Strict");
                response
                    .append_header(SET_COOKIE, header_value(&line)?)
                    .map(|_| ())
            }
        }
    }
}

/// Names of cookies were looked at when the configuration was read, tokens are digits.
fn header_value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|error| {
        let kind = pingora_error::ErrorType::InvalidHTTPHeader;
        pingora_error::Error::because(kind, "a session token", error)
    })
}
