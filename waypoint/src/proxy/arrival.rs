//! A request as it comes: what policy and telemetry are told of it before anything is decided.

use std::sync::Arc;

use cairn_filters::chain::{Authenticated, External, RequestView};
use cairn_filters::outcome::is_grpc;
use http::header::{HeaderValue, USER_AGENT};
use http::{HeaderMap, Version};
use pingora_proxy::Session;

use super::headers;
use super::stream_context::StreamContext;
use crate::runtime::{Runtime, Target};
use crate::telemetry::exchange::{Exchange, HttpExchange, StreamOrigin};
use crate::telemetry::text;
use crate::telemetry::trace::Trace;

/// A request as it came, about which nobody was asked.
pub(super) fn request_view<'r>(
    target: &Target,
    http: &'r HttpExchange,
    origin: &'r StreamOrigin,
    headers: &'r HeaderMap,
    login: Option<&'r Authenticated>,
) -> RequestView<'r, 'r> {
    RequestView {
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
        external: External::Unasked,
    }
}

pub(super) fn request_id() -> HeaderValue {
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

/// Tells telemetry where the request goes, if that is known, and of its trace.
pub(super) fn note_target(exchange: &mut Exchange, session: &Session, target: Option<&Target>) {
    let headers = &session.req_header().headers;
    if let Some(target) = target {
        exchange.service.clone_from(&target.service);
        exchange.settings = target.telemetry.unusual();
    }
    exchange.trace = match target.and_then(|target| target.telemetry.tracing.as_ref()) {
        Some(tracing) => Trace::begin(headers, tracing, || fastrand::u64(..)),
        None => Trace::of_client(headers),
    };
}

pub(super) fn begin(session: &Session, stream: &StreamContext, runtime: &Runtime) -> Exchange {
    let request = session.req_header();
    let mut exchange = Exchange::begin(stream.origin.clone());
    exchange.snapshot = runtime.snapshot.version;
    exchange.source = runtime.source(&stream.origin);
    exchange.settings = runtime.telemetry.of_service(None).unusual();
    exchange.http = Some(HttpExchange {
        method: request.method.clone(),
        path: text::of_bytes(request.raw_path()).into_owned(),
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
