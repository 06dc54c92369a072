//! The spans of a request or TCP stream: one for itself, one for each attempt at an endpoint. Names and
//! attributes are those of OpenTelemetry's stable conventions, then Istio's and Envoy's tags
//! (specs/istio-waypoint.md 5.4), then Cairn's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{self, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::conventions::{
    self, DESTINATION, SOURCE, method, peer, request_method, route, upstream_cluster, verdict,
};
use super::endpoint::Protocol;
use super::lane::Encoded;
use super::message;
use super::pack::Pack;
use super::pairs::Pairs;
use super::process::Process;
use super::queue::Ended;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::labels::source_workload;
use crate::telemetry::trace::recording::{Attempt, Event, Recording, What};
use crate::telemetry::trace::settings::{Receiver, Tag, TagValue};

/// The sampled bit of a span's flags.
const SAMPLED: u32 = 1;

/// The messages of a batch, and how many spans each has.
pub(super) fn encode(batch: &[Arc<Ended>], process: &Process, protocol: Protocol) -> Vec<Encoded> {
    let mut pack = Pack::new(&process.resource, &process.scope);
    let mut pairs = Pairs::default();
    for (ended, before) in batch.iter().zip(0..) {
        add(ended, process, &mut pairs, &mut pack);
        if before == 0 {
            pack.expect(batch.len());
        }
    }
    let messages = pack.finish().into_iter();
    let formed = messages.map(|(message, spans)| {
        let message = message::formed::<ExportTraceServiceRequest>(message, protocol);
        (message, spans)
    });
    formed.collect()
}

/// The spans of one request or TCP stream, its own first; none for what was not sampled. `pairs`: room for the
/// attributes of each.
fn add(ended: &Ended, process: &Process, pairs: &mut Pairs, pack: &mut Pack) {
    let exchange = &ended.exchange;
    let Some(recording) = exchange.trace.recording() else {
        return;
    };
    let spanned = Spanned {
        ended,
        exchange,
        recording,
        process,
    };
    pairs.clear();
    let own = match &exchange.http {
        Some(http) => spanned.server(http, pairs),
        None => spanned.stream(pairs),
    };
    pack.add(&own, pairs.bytes());
    for (attempt, number) in recording.attempts.iter().zip(0_u32..) {
        pairs.clear();
        let span = match &exchange.http {
            Some(http) => spanned.attempt(http, attempt, number, pairs),
            None => spanned.connection(attempt, pairs),
        };
        pack.add(&span, pairs.bytes());
    }
}

/// One request or TCP stream that becomes spans.
struct Spanned<'a> {
    ended: &'a Ended,
    exchange: &'a Exchange,
    recording: &'a Recording,
    process: &'a Process,
}

impl Spanned<'_> {
    /// Of a request. Attributes and events go to `pairs`, of this and of all others.
    fn server(&self, http: &HttpExchange, pairs: &mut Pairs) -> Span {
        let status = http.status.map_or(0, |status| status.as_u16());
        let route = route(self.exchange);
        let method = method(&http.method);
        let name = match &route {
            Some(route) => format!("{} {route}", method.unwrap_or("HTTP")),
            None => method.unwrap_or("HTTP").to_owned(),
        };
        let parent = self.recording.parent.map(|parent| parent.get());
        let own = self.exchange.trace.span().map_or(0, |span| span.get());
        let failed = status >= 500 || status == 0;
        self.server_attributes(http, route, status, pairs);
        self.events(pairs);
        Span {
            parent_span_id: parent.map(bytes_of).unwrap_or_default(),
            kind: SpanKind::Server as i32,
            end_time_unix_nano: nanos(self.ended.ended_at()),
            dropped_events_count: self.recording.events_dropped,
            status: self.status(failed, self.exchange.reason.as_deref()),
            ..self.span(own, name, self.exchange.started_at)
        }
    }

    /// Of a TCP stream, from its opening to its end. Nobody tells it of a trace, so that it begins one.
    fn stream(&self, attributes: &mut Pairs) -> Span {
        let exchange = self.exchange;
        let own = exchange.trace.span().map_or(0, |span| span.get());
        conventions::stream(attributes, exchange);
        attributes.text("component", "proxy");
        attributes.text("response_flags", flags(exchange));
        upstream_cluster(attributes, exchange);
        if self.recording.tracing.istio_tags {
            self.istio_tags(attributes);
        }
        self.cairn_attributes(attributes);
        self.tags(attributes);
        let failed = !exchange.flags.is_empty();
        if failed {
            attributes.text("error.type", exchange.flags);
        }
        self.events(attributes);
        let name = exchange.service.as_ref().map_or_else(
            || "TCP".to_owned(),
            |service| format!("TCP {}:{}", service.hostname, exchange.service_port),
        );
        Span {
            kind: SpanKind::Server as i32,
            end_time_unix_nano: nanos(self.ended.ended_at()),
            dropped_events_count: self.recording.events_dropped,
            status: self.status(failed, exchange.reason.as_deref()),
            ..self.span(own, name, exchange.started_at)
        }
    }

    /// A TCP stream's connection to an endpoint, from dialling to the end of the stream, or an attempt at one.
    fn connection(&self, attempt: &Attempt, attributes: &mut Pairs) -> Span {
        conventions::connection(attributes, self.exchange, attempt);
        let broke = attempt.connected.map(|_| self.exchange.flags);
        let error = attempt.error.or(broke.filter(|flags| !flags.is_empty()));
        attributes.known("error.type", error);
        if let Some(at) = attempt.connected {
            attributes.event(&self.event_at(at, "cairn.connected"), |_| {});
        }
        self.client(attempt, "TCP", error.is_some(), attributes)
    }

    fn attempt(
        &self,
        http: &HttpExchange,
        attempt: &Attempt,
        number: u32,
        attributes: &mut Pairs,
    ) -> Span {
        request_method(attributes, &http.method);
        conventions::endpoint(attributes, attempt);
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
        let refused = attempt.status.filter(|status| *status >= 400);
        match (attempt.error, refused) {
            (Some(error), _) => attributes.text("error.type", error),
            (None, Some(status)) => attributes.display("error.type", status),
            (None, None) => {}
        }
        let failed = attempt.error.is_some() || refused.is_some();
        let name = method(&http.method).unwrap_or("HTTP");
        self.client(attempt, name, failed, attributes)
    }

    /// The span of an attempt at an endpoint, with what is said of all of them.
    fn client(&self, attempt: &Attempt, name: &str, failed: bool, attributes: &mut Pairs) -> Span {
        let server = self.exchange.trace.span().map_or(0, |span| span.get());
        let ended = attempt
            .ended
            .map_or(self.ended.ended_at(), |at| self.at(at));
        upstream_cluster(attributes, self.exchange);
        if self.recording.tracing.istio_tags {
            let workload = attempt.endpoint.workload.as_deref();
            let cluster = &self.process.cluster;
            peer(attributes, DESTINATION, workload, cluster);
        }
        self.tags(attributes);
        let began = self.at(attempt.began);
        Span {
            parent_span_id: bytes_of(server),
            kind: SpanKind::Client as i32,
            end_time_unix_nano: nanos(ended),
            status: self.status(failed, attempt.reason.as_deref()),
            ..self.span(attempt.span.get(), name.to_owned(), began)
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

    fn server_attributes(
        &self,
        http: &HttpExchange,
        route: Option<String>,
        status: u16,
        attributes: &mut Pairs,
    ) {
        let exchange = self.exchange;
        conventions::request(attributes, exchange, http, |text| self.cut(text));
        attributes.known("http.route", route);
        if status > 0 {
            attributes.number("http.response.status_code", status);
        }
        if status >= 500 {
            attributes.display("error.type", status);
        } else if status == 0 {
            attributes.text("error.type", exchange.flags);
        }
        attributes.number("http.request.body.size", exchange.bytes_received);
        attributes.number("http.response.body.size", exchange.bytes_sent);
        if http.grpc {
            conventions::grpc(attributes, http);
        }
        // Envoy's.
        attributes.text("component", "proxy");
        let id = http.request_id.as_ref().and_then(|id| id.to_str().ok());
        attributes.known("guid:x-request-id", id);
        attributes.text("response_flags", flags(exchange));
        upstream_cluster(attributes, self.exchange);
        if self.recording.tracing.istio_tags {
            self.istio_tags(attributes);
        }
        self.cairn_attributes(attributes);
        self.tags(attributes);
    }

    fn istio_tags(&self, attributes: &mut Pairs) {
        attributes.extend(&self.process.tags);
        let exchange = self.exchange;
        let cluster = &self.process.cluster;
        let source = source_workload(exchange).map(|workload| &**workload);
        peer(attributes, SOURCE, source, cluster);
        if source.is_none() {
            // The certificate tells it without a Pod.
            let namespace = exchange.origin.peer.identity.namespace();
            attributes.known("istio.source_namespace", namespace);
        }
        let endpoint = exchange.endpoint.as_ref();
        let destination = endpoint.and_then(|endpoint| endpoint.workload.as_deref());
        peer(attributes, DESTINATION, destination, cluster);
    }

    fn cairn_attributes(&self, attributes: &mut Pairs) {
        let exchange = self.exchange;
        attributes.text("source.principal", exchange.origin.peer.identity.uri());
        verdict(attributes, exchange);
        attributes.known("cairn.reason", exchange.reason.as_deref());
        if let Some((route, rule)) = &exchange.route {
            attributes.display("cairn.route", &route.origin);
            attributes.number("cairn.route.rule", *rule);
        }
        attributes.number("cairn.attempts", exchange.attempts);
        attributes.known("cairn.retry_denied", exchange.retry_denied);
        attributes.number("cairn.snapshot", exchange.snapshot);
    }

    fn tags(&self, attributes: &mut Pairs) {
        let tracing = &self.recording.tracing;
        for (Tag { name, value }, found) in tracing.tags.iter().zip(&self.recording.tags) {
            let text = match value {
                TagValue::Literal(text) => Some(Cow::Borrowed(&**text)),
                TagValue::Header { default, .. } => match found {
                    Some(found) => Some(String::from_utf8_lossy(found.as_bytes())),
                    None => default.as_deref().map(Cow::Borrowed),
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

    fn events(&self, pairs: &mut Pairs) {
        for Event { at, what } in &self.recording.events {
            match what {
                What::Verdict => pairs.event(&self.event_at(*at, "cairn.verdict"), |of| {
                    verdict(of, self.exchange);
                    of.known("cairn.reason", self.exchange.reason.as_deref());
                }),
                What::Retry { cause, wait } => {
                    pairs.event(&self.event_at(*at, "cairn.retry"), |of| {
                        of.text("cairn.retry.cause", cause);
                        of.number("cairn.retry.wait_ms", wait.as_millis());
                    });
                }
                What::Ejected {
                    endpoint,
                    cause,
                    for_ms,
                } => pairs.event(&self.event_at(*at, "cairn.ejection"), |of| {
                    of.display("cairn.ejection.endpoint", endpoint);
                    of.text("cairn.ejection.cause", cause);
                    of.number("cairn.ejection.for_ms", *for_ms);
                }),
            }
        }
    }

    fn event_at(&self, at: Instant, name: &str) -> span::Event {
        span::Event {
            time_unix_nano: nanos(self.at(at)),
            name: name.to_owned(),
            ..span::Event::default()
        }
    }
}

/// Envoy's flags as it writes them.
fn flags(exchange: &Exchange) -> &'static str {
    match exchange.flags {
        "" => "-",
        flags => flags,
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
