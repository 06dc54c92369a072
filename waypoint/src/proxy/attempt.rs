//! The attempt loop's steps: which endpoint next and over which HTTP version, what an attempt sends,
//! and what its end means. The loop itself is the engine's; whether it goes round again is decided in
//! `retry.rs`.

use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::{AppProtocol, Timeouts};
use cairn_filters::chain::Destination;
use cairn_filters::grpc_timeout::{self, GRPC_TIMEOUT};
use cairn_routing::{AnswerKind, AttemptOutcome, http_status_of_grpc};
use http::header::{HeaderName, HeaderValue};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::balance;
use super::connector::HttpVersion;
use super::context::{Plan, RequestContext};
use super::deadline::{Expired, RequestTime};
use super::endpoint_stream::deadline_of;
use super::headers::{RequestHeaders, grpc_status};
use super::http::Gate;
use super::persistence::Sticky;
use super::retry::{self, RETRIED_ANSWER};
use crate::clock::now_ms;
use crate::runtime::{Runtime, Target};
use crate::telemetry::text;
use crate::telemetry::trace::recording;
use crate::upstream::Reach;

/// Which attempt a request is, from a proxy to the next hop.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// The HTTP version towards a destination: as its port declares, else as the client spoke
/// (specs/istio-waypoint.md 2.7). An upgrade exists in HTTP/1.1 only.
pub fn version(
    runtime: &Runtime,
    destination: Destination<'_>,
    target: &Target,
    client_http2: bool,
    upgrade: bool,
) -> HttpVersion {
    let protocol = match destination {
        Destination::Cluster { key, .. } => runtime.protocol(key),
        Destination::Dialled => target.protocol,
    };
    match protocol {
        _ if upgrade => HttpVersion::Http1,
        AppProtocol::Http2 | AppProtocol::Grpc => HttpVersion::Http2,
        AppProtocol::Http => HttpVersion::Http1,
        AppProtocol::Sniff | AppProtocol::Tcp if client_http2 => HttpVersion::Http2,
        AppProtocol::Sniff | AppProtocol::Tcp => HttpVersion::Http1,
    }
}

/// Whether the client says that this is a retry of its own. To be asked before the headers are
/// cleaned.
pub(super) fn is_stacked(session: &Session) -> bool {
    let count = session.req_header().headers.get(&ATTEMPT_COUNT);
    count
        .and_then(|count| count.to_str().ok()?.parse::<u32>().ok())
        .is_some_and(|count| count > 1)
}

/// How long a request may take.
pub(super) fn time_of(
    session: &Session,
    begun: Instant,
    grpc: bool,
    plan: Option<&Plan>,
) -> RequestTime {
    let traffic = plan.and_then(Plan::traffic);
    let timeouts = traffic.map_or_else(Timeouts::default, |traffic| traffic.timeouts);
    let client = match grpc {
        true => session.req_header().headers.get(&GRPC_TIMEOUT),
        false => None,
    };
    RequestTime::new(begun, timeouts, client.and_then(grpc_timeout::parse))
}

/// Waits for its turn, picks the next endpoint and names it to the engine.
pub(super) async fn next_peer(gate: &Gate, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    // What the last attempt held, and said of itself.
    (ctx.active, ctx.armed, ctx.outcome) = (None, None, None);
    ctx.response_ended = false;
    if !ctx.back_off.is_zero() {
        tokio::time::sleep(std::mem::take(&mut ctx.back_off)).await;
    }
    let now = Instant::now();
    let (Some(plan), Some(runtime)) = (&ctx.plan, &ctx.runtime) else {
        return Error::e_explain(
            ErrorType::InternalError,
            "a request without a plan was sent on",
        );
    };
    ctx.time.begin_attempt(now);
    ctx.in_flight
        .get_or_insert_with(|| plan.cluster.enter(now_ms()));
    ctx.permit = None;
    let held = plan.sticky.as_ref().and_then(Sticky::endpoint);
    let (live, permit) = match balance::choose(&plan.cluster, plan.key.hash, held, &ctx.tried) {
        Ok(chosen) => chosen,
        Err((outcome, reason)) => {
            ctx.outcome = Some(outcome);
            return Error::e_explain(ErrorType::ConnectError, reason);
        }
    };
    ctx.permit = Some(permit);
    ctx.tried.push(live.endpoint.address);
    if let Some(exchange) = &mut ctx.exchange {
        exchange.attempts += 1;
        exchange.endpoint = Some(live.endpoint.clone());
        let random = || fastrand::u64(..);
        exchange.trace.begin_attempt(&live.endpoint, random);
    }
    let connect = plan.cluster.settings().connect_timeout_ms;
    let connect = connect.unwrap_or(runtime.snapshot.mesh.connect_timeout_ms);
    let connect = Duration::from_millis(connect);
    let connect = ctx.time.left_of(now, connect);
    let egress = ctx.exchange.as_ref().and_then(|e| e.origin.egress());
    let settings = plan.cluster.settings();
    let origin = ctx.exchange.as_ref().map(|e| &*e.origin);
    let reach = Reach {
        egress,
        settings: &settings,
        alpn: plan.version.alpn(),
        client: origin.map(|origin| origin.client_towards(live.endpoint.address)),
        host: plan.host.as_deref(),
    };
    let destination = (gate.connections.dialer()).destination(&live.endpoint, &reach);
    ctx.active = Some(live.begin());
    let over = ctx.time.left(now);
    Ok(gate
        .connections
        .peer(destination, plan.version, connect, over))
}

/// A connection is there: an HTTP/1.1 stream learns when the attempt must be over.
pub(super) fn connected(connection: Option<&Digest>, ctx: &mut RequestContext) {
    let http1 = (ctx.plan.as_ref()).is_some_and(|plan| plan.version == HttpVersion::Http1);
    if let Some(at) = ctx.time.attempt_over().filter(|_| http1) {
        ctx.armed = connection
            .and_then(deadline_of)
            .map(|stream| stream.arm(at));
    }
}

/// What an attempt tells the endpoint about itself: which one it is, and how long the caller of a
/// gRPC method will still wait.
pub(super) fn mark(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let attempts = ctx.exchange.as_ref().map_or(1, |e| e.attempts);
    request.insert_header(ATTEMPT_COUNT, HeaderValue::from(attempts))?;
    if let Some(exchange) = &mut ctx.exchange {
        exchange.trace.inject_attempt(&mut RequestHeaders(request));
        (exchange.trace).note_attempt(|attempt| attempt.url = Some(url_of(request)));
    }
    if request.headers.contains_key(&GRPC_TIMEOUT)
        && let Some(left) = ctx.time.left(Instant::now())
    {
        request.insert_header(GRPC_TIMEOUT, grpc_timeout::format(left))?;
    }
    Ok(())
}

/// After an endpoint could not be reached: nothing was sent, so another may be tried.
pub(super) fn after_connect_failure(
    session: &Session,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
) -> Box<Error> {
    let words = super::error::words_of(&error);
    end_of_attempt(ctx, |attempt| attempt.fail("connect", &words));
    if let Some(exchange) = &mut ctx.exchange {
        exchange.upstream_failure = Some(words.into());
    }
    if !super::error::is_ours(&error) {
        balance::record(ctx, AnswerKind::LocalFailure);
    }
    let outcome = AttemptOutcome::ConnectFailed;
    let again = after_loss(session, ctx, outcome);
    error.set_retry(again);
    error
}

/// After a connection was lost in the middle. Tried again only if the endpoint can not have acted
/// on the request, if doing it twice is harmless and the connection was an old one (the usual race
/// between a keep-alive timeout and the next request, specs/istio-waypoint.md 8 no. 4), or if the
/// route says so.
pub(super) fn after_failure(
    session: &mut Session,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
    client_reused: bool,
) -> Box<Error> {
    if error.etype() == &RETRIED_ANSWER {
        end_of_attempt(ctx, |_| {});
        error.set_retry(true);
        return error;
    }
    // Resolves "only if reused", which would panic if asked before it is decided.
    error.retry.decide_reuse(client_reused);
    if error.esource() == &ErrorSource::Downstream {
        error.set_retry(false);
        return error;
    }
    end_of_attempt(ctx, |attempt| {
        attempt.fail("reset", &super::error::words_of(&error));
    });
    balance::record(ctx, AnswerKind::LocalFailure);
    let idempotent = session.req_header().method.is_idempotent();
    let outcome = if session.response_written().is_some() {
        AttemptOutcome::PartlyAnswered
    } else {
        AttemptOutcome::Lost {
            harmless: was_refused(&error) || idempotent && client_reused && error.retry(),
        }
    };
    let again = after_loss(session, ctx, outcome);
    error.set_retry(again);
    error
}

/// Whether an attempt that was not answered in full is followed by another.
fn after_loss(session: &Session, ctx: &mut RequestContext, outcome: AttemptOutcome) -> bool {
    let expired = ctx.time.expired(Instant::now());
    ctx.outcome = expired.map(Expired::outcome).or(ctx.outcome);
    match (expired, outcome) {
        (None, outcome) => retry::is_due(session, ctx, outcome, None),
        (Some(Expired::Attempt), AttemptOutcome::PartlyAnswered) => false,
        // Nothing was sent, however long it took.
        (Some(Expired::Attempt), AttemptOutcome::ConnectFailed) => {
            retry::is_due(session, ctx, outcome, None)
        }
        (Some(Expired::Attempt), _) => retry::is_due(session, ctx, AttemptOutcome::TimedOut, None),
        (Some(Expired::Request | Expired::Client), _) => false,
    }
}

/// An endpoint has answered: the answer is passed on, or taken for a failure and tried again.
///
/// # Errors
/// To try again: it is how the engine's loop is told (specs/pingora.md 4).
pub(super) fn after_answer(
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut RequestContext,
) -> Result<()> {
    if let Some(exchange) = &mut ctx.exchange {
        let (status, grpc) = (response.status.as_u16(), grpc_status(&response.headers));
        (exchange.trace).note_attempt(|attempt| attempt.answered(status, grpc));
    }
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        // A connection that has changed protocols is no request any more.
        ctx.armed = None;
        return Ok(());
    }
    if response.status.is_informational() {
        return Ok(());
    }
    // A gRPC call that is answered with messages tells how it went in its trailers.
    if !retry::is_grpc(ctx) || response.headers.contains_key("grpc-status") {
        let status = retry::status_of(response, ctx);
        balance::record(ctx, AnswerKind::Status(status));
    }
    if !retry::concerns(response, ctx) {
        return Ok(());
    }
    let outcome = AttemptOutcome::Answered(retry::status_of(response, ctx));
    match retry::is_due(session, ctx, outcome, Some(response)) {
        true => Error::e_explain(RETRIED_ANSWER, "the answer was taken for a failure")
            .map_err(|error: Box<Error>| error.into_up()),
        false => Ok(()),
    }
}

/// The trailers of an answer: of gRPC, how the call went.
pub(super) fn after_trailers(grpc_status: Option<u32>, ctx: &mut RequestContext) {
    if let Some(exchange) = &mut ctx.exchange {
        let noted = |attempt: &mut recording::Attempt| attempt.grpc_status = grpc_status;
        exchange.trace.note_attempt(noted);
    }
    if let Some(status) = grpc_status.filter(|_| retry::is_grpc(ctx)) {
        let status = http_status_of_grpc(status).unwrap_or(200);
        balance::record(ctx, AnswerKind::Status(status));
    }
}

/// Trailers after a request's body. The engine can not read them, and asks for more of the body
/// again and again without a pause: a worker would be lost to it. The first time the body is ended
/// towards the endpoint, without the trailers; then the engine is kept from spinning, and sent away
/// once the response is through. The 5 ms are also how late a piece of the response may come.
pub async fn after_request_trailers(ctx: &mut RequestContext) -> Result<()> {
    if !ctx.request_trailers {
        ctx.request_trailers = true;
    } else if ctx.response_ended {
        return Error::e_explain(ErrorType::InternalError, "the request had trailers");
    } else {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Where a request goes, for a span: without its query, which may have secrets.
fn url_of(request: &RequestHeader) -> Box<str> {
    let host = request.headers.get(http::header::HOST);
    let host = host.map(|host| text::of_bytes(host.as_bytes()));
    let host = host.as_deref().or(request.uri.host()).unwrap_or_default();
    // In one piece of just that length.
    ["http://", host, request.uri.path()].concat().into()
}

/// Tells telemetry that the attempt is over.
fn end_of_attempt(ctx: &mut RequestContext, note: impl FnOnce(&mut recording::Attempt)) {
    if let Some(exchange) = &mut ctx.exchange {
        exchange.trace.end_attempt(note);
    }
}

/// HTTP/2 says so when a stream was never looked at (RFC 9113 8.7, 6.8).
fn was_refused(error: &Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<h2::Error>()
        .is_some_and(|e| {
            let refused = e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM);
            let going_away = e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR);
            e.is_remote() && (refused || going_away)
        })
}
