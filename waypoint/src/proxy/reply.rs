//! Sends the answers that Cairn gives by itself.

use bytes::Bytes;
use cairn_filters::outcome::LocalReply;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::HttpTask;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

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

/// Sends a denial that says why.
pub async fn denied(session: &mut Session, reply: LocalReply, why: &str) -> Result<()> {
    let mut header = header(&reply)?;
    let body = if reply.grpc_status.is_some() {
        let message = grpc_message(&format!("{}: {why}", reply.grpc_message.trim_end()));
        header.insert_header(GRPC_MESSAGE, message)?;
        Bytes::new()
    } else {
        let body = Bytes::from(format!("{}: {why}\n", reply.body.trim_end()));
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
        body
    };
    finish(session, header, body, false).await
}

/// A gRPC message as its header has it: what is not printable ASCII, and the per cent sign, encoded.
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("denied"))
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

/// Answers a CORS preflight.
pub async fn preflight(session: &mut Session, headers: HeaderMap) -> Result<()> {
    let mut header = ResponseHeader::build(StatusCode::OK, Some(8))?;
    for (name, value) in &headers {
        header.append_header(name.clone(), value.clone())?;
    }
    header.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    finish(session, header, Bytes::new(), false).await
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
