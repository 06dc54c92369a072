//! Golden lines: what a reader of the log sees, whole and in order.

use std::time::UNIX_EPOCH;

use http::StatusCode;

use super::super::time::TimeText;
use super::*;
use crate::telemetry::fixtures;

fn line(exchange: &Exchange) -> String {
    let mut time = TimeText::default();
    let line = Line::new(
        exchange,
        time.text(exchange.started_at),
        Duration::from_micros(5_900),
    );
    let mut text = Vec::new();
    line.write(&mut text).unwrap();
    // By hand or not, it is the same.
    assert_eq!(text, serde_json::to_vec(&line).unwrap());
    let mut around = Vec::new();
    let alike = line.alike().unwrap();
    line.write_around(&alike, &mut around).unwrap();
    assert_eq!(around, text);
    String::from_utf8(text).unwrap()
}

/// A golden line is written with a key per row; only the line breaks are taken out.
fn golden(rows: &str) -> String {
    let rows: Vec<_> = rows.lines().map(str::trim).collect();
    rows.concat()
}

#[test]
fn an_http_request_that_was_answered() {
    let expected = golden(
        r#"{"start_time":"2026-11-04T12:34:56.789Z",
        "route_name":"default",
        "method":"GET",
        "path":"/a?b=1",
        "protocol":"HTTP/1.1",
        "response_code":200,
        "response_flags":"-",
        "response_code_details":"via_upstream",
        "connection_termination_details":null,
        "bytes_received":10,
        "bytes_sent":20,
        "duration":5,
        "upstream_service_time":"4",
        "x_forwarded_for":null,
        "user_agent":"curl/8",
        "request_id":"id-1",
        "authority":"httpbin:8000",
        "upstream_host":"10.0.0.9:8080",
        "upstream_cluster":"inbound-vip|8000|http|httpbin.default.svc.cluster.local;",
        "upstream_local_address":null,
        "downstream_local_address":"10.96.1.2:8000",
        "downstream_remote_address":"10.0.0.7:41000",
        "upstream_transport_failure_reason":null,
        "requested_server_name":null,
        "source_principal":"spiffe://cluster.local/ns/shop/sa/web",
        "destination_principal":"spiffe://cluster.local/ns/shop/sa/httpbin",
        "source_workload":"web",
        "destination_workload":"httpbin",
        "destination_service":"httpbin.default.svc.cluster.local",
        "tunnel_authority":"10.96.1.2:8000",
        "attempts":1,
        "retry_denied":null,
        "verdict":"allow",
        "policy":null,
        "rule":null,
        "reason":null,
        "audit":[],
        "dry_run":[],
        "dry_run_verdict":null,
        "dry_run_policy":null,
        "dry_run_rule":null,
        "snapshot":3,"trace_id":null}"#,
    );
    assert_eq!(line(&fixtures::http()), expected);
}

#[test]
fn an_http_request_that_policy_denied() {
    let mut exchange = fixtures::http();
    let verdict = fixtures::denied();
    exchange.details = verdict.response_code_details().unwrap().into();
    exchange.verdict = Some(verdict);
    exchange.reason = Some("method POST is in the list of \"no-writes\"".into());
    exchange.endpoint = None;
    exchange.attempts = 0;
    let http = exchange.http.as_mut().unwrap();
    http.status = Some(StatusCode::FORBIDDEN);
    http.upstream_service_time = None;
    let line: serde_json::Value = serde_json::from_str(&line(&exchange)).unwrap();
    for (key, value) in [
        ("response_code", serde_json::json!(403)),
        (
            "response_code_details",
            "rbac_access_denied_matched_policy[ns[default]-policy[no-writes]-rule[0]]".into(),
        ),
        ("upstream_host", serde_json::Value::Null),
        ("upstream_service_time", serde_json::Value::Null),
        ("destination_principal", serde_json::Value::Null),
        (
            "destination_service",
            "httpbin.default.svc.cluster.local".into(),
        ),
        ("verdict", "deny".into()),
        ("policy", "AuthorizationPolicy/default/no-writes".into()),
        ("rule", 0.into()),
        (
            "reason",
            "method POST is in the list of \"no-writes\"".into(),
        ),
        (
            "dry_run",
            serde_json::json!([{
                "would": "allow",
                "policy": "AuthorizationPolicy/default/readers",
                "rule": 1,
            }]),
        ),
        ("dry_run_verdict", "allow".into()),
        (
            "dry_run_policy",
            "AuthorizationPolicy/default/readers".into(),
        ),
        ("dry_run_rule", 1.into()),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
}

#[test]
fn a_tcp_stream_has_the_same_keys_and_no_http() {
    let mut exchange = fixtures::tcp();
    exchange.details = "rbac_access_denied_matched_policy[none]".into();
    exchange.flags = "UF";
    exchange.upstream_failure = Some("connection refused".into());
    let http: serde_json::Map<_, _> = serde_json::from_str(&line(&fixtures::http())).unwrap();
    let tcp: serde_json::Map<_, _> = serde_json::from_str(&line(&exchange)).unwrap();
    assert!(http.keys().eq(tcp.keys()));
    for key in [
        "method",
        "path",
        "protocol",
        "authority",
        "route_name",
        "response_code_details",
    ] {
        assert!(tcp[key].is_null(), "{key}");
    }
    assert_eq!(tcp["response_code"], 0);
    assert_eq!(tcp["response_flags"], "UF");
    assert_eq!(
        tcp["connection_termination_details"],
        "rbac_access_denied_matched_policy[none]"
    );
    assert_eq!(
        tcp["upstream_transport_failure_reason"],
        "connection refused"
    );
    assert_eq!(
        tcp["upstream_cluster"],
        "inbound-vip|8000|tcp|httpbin.default.svc.cluster.local;"
    );
}

#[test]
fn what_a_client_writes_can_not_end_the_line_or_break_the_json() {
    let mut exchange = fixtures::http();
    let http = exchange.http.as_mut().unwrap();
    http.path = "/\"\n{\u{7f}é".into();
    http.user_agent = Some(HeaderValue::from_bytes(b"\xff\"x").unwrap());
    let line = line(&exchange);
    assert!(!line.contains('\n'));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["path"], "/\"\n{\u{7f}é");
    assert_eq!(line["user_agent"], "\u{fffd}\"x");
}

#[test]
fn a_workload_that_does_not_hold_the_certificate_is_not_named() {
    let mut exchange = fixtures::http();
    exchange.source = Some(fixtures::workload("other", "v1"));
    let line: serde_json::Value = serde_json::from_str(&line(&exchange)).unwrap();
    assert!(line["source_workload"].is_null());
    assert_eq!(
        line["source_principal"],
        "spiffe://cluster.local/ns/shop/sa/web"
    );
}

#[test]
fn times_have_milliseconds_and_zulu() {
    let mut time = TimeText::default();
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (7, "1970-01-01T00:00:00.007Z"),
        (1_709_164_800_123, "2024-02-29T00:00:00.123Z"),
        (1_709_164_800_999, "2024-02-29T00:00:00.999Z"),
        (1_709_164_801_000, "2024-02-29T00:00:01.000Z"),
    ] {
        assert_eq!(time.text(UNIX_EPOCH + Duration::from_millis(millis)), text);
    }
}
