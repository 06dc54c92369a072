//! What one request adds to its series, metric by metric. Finds no series.

use cairn_config_schema::snapshot::IstioMetric;

use super::super::exchange::{HttpExchange, Seen};
use super::super::series::{ChangedSeries, Histogram, HttpSeries};

/// What one request adds to its series.
pub(super) struct Counts {
    /// How long it took, in microseconds.
    pub(super) micros: u64,
    received: u64,
    sent: u64,
    messages: Option<(u64, u64)>,
}

impl Counts {
    /// Of one exchange.
    pub(super) fn of(seen: &Seen<'_>, http: &HttpExchange) -> Self {
        Self {
            micros: u64::try_from(seen.elapsed.as_micros()).unwrap_or(u64::MAX),
            received: http.request_header_bytes + seen.exchange.bytes_received,
            sent: http.response_header_bytes + seen.exchange.bytes_sent,
            messages: http.grpc.then_some(http.messages),
        }
    }

    /// Whether the request counts there at all.
    pub(super) fn has(&self, metric: IstioMetric) -> bool {
        let of_grpc = [
            IstioMetric::GrpcRequestMessages,
            IstioMetric::GrpcResponseMessages,
        ];
        self.messages.is_some() || !of_grpc.contains(&metric)
    }

    fn histogram(&self, metric: IstioMetric, to: &Histogram) {
        match metric {
            IstioMetric::RequestDuration => to.record(self.micros as f64 / 1_000.0, self.micros),
            IstioMetric::RequestSize => to.record(self.received as f64, self.received),
            _ => to.record(self.sent as f64, self.sent),
        }
    }

    /// Adds them to the series of its labels.
    pub(super) fn add(&self, metric: IstioMetric, series: &HttpSeries) {
        let (sent, answered) = self.messages.unwrap_or_default();
        match metric {
            IstioMetric::RequestCount => series.requests.add(1),
            IstioMetric::RequestDuration => self.histogram(metric, &series.duration),
            IstioMetric::RequestSize => self.histogram(metric, &series.request_bytes),
            IstioMetric::ResponseSize => self.histogram(metric, &series.response_bytes),
            IstioMetric::GrpcRequestMessages => series.request_messages.add(sent),
            IstioMetric::GrpcResponseMessages => series.response_messages.add(answered),
            _ => {}
        }
    }

    /// Adds them to a series whose labels a Telemetry changed.
    pub(super) fn add_changed(&self, metric: IstioMetric, series: &ChangedSeries) {
        let (sent, answered) = self.messages.unwrap_or_default();
        match metric {
            IstioMetric::RequestCount => series.counter.add(1),
            IstioMetric::GrpcRequestMessages => series.counter.add(sent),
            IstioMetric::GrpcResponseMessages => series.counter.add(answered),
            _ => self.histogram(metric, &series.histogram),
        }
    }
}
