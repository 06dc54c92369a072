//! How OpenTelemetry collectors are reached (issue 6 item 3): behind TLS, with messages that are compressed or JSON,
//! or not at all; and what they are told of TCP streams. What spans of requests say is in `tracing`.

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::collector::{Collector, Got, texts};
use cairn_conformance::lab::{Lab, Port, Reach};
use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A laboratory whose spans go to a URL, with more variables.
async fn started(url: String, variables: &[(&str, &str)]) -> (Lab, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.variable("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    lab.variable("OTEL_BSP_SCHEDULE_DELAY", 20);
    for (name, value) in variables {
        lab.variable(name, value);
    }
    lab.start().await;
    (lab, app)
}

async fn get(lab: &Lab, path: &str) {
    let client = lab.client("shop/viewer").await;
    let answer = client::send(client.to("web", 80), Method::GET, path, &[], b"").await;
    assert_eq!(answer.status(), 200);
}

fn has_path(got: &Got, path: &str) -> bool {
    let mut spans = got.spans.iter();
    spans.any(|span| {
        texts(&span.attributes)
            .get("url.path")
            .is_some_and(|p| p == path)
    })
}

/// A collector for this machine's address whose certificate vouches for itself, and that certificate in PEM.
async fn behind_tls() -> (Collector, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let address = "127.0.0.1:0".parse().unwrap();
    let collector =
        Collector::start_tls(address, made.cert.der().clone(), PrivateKeyDer::from(key)).await;
    (collector, made.cert.pem())
}

#[tokio::test]
async fn a_collector_behind_tls_gets_spans_if_its_certificate_is_vouched_for() {
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("collector.pem");
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let (collector, pem) = behind_tls().await;
        std::fs::write(&roots, pem).unwrap();
        let variables = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.to_str().unwrap()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let (lab, _app) = started(format!("https://{}", collector.address), &variables).await;
        get(&lab, "/secret").await;
        let what = format!("the span over {protocol}");
        collector.until(&what, |got| has_path(got, "/secret")).await;
    }
}

#[tokio::test]
async fn a_collector_that_nobody_vouches_for_gets_nothing() {
    let (collector, _) = behind_tls().await;
    let (_, other) = behind_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("other.pem");
    std::fs::write(&roots, other).unwrap();
    let trusted = [("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.to_str().unwrap())];
    let (lab, _app) = started(format!("https://{}", collector.address), &trusted).await;
    get(&lab, "/secret").await;
    let failed = ("cairn_otlp_failed_total", ["signal=\"traces\""]);
    lab.cairn().metric_reaches(failed.0, &failed.1, 1.0).await;
    assert_eq!(collector.got().requests, 0);
}

#[tokio::test]
async fn compressed_messages_are_understood_over_grpc_and_http() {
    for (protocol, header) in [
        ("grpc", "grpc-encoding"),
        ("http/protobuf", "content-encoding"),
        ("http/json", "content-encoding"),
    ] {
        let collector = Collector::start("127.0.0.1:0".parse().unwrap()).await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ];
        let (lab, _app) = started(format!("http://{}", collector.address), &variables).await;
        get(&lab, "/small").await;
        let what = format!("the span over {protocol}");
        let got = collector.until(&what, |got| has_path(got, "/small")).await;
        assert_eq!(got.headers.get(header).map(String::as_str), Some("gzip"));
    }
}

/// All three signals in JSON, read by the types that a collector's JSON is read by.
#[tokio::test]
async fn spans_access_log_and_metrics_go_as_json() {
    let collector = Collector::start("127.0.0.1:0".parse().unwrap()).await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
    ];
    let (lab, _app) = started(format!("http://{}", collector.address), &variables).await;
    get(&lab, "/json").await;
    let all = |got: &Got| {
        let counted = got.metrics.iter().any(|m| m.name == "istio_requests_total");
        has_path(got, "/json") && counted && !got.records.is_empty()
    };
    let got = collector.until("all three signals", all).await;
    let of = |kind: SpanKind| {
        let mut spans = got.spans.iter();
        spans.find(|span| span.kind == kind as i32).unwrap()
    };
    let (server, client) = (of(SpanKind::Server), of(SpanKind::Client));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(
        texts(&server.attributes)["http.response.status_code"],
        "200"
    );
    let [record] = &got.records[..] else {
        panic!("{:?}", got.records)
    };
    assert_eq!(
        (record.trace_id.len(), &record.trace_id),
        (16, &server.trace_id)
    );
    assert_eq!(record.span_id, server.span_id);
    assert_eq!(texts(&record.attributes)["path"], "/json");
    let failed = ("cairn_otlp_failed_total", ["signal=\"traces\""]);
    assert_eq!(lab.cairn().metric(failed.0, &failed.1).await, 0.0);
}

/// OTEL_SDK_DISABLED counts more than an endpoint; what was left would have been sent at the exit.
#[tokio::test]
async fn a_disabled_sdk_sends_nothing_and_leaves_the_context_alone() {
    let collector = Collector::start("127.0.0.1:0".parse().unwrap()).await;
    let disabled = [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
    ];
    let (mut lab, _app) = started(format!("http://{}", collector.address), &disabled).await;
    let client = lab.client("shop/viewer").await;
    let told = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", told)];
    let answer = client::send(client.to("web", 80), Method::GET, "/", &headers, b"").await;
    assert_eq!(
        client::echo(&answer).header("traceparent").as_deref(),
        Some(told)
    );
    let process = &mut lab.cairn_mut().process;
    process.signal("TERM");
    process.wait(std::time::Duration::from_secs(30)).await;
    assert_eq!(collector.got().requests, 0);
}

/// One span from the opening to the end, with bytes and verdict, and one of its connection to the endpoint; a
/// refused stream has the first alone.
#[tokio::test]
async fn a_tcp_stream_has_a_span_and_its_connection_another() {
    let mut lab = Lab::new();
    let collector = Collector::start("127.0.0.1:0".parse().unwrap()).await;
    lab.service("db", &[Port::new("tcp", 5432)]);
    let _db = lab.pod("db", "db-a", Reach::Hbone, App::tcp_echo);
    lab.write("policies", DENY_STRANGERS);
    lab.variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        format!("http://{}", collector.address),
    );
    lab.variable("OTEL_BSP_SCHEDULE_DELAY", 20);
    lab.start().await;
    let friend = lab.client("shop/friend").await;
    let mut stream = TcpStream::connect(friend.to("db", 5432)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    drop(stream);
    let stranger = lab.client("shop/stranger").await;
    let mut refused = TcpStream::connect(stranger.to("db", 5432)).await.unwrap();
    let mut nothing = Vec::new();
    let _ = refused.read_to_end(&mut nothing).await;

    let got = collector
        .until("all spans", |got| got.spans.len() >= 3)
        .await;
    let of = |verdict: &str| {
        let mut spans = got.spans.iter().map(|span| (span, texts(&span.attributes)));
        spans
            .find(|(_, of)| of.get("cairn.verdict").is_some_and(|v| v == verdict))
            .unwrap()
    };
    let (span, attributes) = of("allow");
    assert_eq!(span.name, "TCP db.shop.svc.cluster.local:5432");
    for (key, value) in [
        ("cairn.bytes_received", "5"),
        ("cairn.bytes_sent", "5"),
        (
            "source.principal",
            "spiffe://cluster.local/ns/shop/sa/friend",
        ),
        ("istio.destination_workload", "db-a"),
    ] {
        assert_eq!(
            attributes.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
    let clients = got
        .spans
        .iter()
        .filter(|s| s.kind == SpanKind::Client as i32);
    let [connection] = &clients.collect::<Vec<_>>()[..] else {
        panic!("one connection: {:?}", got.spans)
    };
    assert_eq!(connection.parent_span_id, span.span_id);
    assert_eq!(connection.trace_id, span.trace_id);
    assert!(connection.start_time_unix_nano >= span.start_time_unix_nano);
    assert_eq!(connection.end_time_unix_nano, span.end_time_unix_nano);
    assert_eq!(connection.events[0].name, "cairn.connected");
    assert_eq!(texts(&connection.attributes)["cairn.bytes_sent"], "5");
    let (_, attributes) = of("deny");
    assert_eq!(
        attributes["cairn.policy"],
        "AuthorizationPolicy/shop/no-strangers"
    );
    let line = lab
        .cairn()
        .logged("the stream", |l| l["verdict"] == "allow")
        .await;
    let id: String = span.trace_id.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(line["trace_id"], *id);
}

const DENY_STRANGERS: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-strangers, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: db}]
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/stranger]}}]}]
";
