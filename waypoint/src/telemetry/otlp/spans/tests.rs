//! What spans say of requests; of TCP streams: `streams`.

use std::sync::Arc;

use cairn_authz::Verdict;
use http::StatusCode as Http;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::Event as SpanEvent;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;

use super::super::attributes::find;
use super::super::endpoint::Signal;
use super::super::fixtures;
use super::super::pack::Head;
use super::super::process::Names;
use super::*;
use crate::limits::SPAN_EVENTS_MAX;
use crate::telemetry::fixtures as exchanges;
use crate::telemetry::trace::Trace;
use crate::telemetry::trace::sampler::Sampler;

mod streams;

fn spans(exchange: Exchange) -> Vec<Span> {
    let names = Names {
        gateway: Some(("shop", "waypoint")),
        trust_domain: "cluster.local",
        cluster: "Kubernetes",
        ..Names::default()
    };
    let process = Process::new(&names, &Default::default());
    let parcel = fixtures::told(
        &exchange,
        Duration::from_millis(12),
        process,
        (Signal::Traces, false),
    );
    let mut request = ExportTraceServiceRequest::decode(parcel.message.clone()).unwrap();
    let spans = request.resource_spans.remove(0).scope_spans.remove(0).spans;
    assert_eq!(spans.len() as u64, parcel.records);
    spans
}

fn text(span: &Span, key: &str) -> String {
    find(&span.attributes, key).unwrap_or_default()
}

/// Sampled, with two attempts: nobody answered the first, the second answered 200.
fn retried() -> Exchange {
    let mut exchange = fixtures::sampled();
    let endpoint = exchange.endpoint.clone().unwrap();
    let trace = &mut exchange.trace;
    trace.event(|| What::Verdict);
    trace.begin_attempt(&endpoint, || 21);
    trace.end_attempt(|attempt| attempt.fail("connect", "connection refused"));
    trace.event(|| What::Ejected {
        endpoint: endpoint.address,
        cause: "consecutive_5xx",
        for_ms: 30_000,
    });
    trace.event(|| What::Retry {
        cause: "connect",
        wait: Duration::from_millis(25),
    });
    trace.begin_attempt(&endpoint, || 22);
    trace.note_attempt(|attempt| {
        attempt.url = Some("http://httpbin:8000/a".into());
        attempt.answered(200, None);
    });
    exchange.attempts = 2;
    exchange
}

#[test]
fn a_request_has_a_server_span_below_the_clients_and_a_client_span_for_each_attempt() {
    let spans = spans(retried());
    let [server, first, second] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(server.kind, SpanKind::Server as i32);
    assert_eq!(
        server.parent_span_id,
        0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
    );
    assert_eq!(server.span_id, 1_u64.to_be_bytes());
    for (attempt, id) in [(first, 21_u64), (second, 22)] {
        assert_eq!(attempt.kind, SpanKind::Client as i32);
        assert_eq!(attempt.trace_id, server.trace_id);
        assert_eq!(attempt.parent_span_id, server.span_id);
        assert_eq!(attempt.span_id, id.to_be_bytes());
    }
    assert_eq!(text(first, "error.type"), "connect");
    assert_eq!(first.status.as_ref().unwrap().message, "connection refused");
    assert_eq!(text(second, "http.response.status_code"), "200");
    assert_eq!(text(second, "http.request.resend_count"), "1");
    assert_eq!(text(second, "url.full"), "http://httpbin:8000/a");
    assert_eq!(second.status, None);
    assert_eq!(second.end_time_unix_nano, server.end_time_unix_nano);
}

#[test]
fn times_are_those_of_the_exchange() {
    let spans = spans(fixtures::sampled());
    let [server] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(server.start_time_unix_nano, 1_793_795_696_789_000_000);
    assert_eq!(server.end_time_unix_nano, 1_793_795_696_801_000_000);
}

#[test]
fn the_server_span_has_the_conventions_of_http_and_istios_tags() {
    let server = spans(fixtures::sampled()).remove(0);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.query", "b=1"),
        ("url.scheme", "http"),
        ("server.address", "httpbin"),
        ("server.port", "8000"),
        ("client.address", "10.0.0.7"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("user_agent.original", "curl/8"),
        ("component", "proxy"),
        ("guid:x-request-id", "id-1"),
        ("response_flags", "-"),
        (
            "upstream_cluster",
            "inbound-vip|8000|http|httpbin.default.svc.cluster.local;",
        ),
        ("istio.mesh_id", "cluster.local"),
        ("istio.namespace", "shop"),
        ("istio.canonical_service", "waypoint"),
        ("istio.cluster_id", "Kubernetes"),
        ("istio.source_workload", "web"),
        ("istio.source_namespace", "shop"),
        ("istio.source_canonical_service", "web-canonical"),
        ("istio.destination_workload", "httpbin"),
        ("istio.destination_app_version", "v2"),
        ("istio.destination_workload_type", "deployment"),
        ("istio.destination_instance_name", "httpbin-5d4f-x"),
        ("cairn.verdict", "allow"),
        ("cairn.snapshot", "3"),
        ("env", "lab"),
    ] {
        assert_eq!(text(&server, key), value, "{key}");
    }
    assert_eq!(server.name, "GET");
}

#[test]
fn a_denial_names_policy_rule_and_reason_in_attributes_and_event() {
    let mut exchange = fixtures::sampled();
    exchange.http.as_mut().unwrap().status = Some(Http::FORBIDDEN);
    exchange.verdict = Some(exchanges::denied());
    exchange.reason = Some("the rule matches".into());
    exchange.trace.event(|| What::Verdict);
    let server = spans(exchange).remove(0);
    let event = &server.events[0];
    assert_eq!(event.name, "cairn.verdict");
    for attributes in [&server.attributes, &event.attributes] {
        let of = |key| find(attributes, key).unwrap();
        assert_eq!(of("cairn.verdict"), "deny");
        assert_eq!(of("cairn.policy"), "AuthorizationPolicy/default/no-writes");
        assert_eq!(of("cairn.rule"), "0");
        assert_eq!(of("cairn.reason"), "the rule matches");
    }
    // A refusal is no failure of the server (OpenTelemetry's conventions for HTTP, "Status").
    assert_eq!(server.status, None);
}

#[test]
fn events_tell_of_retries_and_ejections() {
    let server = spans(retried()).remove(0);
    let names: Vec<_> = server.events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["cairn.verdict", "cairn.ejection", "cairn.retry"]);
    let of = |event: usize, key| find(&server.events[event].attributes, key).unwrap();
    assert_eq!(of(1, "cairn.ejection.cause"), "consecutive_5xx");
    assert_eq!(of(1, "cairn.ejection.endpoint"), "10.0.0.9:8080");
    assert_eq!(of(2, "cairn.retry.cause"), "connect");
    assert_eq!(of(2, "cairn.retry.wait_ms"), "25");
}

#[test]
fn errors_of_the_server_and_clients_that_left_are_failures() {
    let failing = |status: Option<Http>, flags| {
        let mut exchange = fixtures::sampled();
        exchange.http.as_mut().unwrap().status = status;
        exchange.flags = flags;
        spans(exchange).remove(0)
    };
    let broken = failing(Some(Http::SERVICE_UNAVAILABLE), "UH");
    assert_eq!(text(&broken, "error.type"), "503");
    assert_eq!(broken.status.unwrap().code, StatusCode::Error as i32);
    let gone = failing(None, "DC");
    assert_eq!(text(&gone, "error.type"), "DC");
    assert_eq!(text(&gone, "http.response.status_code"), "");
    assert_eq!(failing(Some(Http::NOT_FOUND), "").status, None);
}

#[test]
fn methods_that_clients_make_up_are_no_names() {
    let mut exchange = fixtures::sampled();
    exchange.http.as_mut().unwrap().method = "BREW".parse().unwrap();
    let server = spans(exchange).remove(0);
    assert_eq!(server.name, "HTTP");
    assert_eq!(text(&server, "http.request.method"), "_OTHER");
    assert_eq!(text(&server, "http.request.method_original"), "BREW");
}

#[test]
fn a_grpc_call_names_its_service_and_method() {
    let mut exchange = fixtures::sampled();
    let http = exchange.http.as_mut().unwrap();
    (http.grpc, http.grpc_status) = (true, Some(5));
    http.path = "/shop.Cart/Add".into();
    let server = spans(exchange).remove(0);
    assert_eq!(text(&server, "rpc.service"), "shop.Cart");
    assert_eq!(text(&server, "rpc.method"), "Add");
    assert_eq!(text(&server, "rpc.grpc.status_code"), "5");
}

#[test]
fn a_request_that_ended_before_policy_has_no_verdict() {
    let mut exchange = fixtures::sampled();
    exchange.verdict = None::<Verdict>;
    let server = spans(exchange).remove(0);
    assert_eq!(find(&server.attributes, "cairn.verdict"), None);
}

/// Numbers of fields are written by hand: nothing of a span may be in another one's place. What the attributes are is said
/// by the other tests, and how they are written by those of `pairs`.
#[test]
fn a_whole_span_is_read_as_it_was_meant() {
    let mut exchange = fixtures::sampled();
    let headers = http::HeaderMap::from_iter(
        [
            ("traceparent", fixtures::TRACEPARENT),
            ("tracestate", "a=b"),
        ]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())),
    );
    exchange.trace = Trace::begin(&headers, &fixtures::tracing(vec![]), || 1);
    exchange.http.as_mut().unwrap().status = Some(Http::SERVICE_UNAVAILABLE);
    exchange.reason = Some("no endpoint is left".into());
    for _ in 0..=SPAN_EVENTS_MAX {
        exchange.trace.event(|| What::Retry {
            cause: "connect",
            wait: Duration::from_millis(25),
        });
    }
    let server = spans(exchange).remove(0);
    assert!(!server.attributes.is_empty());
    assert_eq!(server.events.len(), SPAN_EVENTS_MAX);
    let event = server.events[0].clone();
    assert_eq!(event.attributes.len(), 2);
    assert!(event.time_unix_nano >= server.start_time_unix_nano);
    let expected = SpanEvent {
        time_unix_nano: event.time_unix_nano,
        name: "cairn.retry".into(),
        attributes: event.attributes.clone(),
        dropped_attributes_count: 0,
    };
    assert_eq!(event, expected);
    let expected = Span {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128
            .to_be_bytes()
            .to_vec(),
        span_id: 1_u64.to_be_bytes().to_vec(),
        trace_state: "a=b".into(),
        parent_span_id: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes().to_vec(),
        flags: 1,
        name: "GET".into(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: 1_793_795_696_789_000_000,
        end_time_unix_nano: 1_793_795_696_801_000_000,
        attributes: server.attributes.clone(),
        dropped_attributes_count: 0,
        events: server.events.clone(),
        dropped_events_count: 1,
        links: vec![],
        dropped_links_count: 0,
        status: Some(Status {
            message: "no endpoint is left".into(),
            code: StatusCode::Error as i32,
        }),
    };
    assert_eq!(server, expected);
}

/// The same request, once with Istio's tags and once without, as another place of the mesh may have it.
fn with_tags_and_without(
    base: &Exchange,
    change: exchanges::Change,
    failed: bool,
) -> [Exchange; 2] {
    [true, false].map(|istio_tags| {
        let mut exchange = fixtures::sampled();
        let mut tracing = Arc::into_inner(fixtures::tracing(vec![])).unwrap();
        tracing.istio_tags = istio_tags;
        exchange.trace = Trace::begin(&http::HeaderMap::new(), &Arc::new(tracing), || 1);
        attempted(exchange, base, change, failed)
    })
}

/// A request with one attempt, which was answered, or an attempt that failed.
fn attempted(
    mut exchange: Exchange,
    base: &Exchange,
    change: exchanges::Change,
    failed: bool,
) -> Exchange {
    // The objects are the same for all, as they are in a snapshot.
    exchange.source.clone_from(&base.source);
    exchange.service.clone_from(&base.service);
    exchange.endpoint.clone_from(&base.endpoint);
    exchange.origin.clone_from(&base.origin);
    (exchange.started, exchange.started_at) = (base.started, base.started_at);
    change(&mut exchange);
    exchange.trace.event(|| What::Verdict);
    if let Some(endpoint) = exchange.endpoint.clone() {
        exchange.trace.begin_attempt(&endpoint, || 21);
        exchange.trace.note_attempt(|attempt| match failed {
            true => attempt.fail("connect", "connection refused"),
            false => attempt.answered(if exchange.attempts == 2 { 503 } else { 200 }, None),
        });
    }
    exchange
}

/// What a worker that has told of others before says of requests is what one says to which each is the first: nothing is
/// taken for what differs in one thing.
#[test]
fn spans_say_the_same_whoever_was_told_of_before() {
    let process = || Process::new(&Names::default(), &Default::default());
    let exchanges = exchanges::CHANGES.iter().enumerate();
    let base = exchanges::http();
    let exchanges: Vec<_> = exchanges
        .flat_map(|(n, change)| with_tags_and_without(&base, *change, n % 5 == 4))
        .collect();
    let head = Head::new(&Default::default(), &Default::default());
    let head = Arc::new(head);
    let encoded = |exchange: &Exchange, known: &mut Known| {
        let mut pack = Pack::new(head.clone(), Arc::default(), 0);
        let seen = fixtures::seen(exchange, Duration::from_millis(12));
        let to = (&mut Pairs::default(), known);
        add(&seen, &process(), to, &mut pack);
        pack.finish().remove(0).message
    };
    let mut known = Known::default();
    let mut all = std::collections::HashSet::new();
    for round in 0..3 {
        for (n, exchange) in exchanges.iter().enumerate() {
            let expected = encoded(exchange, &mut Known::default());
            assert_eq!(encoded(exchange, &mut known), expected, "{round}: {n}");
            all.insert(expected);
        }
    }
    // They do differ: of what changes, lines of the access log alone say five things.
    assert!(all.len() >= exchanges.len() - 12, "{}", all.len());
}
