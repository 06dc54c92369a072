//! The text of a scrape, made piece by piece: a label set is some 50 KB of text because of its
//! histograms, so a whole scrape is never held in memory. Counts nothing.

mod samples;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cairn_config_schema::snapshot::IstioMetric;
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{self, MetricFamily, MetricType};

use super::counters;
use super::instruments::{family, label_pairs, sample};
use super::names::{self, BUCKETS, HUBBLE_BUCKETS, Metric};
use super::series::{
    Histogram, HistogramTotal, HttpKey, HttpSeries, HubbleKey, HubbleSeries, PolicyKey, Registry,
    Row, Table, Tally, TcpKey, TcpSeries,
};
use samples::{changed_sample, histogram_sample, policy_sample};
pub(super) use samples::{http_labels, tcp_labels};

/// `Content-Type` of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Label sets in one piece.
const ROWS_PER_PIECE: usize = 32;

/// A scrape of a registry. Counts are read when their piece is made.
pub struct Exposition {
    registry: Arc<Registry>,
    families: &'static [Family],
    row: usize,
    /// The metric whose comment lines are written.
    begun: &'static str,
    own: Vec<MetricFamily>,
}

/// A metric with a value per label set, and where the value is.
enum Family {
    Http(&'static Metric, HttpValue),
    Tcp(&'static Metric, fn(&TcpSeries) -> u64),
    /// The same metric where a Telemetry changed its labels.
    Changed(&'static Metric, IstioMetric, f64),
    Hubble(&'static Metric),
    Policy(&'static Metric, fn(&Registry) -> &Table<PolicyKey, Tally>),
}

enum HttpValue {
    Count(fn(&HttpSeries) -> &Tally),
    /// The histogram and what its sum is divided by.
    Histogram(fn(&HttpSeries) -> &Histogram, f64),
}

/// Of [`FAMILIES`], those of exchanges; the others are Hubble's, and of policies.
const OF_EXCHANGES: usize = 20;

static FAMILIES: [Family; 25] = [
    Family::Http(&names::REQUESTS, HttpValue::Count(|s| &s.requests)),
    Family::Changed(&names::REQUESTS, IstioMetric::RequestCount, 1.0),
    Family::Http(
        &names::REQUEST_DURATION,
        HttpValue::Histogram(|s| &s.duration, 1_000.0),
    ),
    Family::Changed(
        &names::REQUEST_DURATION,
        IstioMetric::RequestDuration,
        1_000.0,
    ),
    Family::Http(
        &names::REQUEST_BYTES,
        HttpValue::Histogram(|s| &s.request_bytes, 1.0),
    ),
    Family::Changed(&names::REQUEST_BYTES, IstioMetric::RequestSize, 1.0),
    Family::Http(
        &names::RESPONSE_BYTES,
        HttpValue::Histogram(|s| &s.response_bytes, 1.0),
    ),
    Family::Changed(&names::RESPONSE_BYTES, IstioMetric::ResponseSize, 1.0),
    Family::Http(
        &names::REQUEST_MESSAGES,
        HttpValue::Count(|s| &s.request_messages),
    ),
    Family::Changed(
        &names::REQUEST_MESSAGES,
        IstioMetric::GrpcRequestMessages,
        1.0,
    ),
    Family::Http(
        &names::RESPONSE_MESSAGES,
        HttpValue::Count(|s| &s.response_messages),
    ),
    Family::Changed(
        &names::RESPONSE_MESSAGES,
        IstioMetric::GrpcResponseMessages,
        1.0,
    ),
    Family::Tcp(&names::TCP_OPENED, |s| s.opened.load(Relaxed)),
    Family::Changed(&names::TCP_OPENED, IstioMetric::TcpOpenedConnections, 1.0),
    Family::Tcp(&names::TCP_CLOSED, |s| s.closed.load(Relaxed)),
    Family::Changed(&names::TCP_CLOSED, IstioMetric::TcpClosedConnections, 1.0),
    Family::Tcp(&names::TCP_SENT, |s| s.sent_bytes.load(Relaxed)),
    Family::Changed(&names::TCP_SENT, IstioMetric::TcpSentBytes, 1.0),
    Family::Tcp(&names::TCP_RECEIVED, |s| s.received_bytes.load(Relaxed)),
    Family::Changed(&names::TCP_RECEIVED, IstioMetric::TcpReceivedBytes, 1.0),
    Family::Hubble(&names::HUBBLE_REQUESTS),
    Family::Hubble(&names::HUBBLE_DURATION),
    Family::Policy(&names::VERDICTS, |r| &r.verdicts),
    Family::Policy(&names::DRY_RUN, |r| &r.dry_run),
    Family::Policy(&names::AUDIT, |r| &r.audit),
];

impl Exposition {
    /// Everything: Istio's metrics, Cairn's and those of the process.
    pub fn new(registry: Arc<Registry>) -> Self {
        let mut own = registry_families(&registry);
        own.extend(counters::families());
        own.extend(counters::build_families(env!("CARGO_PKG_VERSION")));
        own.extend(ProcessCollector::for_self().collect());
        Self {
            own,
            families: &FAMILIES,
            ..Self::of_series(registry)
        }
    }

    /// Adds metrics that are worked out as they are asked for.
    pub fn with(mut self, families: Vec<MetricFamily>) -> Self {
        self.own.extend(families);
        self
    }

    /// Only the metrics of exchanges.
    pub fn of_series(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            families: FAMILIES.get(..OF_EXCHANGES).unwrap_or_default(),
            row: 0,
            begun: "",
            own: Vec::new(),
        }
    }

    /// The next rows of a family; `None` after its last.
    fn samples(&self, of: &Family) -> Option<Vec<proto::Metric>> {
        fn some<K, S>(rows: Vec<Row<K, S>>) -> Option<Vec<Row<K, S>>> {
            (!rows.is_empty()).then_some(rows)
        }
        let (from, count) = (self.row, ROWS_PER_PIECE);
        match of {
            Family::Http(metric, value) => {
                let rows = some(self.registry.http.rows(from, count))?;
                let samples = rows
                    .iter()
                    .filter_map(|row| self.http_sample(metric, value, row));
                Some(samples.collect())
            }
            Family::Tcp(metric, value) => {
                let rows = some(self.registry.tcp.rows(from, count))?;
                let samples = rows
                    .iter()
                    .filter_map(|row| self.tcp_sample(metric, *value, row));
                Some(samples.collect())
            }
            Family::Changed(metric, of, unit) => {
                let rows = some(self.registry.changed.get(*of as usize)?.rows(from, count))?;
                let samples = rows.iter().map(|row| changed_sample(metric, *unit, row));
                Some(samples.collect())
            }
            Family::Hubble(metric) => {
                let rows = some(self.registry.hubble.rows(from, count))?;
                let samples = rows
                    .iter()
                    .filter_map(|row| self.hubble_sample(metric, row));
                Some(samples.collect())
            }
            Family::Policy(metric, table) => {
                let rows = some(table(&self.registry).rows(from, count))?;
                Some(rows.iter().map(|row| policy_sample(metric, row)).collect())
            }
        }
    }

    fn http_sample(
        &self,
        metric: &Metric,
        value: &HttpValue,
        (key, threads): &Row<HttpKey, HttpSeries>,
    ) -> Option<proto::Metric> {
        let labels = http_labels(&self.registry, key)?;
        let labels: Vec<&str> = labels.iter().map(|l| &**l).collect();
        // What is 0 was never counted here: each request counts in all metrics, but those that a
        // Telemetry switches off or counts elsewhere, and messages of what is not gRPC.
        match value {
            HttpValue::Count(count) => {
                let total: u64 = threads.iter().map(|s| count(s).get()).sum();
                (total > 0).then(|| sample(metric, &labels, total as f64))
            }
            HttpValue::Histogram(histogram, unit) => {
                let mut total = HistogramTotal::default();
                threads.iter().for_each(|s| histogram(s).add_to(&mut total));
                let counted = total.counts.iter().any(|n| *n > 0);
                counted.then(|| {
                    let labels = label_pairs(metric.labels, &labels);
                    histogram_sample(labels, &BUCKETS, &total, *unit)
                })
            }
        }
    }

    fn tcp_sample(
        &self,
        metric: &Metric,
        value: fn(&TcpSeries) -> u64,
        (key, counts): &Row<TcpKey, TcpSeries>,
    ) -> Option<proto::Metric> {
        let labels = tcp_labels(&self.registry, key)?;
        let labels: Vec<&str> = labels.iter().map(|l| &**l).collect();
        let total: u64 = counts.iter().map(|s| value(s)).sum();
        let shown = total > 0 || counts.iter().any(|s| s.whole.load(Relaxed));
        shown.then(|| sample(metric, &labels, total as f64))
    }

    fn hubble_sample(
        &self,
        metric: &Metric,
        (key, threads): &Row<HubbleKey, HubbleSeries>,
    ) -> Option<proto::Metric> {
        let source = self.registry.sources.get(key.source)?;
        let destination = self.registry.destinations.get(key.destination)?;
        let status = match *key == HubbleKey::OTHER {
            true => super::labels::OTHER.to_owned(),
            false => key.status.to_string(),
        };
        let labels: [&str; 8] = [
            &self.registry.cluster,
            // Counted where requests arrive.
            "server",
            key.method,
            &status,
            &source.workload_namespace,
            &source.workload,
            &destination.workload_namespace,
            &destination.workload,
        ];
        if metric.kind == MetricType::COUNTER {
            let total: u64 = threads.iter().map(|s| s.requests.get()).sum();
            return Some(sample(metric, &labels, total as f64));
        }
        let mut total = HistogramTotal::default();
        threads.iter().for_each(|s| s.duration.add_to(&mut total));
        let labels = label_pairs(metric.labels, &labels);
        Some(histogram_sample(
            labels,
            &HUBBLE_BUCKETS,
            &total,
            1_000_000.0,
        ))
    }
}

impl Exposition {
    /// The pieces, not as text; with each, whether it goes on with the family of the one before.
    pub fn families(mut self) -> impl Iterator<Item = (Vec<MetricFamily>, bool)> {
        std::iter::from_fn(move || self.piece())
    }

    fn piece(&mut self) -> Option<(Vec<MetricFamily>, bool)> {
        if !self.own.is_empty() {
            return Some((std::mem::take(&mut self.own), false));
        }
        while let Some((first, rest)) = self.families.split_first() {
            let Some(samples) = self.samples(first) else {
                self.families = rest;
                self.row = 0;
                continue;
            };
            self.row += ROWS_PER_PIECE;
            if samples.is_empty() {
                continue;
            }
            let metric = match first {
                Family::Http(metric, _)
                | Family::Tcp(metric, _)
                | Family::Changed(metric, ..)
                | Family::Hubble(metric)
                | Family::Policy(metric, _) => *metric,
            };
            let continued = self.begun == metric.name;
            self.begun = metric.name;
            return Some((vec![family(metric, samples)], continued));
        }
        None
    }
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (families, continued) = self.piece()?;
        Some(encode(&families, continued))
    }
}

/// Encodes; `continued` leaves out the two comment lines of a family that is already begun.
fn encode(families: &[MetricFamily], continued: bool) -> Bytes {
    let mut text = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(families, &mut text) {
        // Only an empty family can fail, and those are left out before.
        tracing::error!(%error, "metrics could not be encoded; this scrape is incomplete");
    }
    let comments = if continued { 2 } else { 0 };
    let skipped: usize = text
        .split_inclusive('\n')
        .take(comments)
        .map(str::len)
        .sum();
    Bytes::from(text).slice(skipped..)
}

/// What the registry counts besides series.
fn registry_families(registry: &Registry) -> Vec<MetricFamily> {
    let overflow =
        |cause: &str, count: i64| sample(&names::SERIES_OVERFLOW, &[cause], count as f64);
    let verdicts = registry
        .dry_run_verdicts
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let words = ["allow", "deny"];
    let mut dry_run = Vec::new();
    for (would, outcome) in words.iter().enumerate() {
        for (was, enforced) in words.iter().enumerate() {
            let count = verdicts
                .iter()
                .filter_map(|v| v.counts.get(would)?.get(was));
            let count: u64 = count.map(Tally::get).sum();
            let labels = [*outcome, *enforced];
            dry_run.push(sample(&names::DRY_RUN_VERDICTS, &labels, count as f64));
        }
    }
    vec![
        family(
            &names::SERIES_OVERFLOW,
            vec![
                overflow("series", registry.overflow.value()),
                overflow("baggage", registry.baggage_overflow.value()),
            ],
        ),
        family(&names::DRY_RUN_VERDICTS, dry_run),
    ]
}

#[cfg(test)]
mod tests;
