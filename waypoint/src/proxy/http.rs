//! The engine's hooks: one HTTP request, from its header to its access log line. Judged in
//! `judge.rs`; the attempt loop is in `attempt.rs`. Then the response is changed, and telemetry told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_filters::outcome::Outcome;
use cairn_filters::{external, fault};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::connector::{HttpVersion, Shared};
use super::context::RequestContext;
use super::error::{outcome_of, words_of};
use super::headers::{self, ResponseHeaders, grpc_status};
use super::judge::Judged;
use super::{arrival, attempt, body, mirror, reply, retry};
use crate::telemetry::exchange::Headers;
use crate::telemetry::{self, counters};
use crate::worker::Worker;

/// Where every request passes.
pub struct Gate {
    pub(super) worker: Arc<Worker>,
    pub(super) connections: Arc<Shared>,
}

impl Gate {
    /// The gate of a worker.
    pub fn new(worker: Arc<Worker>, connections: Arc<Shared>) -> Self {
        Self {
            worker,
            connections,
        }
    }
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
        match self.judge(session, ctx).await {
            Judged::Forward => return Ok(false),
            Judged::Answer(outcome) => answer(session, ctx, outcome).await?,
            Judged::Denied(outcome, why) => {
                note_outcome(ctx, outcome);
                reply::explained(session, outcome.reply(is_grpc(ctx)), &why).await?;
            }
            Judged::Unauthenticated(outcome, body, challenge) => {
                note_outcome(ctx, outcome);
                let reply = outcome.reply(is_grpc(ctx)).with_body(body);
                reply::unauthenticated(session, reply, challenge).await?;
            }
            Judged::External(outcome, denial) => {
                note_outcome(ctx, outcome);
                let grpc = is_grpc(ctx);
                let grpc_status = reply::denied(session, denial, grpc).await?;
                if let Some(http) = ctx.exchange.as_mut().and_then(|e| e.http.as_mut()) {
                    http.grpc_status = grpc_status;
                }
            }
            Judged::Throttled(wait) => {
                note_outcome(ctx, Outcome::RateLimited);
                let reply = Outcome::RateLimited.reply(is_grpc(ctx));
                reply::throttled(session, reply, wait).await?;
            }
            Judged::Preflight(headers) => {
                note_outcome(ctx, Outcome::Preflight);
                reply::preflight(session, headers).await?;
            }
            Judged::Direct(direct) => {
                note_outcome(ctx, Outcome::DirectResponse);
                reply::direct(session, &direct).await?;
            }
            Judged::Fault(answer) => {
                note_outcome(ctx, Outcome::FaultInjected);
                let reply = fault::reply(answer, is_grpc(ctx));
                let http = ctx.exchange.as_mut().and_then(|e| e.http.as_mut());
                if let (Some(http), Some(status)) = (http, reply.grpc_status) {
                    http.grpc_status = Some(u32::from(status));
                }
                reply::send(session, reply, false).await?;
            }
            Judged::Redirect(status, location) => {
                note_outcome(ctx, Outcome::Redirected);
                reply::redirect(session, status, location).await?;
            }
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut RequestContext,
    ) -> Result<Box<HttpPeer>> {
        attempt::next_peer(self, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _descriptor: std::os::fd::RawFd,
        connection: Option<&Digest>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let socket = connection.and_then(|c| c.socket_digest.as_ref());
        if let Some(exchange) = &mut ctx.exchange {
            let local = socket.and_then(|s| s.local_addr());
            exchange.upstream_local = local.and_then(|a| a.as_inet()).copied();
        }
        attempt::connected(connection, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.sent = Some(std::time::Instant::now());
        // Of the last attempt, which gets the body from its beginning.
        ctx.messages = Default::default();
        mirror::begin(&self.connections, session, request, ctx);
        attempt::mark(request, ctx)?;
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
        body::replay(body, ctx);
        mirror::copy_body(body.as_ref(), end, ctx);
        if let Some(body) = body.as_ref().filter(|_| is_grpc(ctx)) {
            ctx.messages.0.read(body);
        }
        match body {
            None if !end && session.is_http2() => attempt::after_request_trailers(ctx).await,
            _ => Ok(()),
        }
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        if let Some(body) = body.as_ref().filter(|_| is_grpc(ctx)) {
            ctx.messages.1.read(body);
        }
        ctx.response_ended |= end;
        if end {
            // The stream goes back into the pool.
            ctx.armed = None;
        }
        Ok(None)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if response.status != StatusCode::SWITCHING_PROTOCOLS || is_wanted(session, response) {
            return attempt::after_answer(session, response, ctx);
        }
        // The engine would pass it on and go on with HTTP where the endpoint has left it.
        let reason = "the endpoint switched protocols (101), which the request did not ask for";
        Error::e_explain(ErrorType::InvalidHTTPHeader, reason).map_err(|e: Box<Error>| e.into_up())
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
            if !informational {
                external::apply(&plan.external_headers, &mut ResponseHeaders(response));
            }
            if let Some(cookie) = &plan.key.cookie {
                response.append_header(SET_COOKIE, cookie.clone())?;
            }
            if let (Some(sticky), Some(active), false) = (&plan.sticky, &ctx.active, informational)
            {
                sticky.tell(response, &plan.cluster, active.endpoint())?;
            }
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(request) = ctx.plan.as_mut().and_then(|plan| plan.upgrade.take())
            && let Some(stream) = arrival::stream_context(session)
        {
            let judged = ctx.exchange.as_ref().map_or(0, |e| e.snapshot);
            ctx.open = Some(stream.upgraded(request, judged));
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
        attempt::after_trailers(grpc_status(trailers), ctx);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::after_connect_failure(session, ctx, error)
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
        } else if last_answer(session, ctx, outcome).await.is_err() {
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
        (ctx.active, ctx.armed, ctx.in_flight) = (None, None, None);
        (ctx.permit, ctx.retry_permit) = (None, None);
        ctx.note_closure();
        let Some(mut exchange) = ctx.exchange.take() else {
            return;
        };
        exchange.flags = retry::flags(exchange.flags, exchange.retry_denied);
        exchange.bytes_received = session.body_bytes_read() as u64;
        exchange.bytes_sent = session.body_bytes_sent() as u64;
        if let Some(http) = &mut exchange.http {
            let written = session.response_written();
            http.status = written.map(|r| r.status);
            http.messages = (ctx.messages.0.count(), ctx.messages.1.count());
            http.response_header_bytes = written.map_or(0, |r| headers::wire_bytes(&r.headers));
        }
        let headers = Headers {
            request: Some(&session.req_header().headers),
            response: session.response_written().map(|r| &r.headers),
        };
        telemetry::finish_with(exchange, headers);
        ctx.held = None;
    }
}

async fn answer(session: &mut Session, ctx: &mut RequestContext, outcome: Outcome) -> Result<()> {
    note_outcome(ctx, outcome);
    reply::send(session, outcome.reply(is_grpc(ctx)), closes(outcome)).await
}

/// The answer for a request that was sent on in vain. The engine ends an HTTP/1.1 connection after it,
/// and the client is to know before it sends its next request.
async fn last_answer(
    session: &mut Session,
    ctx: &mut RequestContext,
    outcome: Outcome,
) -> Result<()> {
    note_outcome(ctx, outcome);
    reply::send(session, outcome.reply(is_grpc(ctx)), true).await
}

fn is_grpc(ctx: &RequestContext) -> bool {
    let http = ctx.exchange.as_ref().and_then(|e| e.http.as_ref());
    http.is_some_and(|http| http.grpc)
}

/// Whether the connection ends with this answer: when the end of the message is in doubt.
fn closes(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::BadRequest
            | Outcome::BadAuthority
            | Outcome::ConnectInside
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
    if let Some(reason) = outcome.refusal() {
        counters::REQUEST_REFUSED.inc(reason);
    }
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

/// Whether a 101 answers an upgrade that was forwarded: WebSocket is the only one (`screen.rs`), and
/// HTTP/1.0 knows no 101.
fn is_wanted(session: &Session, response: &ResponseHeader) -> bool {
    let websocket = |to: &http::HeaderValue| to.as_bytes().eq_ignore_ascii_case(b"websocket");
    let upgrade = response.headers.get(http::header::UPGRADE);
    response.version == Version::HTTP_11
        && session.is_upgrade_req()
        && upgrade.is_none_or(websocket)
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
