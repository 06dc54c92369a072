//! The attempt loop's decisions: which endpoint next, over which HTTP version, and whether to try
//! again. The loop itself is the engine's.

use std::time::Duration;

use cairn_config_schema::snapshot::AppProtocol;
use cairn_filters::chain::Destination;
use cairn_filters::outcome::Outcome;
use cairn_routing::{AttemptOutcome, Choice, RetryDecision, RetryPolicy};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::connector::HttpVersion;
use super::context::RequestContext;
use super::http::Gate;
use crate::clock::now_ms;
use crate::runtime::{Runtime, Target};

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

/// Picks the next endpoint and names it to the engine.
pub(super) fn next_peer(
    gate: &Gate,
    _session: &Session,
    ctx: &mut RequestContext,
) -> Result<Box<HttpPeer>> {
    let (Some(plan), Some(runtime)) = (&ctx.plan, &ctx.runtime) else {
        return Error::e_explain(
            ErrorType::InternalError,
            "a request without a plan was sent on",
        );
    };
    let Some(live) = plan
        .cluster
        .pick(&Choice::new(fastrand::u64(..), &ctx.tried, now_ms()))
    else {
        ctx.outcome = Some(Outcome::NoEndpoint);
        return Error::e_explain(
            ErrorType::ConnectError,
            format!("{} has no endpoint", plan.cluster.key()),
        );
    };
    ctx.tried.push(live.endpoint.address);
    if let Some(exchange) = &mut ctx.exchange {
        exchange.attempts += 1;
        exchange.endpoint = Some(live.endpoint.clone());
    }
    let timeout = Duration::from_millis(runtime.snapshot.mesh.connect_timeout_ms);
    let egress = ctx.exchange.as_ref().and_then(|e| e.origin.egress());
    let destination = gate
        .connections
        .dialer()
        .destination(&live.endpoint, egress);
    ctx.active = Some(live.begin());
    Ok(gate.connections.peer(destination, plan.version, timeout))
}

/// After an endpoint could not be reached: nothing was sent, so another may be tried.
pub fn after_connect_failure(ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    if let Some(exchange) = &mut ctx.exchange {
        exchange.upstream_failure = Some(super::error::words_of(&error).into());
    }
    let attempts = ctx.exchange.as_ref().map_or(1, |e| e.attempts);
    let decision = RetryPolicy::default().decide(attempts, AttemptOutcome::ConnectFailed);
    error.set_retry(decision == RetryDecision::Again);
    error
}

/// After a connection was lost in the middle. Tried again only if the endpoint can not have acted
/// on the request, or if doing it twice is harmless and the connection was an old one: the usual
/// race between a keep-alive timeout and the next request (specs/istio-waypoint.md 8 no. 4).
pub fn after_failure(
    session: &mut Session,
    ctx: &RequestContext,
    mut error: Box<Error>,
    client_reused: bool,
) -> Box<Error> {
    let attempts = ctx.exchange.as_ref().map_or(1, |e| e.attempts);
    let answered = session.response_written().is_some();
    let replayable = !session.retry_buffer_truncated();
    let idempotent = session.req_header().method.is_idempotent();
    let refused = was_refused(&error);
    // Resolves "only if reused", which would panic if asked before it is decided.
    error.retry.decide_reuse(client_reused);
    let harmless = idempotent && client_reused && error.retry();
    let outcome = AttemptOutcome::Lost {
        request_sent: answered || !replayable || !(refused || harmless),
    };
    let again = RetryPolicy::default().decide(attempts, outcome) == RetryDecision::Again;
    error.set_retry(again);
    error
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
