//! The spans of a request or TCP stream: one for itself, one for each attempt at an endpoint. Names and
//! attributes are those of OpenTelemetry's stable conventions, then Istio's and Envoy's tags
//! (specs/istio-waypoint.md 5.4), then Cairn's.

mod stream;

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::conventions::{self, path_of, request_method};
use super::known::Known;
use super::pack::Pack;
use super::pairs::Pairs;
use super::process::Process;
use crate::telemetry::access_log::upstream_cluster;
use crate::telemetry::alike::{AttemptKey, Objects, RequestKey, method};
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

/// What every span has of its own, besides attributes.
struct Bare<'a> {
    id: u64,
    parent: Option<u64>,
    began: SystemTime,
    ended: SystemTime,
    /// It failed, for this reason if one is known.
    failed: Option<&'a str>,
    events_dropped: u32,
}

impl<'a> Spanned<'a> {
    /// Of a request.
    fn server(&mut self, http: &HttpExchange, to: &mut Pairs) {
        let status = http.status.map_or(0, |status| status.as_u16());
        self.bare(&self.own(status >= 500 || status == 0), to);
        let key = RequestKey::of(self.exchange, http, self.recording.tracing.istio_tags);
        if !key
            .as_ref()
            .is_some_and(|key| self.known.say_request(key, to))
        {
            let begin = to.bytes().len();
            self.server_alike(http, status, to);
            if let Some(key) = key {
                let said = to.bytes().get(begin..).unwrap_or_default();
                let objects = Objects::of_request(self.exchange);
                self.known.keep_request(key, &objects, said);
            }
        }
        self.server_attributes(http, to);
        self.events(to);
    }

    fn attempt(&mut self, http: &HttpExchange, attempt: &Attempt, number: u32, to: &mut Pairs) {
        let refused = attempt.status.filter(|status| *status >= 400);
        let failed = attempt.error.is_some() || refused.is_some();
        self.bare(&self.of_attempt(attempt, failed), to);
        let istio_tags = self.recording.tracing.istio_tags;
        let key = AttemptKey::of(self.exchange, http, attempt, istio_tags);
        if !key
            .as_ref()
            .is_some_and(|key| self.known.say_attempt(key, to))
        {
            let begin = to.bytes().len();
            self.client(attempt, method(&http.method).unwrap_or("HTTP"), to);
            request_method(to, &http.method);
            self.known.endpoint(attempt.endpoint.address, to);
            if let Some(key) = key {
                let said = to.bytes().get(begin..).unwrap_or_default();
                let objects = Objects::of_attempt(self.exchange, attempt);
                self.known.keep_attempt(key, &objects, said);
            }
        }
        self.tags(to);
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

    /// What is said of all attempts at an endpoint.
    fn client(&mut self, attempt: &Attempt, name: &str, to: &mut Pairs) {
        named(SpanKind::Client, [name], to);
        self.cluster(to);
        let workload = attempt.endpoint.workload.as_ref();
        if let Some(workload) = workload.filter(|_| self.recording.tracing.istio_tags) {
            let cluster = &self.process.cluster;
            self.known.destination(workload, cluster, to);
        }
    }

    /// The span of an attempt at an endpoint.
    fn of_attempt<'s>(&self, attempt: &'s Attempt, failed: bool) -> Bare<'s> {
        Bare {
            id: attempt.span.get(),
            parent: self.exchange.trace.span().map(|span| span.get()),
            began: self.at(attempt.began),
            ended: attempt.ended.map_or(self.ended, |at| self.at(at)),
            failed: failed.then_some(attempt.reason.as_deref().unwrap_or_default()),
            events_dropped: 0,
        }
    }

    /// The span of the request or TCP stream itself.
    fn own(&self, failed: bool) -> Bare<'a> {
        let exchange = self.exchange;
        Bare {
            id: exchange.trace.span().map_or(0, |span| span.get()),
            parent: self.recording.parent.map(|parent| parent.get()),
            began: exchange.started_at,
            ended: self.ended,
            failed: failed.then_some(exchange.reason.as_deref().unwrap_or_default()),
            events_dropped: self.recording.events_dropped,
        }
    }

    fn bare(&self, span: &Bare<'_>, to: &mut Pairs) {
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
        to.field_fixed64(field::START, nanos(span.began));
        to.field_fixed64(field::END, nanos(span.ended));
        if let Some(reason) = span.failed {
            to.field_message(field::STATUS, |status| {
                status.field_bytes(field::STATUS_MESSAGE, reason.as_bytes());
                status.field_number(field::STATUS_CODE, StatusCode::Error as u64);
            });
        }
        to.field_number(field::EVENTS_DROPPED, span.events_dropped.into());
    }

    /// Wall clock of a moment of the request.
    fn at(&self, moment: Instant) -> SystemTime {
        self.exchange.started_at + moment.saturating_duration_since(self.exchange.started)
    }

    /// What all requests with the same key say.
    fn server_alike(&mut self, http: &HttpExchange, status: u16, to: &mut Pairs) {
        let exchange = self.exchange;
        let method = method(&http.method).unwrap_or("HTTP");
        let route = exchange.route.as_ref();
        match route.and_then(|(route, rule)| path_of(route, *rule)) {
            Some(path) => {
                let [path, rest] = path.pieces();
                named(SpanKind::Server, [method, " ", path, rest], to);
            }
            None => named(SpanKind::Server, [method], to),
        }
        conventions::request_alike(to, http);
        if status > 0 {
            to.number("http.response.status_code", status);
        }
        if status >= 500 {
            to.display("error.type", status);
        } else if status == 0 {
            to.text("error.type", exchange.flags);
        }
        // Envoy's.
        to.text("component", "proxy");
        to.text("response_flags", flags(exchange));
        self.cluster(to);
        if self.recording.tracing.istio_tags {
            self.istio_tags_alike(to);
        }
        self.cairn_attributes_alike(to);
    }

    /// What a request says of its own.
    fn server_attributes(&mut self, http: &HttpExchange, to: &mut Pairs) {
        let exchange = self.exchange;
        conventions::request(to, exchange, http, |text| self.cut(text));
        self.known.client(exchange.origin.peer.address, to);
        to.number("http.request.body.size", exchange.bytes_received);
        to.number("http.response.body.size", exchange.bytes_sent);
        if http.grpc {
            conventions::grpc(to, http);
        }
        let id = http.request_id.as_ref().and_then(|id| id.to_str().ok());
        to.known("guid:x-request-id", id);
        if self.recording.tracing.istio_tags {
            self.source_tags(to);
        }
        self.cairn_attributes(to);
        self.tags(to);
    }

    /// Istio's, of this process and of who is asked.
    fn istio_tags_alike(&mut self, to: &mut Pairs) {
        to.extend(self.process.tags.bytes());
        let endpoint = self.exchange.endpoint.as_ref();
        if let Some(destination) = endpoint.and_then(|endpoint| endpoint.workload.as_ref()) {
            let cluster = &self.process.cluster;
            self.known.destination(destination, cluster, to);
        }
    }

    /// Istio's, of who asks.
    fn source_tags(&mut self, to: &mut Pairs) {
        let exchange = self.exchange;
        match source_workload(exchange) {
            Some(source) => self.known.source(source, &self.process.cluster, to),
            None => {
                // The certificate tells it without a Pod.
                let namespace = exchange.origin.peer.identity.namespace();
                to.known("istio.source_namespace", namespace);
            }
        }
    }

    /// The service and port, as istiod names its clusters.
    fn cluster(&mut self, attributes: &mut Pairs) {
        if let Some(cluster) = upstream_cluster(self.exchange) {
            self.known.cluster(&cluster, attributes);
        }
    }

    fn cairn_attributes_alike(&mut self, to: &mut Pairs) {
        let exchange = self.exchange;
        if let Some(verdict) = &exchange.verdict {
            self.known.verdict(verdict, to);
        }
        if let Some((route, rule)) = &exchange.route {
            self.known.route(route, *rule, to);
        }
        to.number("cairn.attempts", exchange.attempts);
        to.known("cairn.retry_denied", exchange.retry_denied);
        to.number("cairn.snapshot", exchange.snapshot);
    }

    fn cairn_attributes(&self, to: &mut Pairs) {
        let exchange = self.exchange;
        to.text("source.principal", exchange.origin.peer.identity.uri());
        to.known("cairn.reason", exchange.reason.as_deref());
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

/// The pieces of a span's name, its kind, and that it was sampled.
fn named<const N: usize>(kind: SpanKind, name: [&str; N], to: &mut Pairs) {
    to.field_pieces(field::NAME, name);
    to.field_number(field::KIND, kind as u64);
    to.field_fixed32(field::FLAGS, SAMPLED);
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
