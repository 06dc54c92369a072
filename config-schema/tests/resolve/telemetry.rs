//! Telemetry: which object counts for what, and what it says (specs/istio-waypoint.md 4.11, 5).

use std::sync::Arc;

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::snapshot::{
    AccessLog, IstioMetric, LogFormat, LogSink, OtlpProtocol, Snapshot, TagChange, TagSource,
    TelemetrySettings, TraceTarget,
};

use super::mesh::mesh_config;
use super::support::{Ask, key, shop_with};

const COLLECTOR: &str = "
apiVersion: v1
kind: Service
metadata: {name: otel, namespace: observability}
spec:
  clusterIP: 10.0.9.9
  ports:
  - {name: grpc, port: 4317}
  - {name: http, port: 4318}
";

/// The mesh configuration with a provider of every kind.
fn providers() -> String {
    mesh_config(
        "istio-system",
        "extensionProviders:
- name: otel
  opentelemetry: {service: otel.observability.svc.cluster.local, port: 4317, maxTagLength: 64}
- name: otel-http
  opentelemetry:
    service: otel.observability.svc.cluster.local
    port: 4318
    http: {path: /v1/traces, timeout: 3s, headers: [{name: X-Token, envName: TOKEN}]}
- {name: lines, envoyFileAccessLog: {path: /dev/stdout, logFormat: {text: '%REQ(:METHOD)%'}}}
- {name: objects, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {m: '%REQ(:METHOD)%'}}}}
- name: otel-logs
  envoyOtelAls: {service: otel.observability.svc.cluster.local, port: 4317}",
    )
}

fn with(objects: &[&str]) -> Snapshot {
    let mesh = providers();
    let mut all = vec![COLLECTOR, &mesh];
    all.extend(objects);
    shop_with(&all)
}

/// A Telemetry in a namespace, with these lines in its `spec`.
fn telemetry(namespace: &str, name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  {spec}"
    )
}

fn of<'s>(snapshot: &'s Snapshot, service: &str) -> &'s Arc<TelemetrySettings> {
    snapshot.telemetry.of_service(Some(&key(service)))
}

fn names(logs: &[AccessLog]) -> Vec<&str> {
    logs.iter().map(|log| &*log.provider).collect()
}

const ON_WEB: &str = "targetRefs: [{group: '', kind: Service, name: web}]\n";
const ON_WAYPOINT: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]\n";

#[test]
fn without_any_there_are_metrics_and_cairns_log_and_no_spans() {
    let snapshot = shop_with(&[]);
    assert_eq!(**of(&snapshot, "shop/web"), TelemetrySettings::default());
    let log = &of(&snapshot, "shop/web").access_log[0];
    assert_eq!(log.sink, LogSink::Stdout(LogFormat::Cairn));
}

/// What is written and not done is told of, whichever of both it is.
#[test]
fn a_request_id_that_is_to_decide_about_traces_is_told_that_it_does_not() {
    for value in [true, false] {
        let item = format!("{ON_WEB}tracing: [{{useRequestIdForTraceSampling: {value}}}]");
        let snapshot = with(&[&telemetry("shop", "ids", &item)]);
        let mut findings = snapshot.diagnostics.iter();
        let finding = findings.find(|d| d.path == "spec.tracing[0].useRequestIdForTraceSampling");
        let finding = finding.unwrap_or_else(|| panic!("{:#?}", snapshot.diagnostics));
        assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
    }
    let without = telemetry("shop", "ids", &format!("{ON_WEB}tracing: [{{}}]"));
    assert!(with(&[&without]).diagnostics.is_empty());
}

#[test]
fn root_then_waypoint_then_service_then_target() {
    let sampled =
        |percentage: u32| format!("tracing: [{{randomSamplingPercentage: {percentage}}}]");
    let root = telemetry("istio-system", "all", &sampled(1));
    let shop = telemetry("shop", "all", &sampled(2));
    let by_gateway = telemetry("shop", "gateway", &format!("{ON_WAYPOINT}{}", sampled(3)));
    let by_service = telemetry("shop", "web", &format!("{ON_WEB}{}", sampled(4)));
    let ppm = |objects: &[&str], service: &str| {
        let snapshot = with(objects);
        of(&snapshot, service).tracing.sampled_ppm
    };
    assert_eq!(
        ppm(&[], "shop/web"),
        None,
        "as the environment says, else 1 %, as at Istio"
    );
    assert_eq!(ppm(&[&root], "shop/web"), Some(10_000));
    assert_eq!(ppm(&[&root, &shop], "shop/web"), Some(20_000));
    assert_eq!(ppm(&[&root, &shop, &by_gateway], "shop/web"), Some(30_000));
    let all: [&str; 4] = [&root, &shop, &by_gateway, &by_service];
    assert_eq!(ppm(&all, "shop/web"), Some(40_000));
    assert_eq!(ppm(&all, "shop/api"), Some(30_000), "it is not aimed at");
}

#[test]
fn each_setting_is_inherited_by_itself() {
    let root = telemetry(
        "istio-system",
        "all",
        "tracing: [{providers: [{name: otel}], customTags: {a: {literal: {value: b}}}}]",
    );
    let web = telemetry(
        "shop",
        "web",
        &format!("{ON_WEB}tracing: [{{disableSpanReporting: true}}]"),
    );
    let snapshot = with(&[&root, &web]);
    let tracing = &of(&snapshot, "shop/web").tracing;
    assert!(!tracing.reports);
    assert!(matches!(&tracing.to, TraceTarget::Collector(c) if &*c.name == "otel"));
    assert_eq!(tracing.tags["a"], TagSource::Literal("b".into()));
    assert!(of(&snapshot, "shop/api").tracing.reports);
}

#[test]
fn what_is_for_clients_alone_is_not_for_a_waypoint() {
    let mode = |mode: &str| {
        let spec = format!("accessLogging: [{{match: {{mode: {mode}}}, disabled: true}}]");
        let snapshot = with(&[&telemetry("shop", "all", &spec)]);
        of(&snapshot, "shop/web").access_log.len()
    };
    assert_eq!(
        (mode("CLIENT"), mode("SERVER"), mode("CLIENT_AND_SERVER")),
        (1, 0, 0)
    );
}

#[test]
fn collectors_are_services_of_the_mesh() {
    let named = |name: &str| {
        let spec = format!("tracing: [{{providers: [{{name: {name}}}]}}]");
        let snapshot = with(&[&telemetry("shop", "all", &spec)]);
        (
            of(&snapshot, "shop/web").tracing.to.clone(),
            snapshot.said(),
        )
    };
    let (TraceTarget::Collector(grpc), said) = named("otel") else {
        panic!("otel is a collector");
    };
    assert_eq!(said, [""; 0]);
    assert_eq!(grpc.cluster.to_string(), "observability/otel:4317");
    assert_eq!((grpc.tag_bytes_max, grpc.timeout_ms), (64, 10_000));
    let (TraceTarget::Collector(http), _) = named("otel-http") else {
        panic!("otel-http is a collector");
    };
    assert_eq!(http.protocol, OtlpProtocol::Http("/v1/traces".into()));
    assert_eq!(http.timeout_ms, 3_000);
    let token = TagSource::Environment("TOKEN".into(), None);
    assert_eq!(http.headers, [("x-token".into(), token)]);
}

#[test]
fn who_can_not_get_spans_is_said_where_it_is_named() {
    for (name, said) in [
        (
            "lines",
            "error unsupported Telemetry/shop/all spec.tracing[0].providers[0].name",
        ),
        (
            "typo",
            "error backend-not-found Telemetry/shop/all spec.tracing[0].providers[0].name",
        ),
    ] {
        let spec = format!("tracing: [{{providers: [{{name: {name}}}]}}]");
        let snapshot = with(&[&telemetry("shop", "all", &spec)]);
        assert!(matches!(
            of(&snapshot, "shop/web").tracing.to,
            TraceTarget::Unusable(_)
        ));
        assert_eq!(snapshot.said(), [said]);
    }
}

#[test]
fn the_narrowest_list_of_logs_counts_and_filters_stay_with_their_provider() {
    let root = telemetry(
        "istio-system",
        "all",
        "accessLogging: [{providers: [{name: envoy}, {name: lines}], filter: {expression: response.code > 399}}]",
    );
    let shop = telemetry(
        "shop",
        "all",
        "accessLogging: [{providers: [{name: lines}]}]",
    );
    let off = telemetry(
        "shop",
        "web",
        &format!("{ON_WEB}accessLogging: [{{disabled: true}}]"),
    );
    let snapshot = with(&[&root]);
    let logs = &of(&snapshot, "shop/web").access_log;
    assert_eq!(names(logs), ["envoy", "lines"]);
    assert_eq!(
        &*logs[0].filter.as_ref().unwrap().text,
        "response.code > 399"
    );
    let snapshot = with(&[&root, &shop, &off]);
    let logs = &of(&snapshot, "shop/api").access_log;
    assert_eq!(names(logs), ["lines"]);
    assert_eq!(logs[0].filter, None, "it is named anew, without a filter");
    assert!(of(&snapshot, "shop/web").access_log.is_empty());
}

#[test]
fn a_filter_alone_is_for_the_log_there_is() {
    let spec = "accessLogging: [{filter: {expression: 'response.code >= 500'}}]";
    let snapshot = with(&[&telemetry("shop", "all", spec)]);
    let logs = &of(&snapshot, "shop/web").access_log;
    assert_eq!(names(logs), ["envoy"]);
    assert!(logs[0].filter.is_some());
}

#[test]
fn overrides_add_up_and_the_narrower_one_counts() {
    let root = telemetry(
        "istio-system",
        "all",
        "metrics:
- providers: [{name: prometheus}]
  overrides:
  - match: {metric: ALL_METRICS}
    tagOverrides: {source_app: {operation: REMOVE}, host: {value: request.host}}
  - match: {metric: REQUEST_SIZE, mode: SERVER}
    disabled: true
  - match: {metric: RESPONSE_SIZE, mode: CLIENT}
    disabled: true",
    );
    let web = telemetry(
        "shop",
        "web",
        &format!(
            "{ON_WEB}metrics: [{{overrides: [{{match: {{metric: REQUEST_COUNT}}, \
             tagOverrides: {{host: {{operation: REMOVE}}}}}}]}}]"
        ),
    );
    let snapshot = with(&[&root, &web]);
    let metrics = &of(&snapshot, "shop/web").metrics;
    let count = &metrics.overrides[&IstioMetric::RequestCount];
    assert_eq!(count.tags["host"], TagChange::Remove);
    assert_eq!(count.tags["source_app"], TagChange::Remove);
    let duration = &metrics.overrides[&IstioMetric::RequestDuration].tags["host"];
    assert!(matches!(duration, TagChange::Set(cel) if &*cel.text == "request.host"));
    assert!(metrics.overrides[&IstioMetric::RequestSize].disabled);
    assert!(!metrics.overrides[&IstioMetric::ResponseSize].disabled);
    assert!(metrics.enabled);
}

#[test]
fn what_an_override_can_not_mean_is_said_and_changes_nothing() {
    for (spec, said) in [
        (
            "{match: {metric: REQUESTS}, disabled: true}",
            "error bad-value Telemetry/shop/all spec.metrics[0].overrides[0].match.metric",
        ),
        (
            "{tagOverrides: {a-b: {value: request.host}}}",
            "error bad-value Telemetry/shop/all spec.metrics[0].overrides[0].tagOverrides.a-b",
        ),
        (
            "{tagOverrides: {host: {operation: UPSERT}}}",
            "error bad-value Telemetry/shop/all spec.metrics[0].overrides[0].tagOverrides.host",
        ),
        (
            "{tagOverrides: {host: {operation: DROP}}}",
            "error bad-value Telemetry/shop/all spec.metrics[0].overrides[0].tagOverrides.host",
        ),
    ] {
        let spec = format!("metrics: [{{overrides: [{spec}]}}]");
        let snapshot = with(&[&telemetry("shop", "all", &spec)]);
        assert_eq!(snapshot.said(), [said]);
        assert!(of(&snapshot, "shop/web").metrics.overrides.is_empty());
    }
}

#[test]
fn metrics_for_somebody_else_alone_are_not_counted_here() {
    let spec = "metrics: [{providers: [{name: otel-logs}]}]";
    let snapshot = with(&[&telemetry("shop", "all", spec)]);
    assert!(!of(&snapshot, "shop/web").metrics.enabled);
}

#[test]
fn of_two_for_a_namespace_the_older_counts() {
    let older = telemetry("shop", "b", "accessLogging: [{disabled: true}]").replace(
        "name: b,",
        "name: b, creationTimestamp: '2024-01-01T00:00:00Z',",
    );
    let younger = telemetry("shop", "a", "tracing: [{disableSpanReporting: true}]").replace(
        "name: a,",
        "name: a, creationTimestamp: '2025-01-01T00:00:00Z',",
    );
    let snapshot = with(&[&younger, &older]);
    let settings = of(&snapshot, "shop/web");
    assert!(settings.access_log.is_empty() && settings.tracing.reports);
    assert_eq!(snapshot.said(), ["warning conflict Telemetry/shop/a spec"]);
}

#[test]
fn one_with_a_selector_is_for_workloads() {
    let spec = "selector: {matchLabels: {app: web}}\naccessLogging: [{disabled: true}]";
    let snapshot = with(&[&telemetry("shop", "all", spec)]);
    assert_eq!(of(&snapshot, "shop/web").access_log.len(), 1);
    assert_eq!(
        snapshot.said(),
        ["info not-for-waypoint Telemetry/shop/all spec.selector"]
    );
}

fn mesh_log(lines: &str) -> Vec<AccessLog> {
    let mesh = mesh_config("istio-system", lines);
    let snapshot = shop_with(&[&mesh]);
    of(&snapshot, "shop/web").access_log.clone()
}

#[test]
fn the_mesh_says_whether_there_is_a_log_and_in_which_format() {
    assert_eq!(mesh_log("trustDomain: td"), [AccessLog::default()]);
    assert_eq!(mesh_log("accessLogFile: ''"), []);
    let LogSink::Stdout(LogFormat::Text(text)) = &mesh_log("accessLogFile: /dev/stdout")[0].sink
    else {
        panic!("text, as at Istio");
    };
    let line = text.template.as_str().unwrap();
    assert!(line.starts_with("[%START_TIME%]") && line.ends_with("%ROUTE_NAME%\n"));
    let json = mesh_log("accessLogFile: /dev/stdout\naccessLogEncoding: JSON");
    assert_eq!(json[0].sink, LogSink::Stdout(LogFormat::Cairn));
    let own = mesh_log("accessLogEncoding: JSON\naccessLogFormat: '{\"m\": \"%REQ(:METHOD)%\"}'");
    assert!(
        matches!(&own[0].sink, LogSink::Stdout(LogFormat::Json(f)) if f.template["m"] == "%REQ(:METHOD)%")
    );
}

/// What is said of a part of a Service must not hold for the whole.
#[test]
fn a_part_of_a_target_is_refused_and_telemetry_is_as_without() {
    for part in ["sectionName: http", "port: 80"] {
        let (field, _) = part.split_once(':').unwrap();
        let target = format!("targetRefs: [{{group: '', kind: Service, name: web, {part}}}]");
        let spec = format!("{target}\naccessLogging: [{{disabled: true}}]");
        let snapshot = with(&[&telemetry("shop", "part", &spec)]);
        assert_eq!(of(&snapshot, "shop/web").access_log.len(), 1);
        let said = format!("error unsupported Telemetry/shop/part spec.targetRefs[0].{field}");
        assert_eq!(snapshot.said(), [said]);
    }
}

#[test]
fn a_tag_by_a_formatter_is_refused_where_it_stands() {
    let spec = "tracing: [{customTags: {a: {formatter: {value: '%PROTOCOL%'}}, b: {literal: {value: c}}}}]";
    let snapshot = with(&[&telemetry("shop", "tags", spec)]);
    assert_eq!(of(&snapshot, "shop/web").tracing.tags.len(), 1);
    assert_eq!(
        snapshot.said(),
        ["error unsupported Telemetry/shop/tags spec.tracing[0].customTags.a.formatter"]
    );
}

#[test]
fn default_providers_hold_where_no_telemetry_says() {
    let mesh = providers().replace(
        "    extensionProviders:",
        "    defaultProviders: {tracing: [otel], accessLogging: [lines]}\n    extensionProviders:",
    );
    let snapshot = shop_with(&[COLLECTOR, &mesh]);
    let settings = of(&snapshot, "shop/web");
    assert!(matches!(&settings.tracing.to, TraceTarget::Collector(_)));
    assert_eq!(names(&settings.access_log), ["lines"]);
}

#[test]
fn default_providers_of_metrics_are_refused() {
    let mesh = providers().replace(
        "    extensionProviders:",
        "    defaultProviders: {metrics: [otel]}\n    extensionProviders:",
    );
    let snapshot = shop_with(&[COLLECTOR, &mesh]);
    assert_eq!(
        snapshot.said(),
        ["error unsupported ConfigMap/istio-system/istio data.mesh.defaultProviders.metrics[0]"]
    );
}

/// specs/istio-waypoint.md 5.1: the narrower one counts, and what is no time counts for nothing.
#[test]
fn the_reporting_interval_is_that_of_the_narrowest_level_that_says_one() {
    let of_root = telemetry("istio-system", "all", "metrics: [{reportingInterval: 30s}]");
    let of_service = |interval: &str| {
        let spec = format!("{ON_WEB}metrics: [{{reportingInterval: {interval}}}]");
        telemetry("shop", "web", &spec)
    };
    let interval = |objects: &[&str]| {
        let snapshot = with(objects);
        of(&snapshot, "shop/web").metrics.report_interval_ms
    };
    assert_eq!(interval(&[]), None);
    assert_eq!(interval(&[&of_root]), Some(30_000));
    assert_eq!(interval(&[&of_root, &of_service("500ms")]), Some(500));
    for wrong in ["50ms", "2h", "soon", "-1s"] {
        let of_service = of_service(wrong);
        let snapshot = with(&[&of_root, &of_service]);
        let found = of(&snapshot, "shop/web").metrics.report_interval_ms;
        assert_eq!(found, Some(30_000), "{wrong}");
        let told = snapshot.diagnostics.iter().any(|d| {
            d.path == "spec.metrics[0].reportingInterval"
                && d.message.contains("no duration from 100 ms to an hour")
        });
        assert!(told, "{wrong}: {:?}", snapshot.diagnostics);
    }
}

#[test]
fn a_collectors_format_that_is_too_long_is_told_and_not_used() {
    let long = "x".repeat(20_000);
    let mesh = mesh_config(
        "istio-system",
        &format!(
            "extensionProviders:
- name: logs
  envoyOtelAls:
    service: otel.observability.svc.cluster.local
    port: 4317
    logFormat: {{text: '{long}', labels: {{a: '{long}'}}}}"
        ),
    );
    let named = telemetry(
        "shop",
        "web",
        &format!("{ON_WEB}accessLogging: [{{providers: [{{name: logs}}]}}]"),
    );
    let snapshot = shop_with(&[COLLECTOR, &mesh, &named]);
    let LogSink::Collector(log) = &of(&snapshot, "shop/web").access_log[0].sink else {
        panic!("no collector");
    };
    assert!(
        log.text
            .template
            .as_str()
            .unwrap()
            .starts_with("[%START_TIME%]")
    );
    assert_eq!(log.labels.template, serde_json::json!({}));
    for (path, effect) in [
        ("logFormat.text", "the body is Istio's text"),
        ("logFormat.labels", "records have no attributes"),
    ] {
        let path = format!("data.mesh.extensionProviders[0].envoyOtelAls.{path}");
        let told = snapshot
            .diagnostics
            .iter()
            .any(|d| d.path == path && d.effect.as_deref() == Some(effect));
        assert!(told, "{path}: {:?}", snapshot.diagnostics);
    }
}
