//! What spans say of TCP streams and of the connections made for them.

use super::*;
use crate::recheck::Closure;

#[test]
fn a_sampled_tcp_stream_has_a_span_with_its_bytes_and_verdict_and_others_have_none() {
    let mut exchange = exchanges::tcp();
    let tracing = fixtures::tracing(vec![]);
    exchange.trace = Trace::of_stream(Some(&tracing), || 7);
    let [span] = &spans(exchange)[..] else {
        panic!("one span")
    };
    assert_eq!(span.name, "TCP httpbin.default.svc.cluster.local:8000");
    assert_eq!(span.kind, SpanKind::Server as i32);
    assert!(span.parent_span_id.is_empty());
    assert_eq!(
        span.end_time_unix_nano - span.start_time_unix_nano,
        12_000_000
    );
    for (key, value) in [
        ("network.transport", "tcp"),
        ("cairn.bytes_received", "10"),
        ("cairn.bytes_sent", "20"),
        ("cairn.verdict", "allow"),
        ("cairn.endpoint", "10.0.0.9:8080"),
        ("istio.destination_workload", "httpbin"),
        ("client.address", "10.0.0.7"),
    ] {
        assert_eq!(text(span, key), value, "{key}");
    }
    assert!(span.status.is_none());

    let mut never = Arc::into_inner(fixtures::tracing(vec![])).unwrap();
    never.sampler = Sampler::parent_or(0.0);
    let unsampled = Trace::of_stream(Some(&Arc::new(never)), || 7);
    assert!(!unsampled.is_recorded() && unsampled.id().is_none());
    assert!(Trace::of_stream(None, || 7).id().is_none());
}

/// A sampled stream whose second endpoint took the connection.
fn stream_at_its_second_endpoint() -> Exchange {
    let mut exchange = exchanges::tcp();
    let endpoint = exchange.endpoint.clone().unwrap();
    let mut trace = Trace::of_stream(Some(&fixtures::tracing(vec![])), || 7);
    trace.event(|| What::Verdict);
    trace.begin_attempt(&endpoint, || 21);
    trace.end_attempt(|attempt| attempt.fail("connect", "connection refused"));
    trace.begin_attempt(&endpoint, || 22);
    trace.note_attempt(|attempt| attempt.connected = Some(Instant::now()));
    exchange.trace = trace;
    exchange.upstream_local = Some("10.0.0.1:40000".parse().unwrap());
    exchange
}

#[test]
fn a_tcp_stream_has_a_client_span_for_each_connection_that_was_tried() {
    let spans = spans(stream_at_its_second_endpoint());
    let [server, refused, taken] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(server.events[0].name, "cairn.verdict");
    for (span, id) in [(refused, 21_u64), (taken, 22)] {
        assert_eq!(span.kind, SpanKind::Client as i32);
        assert_eq!(span.name, "TCP");
        assert_eq!(span.trace_id, server.trace_id);
        assert_eq!(span.parent_span_id, server.span_id);
        assert_eq!(span.span_id, id.to_be_bytes());
        for (key, value) in [
            ("network.transport", "tcp"),
            ("server.address", "10.0.0.9"),
            ("server.port", "8080"),
            (
                "upstream_cluster",
                "inbound-vip|8000|tcp|httpbin.default.svc.cluster.local;",
            ),
            ("istio.destination_workload", "httpbin"),
        ] {
            assert_eq!(text(span, key), value, "{key}");
        }
    }
    assert_eq!(text(refused, "error.type"), "connect");
    let status = refused.status.as_ref().unwrap();
    assert_eq!(status.code, StatusCode::Error as i32);
    assert_eq!(status.message, "connection refused");
    assert_eq!(text(refused, "cairn.bytes_sent"), "");

    // What the client sent is what the endpoint was sent, and the other way round.
    assert_eq!(text(taken, "cairn.bytes_sent"), "10");
    assert_eq!(text(taken, "cairn.bytes_received"), "20");
    assert_eq!(text(taken, "network.local.port"), "40000");
    assert_eq!(taken.status, None);
    assert_eq!(taken.events[0].name, "cairn.connected");
    assert_eq!(taken.end_time_unix_nano, server.end_time_unix_nano);
}

#[test]
fn a_tcp_stream_that_broke_is_an_error_of_itself_and_of_its_connection_alone() {
    let mut exchange = stream_at_its_second_endpoint();
    exchange.flags = "UC";
    let spans = spans(exchange);
    let errors: Vec<_> = spans.iter().map(|s| text(s, "error.type")).collect();
    assert_eq!(errors, ["UC", "connect", "UC"]);
    assert!(spans.iter().all(|span| span.status.is_some()));
}

/// What was allowed when it began does not become a denial of that moment.
#[test]
fn a_stream_that_a_new_policy_closed_has_its_verdict_when_it_came() {
    let mut exchange = stream_at_its_second_endpoint();
    exchange.closed_by(&Closure {
        snapshot: 9,
        verdict: Some(exchanges::denied()),
        reason: "a new rule matches".into(),
        details: "closed".into(),
    });
    let spans = spans(exchange);
    let [server, _, taken] = &spans[..] else {
        panic!("{spans:?}")
    };
    let [event] = &server.events[..] else {
        panic!("{:?}", server.events)
    };
    assert_eq!(find(&event.attributes, "cairn.verdict").unwrap(), "deny");
    // The first verdict came before the connection that it allowed.
    assert!(event.time_unix_nano >= taken.start_time_unix_nano);
}
