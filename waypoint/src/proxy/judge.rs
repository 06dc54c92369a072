//! Judges one HTTP request. `Gate::judge` states the order; what is decided is decided by
//! `cairn-filters`' chain. Sends nothing.
//!
//! - read the runtime, once;
//! - refuse what is malformed or framed ambiguously (`screen.rs`);
//! - clean the headers;
//! - authenticate: verify the token and take it out;
//! - judge: normalise, route, authorise;
//! - answer here, or choose a backend and change the request.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_authz::Verdict;
use cairn_authz::jwt::Failure;
use cairn_config_schema::snapshot::ClusterKey;
use cairn_filters::chain::{Answer, Authenticated, Decision, Destination, RequestView};
use cairn_filters::login::challenge;
use cairn_filters::outcome::{Outcome, is_grpc};
use cairn_routing::{Cluster, Found, RuleRef};
use http::header::{HeaderValue, USER_AGENT};
use http::{HeaderMap, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::balance::{self, HashKey, Keyed};
use super::context::{Plan, RequestContext};
use super::headers::{self, RequestHeaders};
use super::http::Gate;
use super::stream_context::StreamContext;
use super::{attempt, login, screen};
use crate::drain::Kind;
use crate::recheck::UpgradeRequest;
use crate::runtime::{Runtime, Target};
use crate::telemetry::exchange::{Exchange, HttpExchange, StreamOrigin};

/// What `judge` found.
pub(super) enum Judged {
    /// The request goes on to an endpoint.
    Forward,
    /// The request is answered here.
    Answer(Outcome),
    /// Policy denied it, and the client is told why.
    Denied(Outcome, String),
    /// The request's token is refused: body and challenge say why.
    Unauthenticated(Outcome, &'static str, HeaderValue),
    /// A CORS preflight is answered with these headers.
    Preflight(HeaderMap),
    /// The request is redirected.
    Redirect(http::StatusCode, HeaderValue),
}

impl Gate {
    pub(super) fn judge(&self, session: &mut Session, ctx: &mut RequestContext) -> Judged {
        let Some(stream) = stream_context(session) else {
            return Judged::Answer(Outcome::Internal);
        };
        stream.header_read(headers::has_stated_length(session));
        ctx.held = Some(self.worker.in_flight.hold(Kind::Request));
        let runtime = self.worker.runtime.load_full();
        let exchange = begin(session, &stream, &runtime);
        let exchange = ctx.exchange.insert(exchange);
        let runtime: &Runtime = ctx.runtime.insert(runtime);
        // The service may have changed, or gone, since the tunnel was opened.
        let target = runtime.find(&stream.asked);
        if let Ok(target) = &target {
            exchange.service.clone_from(&target.service);
        }
        if let Some((outcome, reason)) = screen::refusal(session) {
            exchange.reason = Some(reason.to_owned());
            return refused(exchange, outcome);
        }
        let Ok(target) = target else {
            return refused(exchange, Outcome::NotServed);
        };
        let authority = match screen::authority_of(session) {
            Ok(authority) => authority,
            Err(error) => {
                exchange.reason = Some(error.to_string());
                return refused(exchange, Outcome::BadAuthority);
            }
        };
        let Some(http) = exchange.http.take() else {
            return Judged::Answer(Outcome::Internal);
        };
        let http = HttpExchange { authority, ..http };
        ctx.stacked = attempt::is_stacked(session);
        let judged = self.decide(session, exchange, &http, &target, runtime, &mut ctx.plan);
        ctx.time = attempt::time_of(session, exchange, http.grpc, ctx.plan.as_ref());
        let request_id = session.req_header().headers.get("x-request-id").cloned();
        let path = login::shown_path(&target.chain, http.path);
        exchange.http = Some(HttpExchange {
            request_id,
            path,
            ..http
        });
        judged
    }

    fn decide(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        http: &HttpExchange,
        target: &Target,
        runtime: &Runtime,
        plan: &mut Option<Plan>,
    ) -> Judged {
        let peer = exchange.origin.peer.clone();
        let own = self.worker.identity.borrow();
        let http2 = session.is_http2();
        let request = session.req_header_mut();
        target.chain.clean(
            &mut RequestHeaders(request),
            Some(&own.identity),
            Some(&peer.identity),
            request_id,
        );
        let (method, path) = (&http.method, &*http.path);
        let jwks = &self.worker.jwks;
        let login::Logins { login, trial } =
            login::authenticate(&target.chain, jwks, request, method, path);
        let decision = target.chain.decide(&RequestView {
            peer: Some(&peer.identity),
            attested_by: exchange.origin.attested_by(),
            source_ip: peer.address.ip(),
            destination: target.destination,
            method: &http.method,
            target: &http.path,
            authority: &http.authority,
            headers: &request.headers,
            login: login.as_ref(),
            trial: trial.as_ref(),
        });
        note_decision(exchange, &decision);
        if decision.answer.is_denial() {
            let (headers, login) = (&request.headers, login.as_ref());
            exchange.reason = denial(target, &decision, http, &exchange.origin, headers, login);
            if self.worker.explain_denials {
                return denied(&decision, exchange);
            }
        }
        if let Answer::Unauthenticated(failure) = &decision.answer {
            return unauthenticated(failure, &decision, &request.headers, http, exchange);
        }
        let random = fastrand::u64(..);
        let destination = match target.chain.backend(&decision, random) {
            Ok(destination) => destination,
            Err(failure) => {
                return answered(&decision, failure.outcome(), exchange);
            }
        };
        let backend = destination.backend();
        let port = target.destination.port();
        if let Some(answer) = decision.backend_redirect(backend, &http.authority, port) {
            return match answer {
                Answer::Redirect { status, location } => Judged::Redirect(status, location),
                _ => Judged::Answer(Outcome::BrokenRule),
            };
        }
        let cluster = match destination {
            Destination::Cluster { key, .. } => runtime.cluster(key).cloned(),
            Destination::Dialled => Some(target.cluster.clone()),
        };
        let Some(cluster) = cluster else {
            return Judged::Answer(Outcome::InvalidBackend);
        };
        note_destination(exchange, runtime, destination);
        let upgrade = request.headers.contains_key(http::header::UPGRADE);
        let version = attempt::version(runtime, destination, target, http2 && !upgrade, upgrade);
        let mirrors = decision.mirrors(backend, || fastrand::u64(..));
        *plan = Some(Plan {
            mirrors: clusters(mirrors, runtime),
            rule: rule_of(&decision).cloned(),
            response_changes: decision.response_changes(destination.backend()),
            version,
            key: key_of(&cluster, http, &request.headers, peer.address.ip()),
            cluster,
            upgrade: upgrade.then(|| Box::new(upgrade_request(http, &request.headers, &login))),
        });
        let path = decision.change_request(destination.backend(), &mut RequestHeaders(request));
        if set_target(request, &path).is_err() {
            exchange.reason = Some(format!("the rewritten path {path} is not valid"));
            return Judged::Answer(Outcome::BrokenRule);
        }
        Judged::Forward
    }
}

/// What the request is balanced by.
fn key_of(
    cluster: &Cluster,
    http: &HttpExchange,
    headers: &HeaderMap,
    source_ip: IpAddr,
) -> HashKey {
    let query = http.path.split_once('?').map(|(_, query)| query);
    let request = Keyed {
        headers,
        query,
        source_ip,
    };
    balance::hash_key(cluster, &request)
}

/// What is judged again when policy changes, should the endpoint agree to the upgrade.
fn upgrade_request(
    http: &HttpExchange,
    headers: &HeaderMap,
    login: &Option<Authenticated>,
) -> UpgradeRequest {
    UpgradeRequest {
        method: http.method.clone(),
        target: http.path.clone(),
        authority: http.authority.clone(),
        headers: headers.clone(),
        login: login.clone(),
    }
}

/// The answer for a request at which nobody looked for tokens. One may be in its query, which is not
/// for the log therefore.
fn refused(exchange: &mut Exchange, outcome: Outcome) -> Judged {
    if let Some(http) = &mut exchange.http {
        let path = http.path.find('?').unwrap_or(http.path.len());
        http.path.truncate(path);
    }
    Judged::Answer(outcome)
}

/// The answer for a request that has nowhere to go.
fn answered(decision: &Decision<'_>, failure: Outcome, exchange: &mut Exchange) -> Judged {
    if let Answer::Redirect { status, location } = &decision.answer {
        return Judged::Redirect(*status, location.clone());
    }
    if let Answer::Preflight(headers) = &decision.answer {
        return Judged::Preflight(headers.clone());
    }
    let outcome = decision.answer.outcome().unwrap_or(failure);
    if let Some(details) = decision.details() {
        exchange.details = details;
    }
    if exchange.reason.is_none() {
        exchange.reason = decision.reason().map(|r| r.into_owned());
    }
    Judged::Answer(outcome)
}

/// The answer for a request whose token is refused.
fn unauthenticated(
    failure: &Failure,
    decision: &Decision<'_>,
    headers: &HeaderMap,
    http: &HttpExchange,
    exchange: &mut Exchange,
) -> Judged {
    let path = decision.target.as_ref().map_or("/", |t| &*t.path);
    let challenge = challenge(headers, &http.authority, path);
    let _ = answered(decision, Outcome::Unauthenticated, exchange);
    let outcome = cairn_filters::login::outcome(failure);
    Judged::Unauthenticated(outcome, failure.status.message(), challenge)
}

/// The answer for a request that policy denied, with the reason.
fn denied(decision: &Decision<'_>, exchange: &mut Exchange) -> Judged {
    let _ = answered(decision, Outcome::Denied, exchange);
    let outcome = decision.answer.outcome().unwrap_or(Outcome::Denied);
    Judged::Denied(outcome, told(decision, exchange))
}

/// What decided, and why, for a client that is to know.
fn told(decision: &Decision<'_>, exchange: &Exchange) -> String {
    let verdict = decision.verdict.as_ref();
    let policy = verdict.and_then(Verdict::origin);
    let rule = verdict.and_then(Verdict::rule_index);
    let by = match (policy, rule) {
        (Some(policy), Some(rule)) => format!("by {policy} rule {rule}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, _) => "by default".to_owned(),
    };
    format!("{by}: {}", exchange.reason.as_deref().unwrap_or_default())
}

/// Why policy denied it: the deciding rule, or the nearest allow and what it lacks.
fn denial(
    target: &Target,
    decision: &Decision<'_>,
    http: &HttpExchange,
    origin: &StreamOrigin,
    headers: &HeaderMap,
    login: Option<&Authenticated>,
) -> Option<String> {
    let view = RequestView {
        peer: Some(&origin.peer.identity),
        attested_by: origin.attested_by(),
        source_ip: origin.peer.address.ip(),
        destination: target.destination,
        method: &http.method,
        target: &http.path,
        authority: &http.authority,
        headers,
        login,
        // The reason is that of the verdict in force.
        trial: None,
    };
    let facts =
        cairn_filters::chain::facts(&view, decision.target.as_ref()?, decision.found.as_ref());
    let verdict = decision.verdict.as_ref()?;
    Some(verdict.reason(target.chain.policies(), &facts))
}

/// Where the chosen backend leads, for telemetry.
fn note_destination(exchange: &mut Exchange, runtime: &Runtime, destination: Destination<'_>) {
    if let Destination::Cluster {
        key,
        backend: Some(_),
    } = destination
    {
        let service = runtime.snapshot.services.get(&key.service);
        exchange.service = service.cloned().or(exchange.service.take());
        exchange.service_port = key.port;
    }
}

fn clusters<'k>(
    keys: impl Iterator<Item = &'k ClusterKey>,
    runtime: &Runtime,
) -> Vec<Arc<Cluster>> {
    keys.filter_map(|key| runtime.cluster(key).cloned())
        .collect()
}

fn rule_of<'d>(decision: &'d Decision<'_>) -> Option<&'d RuleRef> {
    match &decision.found {
        Some(Found::Rule(rule)) => Some(rule),
        _ => None,
    }
}

fn note_decision(exchange: &mut Exchange, decision: &Decision<'_>) {
    exchange.verdict.clone_from(&decision.verdict);
    if let Some(Found::Rule(rule)) = &decision.found {
        exchange.route = Some((rule.route.clone(), rule.rule));
    }
}

fn request_id() -> HeaderValue {
    let mut buffer = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4();
    // Hexadecimal digits and dashes are always a header value.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut buffer))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

pub(super) fn stream_context(session: &Session) -> Option<Arc<StreamContext>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref().cloned()
}

fn begin(session: &Session, stream: &StreamContext, runtime: &Runtime) -> Exchange {
    let request = session.req_header();
    let mut exchange = Exchange::begin(stream.origin.clone());
    exchange.snapshot = runtime.snapshot.version;
    exchange.source = runtime.source(&stream.origin);
    exchange.http = Some(HttpExchange {
        method: request.method.clone(),
        path: String::from_utf8_lossy(request.raw_path()).into_owned(),
        protocol: match request.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_11 => "HTTP/1.1",
            _ => "HTTP/1.0",
        },
        user_agent: request.headers.get(USER_AGENT).cloned(),
        forwarded_for: request.headers.get("x-forwarded-for").cloned(),
        grpc: is_grpc(&request.headers),
        request_header_bytes: match headers::block_bytes(session) {
            0 => headers::wire_bytes(&request.headers) + request.raw_path().len() as u64,
            bytes => bytes as u64,
        },
        ..HttpExchange::default()
    });
    exchange
}

/// Puts the normalised, perhaps rewritten, path and query into the request.
fn set_target(request: &mut RequestHeader, path: &str) -> Result<(), http::Error> {
    if request.raw_path() == path.as_bytes() {
        return Ok(());
    }
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::try_from(path)?);
    request.set_uri(http::Uri::from_parts(parts)?);
    Ok(())
}
