//! Access logs by gRPC (issue 6): a real server of Envoy's Access Log Service gets what Telemetry says; one that knows nothing
//! of it costs traffic nothing.

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::log_service::{LogService, Told};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::manifests::DENY_ADMIN;

/// Of requests only those that went wrong.
const MESH: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: requests
      envoyHttpAls:
        service: als.shop.svc.cluster.local
        port: 9000
        additionalRequestHeadersToLog: [X-User]
    - name: streams
      envoyTcpAls: {service: als.shop.svc.cluster.local, port: 9000, logName: db-log}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: requests, namespace: shop}
spec:
  accessLogging:
  - providers: [{name: requests}]
    filter: {expression: "response.code >= 400"}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: streams, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: db}]
  accessLogging:
  - providers: [{name: streams}]
"#;

#[tokio::test]
async fn a_log_service_is_told_what_telemetry_says_and_may_refuse() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("db", &[Port::new("tcp", 5432)]);
    lab.service("als", &[Port::new("grpc", 9000)]);
    let _web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    let _db = lab.pod("db", "db-a", Reach::Hbone, App::tcp_echo);
    let service = LogService::start(lab.free_address()).await;
    lab.pod_at("als", "als-a", Reach::Hbone, service.address);
    lab.write("policy", DENY_ADMIN);
    lab.write("logs", MESH);
    lab.variable("OTEL_BLRP_SCHEDULE_DELAY", 20);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let get = async |path: &str| {
        let headers = [("x-user", "me"), ("x-secret", "no")];
        client::send(client.to("web", 80), Method::GET, path, &headers, b"").await
    };
    assert_eq!(get("/fine").await.status(), 200);
    assert_eq!(get("/admin").await.status(), 403);
    let mut stream = TcpStream::connect(client.to("db", 5432)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    drop(stream);

    let both = |told: &Told| !told.requests.is_empty() && !told.streams.is_empty();
    let told = service.until("both entries", both).await;
    let mut logs: Vec<_> = told.identifiers.iter().map(|i| &*i.log_name).collect();
    logs.sort_unstable();
    assert_eq!(logs, ["db-log", "http_envoy_accesslog"]);
    let node = told.identifiers[0].node.as_ref().unwrap();
    assert!(node.id.starts_with("waypoint~"), "{node:?}");
    let [entry] = &told.requests[..] else {
        panic!("the filter: {:?}", told.requests)
    };
    let request = entry.request.as_ref().unwrap();
    assert_eq!(request.path, "/admin");
    let headers: Vec<_> = request.request_headers.iter().collect();
    assert_eq!(headers, [(&"x-user".to_owned(), &"me".to_owned())]);
    let response = entry.response.as_ref().unwrap();
    assert_eq!(response.response_code.unwrap().value, 403);
    let common = entry.common_properties.as_ref().unwrap();
    let tls = common.tls_properties.as_ref().unwrap();
    let peer = tls.peer_certificate_properties.as_ref().unwrap();
    let caller = "spiffe://cluster.local/ns/shop/sa/viewer";
    assert_eq!(peer.subject_alt_name[0].uri, caller);
    let [entry] = &told.streams[..] else {
        panic!("{:?}", told.streams)
    };
    let bytes = entry.connection_properties.unwrap();
    assert_eq!((bytes.received_bytes, bytes.sent_bytes), (5, 5));
    let common = entry.common_properties.as_ref().unwrap();
    assert!(common.upstream_remote_address.is_some(), "{common:?}");

    // A server without that service: entries are counted as failed, and requests answered as before.
    service.refuses(true);
    assert_eq!(get("/admin?lost").await.status(), 403);
    let failed = ("cairn_otlp_failed_total", ["signal=\"logs\""]);
    lab.cairn().metric_reaches(failed.0, &failed.1, 1.0).await;
    service.refuses(false);
    assert_eq!(get("/admin?again").await.status(), 403);
    // Who ends a stream right after its first batch may get that batch again.
    let again = |told: &Told| paths(told).any(|path| path == "/admin?again");
    let told = service.until("the next entry", again).await;
    assert!(told.identifiers.len() > 2, "a new stream says who sends it");

    // A server that wants to end its connections: the stream ends in good order, and what comes next goes into a new one.
    service.drain();
    let ends = |after: &Told| after.ended > told.ended;
    service.until("the end of the stream", ends).await;
    let before = service.told().identifiers.len();
    assert_eq!(get("/admin?elsewhere").await.status(), 403);
    let next = |told: &Told| paths(told).any(|path| path == "/admin?elsewhere");
    let told = service.until("the entry after", next).await;
    assert_eq!(told.identifiers.len(), before + 1);
    // The first entries may have come so shortly before their streams were ended that they count as failed.
    let streamed = ("cairn_otlp_streamed_total", ["signal=\"logs\""]);
    let cairn = lab.cairn();
    cairn.metric_reaches(streamed.0, &streamed.1, 2.0).await;
    let exported = ("cairn_otlp_exported_total", ["signal=\"logs\""]);
    let exported = lab.cairn().metric(exported.0, &exported.1).await;
    assert_eq!(exported, 0.0, "nobody said that it took any");
}

fn paths(told: &Told) -> impl Iterator<Item = &str> {
    let requests = told
        .requests
        .iter()
        .filter_map(|entry| entry.request.as_ref());
    requests.map(|request| &*request.path)
}

/// A log service, and a waypoint that tells it of requests that are denied.
async fn started(variables: &[(&str, &str)]) -> (Lab, LogService, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("als", &[Port::new("grpc", 9000)]);
    let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    let service = LogService::start(lab.free_address()).await;
    lab.pod_at("als", "als-a", Reach::Hbone, service.address);
    lab.write("policy", DENY_ADMIN);
    lab.write("logs", MESH);
    for (name, value) in variables {
        lab.variable(name, value);
    }
    lab.start().await;
    (lab, service, web)
}

#[tokio::test]
async fn entries_that_wait_are_sent_before_a_graceful_exit() {
    // Longer than the test may take: nothing but the exit sends them.
    let (mut lab, service, _web) = started(&[("OTEL_BLRP_SCHEDULE_DELAY", "600000")]).await;
    let client = lab.client("shop/viewer").await;
    for number in 0..3 {
        let path = format!("/admin?{number}");
        let answer = client::send(client.to("web", 80), Method::GET, &path, &[], b"").await;
        assert_eq!(answer.status(), 403);
    }
    assert_eq!(paths(&service.told()).count(), 0);
    let process = &mut lab.cairn_mut().process;
    process.signal("TERM");
    process.wait(std::time::Duration::from_secs(30)).await;
    let told = service.told();
    let mut got: Vec<_> = paths(&told).collect();
    got.sort_unstable();
    assert_eq!(got, ["/admin?0", "/admin?1", "/admin?2"]);
    assert_eq!(told.ended, 1, "and their stream in good order");
}

#[tokio::test]
async fn a_log_service_that_reads_nothing_or_is_gone_costs_a_bounded_queue_and_no_request() {
    let (lab, service, _web) = started(&[
        ("OTEL_BLRP_SCHEDULE_DELAY", "20"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "16"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "4"),
    ])
    .await;
    let client = lab.client("shop/viewer").await;
    let path = format!("/admin?{}", "x".repeat(30_000));
    let dropped = async || {
        let signal = ["signal=\"logs\""];
        let cairn = lab.cairn();
        cairn.metric("cairn_otlp_dropped_total", &signal).await
    };
    let load = async || {
        for _ in 0..200 {
            let answer = client::send(client.to("web", 80), Method::GET, &path, &[], b"").await;
            assert_eq!(answer.status(), 403);
        }
        let held = lab.cairn().metric("cairn_otlp_waiting_bytes", &[]).await;
        // The queue, and a batch that is being sent.
        let most = (16 + 4 + 4) as f64 * (path.len() + 4_096) as f64;
        assert!(held <= most, "{held} bytes wait");
    };
    service.stall();
    load().await;
    let stalled = dropped().await;
    assert!(stalled > 0.0, "what had no room is counted");
    drop(service);
    load().await;
    assert!(dropped().await > stalled, "what had no room is counted");
}
