//! Metrics that a Telemetry changes, from the settings to the scrape (specs/istio-waypoint.md 5.1).

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Expression, IstioMetric, MetricOverride, MetricSettings, TagChange, Telemetry,
    TelemetrySettings, WrittenAt,
};

use crate::telemetry::exchange::Exchange;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::fixtures;
use crate::telemetry::metrics::Shard;
use crate::telemetry::series::Registry;
use crate::telemetry::settings::AllSettings;

fn cel(text: &str) -> TagChange {
    let key = ObjectKey::new("shop", "all");
    let kind = Kind::Telemetry;
    TagChange::Set(Arc::new(Expression {
        text: text.into(),
        at: WrittenAt {
            origin: Arc::new(Origin { kind, key }),
            path: "spec".into(),
            location: None,
        },
    }))
}

/// A metric, whether it is disabled, and changes of its labels.
type Override<'a> = (IstioMetric, bool, &'a [(&'a str, TagChange)]);

/// An exchange of a service with these overrides.
fn with(overrides: &[Override<'_>], exchange: Exchange) -> Exchange {
    let overrides = overrides.iter().map(|(metric, disabled, tags)| {
        let tags = tags
            .iter()
            .map(|(label, tag)| ((*label).into(), tag.clone()));
        let change = MetricOverride {
            disabled: *disabled,
            tags: tags.collect(),
        };
        (*metric, change)
    });
    let settings = TelemetrySettings {
        metrics: MetricSettings {
            enabled: true,
            overrides: overrides.collect(),
            report_interval_ms: None,
        },
        ..TelemetrySettings::default()
    };
    let telemetry = Telemetry {
        waypoint: Arc::new(settings),
        services: Default::default(),
    };
    let all = AllSettings::compile(&telemetry, None);
    Exchange {
        settings: all.of_service(None).unusual(),
        ..exchange
    }
}

fn scrape(exchanges: &[Exchange], series_max: usize) -> String {
    let registry = Arc::new(Registry::new(series_max, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    for exchange in exchanges {
        shard.record(exchange, Duration::from_millis(7));
    }
    let pieces = Exposition::of_series(registry);
    let bytes: Vec<u8> = pieces.flatten().collect();
    String::from_utf8(bytes).unwrap()
}

/// The samples of a metric.
fn samples<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let of = |line: &&str| line.starts_with(name) && !line.starts_with('#');
    text.lines().filter(of).collect()
}

#[test]
fn a_label_is_set_added_and_removed_and_other_metrics_stay() {
    let tags = [
        ("request_host", cel("request.host")),
        ("source_app", cel("'shop-' + request.method")),
        ("source_version", TagChange::Remove),
    ];
    let exchange = with(
        &[(IstioMetric::RequestCount, false, &tags)],
        fixtures::http(),
    );
    let text = scrape(&[exchange], 10);
    let [sample] = samples(&text, "istio_requests_total{")[..] else {
        panic!("one series: {text}");
    };
    assert!(sample.contains("request_host=\"httpbin:8000\""), "{sample}");
    assert!(sample.contains("source_app=\"shop-GET\""), "{sample}");
    assert!(!sample.contains("source_version"), "{sample}");
    assert!(sample.ends_with(" 1"), "{sample}");
    let [count] = samples(&text, "istio_request_duration_milliseconds_count")[..] else {
        panic!("one series: {text}");
    };
    assert!(count.contains("source_version=\"v1\"") && !count.contains("request_host"));
}

#[test]
fn a_histogram_keeps_its_buckets() {
    let tags = [("method", cel("request.method"))];
    let exchange = with(
        &[(IstioMetric::RequestDuration, false, &tags)],
        fixtures::http(),
    );
    let text = scrape(&[exchange], 10);
    let buckets = samples(&text, "istio_request_duration_milliseconds_bucket{");
    assert_eq!(buckets.len(), 20);
    assert!(buckets.iter().all(|line| line.contains("method=\"GET\"")));
    let [sum] = samples(&text, "istio_request_duration_milliseconds_sum")[..] else {
        panic!("one sum: {text}");
    };
    assert!(sum.ends_with(" 7"), "{sum}");
}

#[test]
fn what_is_disabled_is_not_counted() {
    let exchange = with(&[(IstioMetric::RequestSize, true, &[])], fixtures::http());
    let text = scrape(&[exchange, fixtures::http()], 10);
    assert!(samples(&text, "istio_requests_total{")[0].ends_with(" 2"));
    let [count] = samples(&text, "istio_request_bytes_count")[..] else {
        panic!("one series: {text}");
    };
    assert!(
        count.ends_with(" 1"),
        "of the other exchange alone: {count}"
    );
}

/// 5.1: what can not be evaluated is `unknown`, names that there are not among it; what is no expression leaves the label
/// as it is.
#[test]
fn a_value_that_is_not_there_is_unknown() {
    let tags = [
        ("tenant", cel("request.headers['x-tenant']")),
        ("source_app", cel("no.such.attribute")),
        ("destination_app", cel("request.path ==")),
    ];
    let exchange = with(
        &[(IstioMetric::RequestCount, false, &tags)],
        fixtures::http(),
    );
    let text = scrape(&[exchange], 10);
    let sample = samples(&text, "istio_requests_total{")[0];
    assert!(sample.contains("tenant=\"unknown\""), "{sample}");
    assert!(sample.contains("source_app=\"unknown\""), "{sample}");
    assert!(sample.contains("destination_app=\"httpbin\""), "{sample}");
}

#[test]
fn values_that_clients_make_up_do_not_fill_the_memory() {
    let exchanges: Vec<Exchange> = (0..5)
        .map(|n| {
            let mut exchange = fixtures::http();
            exchange.http.as_mut().unwrap().authority = format!("host-{n}");
            let tags = [("host", cel("request.host"))];
            with(&[(IstioMetric::RequestCount, false, &tags)], exchange)
        })
        .collect();
    let text = scrape(&exchanges, 2);
    let series = samples(&text, "istio_requests_total{");
    assert_eq!(series.len(), 3, "{series:?}");
    let other = series.iter().find(|line| line.contains("host=\"other\""));
    assert!(other.unwrap().ends_with(" 3"), "{series:?}");
}

#[test]
fn comment_lines_come_once_for_each_metric() {
    let tags = [("method", cel("request.method"))];
    let changed = with(
        &[(IstioMetric::RequestCount, false, &tags)],
        fixtures::http(),
    );
    let text = scrape(&[fixtures::http(), changed], 10);
    assert_eq!(samples(&text, "istio_requests_total{").len(), 2);
    assert_eq!(text.matches("# TYPE istio_requests_total").count(), 1);
}
