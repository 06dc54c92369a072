//! Expressions over flows: what is true of which, what is refused. The first ones are of the kinds that
//! Hubble's own documentation and tests use.

use super::*;
use crate::hubble::messages::{
    Endpoint, Http, HttpHeader, Ip, Layer4, Layer7, Policy, Tcp, Verdict, Workload, layer4, layer7,
};

fn response() -> Flow {
    Flow {
        verdict: Verdict::Forwarded as i32,
        is_reply: Some(true),
        ip: Some(Ip {
            source: "10.0.0.1".into(),
            encrypted: true,
            ..Ip::default()
        }),
        l4: Some(Layer4 {
            protocol: Some(layer4::Protocol::Tcp(Tcp {
                source_port: 80,
                ..Tcp::default()
            })),
        }),
        l7: Some(Layer7 {
            latency_ns: 5_000_000_000,
            record: Some(layer7::Record::Http(Http {
                code: 503,
                url: "http://web/a".into(),
                headers: vec![HttpHeader {
                    key: "x-request-id".into(),
                    value: "r-1".into(),
                }],
                ..Http::default()
            })),
            ..Layer7::default()
        }),
        source: Some(Endpoint {
            namespace: "shop".into(),
            labels: vec!["k8s:app=web".into()],
            workloads: vec![Workload {
                name: "web".into(),
                ..Workload::default()
            }],
            ..Endpoint::default()
        }),
        ingress_denied_by: vec![Policy {
            name: "no-admin".into(),
            revision: 7,
            ..Policy::default()
        }],
        ..Flow::default()
    }
}

fn is_true(text: &str, flow: &Flow) -> bool {
    any(&[Expression::read(text).unwrap()], flow)
}

/// specs/policies.md 3.2.
#[test]
fn what_is_set_is_seen_and_what_is_not_has_its_default() {
    let flow = response();
    for text in [
        "_flow.verdict == Verdict.FORWARDED || _flow.verdict == Verdict.TRANSLATED",
        "_flow.verdict == flow.Verdict.FORWARDED",
        "_flow.drop_reason_desc != DropReason.POLICY_DENY",
        "_flow.IP.source == '10.0.0.1'",
        "has(_flow.l4.TCP) && _flow.l4.TCP.source_port == uint(80)",
        "_flow.l4.TCP.source_port in [80u, 443u]",
        "_flow.l7.http.code >= 500u && _flow.l7.http.code < 600",
        "_flow.l7.latency_ns > 4000000000u",
        "_flow.l7.http.url.endsWith('/a') && _flow.l7.http.url.matches('^http:')",
        "_flow.l7.http.headers.exists(h, h.key == 'x-request-id' && h.value == 'r-1')",
        "_flow.source.labels.exists(label, label == 'k8s:app=web')",
        "_flow.source.workloads[0].name == 'web' && _flow.source.workloads[0].kind == ''",
        "'k8s:app=web' in _flow.source.labels",
        "_flow.is_reply && !_flow.reply",
        "_flow.is_reply == true",
        "_flow.ingress_denied_by.exists(p, p.name == 'no-admin' && p.revision == 7u)",
        "!has(_flow.l4.UDP) && !has(_flow.trace_context)",
        "_flow.destination.namespace == '' && _flow.destination.identity == 0u",
        "size(_flow.destination.labels) == 0",
        // What no waypoint sees decides nothing.
        "_flow.l4.UDP.source_port == 53u || _flow.IP.encrypted",
        "true",
    ] {
        assert!(is_true(text, &flow), "{text}");
    }
    for text in [
        "_flow.verdict == Verdict.DROPPED",
        "has(_flow.l7.dns)",
        "has(_flow.l4.TCP) && has(_flow.l4.TCP.flags)",
        "_flow.l7.dns.query == ''",
        "_flow.destination.workloads[0].name == 'web'",
        "_flow.l7.http.code == 200u",
        "!_flow.is_reply",
        "1 / _flow.event_type.type == 0",
    ] {
        assert!(!is_true(text, &flow), "{text}");
    }
    // Absent, it is neither.
    assert!(!is_true("_flow.is_reply", &Flow::default()));
    assert!(!is_true("!_flow.is_reply", &Flow::default()));
    assert!(!is_true("has(_flow.is_reply)", &Flow::default()));
}

/// What is not there has no words for that in the protocol: expressions have.
#[test]
fn what_may_be_there_or_not_can_be_made() {
    let flow = response();
    for text in [
        "optional.of(_flow.IP.source).optMap(s, s + ':80').orValue('') == '10.0.0.1:80'",
        "optional.ofNonZeroValue(_flow.destination.namespace).orValue('none') == 'none'",
        "!optional.none().hasValue()",
    ] {
        assert!(is_true(text, &flow), "{text}");
    }
    for text in [
        "optional.nope(1) == 1",
        "optional.of(_flow.nope).hasValue()",
    ] {
        assert!(Expression::read(text).is_err(), "{text}");
    }
}

/// One of several expressions is enough, as with values of any field.
#[test]
fn one_of_several_is_enough() {
    let read = |text| Expression::read(text).unwrap();
    assert!(any(&[read("false"), read("true")], &Flow::default()));
    assert!(!any(&[read("false")], &Flow::default()));
}

#[test]
fn what_means_nothing_or_takes_long_is_refused_with_words() {
    let long = format!(
        "_flow.uuid == '{}'",
        "x".repeat(HUBBLE_EXPRESSION_BYTES_MAX)
    );
    for (text, words) in [
        ("", "Syntax error"),
        ("_flow.uuid ==", "(column"),
        ("something-invalid", "there is no `something` here"),
        ("_flow", "is not one value"),
        ("_flow.l4 == _flow.l4", "`_flow.l4` is not one value"),
        ("_flow.uuid", "true or false"),
        ("1", "true or false"),
        ("_flow.nope == 1", "`_flow` has no `nope` here; it has time"),
        ("_flow.IP.nope == 1", "`_flow.IP` has no `nope`"),
        ("_flow.uuid.size == 1", "`_flow.uuid` has no fields"),
        ("_flow.verdict == Verdict.NOPE", "`Verdict` has no `NOPE`"),
        ("_flow.verdict == Nope.FORWARDED", "there is no `Nope`"),
        (
            "_flow.uuid + 1 == 2",
            "`+` is not for a text and an integer (column 12)",
        ),
        ("_flow.uuid == 1", "which are never equal (column 12)"),
        (
            "_flow.verdict == 'DROPPED'",
            "compares an integer with a text",
        ),
        ("_flow.source.labels == 'a'", "compares a list with a text"),
        (
            "1 in _flow.source.labels",
            "never in a list of what is a text",
        ),
        (
            "_flow.source.workloads.exists(w, w.nope == 'a')",
            "there is no `nope` in it; there are kind, name",
        ),
        (
            "_flow.l7.http.url.matches('a') && _flow.nope",
            "(column 40)",
        ),
        ("_flow.uuid ? true : false", "asks whether a text is true"),
        ("_flow.reply && nope(1)", "there is no function `nope`"),
        ("_flow.time == 1", "since and until"),
        ("[{'a': 1}].exists(m, has(m.a))", "has() asks"),
        ("[0, 1].all(a, [0, 1].all(b, true))", "inside another"),
        ("_flow.uuid.matches(_flow.uuid)", "text in quotes"),
        ("_flow.?uuid == ''", "("),
        (long.as_str(), "at most 1024 bytes"),
    ] {
        let refused = Expression::read(text).unwrap_err().to_string();
        assert!(refused.contains(words), "{text}: {refused}");
    }
    let filter = |count| FlowFilter {
        experimental: Some(crate::hubble::messages::Experimental {
            cel_expression: vec!["true".into(); count],
        }),
        ..FlowFilter::default()
    };
    assert!(fit([filter(HUBBLE_EXPRESSIONS_MAX)].iter()).is_ok());
    assert!(fit([filter(HUBBLE_EXPRESSIONS_MAX), filter(1)].iter()).is_err());
}
