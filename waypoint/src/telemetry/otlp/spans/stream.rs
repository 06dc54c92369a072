//! The spans of a TCP stream: one for itself, one for each connection to an endpoint that was tried. What spans of requests
//! say too is in `spans`.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::super::conventions;
use super::super::pairs::Pairs;
use super::{Spanned, flags, named, nanos};
use crate::telemetry::trace::recording::Attempt;

impl Spanned<'_> {
    /// Of a TCP stream, from its opening to its end. Nobody tells it of a trace, so that it begins one.
    pub(super) fn stream(&mut self, to: &mut Pairs) {
        let exchange = self.exchange;
        let failed = !exchange.flags.is_empty();
        self.bare(&self.own(failed), to);
        match &exchange.service {
            Some(service) => {
                let port = exchange.service_port.to_string();
                let name = ["TCP ", &service.hostname, ":", &port];
                named(SpanKind::Server, name, to);
            }
            None => named(SpanKind::Server, ["TCP"], to),
        }
        conventions::stream(to, exchange);
        to.text("component", "proxy");
        to.text("response_flags", flags(exchange));
        self.cluster(to);
        if self.recording.tracing.istio_tags {
            self.istio_tags_alike(to);
            self.source_tags(to);
        }
        self.cairn_attributes_alike(to);
        self.cairn_attributes(to);
        self.tags(to);
        if failed {
            to.text("error.type", exchange.flags);
        }
        self.events(to);
    }

    /// A TCP stream's connection to an endpoint, from dialling to the end of the stream, or an attempt at one.
    pub(super) fn connection(&mut self, attempt: &Attempt, to: &mut Pairs) {
        let broke = attempt.connected.map(|_| self.exchange.flags);
        let error = attempt.error.or(broke.filter(|flags| !flags.is_empty()));
        self.bare(&self.of_attempt(attempt, error.is_some()), to);
        self.client(attempt, "TCP", to);
        self.tags(to);
        self.known.endpoint(attempt.endpoint.address, to);
        conventions::connection(to, self.exchange, attempt);
        to.known("error.type", error);
        if let Some(at) = attempt.connected {
            to.event(nanos(self.at(at)), "cairn.connected", |_| {});
        }
    }
}
