//! Expressions over exchanges: what is read, what is refused, what is true.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::Compiled;
use crate::telemetry::exchange::{Exchange, Headers, Seen};
use crate::telemetry::fixtures::{http, tcp};

fn seen<'a>(exchange: &'a Exchange, request: &'a HeaderMap) -> Seen<'a> {
    Seen {
        exchange,
        elapsed: Duration::from_millis(250),
        headers: Headers {
            request: Some(request),
            response: None,
        },
    }
}

fn text(expression: &str, exchange: &Exchange) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("blue"));
    let compiled = Compiled::parse(expression).unwrap();
    compiled.text(&seen(exchange, &headers))
}

/// specs/istio-waypoint.md 5.1: what tagOverrides are written with.
#[test]
fn attributes_have_envoys_names() {
    let exchange = http();
    for (expression, expected) in [
        ("request.host", "httpbin:8000"),
        ("request.url_path", "/a"),
        ("request.path", "/a?b=1"),
        ("request.method", "GET"),
        ("request.headers['x-tenant']", "blue"),
        ("request['host']", "httpbin:8000"),
        ("'literal'", "literal"),
        ("response.code", "200"),
        ("string(response.code) + '!'", "200!"),
        ("connection.mtls", "true"),
        ("source.principal", "spiffe://cluster.local/ns/shop/sa/web"),
        ("destination.port", "8000"),
        ("filter_state.downstream_peer.workload", "web"),
        ("filter_state['upstream_peer']['version']", "v2"),
        (
            "xds.cluster_name",
            "inbound-vip|8000|http|httpbin.default.svc.cluster.local;",
        ),
        ("has(request.headers.nope) ? 'yes' : 'no'", "no"),
        ("['a', 'b'].exists(x, x == 'a')", "true"),
    ] {
        assert_eq!(
            text(expression, &exchange).as_deref(),
            Some(expected),
            "{expression}"
        );
    }
}

#[test]
fn what_is_not_there_has_no_text() {
    for (expression, exchange) in [
        ("request.headers['nope']", http()),
        ("request.host", tcp()),
        ("response.code", tcp()),
        ("[1, 2]", http()),
        ("1 / 0", http()),
    ] {
        assert_eq!(text(expression, &exchange), None, "{expression}");
    }
}

/// 5.5: a filter is true, false, or not true because it can not be evaluated.
#[test]
fn a_filter_is_met_by_what_it_is_true_of() {
    let (mut failed, headers) = (http(), HeaderMap::new());
    failed.http.as_mut().unwrap().status = Some(StatusCode::BAD_GATEWAY);
    let is_true = |expression: &str, exchange: &Exchange| {
        Compiled::parse(expression)
            .unwrap()
            .is_true(&seen(exchange, &headers))
    };
    assert!(is_true("response.code >= 500", &failed));
    assert!(!is_true("response.code >= 500", &http()));
    assert!(is_true("request.duration > 200", &http()));
    assert!(!is_true("request.headers['x'] == 'y'", &http()));
    assert!(
        !is_true("response.code", &http()),
        "a number is not a truth"
    );
}

#[test]
fn what_can_not_be_read_or_is_not_known_is_refused_with_words() {
    for (expression, words) in [
        ("response.code >=", "(column"),
        ("foo.bar", "there is no attribute `foo` here"),
        ("request.nope", "`request` has no `nope` here"),
        ("request['nope']", "`request` has no `nope` here"),
        ("metadata.filter", "there is no attribute `metadata` here"),
    ] {
        let refused = Compiled::parse(expression).unwrap_err();
        assert!(refused.contains(words), "{expression}: {refused}");
    }
}
