//! What the variables mean, and which of them keep the process from starting.

use super::*;

fn of(variables: &[(&str, &str)]) -> Result<Environment, Unusable> {
    let get = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Environment::of(&get)
}

const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[test]
fn nothing_said_means_nothing_exported() {
    let read = of(&[]).unwrap();
    assert_eq!(
        (&read.traces, &read.logs, &read.metrics),
        (&None, &None, &None)
    );
    assert_eq!(read.spans, Batching::default());
    assert_eq!(read.records.delay, Duration::from_secs(1));
    assert!(read.warnings.is_empty());
}

#[test]
fn the_endpoint_of_all_signals_is_for_spans_and_the_others_ask_for_it() {
    let read = of(&[(ALL, "http://collector:4318/base")]).unwrap();
    assert_eq!(read.traces.unwrap().path, "/base/v1/traces");
    assert_eq!((read.logs, read.metrics), (None, None));
    let read = of(&[
        (ALL, "http://collector:4318"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
    ])
    .unwrap();
    assert_eq!(read.logs.unwrap().path, "/v1/logs");
    let read = of(&[
        (ALL, "http://collector:4318"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ])
    .unwrap();
    assert_eq!(read.traces, None);
}

#[test]
fn an_endpoint_of_one_signal_is_taken_as_it_is() {
    let own = (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "https://metrics.example/push",
    );
    let metrics = of(&[own, (ALL, "http://other:1")])
        .unwrap()
        .metrics
        .unwrap();
    assert_eq!(
        (&*metrics.host, metrics.port, metrics.tls),
        ("metrics.example", 443, true)
    );
    assert_eq!(metrics.path, "/push");
}

#[test]
fn without_an_endpoint_it_is_this_machine() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let traces = of(&[("OTEL_TRACES_EXPORTER", "otlp"), grpc])
        .unwrap()
        .traces
        .unwrap();
    assert_eq!(
        (&*traces.host, traces.port, traces.protocol),
        ("localhost", 4317, Protocol::Grpc)
    );
    let traces = of(&[("OTEL_TRACES_EXPORTER", "otlp")])
        .unwrap()
        .traces
        .unwrap();
    assert_eq!((traces.port, traces.protocol), (4318, Protocol::Http));
}

#[test]
fn grpc_without_a_scheme_is_tls_unless_said_otherwise() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let tls = |more: &[(&str, &str)]| {
        let all = [&[grpc, (ALL, "collector:4317")], more].concat();
        of(&all).unwrap().traces.unwrap().tls
    };
    assert!(tls(&[]));
    assert!(!tls(&[("OTEL_EXPORTER_OTLP_INSECURE", "true")]));
}

#[test]
fn headers_and_attributes_are_percent_decoded() {
    let read = of(&[
        (ALL, "http://c:1"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20abc, x-tenant=7",
        ),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=pre%2Cprod",
        ),
    ])
    .unwrap();
    let headers = read.traces.unwrap().headers;
    assert_eq!(headers[0].1, "Bearer abc");
    assert_eq!(headers[1].0, "x-tenant");
    assert_eq!(read.resource[0].1, "pre,prod");
}

#[test]
fn messages_are_compressed_or_json_if_asked_for() {
    let to = |more: &[(&str, &str)]| {
        let mut variables = vec![(ALL, "http://c:1")];
        variables.extend(more);
        let read = of(&variables).unwrap();
        (read.traces.unwrap(), read.warnings)
    };
    let compression = "OTEL_EXPORTER_OTLP_COMPRESSION";
    assert!(to(&[(compression, "gzip")]).0.gzip);
    assert!(!to(&[(compression, "none")]).0.gzip);
    let own = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none");
    assert!(!to(&[(compression, "gzip"), own]).0.gzip);
    let (unknown, warnings) = to(&[(compression, "zstd")]);
    assert!(!unknown.gzip && warnings[0].contains("'zstd' is not gzip or none"));
    let (json, warnings) = to(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert_eq!((json.protocol, warnings.len()), (Protocol::Json, 0));
    let (unknown, warnings) = to(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml")]);
    assert_eq!(unknown.protocol, Protocol::Http);
    assert!(warnings[0].contains("'http/xml' is not grpc, http/protobuf or http/json"));
}

#[test]
fn what_would_send_data_elsewhere_or_in_the_clear_keeps_it_from_starting() {
    for (variable, value) in [
        (ALL, "ftp://c"),
        (ALL, "http://"),
        (ALL, "http://user:secret@c"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key:secret"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Basic abc,secret",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "b\u{e4}d=1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/dev/null"),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
    ] {
        let endpoint = (ALL, "http://c:4318");
        let read = of(&[(variable, value), endpoint]);
        let error = read.unwrap_err().to_string();
        assert!(error.starts_with(variable), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn numbers_and_words_that_are_not_known_are_warned_of_and_unset() {
    let read = of(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_PROPAGATORS", "jaeger,b3"),
        ("OTEL_LOGS_EXPORTER", "console"),
    ])
    .unwrap();
    assert_eq!(read.spans, Batching::default());
    assert_eq!(read.sampler, None);
    let propagation = read.propagation.unwrap();
    assert!(propagation.read.b3 && !propagation.read.w3c);
    assert_eq!(read.warnings.len(), 5, "{:?}", read.warnings);
}

#[test]
fn samplers_are_the_ones_of_the_specification() {
    let of = |name, ratio| {
        let read = of(&[
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ]);
        read.unwrap().sampler.unwrap()
    };
    assert_eq!(
        of("parentbased_traceidratio", "0.25"),
        Sampler::parent_or(0.25)
    );
    assert_eq!(of("parentbased_always_off", ""), Sampler::parent_or(0.0));
    let alone = Sampler {
        parent_first: false,
        ratio: 1.0,
    };
    assert_eq!(of("always_on", "0.1"), alone);
}

#[test]
fn a_batch_is_never_larger_than_the_queue() {
    let read = of(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]).unwrap();
    assert_eq!((read.spans.queue_max, read.spans.batch_max), (100, 100));
}

#[test]
fn disabled_means_nothing_at_all() {
    let read = of(&[("OTEL_SDK_DISABLED", "true"), (ALL, "not even looked at")]).unwrap();
    assert!(read.disabled && read.traces.is_none());
}
