//! Every metric of a scrape as OTLP, from time to time: the same counts under the same names, read when it is
//! time and counted nowhere else. Sums and histograms are cumulative since the process began.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use prometheus::proto::{self, MetricFamily, MetricType};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::attributes::Attributes;
use super::export::Exporter;
use super::message;
use super::process::Process;
use super::queue::Queue;
use super::spans::nanos;
use crate::limits::OTLP_POINTS_PER_MESSAGE_MAX;
use crate::telemetry::exposition::Exposition;

/// Makes a scrape.
pub(super) type Scrape = Box<dyn Fn() -> Exposition + Send + Sync>;

/// Exports until the process ends, and once more then.
pub(super) async fn run(
    scrape: Scrape,
    every: Duration,
    mut exporter: Exporter,
    queue: std::sync::Arc<Queue>,
    mut closing: watch::Receiver<bool>,
) {
    let (began, process) = (SystemTime::now(), queue.process());
    let mut ticks = interval(every);
    // A receiver that is slow gets the newest counts, not those it missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let closes = tokio::select! {
            _ = ticks.tick() => false,
            _ = closing.changed() => true,
        };
        let mut gathered = Gathered::new(began, SystemTime::now());
        for (families, _) in scrape().families() {
            families.iter().for_each(|family| gathered.add(family));
            if gathered.points >= OTLP_POINTS_PER_MESSAGE_MAX {
                export(&mut gathered, &mut exporter, process).await;
            }
        }
        export(&mut gathered, &mut exporter, process).await;
        if closes {
            return;
        }
    }
}

async fn export(gathered: &mut Gathered, exporter: &mut Exporter, process: &Process) {
    let points = std::mem::take(&mut gathered.points);
    if points > 0 {
        let request = request(std::mem::take(&mut gathered.metrics), process);
        let message = message::encode(&request, exporter.protocol());
        exporter.export(message, points as u64).await;
    }
}

fn request(metrics: Vec<Metric>, process: &Process) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(process.resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(process.scope.clone()),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// Metrics for one message.
struct Gathered {
    began: u64,
    now: u64,
    metrics: Vec<Metric>,
    points: usize,
}

impl Gathered {
    fn new(began: SystemTime, now: SystemTime) -> Self {
        Self {
            began: nanos(began),
            now: nanos(now),
            metrics: Vec::new(),
            points: 0,
        }
    }

    fn add(&mut self, family: &MetricFamily) {
        let samples = family.get_metric();
        self.points += samples.len();
        let data = match family.get_field_type() {
            MetricType::COUNTER => Data::Sum(Sum {
                data_points: self.numbers(samples, |s| s.get_counter().get_value()),
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            }),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: samples.iter().map(|s| self.histogram(s)).collect(),
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
            }),
            // There are no summaries and no untyped metrics.
            _ => Data::Gauge(Gauge {
                data_points: self.numbers(samples, |s| s.get_gauge().get_value()),
            }),
        };
        self.metrics.push(Metric {
            name: family.name().to_owned(),
            description: family.help().to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }

    fn numbers(
        &self,
        samples: &[proto::Metric],
        of: fn(&proto::Metric) -> f64,
    ) -> Vec<NumberDataPoint> {
        let point = |sample: &proto::Metric| NumberDataPoint {
            attributes: labels(sample),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            value: Some(Value::AsDouble(of(sample))),
            ..NumberDataPoint::default()
        };
        samples.iter().map(point).collect()
    }

    fn histogram(&self, sample: &proto::Metric) -> HistogramDataPoint {
        let histogram = sample.get_histogram();
        let count = histogram.get_sample_count();
        let buckets = histogram.get_bucket().iter();
        let finite = buckets.filter(|bucket| bucket.upper_bound().is_finite());
        let mut below = 0;
        let (mut bounds, mut counts) = (Vec::new(), Vec::new());
        for bucket in finite {
            bounds.push(bucket.upper_bound());
            counts.push(bucket.cumulative_count().saturating_sub(below));
            below = bucket.cumulative_count();
        }
        counts.push(count.saturating_sub(below));
        HistogramDataPoint {
            attributes: labels(sample),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            count,
            sum: Some(histogram.get_sample_sum()),
            bucket_counts: counts,
            explicit_bounds: bounds,
            ..HistogramDataPoint::default()
        }
    }
}

/// Labels as they are in a scrape, empty ones too.
fn labels(sample: &proto::Metric) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    for label in sample.get_label() {
        attributes.label(label.name(), label.value());
    }
    attributes.take()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::attributes::find;
    use super::*;
    use crate::telemetry::fixtures;
    use crate::telemetry::metrics::Shard;
    use crate::telemetry::series::Registry;

    fn gathered() -> Vec<Metric> {
        let registry = Arc::new(Registry::new(100, "Kubernetes"));
        let mut shard = Shard::new(registry.clone());
        for millis in [3, 40] {
            shard.record(&fixtures::http(), Duration::from_millis(millis));
        }
        let mut gathered = Gathered::new(SystemTime::UNIX_EPOCH, SystemTime::now());
        for (families, _) in Exposition::of_series(registry).families() {
            families.iter().for_each(|family| gathered.add(family));
        }
        gathered.metrics
    }

    fn data(metrics: &[Metric], name: &str) -> Data {
        let found = metrics.iter().find(|metric| metric.name == name);
        found.unwrap().data.clone().unwrap()
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_with_all_its_labels() {
        let Data::Sum(sum) = data(&gathered(), "istio_requests_total") else {
            panic!("not a sum");
        };
        assert!(sum.is_monotonic);
        assert_eq!(
            sum.aggregation_temporality,
            AggregationTemporality::Cumulative as i32
        );
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Value::AsDouble(2.0)));
        assert_eq!(
            find(&point.attributes, "response_code").as_deref(),
            Some("200")
        );
        assert_eq!(
            point.attributes.len(),
            crate::telemetry::names::HTTP_LABELS.len()
        );
    }

    /// JSON of OTLP: counts of 64 bits are texts, bounds numbers, and what is not there is left out.
    #[test]
    fn in_json_counts_are_texts() {
        use super::super::endpoint::Protocol;
        let request = request(gathered(), &Process::default());
        let message = message::encode(&request, Protocol::Json);
        let value: serde_json::Value = serde_json::from_slice(&message).unwrap();
        let metrics = &value["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let named = |name| {
            let mut metrics = metrics.as_array().unwrap().iter();
            metrics.find(|metric| metric["name"] == name).unwrap()
        };
        let histogram = &named("istio_request_duration_milliseconds")["histogram"];
        assert_eq!(histogram["aggregationTemporality"], 2);
        let point = &histogram["dataPoints"][0];
        assert_eq!(
            (&point["count"], &point["sum"]),
            (&"2".into(), &43.0.into())
        );
        let counts = point["bucketCounts"].as_array().unwrap();
        assert!(
            counts.iter().all(serde_json::Value::is_string),
            "{counts:?}"
        );
        let bounds = point["explicitBounds"].as_array().unwrap();
        assert!(
            bounds.iter().all(serde_json::Value::is_number),
            "{bounds:?}"
        );
        assert!(point.get("min").is_none());
        let sum = &named("istio_requests_total")["sum"];
        assert_eq!(sum["isMonotonic"], true);
        assert_eq!(sum["dataPoints"][0]["asDouble"], 2.0);
    }

    #[test]
    fn a_histogram_keeps_its_bounds_and_counts_each_value_once() {
        let name = "istio_request_duration_milliseconds";
        let Data::Histogram(histogram) = data(&gathered(), name) else {
            panic!("not a histogram");
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (2, Some(43.0)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 2);
        let at = |bound: f64| {
            point
                .explicit_bounds
                .iter()
                .position(|b| *b == bound)
                .unwrap()
        };
        assert_eq!(point.bucket_counts[at(5.0)], 1);
        assert_eq!(point.bucket_counts[at(50.0)], 1);
    }
}
