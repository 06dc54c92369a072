//! Sends the answers that Cairn gives by itself.

use std::time::Duration;

use bytes::Bytes;
use cairn_config_schema::snapshot::DirectResponse;
use cairn_filters::external;
use cairn_filters::outcome::LocalReply;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::HttpTask;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tonic::{Code, Status};

use super::headers::ResponseHeaders;
use crate::external::{Denial, RATE_LIMITED};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Sends a local reply. `close`: the connection must not be used again, because what follows on it
/// can not be told apart from what belongs to this request.
pub async fn send(session: &mut Session, reply: LocalReply, close: bool) -> Result<()> {
    let header = header(&reply)?;
    let body = Bytes::from_static(reply.body.as_bytes());
    finish(session, header, body, close).await
}

/// Sends the answer to a request whose token is refused.
pub async fn unauthenticated(
    session: &mut Session,
    reply: LocalReply,
    challenge: HeaderValue,
) -> Result<()> {
    let mut header = header(&reply)?;
    header.insert_header(WWW_AUTHENTICATE, challenge)?;
    let body = Bytes::from_static(reply.body.as_bytes());
    finish(session, header, body, false).await
}

/// Sends the answer to a request over a rate limit, with the whole seconds after which it may pass.
pub async fn throttled(session: &mut Session, reply: LocalReply, wait: Duration) -> Result<()> {
    let mut header = header(&reply)?;
    header.insert_header(RATE_LIMITED, HeaderValue::from_static("true"))?;
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    header.insert_header(RETRY_AFTER, HeaderValue::from(seconds))?;
    let body = Bytes::from_static(reply.body.as_bytes());
    finish(session, header, body, false).await
}

/// Sends a denial that says why.
pub async fn explained(session: &mut Session, reply: LocalReply, why: &str) -> Result<()> {
    let mut header = header(&reply)?;
    let body = if let Some(status) = reply.grpc_status {
        let message = format!("{}: {why}", reply.grpc_message.trim_end());
        insert_status(&mut header, Code::from(i32::from(status)), message)?;
        Bytes::new()
    } else {
        let body = Bytes::from(format!("{}: {why}\n", reply.body.trim_end()));
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
        body
    };
    finish(session, header, body, false).await
}

fn header(reply: &LocalReply) -> Result<ResponseHeader> {
    let mut header = ResponseHeader::build(reply.status, Some(7))?;
    if let Some(content_type) = reply.content_type {
        header.insert_header(CONTENT_TYPE, HeaderValue::from_static(content_type))?;
    }
    if reply.overloaded {
        header.insert_header(OVERLOADED, HeaderValue::from_static("true"))?;
    }
    if let Some(status) = reply.grpc_status {
        header.insert_header(GRPC_STATUS, HeaderValue::from(u16::from(status)))?;
        if !reply.grpc_message.is_empty() {
            header.insert_header(GRPC_MESSAGE, HeaderValue::from_static(reply.grpc_message))?;
        }
    } else {
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(reply.body.len()))?;
    }
    Ok(header)
}

/// Sets the status of a gRPC call, with the message escaped.
fn insert_status(
    header: &mut ResponseHeader,
    code: Code,
    message: impl Into<String>,
) -> Result<()> {
    let mut fields = HeaderMap::new();
    // Only fails for a message that can not be a header, and it is escaped.
    let _ = Status::new(code, message).add_header(&mut fields);
    let fields = fields.iter();
    for (name, value) in fields.filter(|(name, _)| name.as_str().starts_with("grpc-")) {
        header.insert_header(name, value)?;
    }
    Ok(())
}

/// Sends what an authorization service has for a client whose request it denied, in gRPC's form to gRPC.
/// Gives the gRPC status.
pub async fn denied(session: &mut Session, denial: Denial, grpc: bool) -> Result<Option<u32>> {
    let status = match grpc {
        true => StatusCode::OK,
        false => denial.status,
    };
    let mut header = ResponseHeader::build(status, Some(4 + denial.headers.len()))?;
    external::apply(&denial.headers, &mut ResponseHeaders(&mut header));
    header.remove_header(&CONTENT_LENGTH);
    if grpc {
        let code = grpc_code(denial.status);
        insert_status(&mut header, code, String::from_utf8_lossy(&denial.body))?;
        header.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
        finish(session, header, Bytes::new(), false).await?;
        return Ok(Some(code as u32));
    }
    let body = match status.as_u16() {
        204 | 205 | 304 => Bytes::new(),
        _ => {
            header.insert_header(CONTENT_LENGTH, HeaderValue::from(denial.body.len()))?;
            denial.body
        }
    };
    if !body.is_empty() && !header.headers.contains_key(CONTENT_TYPE) {
        header.insert_header(CONTENT_TYPE, HeaderValue::from_static("text/plain"))?;
    }
    finish(session, header, body, false).await?;
    Ok(None)
}

/// gRPC's status for one of HTTP: the official mapping.
fn grpc_code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// Answers a CORS preflight.
pub async fn preflight(session: &mut Session, headers: HeaderMap) -> Result<()> {
    let mut header = ResponseHeader::build(StatusCode::OK, Some(8))?;
    for (name, value) in &headers {
        header.append_header(name.clone(), value.clone())?;
    }
    header.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    finish(session, header, Bytes::new(), false).await
}

/// Sends what a route answers by itself.
pub async fn direct(session: &mut Session, direct: &DirectResponse) -> Result<()> {
    let mut header = ResponseHeader::build(direct.status, Some(4))?;
    let body = Bytes::copy_from_slice(&direct.body);
    // RFC 9110 8.6: no length where there can be no body.
    if !matches!(direct.status.as_u16(), 100..=199 | 204 | 304) {
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    if !body.is_empty() {
        let text = HeaderValue::from_static("text/plain");
        header.insert_header(CONTENT_TYPE, text)?;
    }
    finish(session, header, body, false).await
}

/// Sends a redirect.
pub async fn redirect(
    session: &mut Session,
    status: StatusCode,
    location: HeaderValue,
) -> Result<()> {
    let mut header = ResponseHeader::build(status, Some(4))?;
    header.insert_header(LOCATION, location)?;
    header.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    finish(session, header, Bytes::new(), false).await
}

async fn finish(
    session: &mut Session,
    mut header: ResponseHeader,
    body: Bytes,
    close: bool,
) -> Result<()> {
    if close {
        session.set_keepalive(None);
        if !session.is_http2() {
            header.insert_header(CONNECTION, HeaderValue::from_static("close"))?;
        }
    }
    let head = session.req_header().method == http::Method::HEAD;
    let end = body.is_empty() || head;
    // As one task, because it is the only way to end an HTTP/2 stream with its header: gRPC clients
    // take an empty DATA frame after it for a stream that broke off.
    let mut tasks = vec![HttpTask::Header(Box::new(header), end)];
    if !end {
        tasks.push(HttpTask::Body(Some(body), true));
    }
    session.write_response_tasks(tasks).await?;
    Ok(())
}
