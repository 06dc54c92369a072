//! One HTTP request, from its header to its access log line. `Gate::judge` states the order; what
//! is decided is decided by `cairn-filters`' chain.
//!
//! - read the runtime, once;
//! - refuse what is malformed or framed ambiguously;
//! - clean the headers;
//! - judge: normalise, route, authorise;
//! - answer here, or choose a backend and change the request;
//! - the attempt loop (`attempt.rs`);
//! - change the response;
//! - tell telemetry.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_filters::authority;
use cairn_filters::chain::{Answer, Decision, Destination, RequestView};
use cairn_filters::outcome::{Outcome, is_grpc};
use cairn_routing::Found;
use http::header::{HeaderValue, USER_AGENT};
use http::{HeaderMap, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::connector::{HttpVersion, Shared};
use super::context::{Plan, RequestContext};
use super::error::{outcome_of, words_of};
use super::headers::{self, RequestHeaders, ResponseHeaders};
use super::stream::StreamContext;
use super::{attempt, reply};
use crate::drain::Kind;
use crate::limits::REQUEST_HEADER_BYTES_MAX;
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::worker::Worker;

/// Where every request passes.
pub struct Gate {
    pub(super) worker: Arc<Worker>,
    pub(super) connections: Arc<Shared>,
}

/// What `judge` found.
enum Judged {
    /// The request goes on to an endpoint.
    Forward,
    /// The request is answered here.
    Answer(Outcome),
    /// The request is redirected.
    Redirect(http::StatusCode, HeaderValue),
}

impl Gate {
    /// The gate of a worker.
    pub fn new(worker: Arc<Worker>, connections: Arc<Shared>) -> Self {
        Self {
            worker,
            connections,
        }
    }

    fn judge(&self, session: &mut Session, ctx: &mut RequestContext) -> Judged {
        let Some(stream) = stream_context(session) else {
            return Judged::Answer(Outcome::Internal);
        };
        stream.header_read();
        ctx.held = Some(self.worker.in_flight.hold(Kind::Request));
        let runtime = self.worker.runtime.load_full();
        let exchange = begin(session, &stream, &runtime);
        let exchange = ctx.exchange.insert(exchange);
        let runtime: &Runtime = ctx.runtime.insert(runtime);
        if let Some(outcome) = malformed(session) {
            return Judged::Answer(outcome);
        }
        // The service may have changed, or gone, since the tunnel was opened.
        let Ok(target) = runtime.find(&stream.asked) else {
            return Judged::Answer(Outcome::NotServed);
        };
        exchange.service.clone_from(&target.service);
        let authority = match authority_of(session) {
            Ok(authority) => authority,
            Err(error) => {
                exchange.reason = Some(error.to_string());
                return Judged::Answer(Outcome::BadAuthority);
            }
        };
        let Some(http) = exchange.http.take() else {
            return Judged::Answer(Outcome::Internal);
        };
        let http = HttpExchange { authority, ..http };
        let judged = self.decide(session, exchange, &http, &target, runtime, &mut ctx.plan);
        let request_id = session.req_header().headers.get("x-request-id").cloned();
        exchange.http = Some(HttpExchange { request_id, ..http });
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
        let decision = target.chain.decide(&RequestView {
            peer: Some(&peer.identity),
            source_ip: peer.address.ip(),
            destination: target.destination,
            method: &http.method,
            target: &http.path,
            authority: &http.authority,
            headers: &request.headers,
        });
        note_decision(exchange, &decision);
        if decision.answer == Answer::Deny {
            exchange.reason = denial(target, &decision, http, &peer, &request.headers);
        }
        let random = fastrand::u64(..);
        let destination = match target.chain.backend(&decision, random) {
            Ok(destination) => destination,
            Err(failure) => {
                return answered(&decision, failure.outcome(), exchange);
            }
        };
        let cluster = match destination {
            Destination::Cluster { key, .. } => runtime.cluster(key).cloned(),
            Destination::Dialled => Some(target.cluster.clone()),
        };
        let Some(cluster) = cluster else {
            return Judged::Answer(Outcome::InvalidBackend);
        };
        if let Destination::Cluster {
            key,
            backend: Some(_),
        } = destination
        {
            let service = runtime.snapshot.services.get(&key.service);
            exchange.service = service.cloned().or(exchange.service.take());
            exchange.service_port = key.port;
        }
        let upgrade = request.headers.contains_key(http::header::UPGRADE);
        let version = attempt::version(runtime, destination, target, http2 && !upgrade, upgrade);
        *plan = Some(Plan {
            response_changes: decision.response_changes(destination.backend()),
            version,
            cluster,
        });
        let path = decision.change_request(destination.backend(), &mut RequestHeaders(request));
        if set_target(request, &path).is_err() {
            exchange.reason = Some(format!("the rewritten path {path} is not valid"));
            return Judged::Answer(Outcome::BrokenRule);
        }
        Judged::Forward
    }
}

/// The answer for a request that has nowhere to go.
fn answered(decision: &Decision<'_>, failure: Outcome, exchange: &mut Exchange) -> Judged {
    if let Answer::Redirect { status, location } = &decision.answer {
        return Judged::Redirect(*status, location.clone());
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

/// Why policy denied it: the deciding rule, or the nearest allow and what it lacks.
fn denial(
    target: &Target,
    decision: &Decision<'_>,
    http: &HttpExchange,
    peer: &telemetry::exchange::Peer,
    headers: &HeaderMap,
) -> Option<String> {
    let view = RequestView {
        peer: Some(&peer.identity),
        source_ip: peer.address.ip(),
        destination: target.destination,
        method: &http.method,
        target: &http.path,
        authority: &http.authority,
        headers,
    };
    let facts = cairn_filters::chain::facts(&view, decision.target.as_ref()?);
    let verdict = decision.verdict.as_ref()?;
    Some(verdict.reason(target.chain.policies(), &facts))
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

fn stream_context(session: &Session) -> Option<Arc<StreamContext>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref().cloned()
}

fn begin(session: &Session, stream: &StreamContext, runtime: &Runtime) -> Exchange {
    let request = session.req_header();
    let mut exchange = Exchange::begin(stream.origin.clone());
    exchange.snapshot = runtime.snapshot.version;
    exchange.source = runtime.workload(stream.origin.peer.address.ip()).cloned();
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

/// What is refused before anything looks at the request: whatever two parsers could read as two
/// different messages, and what is no business of a waypoint.
fn malformed(session: &mut Session) -> Option<Outcome> {
    let http2 = session.is_http2();
    if headers::block_bytes(session) > REQUEST_HEADER_BYTES_MAX {
        return Some(Outcome::HeadersTooLarge);
    }
    if headers::has_ambiguous_length(session) || !session.req_header().raw_path_is_utf8() {
        return Some(Outcome::BadRequest);
    }
    if !http2 && session.req_header().version != Version::HTTP_11 {
        return Some(Outcome::LowVersion);
    }
    if headers::has_fragment(session) {
        return Some(Outcome::BadPath);
    }
    refuse_upgrade(session.req_header_mut())
}

/// WebSocket passes. An offer to switch to HTTP/2 is ignored, as RFC 9113 3.1 allows and Envoy
/// does; any other upgrade is refused.
fn refuse_upgrade(request: &mut RequestHeader) -> Option<Outcome> {
    let upgrade = request.headers.get(http::header::UPGRADE)?;
    if upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    if upgrade.as_bytes().eq_ignore_ascii_case(b"h2c") {
        for name in ["upgrade", "http2-settings", "connection"] {
            request.remove_header(name);
        }
        return None;
    }
    Some(Outcome::BadUpgrade)
}

fn authority_of(session: &Session) -> Result<String, authority::AuthorityError> {
    let request = session.req_header();
    let uri = request.uri.authority().map(|a| a.as_str());
    authority::of_request(uri, &request.headers).map(str::to_owned)
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

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::default()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // No compression module: bodies pass as they are.
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<bool> {
        match self.judge(session, ctx) {
            Judged::Forward => return Ok(false),
            Judged::Answer(outcome) => answer(session, ctx, outcome).await?,
            Judged::Redirect(status, location) => {
                note_outcome(ctx, Outcome::Redirected);
                reply::redirect(session, status, location).await?;
            }
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        attempt::next_peer(self, session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.sent = Some(std::time::Instant::now());
        match &ctx.plan {
            // For HTTP/1.1 the engine does it; for a connector of its users it does not.
            Some(plan) if plan.version == HttpVersion::Http2 => headers::for_http2(request),
            _ => Ok(()),
        }
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        match body {
            None if !end && session.is_http2() => attempt::after_request_trailers(ctx).await,
            _ => Ok(()),
        }
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        ctx.response_ended |= end;
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        // A response without a body announces its end in no other way.
        ctx.response_ended |= has_no_body(session, response);
        let informational = response.status.is_informational() && response.status != 101;
        if let Some(http) = ctx.exchange.as_mut().and_then(|e| e.http.as_mut()) {
            if !informational {
                http.upstream_service_time = ctx.sent.map(|sent| sent.elapsed());
            }
            http.grpc_status = grpc_status(&response.headers).or(http.grpc_status);
        }
        // An endpoint that speaks HTTP/1.0 does not make our client's connection an HTTP/1.0 one.
        if response.version < Version::HTTP_11 {
            response.set_version(Version::HTTP_11);
        }
        if let Some(plan) = &ctx.plan {
            plan.response_changes.apply(&mut ResponseHeaders(response));
        }
        Ok(())
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.response_ended = true;
        if let Some(http) = ctx.exchange.as_mut().and_then(|e| e.http.as_mut()) {
            http.grpc_status = grpc_status(trailers).or(http.grpc_status);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::after_connect_failure(ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        client_reused: bool,
    ) -> Box<Error> {
        attempt::after_failure(session, ctx, error, client_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        let outcome = ctx.outcome.unwrap_or_else(|| outcome_of(error));
        let written = session.response_written().is_some();
        if let Some(exchange) = &mut ctx.exchange {
            exchange.reason.get_or_insert_with(|| words_of(error));
        }
        if written && ctx.request_trailers && ctx.response_ended {
            // Nothing failed: it is how the engine is brought to an end.
        } else if written || outcome == Outcome::ClientGone {
            note_outcome(ctx, outcome);
        } else if answer(session, ctx, outcome).await.is_err() {
            note_outcome(ctx, Outcome::ClientGone);
        }
        FailToProxy {
            error_code: outcome.row().status.as_u16(),
            // A body that was not read to its end would be taken for the next request.
            can_reuse_downstream: !written && session.is_body_done(),
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // The access log tells of every request, with flags and reason.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestContext,
        _: &Error,
        _: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut RequestContext) {
        ctx.active = None;
        let Some(mut exchange) = ctx.exchange.take() else {
            return;
        };
        exchange.bytes_received = session.body_bytes_read() as u64;
        exchange.bytes_sent = session.body_bytes_sent() as u64;
        if let Some(http) = &mut exchange.http {
            let written = session.response_written();
            http.status = written.map(|r| r.status);
            http.response_header_bytes = written.map_or(0, |r| headers::wire_bytes(&r.headers));
        }
        telemetry::finish(exchange);
        ctx.held = None;
    }
}

async fn answer(session: &mut Session, ctx: &mut RequestContext, outcome: Outcome) -> Result<()> {
    note_outcome(ctx, outcome);
    let grpc = ctx
        .exchange
        .as_ref()
        .and_then(|e| e.http.as_ref())
        .is_some_and(|http| http.grpc);
    reply::send(session, outcome.reply(grpc), closes(outcome)).await
}

/// Whether the connection ends with this answer: when the end of the message is in doubt.
fn closes(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::BadRequest
            | Outcome::BadAuthority
            | Outcome::BadUpgrade
            | Outcome::LowVersion
            | Outcome::HeadersTooLarge
            | Outcome::HeadersTooSlow
            | Outcome::NotServed
    )
}

fn note_outcome(ctx: &mut RequestContext, outcome: Outcome) {
    let Some(exchange) = &mut ctx.exchange else {
        return;
    };
    let row = outcome.row();
    exchange.flags = row.flag;
    if exchange.details.is_empty() {
        exchange.details = std::borrow::Cow::Borrowed(row.details);
    }
    if let Some(http) = &mut exchange.http
        && http.grpc
    {
        http.grpc_status = Some(u32::from(row.grpc_status));
    }
}

/// Whether a response ends with its header: by its status, its length, or as gRPC's trailers-only.
fn has_no_body(session: &Session, response: &ResponseHeader) -> bool {
    let headers = &response.headers;
    session.req_header().method == http::Method::HEAD
        || matches!(response.status.as_u16(), 204 | 304)
        || headers
            .get(http::header::CONTENT_LENGTH)
            .is_some_and(|v| v == "0")
        || headers.contains_key("grpc-status")
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
