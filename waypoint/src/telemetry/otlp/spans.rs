//! The spans of a request or TCP stream: one for itself, one for each attempt at an endpoint. Names and
//! attributes are those of OpenTelemetry's stable conventions, then Istio's and Envoy's tags
//! (specs/istio-waypoint.md 5.4), then Cairn's.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::conventions::{self, method, path_of, request_method};
use super::known::Known;
use super::pack::Pack;
use super::pairs::Pairs;
use super::process::Process;
use crate::telemetry::access_log::upstream_cluster;
use crate::telemetry::exchange::{Exchange, HttpExchange, Seen};
use crate::telemetry::labels::source_workload;
use crate::telemetry::text;
use crate::telemetry::trace::recording::{Attempt, Event, Recording, What};
use crate::telemetry::trace::settings::{Receiver, Tag, TagValue};

/// The sampled bit of a span's flags.
const SAMPLED: u32 = 1;

/// Numbers of the fields of `Span`; attributes and events have theirs in `pairs`.
mod field {
    pub const TRACE_ID: u32 = 1;
    pub const SPAN_ID: u32 = 2;
    pub const TRACE_STATE: u32 = 3;
    pub const PARENT: u32 = 4;
    pub const NAME: u32 = 5;
    pub const KIND: u32 = 6;
    pub const START: u32 = 7;
    pub const END: u32 = 8;
    pub const EVENTS_DROPPED: u32 = 12;
    pub const STATUS: u32 = 15;
    pub const FLAGS: u32 = 16;
    /// Of `Status`.
    pub const STATUS_MESSAGE: u32 = 2;
    pub const STATUS_CODE: u32 = 3;
}

/// Adds the spans of a request or TCP stream, its own first; none for what was not sampled. `to`: room for one; `known` is
/// of its snapshot or a later one.
pub(super) fn add(
    seen: &Seen<'_>,
    process: &Process,
    (to, known): (&mut Pairs, &mut Known),
    pack: &mut Pack,
) {
    let exchange = seen.exchange;
    let Some(recording) = exchange.trace.recording() else {
        return;
    };
    let mut spanned = Spanned {
        ended: exchange.started_at + seen.elapsed,
        exchange,
        recording,
        process,
        known,
    };
    to.clear();
    match &exchange.http {
        Some(http) => spanned.server(http, to),
        None => spanned.stream(to),
    }
    pack.add(to.bytes());
    for (attempt, number) in recording.attempts.iter().zip(0_u32..) {
        to.clear();
        match &exchange.http {
            Some(http) => spanned.attempt(http, attempt, number, to),
            None => spanned.connection(attempt, to),
        }
        pack.add(to.bytes());
    }
}

/// One request or TCP stream that becomes spans.
struct Spanned<'a> {
    ended: SystemTime,
    exchange: &'a Exchange,
    recording: &'a Recording,
    process: &'a Process,
    known: &'a mut Known,
}

/// What every span has, besides its name and attributes.
struct Bare<'a> {
    id: u64,
    parent: Option<u64>,
    kind: SpanKind,
    began: SystemTime,
    ended: SystemTime,
    /// It failed, for this reason if one is known.
    failed: Option<&'a str>,
}

impl<'a> Spanned<'a> {
    /// Of a request.
    fn server(&mut self, http: &HttpExchange, to: &mut Pairs) {
        let status = http.status.map_or(0, |status| status.as_u16());
        let failed = status >= 500 || status == 0;
        let bare = self.own(failed);
        let method = method(&http.method).unwrap_or("HTTP");
        let route = self.exchange.route.as_ref();
        match route.and_then(|(route, rule)| path_of(route, *rule)) {
            Some(path) => {
                let [path, rest] = path.pieces();
                self.bare(&bare, [method, " ", path, rest], to);
            }
            None => self.bare(&bare, [method], to),
        }
        self.server_attributes(http, status, to);
        self.events(to);
    }

    /// Of a TCP stream, from its opening to its end. Nobody tells it of a trace, so that it begins one.
    fn stream(&mut self, to: &mut Pairs) {
        let exchange = self.exchange;
        let failed = !exchange.flags.is_empty();
        let bare = self.own(failed);
        match &exchange.service {
            Some(service) => {
                let port = exchange.service_port.to_string();
                self.bare(&bare, ["TCP ", &service.hostname, ":", &port], to);
            }
            None => self.bare(&bare, ["TCP"], to),
        }
        conventions::stream(to, exchange);
        to.text("component", "proxy");
        to.text("response_flags", flags(exchange));
        self.cluster(to);
        if self.recording.tracing.istio_tags {
            self.istio_tags(to);
        }
        self.cairn_attributes(to);
        self.tags(to);
        if failed {
            to.text("error.type", exchange.flags);
        }
        self.events(to);
    }

    /// A TCP stream's connection to an endpoint, from dialling to the end of the stream, or an attempt at one.
    fn connection(&mut self, attempt: &Attempt, to: &mut Pairs) {
        let broke = attempt.connected.map(|_| self.exchange.flags);
        let error = attempt.error.or(broke.filter(|flags| !flags.is_empty()));
        self.client(attempt, "TCP", error.is_some(), to);
        self.known.endpoint(attempt.endpoint.address, to);
        conventions::connection(to, self.exchange, attempt);
        to.known("error.type", error);
        if let Some(at) = attempt.connected {
            to.event(nanos(self.at(at)), "cairn.connected", |_| {});
        }
    }

    fn attempt(&mut self, http: &HttpExchange, attempt: &Attempt, number: u32, to: &mut Pairs) {
        let refused = attempt.status.filter(|status| *status >= 400);
        let failed = attempt.error.is_some() || refused.is_some();
        let name = method(&http.method).unwrap_or("HTTP");
        self.client(attempt, name, failed, to);
        request_method(to, &http.method);
        self.known.endpoint(attempt.endpoint.address, to);
        to.known("url.full", attempt.url.as_deref().map(|url| self.cut(url)));
        if number > 0 {
            to.number("http.request.resend_count", number);
        }
        if let Some(status) = attempt.status {
            to.number("http.response.status_code", status);
        }
        if let Some(status) = attempt.grpc_status {
            to.number("rpc.grpc.status_code", status);
        }
        match (attempt.error, refused) {
            (Some(error), _) => to.text("error.type", error),
            (None, Some(status)) => to.display("error.type", status),
            (None, None) => {}
        }
    }

    /// The span of an attempt at an endpoint, with what is said of all of them.
    fn client(&mut self, attempt: &Attempt, name: &str, failed: bool, to: &mut Pairs) {
        let bare = Bare {
            id: attempt.span.get(),
            parent: self.exchange.trace.span().map(|span| span.get()),
            kind: SpanKind::Client,
            began: self.at(attempt.began),
            ended: attempt.ended.map_or(self.ended, |at| self.at(at)),
            failed: failed.then_some(attempt.reason.as_deref().unwrap_or_default()),
        };
        self.bare(&bare, [name], to);
        self.cluster(to);
        let workload = attempt.endpoint.workload.as_ref();
        if let Some(workload) = workload.filter(|_| self.recording.tracing.istio_tags) {
            let cluster = &self.process.cluster;
            self.known.destination(workload, cluster, to);
        }
        self.tags(to);
    }

    /// The span of the request or TCP stream itself.
    fn own(&self, failed: bool) -> Bare<'a> {
        let exchange = self.exchange;
        Bare {
            id: exchange.trace.span().map_or(0, |span| span.get()),
            parent: self.recording.parent.map(|parent| parent.get()),
            kind: SpanKind::Server,
            began: exchange.started_at,
            ended: self.ended,
            failed: failed.then_some(exchange.reason.as_deref().unwrap_or_default()),
        }
    }

    /// `name`: its pieces.
    fn bare<const N: usize>(&self, span: &Bare<'_>, name: [&str; N], to: &mut Pairs) {
        let trace = self.exchange.trace.id().map_or(0, |trace| trace.get());
        to.field_bytes(field::TRACE_ID, &trace.to_be_bytes());
        to.field_bytes(field::SPAN_ID, &span.id.to_be_bytes());
        if let Some(parent) = span.parent {
            to.field_bytes(field::PARENT, &parent.to_be_bytes());
        }
        let state = self.recording.state.as_ref();
        if let Some(state) = state.and_then(|state| state.to_str().ok()) {
            to.field_bytes(field::TRACE_STATE, state.as_bytes());
        }
        to.field_pieces(field::NAME, name);
        to.field_number(field::KIND, span.kind as u64);
        to.field_fixed64(field::START, nanos(span.began));
        to.field_fixed64(field::END, nanos(span.ended));
        to.field_fixed32(field::FLAGS, SAMPLED);
        if let Some(reason) = span.failed {
            to.field_message(field::STATUS, |status| {
                status.field_bytes(field::STATUS_MESSAGE, reason.as_bytes());
                status.field_number(field::STATUS_CODE, StatusCode::Error as u64);
            });
        }
        if span.kind == SpanKind::Server {
            let dropped = u64::from(self.recording.events_dropped);
            to.field_number(field::EVENTS_DROPPED, dropped);
        }
    }

    /// Wall clock of a moment of the request.
    fn at(&self, moment: Instant) -> SystemTime {
        self.exchange.started_at + moment.saturating_duration_since(self.exchange.started)
    }

    fn server_attributes(&mut self, http: &HttpExchange, status: u16, attributes: &mut Pairs) {
        let exchange = self.exchange;
        conventions::request(attributes, exchange, http, |text| self.cut(text));
        self.known.client(exchange.origin.peer.address, attributes);
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
        self.cluster(attributes);
        if self.recording.tracing.istio_tags {
            self.istio_tags(attributes);
        }
        self.cairn_attributes(attributes);
        self.tags(attributes);
    }

    fn istio_tags(&mut self, attributes: &mut Pairs) {
        attributes.extend(self.process.tags.bytes());
        let exchange = self.exchange;
        let cluster = &self.process.cluster;
        match source_workload(exchange) {
            Some(source) => self.known.source(source, cluster, attributes),
            None => {
                // The certificate tells it without a Pod.
                let namespace = exchange.origin.peer.identity.namespace();
                attributes.known("istio.source_namespace", namespace);
            }
        }
        let endpoint = exchange.endpoint.as_ref();
        if let Some(destination) = endpoint.and_then(|endpoint| endpoint.workload.as_ref()) {
            self.known.destination(destination, cluster, attributes);
        }
    }

    /// The service and port, as istiod names its clusters.
    fn cluster(&mut self, attributes: &mut Pairs) {
        if let Some(cluster) = upstream_cluster(self.exchange) {
            self.known.cluster(&cluster, attributes);
        }
    }

    fn cairn_attributes(&mut self, attributes: &mut Pairs) {
        let exchange = self.exchange;
        attributes.text("source.principal", exchange.origin.peer.identity.uri());
        if let Some(verdict) = &exchange.verdict {
            self.known.verdict(verdict, attributes);
        }
        attributes.known("cairn.reason", exchange.reason.as_deref());
        if let Some((route, rule)) = &exchange.route {
            self.known.route(route, *rule, attributes);
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
                    Some(found) => Some(text::of_bytes(found.as_bytes())),
                    None => default.as_deref().map(Cow::Borrowed),
                },
            };
            attributes.known(name, text.as_deref().map(|text| self.cut(text)));
        }
    }

    /// As much of a value of the client's as the receiver is to get.
    fn cut<'t>(&self, text: &'t str) -> &'t str {
        match &self.recording.tracing.receiver {
            Receiver::Environment | Receiver::Log(_) | Receiver::Entries(_) => text,
            Receiver::Collector(collector) => {
                let max = text.floor_char_boundary(collector.tag_bytes_max as usize);
                text.get(..max).unwrap_or_default()
            }
        }
    }

    fn events(&mut self, to: &mut Pairs) {
        let (exchange, recording) = (self.exchange, self.recording);
        for Event { at, what } in &recording.events {
            let at = nanos(self.at(*at));
            match what {
                What::Verdict => to.event(at, "cairn.verdict", |of| {
                    if let Some(verdict) = &exchange.verdict {
                        self.known.verdict_of_event(verdict, of);
                    }
                    of.known("cairn.reason", exchange.reason.as_deref());
                }),
                What::Retry { cause, wait } => to.event(at, "cairn.retry", |of| {
                    of.text("cairn.retry.cause", cause);
                    of.number("cairn.retry.wait_ms", wait.as_millis());
                }),
                What::Ejected {
                    endpoint,
                    cause,
                    for_ms,
                } => to.event(at, "cairn.ejection", |of| {
                    of.display("cairn.ejection.endpoint", endpoint);
                    of.text("cairn.ejection.cause", cause);
                    of.number("cairn.ejection.for_ms", *for_ms);
                }),
            }
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

pub(super) fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
