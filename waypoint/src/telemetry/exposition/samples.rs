//! One label set as a scrape shows it: the names and values of its labels, and its numbers added up over all
//! threads. Which label sets there are, and in which order, is in `exposition`.

use std::sync::Arc;

use prometheus::proto::{self, LabelPair, MetricType};

use crate::telemetry::changes::LabelSet;
use crate::telemetry::instruments::{counter_sample, label_pairs, sample};
use crate::telemetry::labels::OTHER;
use crate::telemetry::names::{BUCKETS, Metric};
use crate::telemetry::series::{
    ChangedSeries, HistogramTotal, HttpKey, PolicyKey, PolicyName, Registry, Row, Tally, TcpKey,
};

/// A label set of policies: `policy` as in the access log, `default` where none decided.
pub(super) fn policy_sample(
    metric: &Metric,
    (key, threads): &Row<PolicyKey, Tally>,
) -> proto::Metric {
    let policy = match &key.policy {
        PolicyName::Default => "default".to_owned(),
        PolicyName::Object(origin) => origin.to_string(),
        PolicyName::Other => OTHER.to_owned(),
    };
    let rule = key.rule.map(|rule| rule.to_string()).unwrap_or_default();
    let labels = [&*policy, &*rule, key.outcome];
    let count: u64 = threads.iter().map(|count| count.get()).sum();
    let labels = labels.get(..metric.labels.len()).unwrap_or_default();
    sample(metric, labels, count as f64)
}

/// A label set that was changed; its names are its own.
pub(super) fn changed_sample(
    metric: &Metric,
    unit: f64,
    (labels, threads): &Row<LabelSet, ChangedSeries>,
) -> proto::Metric {
    let names: Vec<&str> = labels.iter().map(|(name, _)| &**name).collect();
    let values: Vec<&str> = labels.iter().map(|(_, value)| &**value).collect();
    let pairs = label_pairs(&names, &values);
    if metric.kind == MetricType::COUNTER {
        let total: u64 = threads.iter().map(|s| s.counter.get()).sum();
        return counter_sample(pairs, total as f64);
    }
    let mut total = HistogramTotal::default();
    threads.iter().for_each(|s| s.histogram.add_to(&mut total));
    histogram_sample(pairs, &BUCKETS, &total, unit)
}

/// `bounds` are those of the recording; counts beyond them belong to the last, open bucket.
pub(super) fn histogram_sample(
    labels: Vec<LabelPair>,
    bounds: &[f64],
    total: &HistogramTotal,
    unit: f64,
) -> proto::Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(bounds.len());
    for (bound, count) in bounds.iter().zip(&total.counts) {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_sum(total.sum as f64 / unit);
    histogram.set_sample_count(total.counts.iter().sum());
    let mut sample = proto::Metric::from_label(labels);
    sample.set_histogram(histogram);
    sample
}

/// Label values that HTTP and TCP share, in order.
fn shared_labels(
    registry: &Registry,
    (source, destination, service): (u32, u32, u32),
) -> Option<Vec<Arc<str>>> {
    let source = registry.sources.get(source)?;
    let destination = registry.destinations.get(destination)?;
    let service = registry.services.get(service)?;
    Some(vec![
        Arc::from("waypoint"),
        source.workload.clone(),
        source.canonical_service.clone(),
        source.canonical_revision.clone(),
        source.workload_namespace.clone(),
        source.principal.clone(),
        source.app.clone(),
        source.version.clone(),
        source.cluster.clone(),
        destination.workload.clone(),
        destination.workload_namespace.clone(),
        destination.principal.clone(),
        destination.app.clone(),
        destination.version.clone(),
        service.host.clone(),
        destination.canonical_service.clone(),
        destination.canonical_revision.clone(),
        service.name.clone(),
        service.namespace.clone(),
        destination.cluster.clone(),
    ])
}

pub fn http_labels(registry: &Registry, key: &HttpKey) -> Option<Vec<Arc<str>>> {
    let mut labels = shared_labels(registry, (key.source, key.destination, key.service))?;
    let grpc_status = key.grpc_status.map(|s| s.to_string());
    let (protocol, status) = if *key == HttpKey::OTHER {
        (OTHER, OTHER.to_owned())
    } else {
        (
            if key.grpc { "grpc" } else { "http" },
            key.status.to_string(),
        )
    };
    labels.extend([
        Arc::from(protocol),
        Arc::from(status),
        Arc::from(grpc_status.unwrap_or_default()),
        Arc::from(flags(key.flags)),
        Arc::from(SECURITY_POLICY),
    ]);
    Some(labels)
}

pub fn tcp_labels(registry: &Registry, key: &TcpKey) -> Option<Vec<Arc<str>>> {
    let mut labels = shared_labels(registry, (key.source, key.destination, key.service))?;
    labels.extend([
        Arc::from("tcp"),
        Arc::from(flags(key.flags)),
        Arc::from(SECURITY_POLICY),
    ]);
    Some(labels)
}

/// Istio compares the client's certificate with the waypoint's own, not with the endpoint's
/// (specs/istio-waypoint.md 5.1), and without both there is no tunnel.
const SECURITY_POLICY: &str = "mutual_tls";

fn flags(flags: &'static str) -> &'static str {
    if flags.is_empty() { "-" } else { flags }
}
