//! OpenTelemetry end to end (issue 6 item 3; specs/istio-waypoint.md 5.4): a real receiver of OTLP gets spans,
//! the access log and metrics; the application sees the context; a bad receiver costs traffic nothing.

use std::collections::BTreeMap;

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::collector::{Collector, Got, Mood, texts};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::memory::Memory;
use http::Method;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::manifests::DENY_ADMIN;

const ROUTE: &str = http_route!(
    "web",
    "  - retry: {attempts: 3, codes: [503]}
    backendRefs: [{name: web, port: 80}]
"
);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

struct Scene {
    lab: Lab,
    client: Client,
    collector: Collector,
    _app: App,
}

impl Scene {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let mut lab = Lab::new();
        let collector = Collector::start(lab.free_address()).await;
        lab.service("web", &[Port::new("http", 80)]);
        let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
        lab.write("route", ROUTE);
        lab.write("policy", DENY_ADMIN);
        let endpoint = format!("http://{}", collector.address);
        lab.variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        lab.variable("OTEL_BSP_SCHEDULE_DELAY", 20);
        for (name, value) in variables {
            lab.variable(name, value);
        }
        lab.start().await;
        let client = lab.client("shop/viewer").await;
        Self {
            lab,
            client,
            collector,
            _app: app,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> client::Answer {
        client::send(self.client.to("web", 80), Method::GET, path, headers, b"").await
    }

    async fn dropped(&self, name: &str) -> f64 {
        self.lab.cairn().metric(name, &["signal=\"traces\""]).await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn of(span: &Span) -> BTreeMap<String, String> {
    texts(&span.attributes)
}

fn server_of<'a>(got: &'a Got, path: &str) -> Option<&'a Span> {
    let is_it = |span: &&Span| {
        span.kind == SpanKind::Server as i32 && of(span).get("url.path").is_some_and(|p| p == path)
    };
    got.spans.iter().find(is_it)
}

/// Its client spans, in order.
fn attempts_of<'a>(got: &'a Got, server: &Span) -> Vec<&'a Span> {
    let below = |span: &&Span| span.parent_span_id == server.span_id;
    let mut attempts: Vec<_> = got.spans.iter().filter(below).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    attempts
}

#[tokio::test]
async fn a_retried_request_has_a_span_for_itself_and_one_for_each_attempt() {
    let scene = Scene::start(&[]).await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", &*traceparent), ("tracestate", "vendor=1")];
    let path = "/first/2/status/503/a";
    let answer = scene.get(path, &headers).await;
    assert_eq!(answer.status(), 200);

    let got = scene
        .collector
        .until("the span", |got| server_of(got, path).is_some())
        .await;
    let server = server_of(&got, path).unwrap();
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.trace_state, "vendor=1");
    let attributes = of(server);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        (
            "source.principal",
            "spiffe://cluster.local/ns/shop/sa/viewer",
        ),
        ("istio.source_namespace", "shop"),
        ("istio.destination_workload", "web-a"),
        ("istio.destination_namespace", "shop"),
        ("istio.mesh_id", "cluster.local"),
        (
            "upstream_cluster",
            "inbound-vip|80|http|web.shop.svc.cluster.local;",
        ),
        ("cairn.verdict", "allow"),
        ("cairn.route", "HTTPRoute/shop/web"),
        ("cairn.attempts", "3"),
    ] {
        assert_eq!(
            attributes.get(key).map(String::as_str),
            Some(value),
            "{key}: {attributes:?}"
        );
    }
    let events: Vec<_> = server.events.iter().map(|event| &*event.name).collect();
    assert_eq!(events, ["cairn.verdict", "cairn.retry", "cairn.retry"]);

    let attempts = attempts_of(&got, server);
    let statuses: Vec<_> = attempts
        .iter()
        .map(|a| of(a)["http.response.status_code"].clone())
        .collect();
    assert_eq!(statuses, ["503", "503", "200"]);
    // The application was told of the last attempt, in the client's trace.
    let echo = client::echo(&answer);
    let told = format!("00-{TRACE}-{}-01", hex(&attempts[2].span_id));
    assert_eq!(echo.header("traceparent"), Some(told));
    assert_eq!(echo.header("tracestate").as_deref(), Some("vendor=1"));
    for attempt in &attempts {
        assert_eq!(attempt.kind, SpanKind::Client as i32);
        assert!(attempt.start_time_unix_nano >= server.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= server.end_time_unix_nano);
    }
    let line = scene
        .lab
        .cairn()
        .logged("the request", |l| l["path"] == path)
        .await;
    assert_eq!(line["trace_id"], TRACE);
    let service = got.resource.get("service.name").map(String::as_str);
    assert_eq!(service, Some("waypoint.shop"), "{:?}", got.resource);
}

#[tokio::test]
async fn a_denial_names_its_policy_and_b3_is_answered_in_b3() {
    let scene = Scene::start(&[]).await;
    let b3 = format!("{TRACE}-{PARENT}-1");
    let denied = scene.get("/admin", &[("b3", &*b3)]).await;
    assert_eq!(denied.status(), 403);
    let allowed = scene.get("/fine", &[("b3", &*b3)]).await;
    let told = client::echo(&allowed).header("b3").unwrap();

    let both = |got: &Got| server_of(got, "/admin").is_some() && server_of(got, "/fine").is_some();
    let got = scene.collector.until("both spans", both).await;
    let server = server_of(&got, "/admin").unwrap();
    assert_eq!(hex(&server.trace_id), TRACE);
    let event = texts(&server.events[0].attributes);
    assert_eq!(event["cairn.verdict"], "deny");
    assert_eq!(event["cairn.policy"], "AuthorizationPolicy/shop/no-admin");
    assert_eq!(event["cairn.rule"], "0");
    assert!(attempts_of(&got, server).is_empty());
    let fine = server_of(&got, "/fine").unwrap();
    let attempt = hex(&attempts_of(&got, fine)[0].span_id);
    assert_eq!(told, format!("{TRACE}-{attempt}-1"));
}

#[tokio::test]
async fn what_the_client_decided_holds_and_the_rest_goes_by_the_ratio() {
    let scene = Scene::start(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ])
    .await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let answer = scene
        .get("/unsampled", &[("traceparent", &*unsampled)])
        .await;
    // Nobody is to think that there is a span between the client and the application.
    assert_eq!(client::echo(&answer).header("traceparent"), Some(unsampled));
    let answer = scene.get("/undecided", &[]).await;
    let told = client::echo(&answer).header("traceparent").unwrap();
    assert!(told.ends_with("-00"), "{told}");
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    scene.get("/sampled", &[("traceparent", &*sampled)]).await;
    // Batches keep their order, so that the others would have come before.
    let got = scene
        .collector
        .until("the sampled one", |got| {
            server_of(got, "/sampled").is_some()
        })
        .await;
    assert!(
        got.spans
            .iter()
            .all(|span| of(span).get("url.path").is_none_or(|p| p == "/sampled"))
    );
    let line = scene
        .lab
        .cairn()
        .logged("the undecided one", |l| l["path"] == "/undecided")
        .await;
    let id = line["trace_id"].as_str().unwrap();
    assert!(told.contains(id), "{told} {id}");
}

#[tokio::test]
async fn spans_access_log_and_metrics_go_by_grpc_with_headers_of_their_own() {
    let scene = Scene::start(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=lab",
        ),
    ])
    .await;
    scene.get("/admin", &[]).await;
    scene.get("/fine", &[]).await;
    let records = |got: &Got| got.records.len() >= 2;
    let got = scene.collector.until("two records", records).await;
    assert_eq!(
        got.headers.get("x-tenant").map(String::as_str),
        Some("seven")
    );
    assert_eq!(got.resource["deployment.environment.name"], "lab");
    let record = got
        .records
        .iter()
        .find(|r| texts(&r.attributes)["path"] == "/admin")
        .unwrap();
    let attributes = texts(&record.attributes);
    assert_eq!(attributes["verdict"], "deny");
    assert_eq!(attributes["policy"], "AuthorizationPolicy/shop/no-admin");
    assert_eq!(attributes["response_code"], "403");

    let got = scene
        .collector
        .until("the span", |got| server_of(got, "/admin").is_some())
        .await;
    let server = server_of(&got, "/admin").unwrap();
    assert_eq!(record.trace_id, server.trace_id);
    assert_eq!(record.span_id, server.span_id);

    let counted = |got: &Got| requests(got).is_some_and(|count| count >= 2.0);
    scene
        .collector
        .until("both requests as metrics", counted)
        .await;
    let exported = scene
        .lab
        .cairn()
        .metric("cairn_otlp_exported_total", &["signal=\"logs\""])
        .await;
    assert!(exported >= 2.0);
}

/// The last sum of all series of `istio_requests_total`.
fn requests(got: &Got) -> Option<f64> {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    let mut metrics = got.metrics.iter().rev();
    let metric = metrics.find(|metric| metric.name == "istio_requests_total")?;
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("not a sum: {metric:?}");
    };
    let value = |value: &Option<Value>| match value {
        Some(Value::AsDouble(value)) => *value,
        other => panic!("{other:?}"),
    };
    Some(
        sum.data_points
            .iter()
            .map(|point| value(&point.value))
            .sum(),
    )
}

#[tokio::test]
async fn a_collector_that_stalls_babbles_or_dies_costs_traffic_nothing() {
    const QUEUE: usize = 64;
    let queue = QUEUE.to_string();
    let scene = Scene::start(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", &*queue),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
    ])
    .await;
    scene.get("/before", &[]).await;
    scene
        .collector
        .until("a span", |got| server_of(got, "/before").is_some())
        .await;
    let own = own_kib(&scene);
    for mood in [Mood::Stalled, Mood::Babbling, Mood::Busy] {
        scene.collector.be(mood);
        let (dropped, failed) = (
            scene.dropped("cairn_otlp_dropped_total").await,
            scene.dropped("cairn_otlp_failed_total").await,
        );
        // More than all queues hold, and long paths.
        let path = format!("/load/{}", "x".repeat(30_000));
        for _ in 0..8 * QUEUE {
            let answer = scene.get(&path, &[]).await;
            assert_eq!(answer.status(), 200, "{mood:?}");
        }
        if mood == Mood::Stalled {
            // What waits is held, and a scrape tells of it.
            let held = scene.lab.cairn().metric("cairn_otlp_waiting_bytes", &[]);
            let held = held.await;
            assert!(held > path.len() as f64, "{held} bytes wait");
            assert!(held <= 16.0 * 1024.0 * 1024.0, "{held} bytes wait");
        }
        let lost = scene.dropped("cairn_otlp_dropped_total").await - dropped
            + scene.dropped("cairn_otlp_failed_total").await
            - failed;
        assert!(lost > 0.0, "{mood:?}");
    }
    // The paths alone of all these requests are 45 MiB.
    let grown = own_kib(&scene).saturating_sub(own);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    scene.collector.leave();
    for _ in 0..QUEUE {
        assert_eq!(scene.get("/gone", &[]).await.status(), 200);
    }
}

fn own_kib(scene: &Scene) -> u64 {
    Memory::of(scene.lab.cairn().process.id()).own
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_spans_again() {
    let scene = Scene::start(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]).await;
    scene.collector.be(Mood::Busy);
    scene.get("/while-busy", &[]).await;
    scene
        .collector
        .until("a request", |got| got.requests > 0)
        .await;
    scene.collector.be(Mood::Fine);
    // The same batch, tried again.
    scene
        .collector
        .until("the span", |got| server_of(got, "/while-busy").is_some())
        .await;
}

/// What the mesh and its Telemetry say, of a collector that has HBONE.
const MESH: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: otel
      opentelemetry:
        service: otel.shop.svc.cluster.local
        port: 4317
        grpc: {initialMetadata: [{name: x-tenant, value: seven}]}
    - name: logs
      envoyOtelAls:
        service: otel.shop.svc.cluster.local
        port: 4317
        logName: shop-log
        logFormat:
          text: "%REQ(:METHOD)% %REQ(X-USER)%"
          labels: {status: "%RESPONSE_CODE%", user: "%REQ(X-USER)%"}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: shop}
spec:
  tracing:
  - providers: [{name: otel}]
    randomSamplingPercentage: 100
    customTags:
      user: {header: {name: x-user, defaultValue: nobody}}
      site: {literal: {value: lab}}
  accessLogging:
  - providers: [{name: logs}]
    filter: {expression: "response.code >= 400"}
"#;

#[tokio::test]
async fn a_collector_of_the_mesh_gets_what_telemetry_says_over_hbone() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("otel", &[Port::new("grpc", 4317)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    let collector = Collector::start(lab.free_address()).await;
    lab.pod_at("otel", "otel-a", Reach::Hbone, collector.address);
    lab.write("route", ROUTE);
    lab.write("policy", DENY_ADMIN);
    lab.write("collectors", MESH);
    lab.variable("OTEL_BSP_SCHEDULE_DELAY", 20);
    lab.variable("OTEL_BLRP_SCHEDULE_DELAY", 20);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        client::send(client.to("web", 80), Method::GET, path, headers, b"").await
    };
    get("/fine", &[("x-user", "me")]).await;
    get("/admin", &[]).await;
    let both = |got: &Got| server_of(got, "/fine").is_some() && server_of(got, "/admin").is_some();
    let got = collector.until("both spans", both).await;
    let tags = |path| of(server_of(&got, path).unwrap());
    assert_eq!(
        (&*tags("/fine")["user"], &*tags("/fine")["site"]),
        ("me", "lab")
    );
    assert_eq!(tags("/admin")["user"], "nobody");

    let got = collector
        .until("a record", |got| !got.records.is_empty())
        .await;
    let [record] = &got.records[..] else {
        panic!("{:?}", got.records);
    };
    let attributes = texts(&record.attributes);
    assert_eq!(attributes["status"], "403");
    assert!(!attributes.contains_key("user"), "{attributes:?}");
    assert_eq!(record.trace_id, server_of(&got, "/admin").unwrap().trace_id);
    drop(app);
}
