//! Expressions over exchanges: what is read, what is refused, what is true.

use std::time::Duration;

use cairn_config_schema::limits::DIAGNOSTICS_PER_OBJECT_MAX;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::attributes::attribute;
use super::looks::ATTRIBUTES;
use super::types::Type;
use super::{Compiled, Outcome, Value};
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
    let compiled = Compiled::value(expression).unwrap();
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
        ("filter_state.upstream_peer.type", "deployment"),
        ("filter_state.downstream_peer.cluster", "Kubernetes"),
        (
            "xds.cluster_name",
            "inbound-vip|8000|http|httpbin.default.svc.cluster.local;",
        ),
        ("has(request.headers.nope) ? 'yes' : 'no'", "no"),
        ("['a', 'b'].exists(x, x == 'a')", "true"),
        ("request.path.matches('^/[a-z]')", "true"),
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
        Compiled::filter(expression)
            .unwrap()
            .is_true(&seen(exchange, &headers))
    };
    assert!(is_true("response.code >= 500", &failed));
    assert!(!is_true("response.code >= 500", &http()));
    assert!(is_true("request.duration > 200", &http()));
    assert!(!is_true("request.headers['x'] == 'y'", &http()));
}

#[test]
fn what_can_not_be_read_is_refused_with_words() {
    for read in [Compiled::filter, Compiled::value] {
        let refused = read("response.code >=").unwrap_err();
        assert!(refused.contains("(column"), "{refused}");
    }
}

/// specs/istio-waypoint.md 5.5: a name that there is not is an error when it is evaluated, as at Envoy: by itself it is not
/// met, and what decides beside it counts.
#[test]
fn what_is_not_known_is_told_of_and_evaluated() {
    let (exchange, headers) = (http(), HeaderMap::new());
    for (expression, words) in [
        ("foo.bar == ''", "there is no attribute `foo` here"),
        ("request.nope == ''", "`request` has no `nope` here"),
        ("request['nope'] == ''", "`request` has no `nope` here"),
        (
            "metadata.filter == ''",
            "there is no attribute `metadata` here",
        ),
        ("false || foo.bar", "filter_state (column 10)"),
        ("nope(request.path)", "there is no function `nope` here"),
        (
            "filter_state.upstream_peer.nope == ''",
            "there is no `nope` in it",
        ),
        (
            "request.duration > duration('1s')",
            "there is no function `duration` here",
        ),
        ("has(request.nope)", "`request` has no `nope` here"),
    ] {
        let beside = format!("({expression}) || response.code == 200");
        for (text, met) in [(expression, false), (&*beside, true)] {
            let compiled = Compiled::filter(text).unwrap();
            let [doubt] = compiled.doubts() else {
                panic!("{text}: {:?}", compiled.doubts())
            };
            assert_eq!(doubt.outcome, Outcome::Unknown, "{text}");
            if text == expression {
                assert!(doubt.words.contains(words), "{text}: {doubt:?}");
            }
            assert_eq!(compiled.is_true(&seen(&exchange, &headers)), met, "{text}");
        }
    }
    let without = Compiled::filter("!has(request.nope)").unwrap();
    assert!(without.is_true(&seen(&exchange, &headers)));
}

/// What the language evaluates is no finding: its types have names, and what may be absent has functions.
#[test]
fn names_of_types_and_what_may_be_absent_are_evaluated_without_a_word() {
    let (exchange, mut headers) = (http(), HeaderMap::new());
    headers.insert("x-level", HeaderValue::from_static("5"));
    for (expression, met) in [
        ("type(response.code) == int", true),
        (
            "type(request.path) == string && type(connection.mtls) == bool",
            true,
        ),
        ("type(request.path) == int", false),
        ("type(request.headers) == map && type([1]) == list", true),
        (
            "type(1u) == uint && type(1.5) == double && type(b'') == bytes",
            true,
        ),
        ("type(null) == null_type && type(int) == type", true),
        ("type(optional.none()) == optional_type", true),
        ("type(response.code) in [int, uint]", true),
        ("optional.of(response.code).value() == 200", true),
        ("optional.of(request.path).hasValue()", true),
        (
            "optional.ofNonZeroValue('').or(optional.of('a')).value() == 'a'",
            true,
        ),
        ("optional.none().orValue(5) == 5", true),
        ("request.headers[?'x-level'].orValue('0') == '5'", true),
        ("request.headers[?'x-none'].orValue('0') == '0'", true),
        ("request.?headers.hasValue()", true),
        (
            "request.headers[?'x-level'].optMap(v, int(v) + 1).orValue(0) == 6",
            true,
        ),
        (
            "request.headers[?'x-none'].optFlatMap(v, optional.of(v)).hasValue()",
            false,
        ),
        // A name that is declared is what it is declared to be.
        ("[1, 2].exists(int, int == 2)", true),
    ] {
        let compiled = Compiled::filter(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert!(
            compiled.doubts().is_empty(),
            "{expression}: {:?}",
            compiled.doubts()
        );
        assert_eq!(
            compiled.is_true(&seen(&exchange, &headers)),
            met,
            "{expression}"
        );
    }
    // A type is no text, and has none.
    let compiled = Compiled::filter("type(response.code) == 'int'").unwrap();
    let [doubt] = compiled.doubts() else {
        panic!("a type is never equal to a text")
    };
    assert_eq!(doubt.outcome, Outcome::Always(false));
    let refused = Compiled::value("type(response.code)").unwrap_err();
    assert!(refused.ends_with("this gives a type"), "{refused}");
    // What may double with each step is not evaluated.
    for expression in [
        "optional.of('a').optMap(x, x + x).optMap(x, x + x).hasValue()",
        "optional.of('a').optMap(x, optional.of(x + x).optMap(y, y + y)).hasValue()",
    ] {
        let refused = Compiled::filter(expression).unwrap_err();
        assert!(refused.contains("optMap inside another"), "{refused}");
    }
}

/// specs/istio-waypoint.md 5.5: Envoy finds only when it evaluates that types do not fit, and what is an error then is
/// not logged; `==` of them is false. Here it is the same, and told of when the configuration is read.
#[test]
fn what_is_not_for_its_types_is_told_of_and_evaluated() {
    let (exchange, mut headers) = (http(), HeaderMap::new());
    headers.insert("x-level", HeaderValue::from_static("5"));
    for (expression, words, met) in [
        (
            "request.path == 200",
            "compares a text with an integer",
            false,
        ),
        ("response.code == '200'", "never equal (column 15)", false),
        ("response.code != '200'", "never equal (column 15)", true),
        ("response.code in ['200']", "is never in a list", false),
        (
            "request.headers['x-level'] > 3",
            "can not compare a text with",
            false,
        ),
        (
            "response.code.startsWith('2')",
            "`startsWith` is not for an integer",
            false,
        ),
        ("request.path.size > 1", "a text has no `size`", false),
        // What decides beside it counts.
        (
            "response.code == '200' || request.method == 'GET'",
            "never equal",
            true,
        ),
        (
            "request.headers['x-level'] > 3 || request.method == 'GET'",
            "can not compare",
            true,
        ),
        (
            "request.headers['x-level'] > 3 && request.method == 'GET'",
            "can not compare",
            false,
        ),
    ] {
        let compiled = Compiled::filter(expression).unwrap();
        let [doubt] = compiled.doubts() else {
            panic!("{expression}: {:?}", compiled.doubts())
        };
        assert!(doubt.words.contains(words), "{expression}: {doubt:?}");
        assert_eq!(
            compiled.is_true(&seen(&exchange, &headers)),
            met,
            "{expression}"
        );
    }
    assert!(
        Compiled::filter("response.code >= 500")
            .unwrap()
            .doubts()
            .is_empty()
    );
}

/// A filter that is neither true nor false would have no request in the log, a label without a text would be
/// `unknown` of all: nobody wants either.
#[test]
fn what_gives_no_truth_is_no_filter_and_what_has_no_text_no_value() {
    for (expression, gives) in [
        ("response.code", "an integer"),
        ("request.path", "a text"),
        ("request.headers", "a map"),
        ("'5'", "a text"),
    ] {
        let refused = Compiled::filter(expression).unwrap_err();
        assert!(
            refused.ends_with(&format!("this gives {gives}")),
            "{refused}"
        );
    }
    for expression in [
        "request.headers",
        "[1, 2]",
        "null",
        "filter_state.upstream_peer",
    ] {
        let refused = Compiled::value(expression).unwrap_err();
        assert!(refused.starts_with("a value is a text"), "{refused}");
    }
    assert!(Compiled::filter("dyn(response.code)").is_ok(), "not known");
}

/// What is declared of attributes is what they are.
#[test]
fn attributes_give_what_is_declared() {
    let mut headers = HeaderMap::new();
    headers.insert("referer", HeaderValue::from_static("http://a/"));
    let mut exchange = http();
    exchange.http.as_mut().unwrap().grpc_status = Some(0);
    exchange.upstream_failure = Some("refused".into());
    exchange.upstream_local = Some("10.0.0.1:4000".parse().unwrap());
    exchange.server_name = Some("a".into());
    for (exchange, response) in [(exchange, true), (tcp(), false)] {
        let mut seen = seen(&exchange, &headers);
        seen.headers.response = response.then_some(&headers);
        for (root, fields) in ATTRIBUTES {
            for (field, gives) in fields {
                let Some(value) = attribute(&seen, root, field) else {
                    continue;
                };
                let fits = match gives.of() {
                    Type::Text => matches!(value, Value::String(_)),
                    Type::Int => matches!(value, Value::Int(_)),
                    Type::Bool => matches!(value, Value::Bool(_)),
                    _ => matches!(value, Value::Map(_)),
                };
                assert!(fits, "{root}.{field} is {value:?}");
            }
        }
    }
}

/// It runs on a worker, for every exchange: whoever may write a Telemetry must not be able to hold one up.
#[test]
fn what_may_take_too_long_is_refused_with_words() {
    let long = format!("request.host == '{}'", "x".repeat(1_024));
    for (expression, words) in [
        ("[0, 1].all(a, [0, 1].all(b, true))", "inside another"),
        ("['a'].map(a, a + a).map(a, a + a) == []", "after another"),
        (long.as_str(), "at most 1024 bytes"),
        ("request.host.matches(request.path)", "text in quotes"),
        ("matches(request.host, request.path)", "text in quotes"),
        ("['a'].all(x, x.matches('a'))", "`matches` inside"),
        (
            "optional.of('a').optMap(x, x.matches('a')).hasValue()",
            "`matches` inside all, exists, exists_one, map, filter or optMap",
        ),
        (".matches(request.host, request.path)", "text in quotes"),
        ("['a'].all(x, .matches(x, 'a'))", "`matches` inside"),
        (
            ".matches(request.host, '(a{1000}){1000}')",
            "can not be used",
        ),
        ("request.host.matches('(a{1000}){1000}')", "can not be used"),
        ("request.host.matches('(')", "can not be used"),
    ] {
        let refused = Compiled::filter(expression).unwrap_err();
        assert!(refused.contains(words), "{expression}: {refused}");
    }
}

/// Each is a finding and kept: a short expression must not make many.
#[test]
fn so_many_parts_that_can_not_be_right_are_told_of_and_no_more() {
    let compiled = Compiled::filter(&["a"; 300].join("||")).unwrap();
    assert_eq!(compiled.doubts().len(), DIAGNOSTICS_PER_OBJECT_MAX);
}
