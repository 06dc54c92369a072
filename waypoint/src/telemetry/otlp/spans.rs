//! The spans of a request: one for the request itself, one for each attempt at an endpoint. Names and
//! attributes are those of OpenTelemetry's stable conventions for HTTP, then Istio's and Envoy's tags
//! (specs/istio-waypoint.md 5.4), then Cairn's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{self, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::attributes::Attributes;
use super::conventions::{self, method, peer, request_method, route, upstream_cluster, verdict};
use super::process::Process;
use super::queue::Ended;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::labels::source_workload;
use crate::telemetry::trace::recording::{Attempt, Event, Recording, What};
use crate::telemetry::trace::settings::{Receiver, Tag, TagValue};

/// The sampled bit of a span's flags.
const SAMPLED: u32 = 1;

/// The message of a batch, and how many spans it has.
pub(super) fn encode(batch: &[Arc<Ended>], process: &Process) -> (Bytes, u64) {
    let spans: Vec<Span> = batch.iter().flat_map(|e| of(e, process)).collect();
    let count = spans.len() as u64;
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(process.resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(process.scope.clone()),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    (request.encode_to_vec().into(), count)
}

/// The spans of one request, its own first; none for one that was not sampled.
fn of(ended: &Ended, process: &Process) -> Vec<Span> {
    let exchange = &ended.exchange;
    let (Some(recording), Some(http)) = (exchange.trace.recording(), &exchange.http) else {
        return Vec::new();
    };
    let spanned = Spanned {
        ended,
        exchange,
        http,
        recording,
        process,
    };
    let attempts = recording.attempts.iter().zip(0_u32..);
    let attempts = attempts.map(|(attempt, number)| spanned.attempt(attempt, number));
    std::iter::once(spanned.server()).chain(attempts).collect()
}

/// One request that becomes spans.
struct Spanned<'a> {
    ended: &'a Ended,
    exchange: &'a Exchange,
    http: &'a HttpExchange,
    recording: &'a Recording,
    process: &'a Process,
}

impl Spanned<'_> {
    fn server(&self) -> Span {
        let status = self.http.status.map_or(0, |status| status.as_u16());
        let route = route(self.exchange);
        let method = method(&self.http.method);
        let name = match &route {
            Some(route) => format!("{} {route}", method.unwrap_or("HTTP")),
            None => method.unwrap_or("HTTP").to_owned(),
        };
        let parent = self.recording.parent.map(|parent| parent.get());
        let own = self.exchange.trace.span().map_or(0, |span| span.get());
        let failed = status >= 500 || status == 0;
        Span {
            parent_span_id: parent.map(bytes_of).unwrap_or_default(),
            kind: SpanKind::Server as i32,
            end_time_unix_nano: nanos(self.ended.ended_at()),
            attributes: self.server_attributes(route, status),
            events: self
                .recording
                .events
                .iter()
                .map(|e| self.event(e))
                .collect(),
            dropped_events_count: self.recording.events_dropped,
            status: self.status(failed, self.exchange.reason.as_deref()),
            ..self.span(own, name, self.exchange.started_at)
        }
    }

    fn attempt(&self, attempt: &Attempt, number: u32) -> Span {
        let method = method(&self.http.method).unwrap_or("HTTP");
        let server = self.exchange.trace.span().map_or(0, |span| span.get());
        let ended = attempt
            .ended
            .map_or(self.ended.ended_at(), |at| self.at(at));
        let mut attributes = Attributes::default();
        request_method(&mut attributes, &self.http.method);
        let address = attempt.endpoint.address;
        attributes.text("server.address", address.ip().to_string());
        attributes.number("server.port", address.port());
        attributes.text("network.peer.address", address.ip().to_string());
        attributes.number("network.peer.port", address.port());
        attributes.known("url.full", attempt.url.as_deref().map(|url| self.cut(url)));
        if number > 0 {
            attributes.number("http.request.resend_count", number);
        }
        if let Some(status) = attempt.status {
            attributes.number("http.response.status_code", status);
        }
        if let Some(status) = attempt.grpc_status {
            attributes.number("rpc.grpc.status_code", status);
        }
        let failed = attempt.error.is_some() || attempt.status.is_some_and(|s| s >= 400);
        let error = match (attempt.error, attempt.status) {
            (Some(error), _) => Some(error.to_owned()),
            (None, Some(status)) if failed => Some(status.to_string()),
            _ => None,
        };
        attributes.known("error.type", error);
        attributes.known("upstream_cluster", upstream_cluster(self.exchange));
        if self.recording.tracing.istio_tags {
            let workload = attempt.endpoint.workload.as_deref();
            peer(
                &mut attributes,
                "destination",
                workload,
                &self.process.cluster,
            );
        }
        self.tags(&mut attributes);
        Span {
            parent_span_id: bytes_of(server),
            kind: SpanKind::Client as i32,
            end_time_unix_nano: nanos(ended),
            attributes: attributes.take(),
            status: self.status(failed, attempt.reason.as_deref()),
            ..self.span(
                attempt.span.get(),
                method.to_owned(),
                self.at(attempt.began),
            )
        }
    }

    fn span(&self, id: u64, name: String, began: SystemTime) -> Span {
        let trace = self.exchange.trace.id().map_or(0, |trace| trace.get());
        let state = self.recording.state.as_ref();
        let state = state.and_then(|state: &HeaderValue| state.to_str().ok());
        Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: bytes_of(id),
            trace_state: state.unwrap_or_default().to_owned(),
            flags: SAMPLED,
            name,
            start_time_unix_nano: nanos(began),
            ..Span::default()
        }
    }

    fn status(&self, failed: bool, reason: Option<&str>) -> Option<Status> {
        failed.then(|| Status {
            message: reason.unwrap_or_default().to_owned(),
            code: StatusCode::Error as i32,
        })
    }

    /// Wall clock of a moment of the request.
    fn at(&self, moment: Instant) -> SystemTime {
        self.exchange.started_at + moment.saturating_duration_since(self.exchange.started)
    }

    fn server_attributes(&self, route: Option<String>, status: u16) -> Vec<KeyValue> {
        let (exchange, http) = (self.exchange, self.http);
        let mut attributes = Attributes::default();
        conventions::request(&mut attributes, exchange, http, |text| self.cut(text));
        attributes.known("http.route", route);
        if status > 0 {
            attributes.number("http.response.status_code", status);
        }
        if status >= 500 {
            attributes.text("error.type", status.to_string());
        } else if status == 0 {
            attributes.text("error.type", exchange.flags);
        }
        attributes.number("http.request.body.size", exchange.bytes_received);
        attributes.number("http.response.body.size", exchange.bytes_sent);
        if http.grpc {
            conventions::grpc(&mut attributes, http);
        }
        // Envoy's.
        attributes.text("component", "proxy");
        let id = http.request_id.as_ref().and_then(|id| id.to_str().ok());
        attributes.known("guid:x-request-id", id);
        let flags = if exchange.flags.is_empty() {
            "-"
        } else {
            exchange.flags
        };
        attributes.text("response_flags", flags);
        attributes.known("upstream_cluster", upstream_cluster(self.exchange));
        if self.recording.tracing.istio_tags {
            self.istio_tags(&mut attributes);
        }
        self.cairn_attributes(&mut attributes);
        self.tags(&mut attributes);
        attributes.take()
    }

    fn istio_tags(&self, attributes: &mut Attributes) {
        attributes.extend(&self.process.tags);
        let exchange = self.exchange;
        let cluster = &self.process.cluster;
        let source = source_workload(exchange).map(|workload| &**workload);
        peer(attributes, "source", source, cluster);
        if source.is_none() {
            // The certificate tells it without a Pod.
            let namespace = exchange.origin.peer.identity.namespace();
            attributes.known("istio.source_namespace", namespace);
        }
        let endpoint = exchange.endpoint.as_ref();
        let destination = endpoint.and_then(|endpoint| endpoint.workload.as_deref());
        peer(attributes, "destination", destination, cluster);
    }

    fn cairn_attributes(&self, attributes: &mut Attributes) {
        let exchange = self.exchange;
        attributes.text("source.principal", exchange.origin.peer.identity.uri());
        verdict(attributes, exchange);
        attributes.known("cairn.reason", exchange.reason.as_deref());
        if let Some((route, rule)) = &exchange.route {
            attributes.text("cairn.route", route.origin.to_string());
            attributes.number("cairn.route.rule", *rule);
        }
        attributes.number("cairn.attempts", exchange.attempts);
        attributes.known("cairn.retry_denied", exchange.retry_denied);
        attributes.number("cairn.snapshot", exchange.snapshot);
    }

    fn tags(&self, attributes: &mut Attributes) {
        let tracing = &self.recording.tracing;
        for (Tag { name, value }, found) in tracing.tags.iter().zip(&self.recording.tags) {
            let text = match value {
                TagValue::Literal(text) => Some(text.to_string()),
                TagValue::Header { default, .. } => match found {
                    Some(found) => Some(String::from_utf8_lossy(found.as_bytes()).into_owned()),
                    None => default.as_ref().map(|text| text.to_string()),
                },
            };
            attributes.known(name, text.as_deref().map(|text| self.cut(text)));
        }
    }

    /// As much of a value of the client's as the receiver is to get.
    fn cut<'t>(&self, text: &'t str) -> &'t str {
        match &self.recording.tracing.receiver {
            Receiver::Environment | Receiver::Log(_) => text,
            Receiver::Collector(collector) => {
                let max = text.floor_char_boundary(collector.tag_bytes_max as usize);
                text.get(..max).unwrap_or_default()
            }
        }
    }

    fn event(&self, event: &Event) -> span::Event {
        let mut attributes = Attributes::default();
        let name = match &event.what {
            What::Verdict => {
                verdict(&mut attributes, self.exchange);
                attributes.known("cairn.reason", self.exchange.reason.as_deref());
                "cairn.verdict"
            }
            What::Retry { cause, wait } => {
                attributes.text("cairn.retry.cause", *cause);
                attributes.number("cairn.retry.wait_ms", wait.as_millis());
                "cairn.retry"
            }
            What::Ejected {
                endpoint,
                cause,
                for_ms,
            } => {
                attributes.text("cairn.ejection.endpoint", endpoint.to_string());
                attributes.text("cairn.ejection.cause", *cause);
                attributes.number("cairn.ejection.for_ms", *for_ms);
                "cairn.ejection"
            }
        };
        span::Event {
            time_unix_nano: nanos(self.at(event.at)),
            name: name.to_owned(),
            attributes: attributes.take(),
            ..span::Event::default()
        }
    }
}

fn bytes_of(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(super) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
