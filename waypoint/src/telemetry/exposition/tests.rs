//! Golden text of a scrape.

use std::time::Duration;

use super::*;
use crate::telemetry::fixtures;
use crate::telemetry::metrics::Shard;
use crate::telemetry::tcp::TcpMeter;

fn scrape(registry: &Arc<Registry>) -> String {
    let pieces = Exposition::of_series(registry.clone());
    pieces
        .map(|p| String::from_utf8(p.to_vec()).unwrap())
        .collect()
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(100, "Kubernetes"))
}

/// The labels every series of these tests has up to `destination_cluster`.
const SHARED: &str = "reporter=\"waypoint\",source_workload=\"web\",source_canonical_service=\"web-canonical\",\
source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"web\",source_version=\"v1\",\
source_cluster=\"Kubernetes\",destination_workload=\"httpbin\",destination_workload_namespace=\"shop\",\
destination_principal=\"spiffe://cluster.local/ns/shop/sa/httpbin\",destination_app=\"httpbin\",\
destination_version=\"v2\",destination_service=\"httpbin.default.svc.cluster.local\",\
destination_canonical_service=\"httpbin-canonical\",destination_canonical_revision=\"v2\",\
destination_service_name=\"httpbin\",destination_service_namespace=\"default\",destination_cluster=\"Kubernetes\"";

#[test]
fn an_http_request_is_a_counter_and_three_histograms() {
    let registry = registry();
    let mut shard = Shard::new(registry.clone());
    shard.record(&fixtures::http(), Duration::from_micros(5_500));
    shard.record(&fixtures::http(), Duration::from_micros(500));
    let text = scrape(&registry);
    let labels = format!(
        "{SHARED},request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"mutual_tls\""
    );
    let histogram = |metric: &Metric, cumulative: [u64; 20], sum: &str| {
        let (name, help) = (metric.name, metric.help);
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        let bounds = BUCKETS
            .iter()
            .map(f64::to_string)
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(cumulative) {
            text += &format!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n");
        }
        text + &format!("{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} 2\n")
    };
    let expected = [
        format!(
            "# HELP istio_requests_total HTTP and gRPC requests, those denied by policy included\n# TYPE istio_requests_total counter\nistio_requests_total{{{labels}}} 2\n"
        ),
        histogram(
            &names::REQUEST_DURATION,
            [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
            "6",
        ),
        histogram(
            &names::REQUEST_BYTES,
            [0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
            "220",
        ),
        histogram(
            &names::RESPONSE_BYTES,
            [0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
            "440",
        ),
    ];
    assert_eq!(text, expected.concat());
}

#[test]
fn a_tcp_stream_counts_as_it_runs_and_its_end_has_the_flags() {
    let registry = registry();
    let mut shard = Shard::new(registry.clone());
    let mut exchange = fixtures::tcp();
    let mut meter = TcpMeter::open_in(&registry, shard.tcp_key(&exchange), &exchange);
    meter.report(4, 5);
    meter.report(4, 9);
    let of = |metric: &Metric, flags: &str, value: u64| {
        let name = metric.name;
        format!(
            "{name}{{{SHARED},request_protocol=\"tcp\",response_flags=\"{flags}\",connection_security_policy=\"mutual_tls\"}} {value}\n"
        )
    };
    let begin = |metric: &Metric| {
        let (name, help) = (metric.name, metric.help);
        format!("# HELP {name} {help}\n# TYPE {name} counter\n")
    };
    let running = [
        begin(&names::TCP_OPENED) + &of(&names::TCP_OPENED, "-", 1),
        begin(&names::TCP_CLOSED) + &of(&names::TCP_CLOSED, "-", 0),
        begin(&names::TCP_SENT) + &of(&names::TCP_SENT, "-", 9),
        begin(&names::TCP_RECEIVED) + &of(&names::TCP_RECEIVED, "-", 4),
    ];
    assert_eq!(scrape(&registry), running.concat());

    exchange.flags = "UF";
    meter.close_in(&registry, shard.tcp_key(&exchange), &exchange);
    let ended = [
        begin(&names::TCP_OPENED)
            + &of(&names::TCP_OPENED, "-", 1)
            + &of(&names::TCP_OPENED, "UF", 0),
        begin(&names::TCP_CLOSED)
            + &of(&names::TCP_CLOSED, "-", 0)
            + &of(&names::TCP_CLOSED, "UF", 1),
        begin(&names::TCP_SENT) + &of(&names::TCP_SENT, "-", 9) + &of(&names::TCP_SENT, "UF", 11),
        begin(&names::TCP_RECEIVED)
            + &of(&names::TCP_RECEIVED, "-", 4)
            + &of(&names::TCP_RECEIVED, "UF", 6),
    ];
    assert_eq!(scrape(&registry), ended.concat());
}

#[test]
fn what_is_not_known_has_istios_word_for_it() {
    let registry = registry();
    let mut shard = Shard::new(registry.clone());
    let mut exchange = fixtures::http();
    exchange.source = None;
    exchange.endpoint = None;
    exchange.service = None;
    let http = exchange.http.as_mut().unwrap();
    http.status = None;
    http.grpc = true;
    http.grpc_status = Some(4_000_000_000);
    shard.record(&exchange, Duration::ZERO);
    let expected = "istio_requests_total{reporter=\"waypoint\",source_workload=\"unknown\",\
source_canonical_service=\"unknown\",source_canonical_revision=\"latest\",source_workload_namespace=\"shop\",\
source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"unknown\",source_version=\"unknown\",\
source_cluster=\"unknown\",destination_workload=\"unknown\",destination_workload_namespace=\"unknown\",\
destination_principal=\"unknown\",destination_app=\"unknown\",destination_version=\"unknown\",\
destination_service=\"unknown\",destination_canonical_service=\"unknown\",\
destination_canonical_revision=\"unknown\",destination_service_name=\"unknown\",\
destination_service_namespace=\"unknown\",destination_cluster=\"unknown\",request_protocol=\"grpc\",\
response_code=\"0\",grpc_response_status=\"2\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"} 1";
    assert_eq!(scrape(&registry).lines().nth(2), Some(expected));
}

#[test]
fn a_family_that_spans_pieces_has_its_comments_once() {
    let registry = registry();
    let mut shard = Shard::new(registry.clone());
    for n in 0..2 * ROWS_PER_PIECE + 1 {
        let mut exchange = fixtures::http();
        exchange.service = Some(fixtures::service(&format!("s{n}")));
        shard.record(&exchange, Duration::ZERO);
    }
    let pieces = Exposition::of_series(registry.clone()).count();
    assert_eq!(pieces, 4 * 3);
    let text = scrape(&registry);
    assert_eq!(text.matches("# TYPE istio_requests_total ").count(), 1);
    assert_eq!(text.matches("# TYPE ").count(), 4);
    assert_eq!(
        text.matches("\nistio_requests_total{").count(),
        2 * ROWS_PER_PIECE + 1
    );
}

#[test]
fn a_whole_scrape_has_every_family_once_and_what_the_process_uses() {
    let registry = registry();
    Shard::new(registry.clone()).record(&fixtures::http(), Duration::ZERO);
    let text: Vec<_> = Exposition::new(registry).flatten().collect();
    let text = String::from_utf8(text).unwrap();
    for name in [
        "istio_requests_total",
        "istio_build",
        "cairn_build_info",
        "cairn_downstream_tunnels",
        "cairn_metric_series_overflow_total",
        "cairn_policy_verdicts_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert_eq!(
            text.matches(&format!("# TYPE {name} ")).count(),
            1,
            "{name}"
        );
    }
    assert!(text.contains(
        "cairn_policy_verdicts_total{policy=\"default\",rule=\"\",outcome=\"allow\"} 1\n"
    ));
    assert!(text.contains(&format!(
        "istio_build{{component=\"proxy\",tag=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    )));
}

#[test]
fn verdicts_are_counted_with_what_dry_run_policies_would_have_done() {
    let registry = registry();
    let mut shard = Shard::new(registry.clone());
    let mut exchange = fixtures::tcp();
    shard.record(&exchange, Duration::ZERO);
    exchange.verdict = Some(fixtures::denied());
    shard.record(&exchange, Duration::ZERO);
    let verdict = exchange.verdict.as_mut().unwrap();
    verdict.dry_run.as_mut().unwrap().verdict.allowed = false;
    shard.record(&exchange, Duration::ZERO);
    let scrape: Vec<u8> = Exposition::new(registry).flatten().collect();
    let text = String::from_utf8(scrape).unwrap();
    for line in [
        "cairn_policy_verdicts_total{policy=\"default\",rule=\"\",outcome=\"allow\"} 1\n",
        "cairn_policy_verdicts_total{policy=\"AuthorizationPolicy/default/no-writes\",rule=\"0\",outcome=\"deny\"} 2\n",
        "cairn_policy_dry_run_total{policy=\"AuthorizationPolicy/default/readers\",rule=\"1\",outcome=\"allow\"} 2\n",
        "cairn_policy_dry_run_verdicts_total{outcome=\"allow\",enforced=\"deny\"} 1\n",
        "cairn_policy_dry_run_verdicts_total{outcome=\"deny\",enforced=\"deny\"} 1\n",
        "cairn_policy_dry_run_verdicts_total{outcome=\"deny\",enforced=\"allow\"} 0\n",
        "cairn_policy_audit_total{policy=\"AuthorizationPolicy/default/watch\",rule=\"1\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn policies_beyond_the_limit_are_counted_as_other() {
    let registry = Arc::new(Registry::new(1, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    let mut exchange = fixtures::tcp();
    shard.record(&exchange, Duration::ZERO);
    exchange.verdict = Some(fixtures::denied());
    shard.record(&exchange, Duration::ZERO);
    shard.record(&exchange, Duration::ZERO);
    let scrape: Vec<u8> = Exposition::new(registry).flatten().collect();
    let text = String::from_utf8(scrape).unwrap();
    let line = "cairn_policy_verdicts_total{policy=\"other\",rule=\"\",outcome=\"other\"} 2\n";
    assert!(text.contains(line), "{text}");
}

/// Issue 6: a scrape with 100,000 series delays no request. 1,600 label sets are as many lines, and more.
#[test]
fn between_the_pieces_of_a_scrape_nothing_is_held() {
    let registry = Arc::new(Registry::new(10_000, "Kubernetes"));
    let mut shard = Shard::new(registry.clone());
    let of_status = |status: u16, flags: &'static str| {
        let mut exchange = fixtures::http();
        exchange.flags = flags;
        exchange.http.as_mut().unwrap().status = http::StatusCode::from_u16(status).ok();
        exchange
    };
    for status in 100..900 {
        for flags in ["", "UF"] {
            shard.record(&of_status(status, flags), Duration::from_millis(1));
        }
    }
    let mut scrape = Exposition::of_series(registry.clone());
    let begun = scrape.next().unwrap();
    // A request of another worker, with a label set that is new, while the scrape is under way.
    let (sender, receiver) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        let mut shard = Shard::new(registry);
        shard.record(&of_status(999, "UC"), Duration::from_millis(1));
        sender.send(()).unwrap();
    });
    let counted = receiver.recv_timeout(Duration::from_secs(60));
    assert!(counted.is_ok(), "it waits for the scrape");
    worker.join().unwrap();
    let rest: usize = scrape.map(|piece| lines(&piece)).sum();
    assert!(lines(&begun) + rest > 100_000);
}

fn lines(piece: &[u8]) -> usize {
    piece.iter().filter(|byte| **byte == b'\n').count()
}
