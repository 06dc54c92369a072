//! Lines in formats with Envoy's operators (specs/istio-waypoint.md 5.5).

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{LogFormat, WrittenFormat};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{Format, Wrong};
use crate::telemetry::access_log::time::TimeText;
use crate::telemetry::exchange::{Exchange, Headers, Seen};
use crate::telemetry::fixtures::{http, tcp};

fn written(template: Value, omits_empty: bool) -> Arc<WrittenFormat> {
    Arc::new(WrittenFormat {
        template,
        omits_empty,
        at: None,
    })
}

fn line(format: &LogFormat, exchange: &Exchange) -> String {
    let mut wrong = Vec::new();
    let format = Format::read(format, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}");
    let (mut request, mut response) = (HeaderMap::new(), HeaderMap::new());
    request.insert("authorization", HeaderValue::from_static("Bearer secret"));
    request.insert("x-tenant", HeaderValue::from_static("blue"));
    response.insert("content-type", HeaderValue::from_static("text/html"));
    let mut to = Vec::new();
    let seen = Seen {
        exchange,
        elapsed: Duration::from_millis(5),
        headers: Headers {
            request: Some(&request),
            response: Some(&response),
        },
    };
    format.write(&seen, &mut TimeText::default(), &mut to);
    String::from_utf8(to).unwrap()
}

fn text(template: &str) -> String {
    line(&LogFormat::Text(written(template.into(), false)), &http())
}

/// The format that `accessLogFile: /dev/stdout` gives, resolved from the mesh configuration.
#[test]
fn istios_default_text() {
    let exchange = http();
    let istio = cairn_config_schema::snapshot::ISTIO_TEXT;
    let format = LogFormat::Text(written(istio.into(), false));
    assert_eq!(
        line(&format, &exchange),
        "[2026-11-04T12:34:56.789Z] \"GET /a?b=1 HTTP/1.1\" 200 - via_upstream - \"-\" 10 20 5 4 \"-\" \
         \"curl/8\" \"id-1\" \"httpbin:8000\" \"10.0.0.9:8080\" \
         inbound-vip|8000|http|httpbin.default.svc.cluster.local; - 10.96.1.2:8000 10.0.0.7:41000 - default\n"
    );
    let tcp = line(&format, &tcp());
    assert!(tcp.contains("\"- - -\" 0 - - - \"-\" 10 20 5 -"), "{tcp}");
    assert!(!line(&format, &exchange).contains("secret"));
}

#[test]
fn operators_give_what_envoy_gives() {
    for (template, expected) in [
        ("%REQ(:METHOD)% %REQ(X-TENANT)%", "GET blue"),
        ("%REQ(X-NOPE?X-TENANT)%", "blue"),
        ("%REQ(X-NOPE?:PATH):4%", "/a?b"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/a"),
        ("%RESP(Content-Type)%|%RESP(X-NOPE)%", "text/html|-"),
        ("%RESP(:STATUS)% %RESPONSE_CODE%", "200 200"),
        (
            "%START_TIME(%Y/%m/%d %H:%M:%S.%3f)%",
            "2026/11/04 12:34:56.789",
        ),
        ("%START_TIME(%s)%", "1793795696"),
        ("%START_TIME(%E3S)%", "56.789"),
        ("100%% %PROTOCOL%", "100% HTTP/1.1"),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%",
            "10.0.0.7 41000",
        ),
        ("%UPSTREAM_HOST%", "10.0.0.9:8080"),
        (
            "%DOWNSTREAM_PEER_URI_SAN%",
            "spiffe://cluster.local/ns/shop/sa/web",
        ),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %DURATION%", "1 5"),
        ("%CEL(request.headers['x-tenant'])%", "blue"),
        ("%GRPC_STATUS%", "-"),
    ] {
        assert_eq!(text(template), format!("{expected}\n"), "{template}");
    }
}

#[test]
fn headers_are_written_only_where_they_are_named() {
    assert_eq!(text("%REQ(AUTHORIZATION)%"), "Bearer secret\n");
}

#[test]
fn what_a_client_sends_begins_no_line() {
    let mut exchange = http();
    exchange.http.as_mut().unwrap().path = "/a\n\u{1b}[2J".into();
    let format = LogFormat::Text(written("%REQ(:PATH)%".into(), false));
    assert_eq!(line(&format, &exchange), "/a\\x0a\\x1b[2J\n");
}

#[test]
fn json_keeps_numbers_and_leaves_out_what_is_asked_to_be() {
    let template = json!({
        "code": "%RESPONSE_CODE%",
        "both": "%PROTOCOL% %RESPONSE_CODE%",
        "none": "%REQ(X-NOPE)%",
        "deep": {"host": ["%UPSTREAM_HOST%", 7, true]},
    });
    let of = |omits: bool| line(&LogFormat::Json(written(template.clone(), omits)), &http());
    let mut expected = json!({
        "code": 200,
        "both": "HTTP/1.1 200",
        "none": null,
        "deep": {"host": ["10.0.0.9:8080", 7, true]},
    });
    assert_eq!(of(false), format!("{expected}\n"));
    expected.as_object_mut().unwrap().remove("none");
    assert_eq!(of(true), format!("{expected}\n"));
}

#[test]
fn json_of_what_has_no_value_is_still_json() {
    let of = |template: Value| line(&LogFormat::Json(written(template, true)), &http());
    let nothing = "%REQ(X-NOPE)%";
    assert_eq!(of(json!({"a": nothing})), "{}\n");
    assert_eq!(of(nothing.into()), "{}\n");
    let some =
        json!({"a": nothing, "b": [nothing, 1, nothing, "\"%PROTOCOL%"], "c": {"d": nothing}});
    assert_eq!(of(some), "{\"b\":[1,\"\\\"HTTP/1.1\"],\"c\":{}}\n");
}

/// Whatever is in a text, it is escaped letter by letter.
#[test]
fn control_characters_are_escaped_wherever_they_stand() {
    for (path, expected) in [
        ("/a\u{7f}", "/a\\x7f"),
        ("/\u{85}\u{9f}\u{a0}", "/\\x85\\x9f\u{a0}"),
        ("/é\u{feff}ü", "/é\u{feff}ü"),
        ("\tplain", "\\x09plain"),
    ] {
        let mut exchange = http();
        exchange.http.as_mut().unwrap().path = path.into();
        let format = LogFormat::Text(written("%REQ(:PATH)%".into(), false));
        assert_eq!(line(&format, &exchange), format!("{expected}\n"));
    }
}

#[test]
fn what_can_not_be_written_is_refused_with_words_and_leaves_a_dash() {
    for (template, words) in [
        ("%TRAILER(X)%", "trailers are not kept"),
        (
            "%DYNAMIC_METADATA(a:b)%",
            "no Envoy whose filters leave metadata",
        ),
        ("%NO_SUCH%", "Cairn does not know it"),
        ("%REQ%", "needs an argument"),
        ("%PROTOCOL(x)%", "takes no argument"),
        ("%START_TIME(%@)%", "no format of times"),
        ("%CEL(1 +)%", "`%CEL(1 +)%`: "),
        ("50% off", "no operator"),
    ] {
        let mut wrong = Vec::new();
        let format = LogFormat::Text(written(template.into(), false));
        Format::read(&format, &mut wrong);
        let [Wrong::Missing(told)] = &wrong[..] else {
            panic!("{template}: {wrong:?}")
        };
        assert!(told.contains(words), "{template}: {told}");
    }
}

/// The second is from Envoy's documentation of the operator, but for its header.
#[test]
fn an_expression_with_a_part_that_can_not_be_right_is_told_of_and_evaluated() {
    for (template, words, expected) in [
        (
            "%CEL(foo.bar)%",
            "`%CEL(foo.bar)%`: there is no attribute `foo`",
            "-",
        ),
        (
            "%CEL(request.method || request.url_path.contains('a'))%",
            "`||` is not for",
            "true",
        ),
    ] {
        let mut wrong = Vec::new();
        let format = LogFormat::Text(written(template.into(), false));
        let read = Format::read(&format, &mut wrong);
        let [Wrong::Doubted(doubt)] = &wrong[..] else {
            panic!("{template}: {wrong:?}")
        };
        assert!(doubt.words.contains(words), "{template}: {doubt:?}");
        let exchange = http();
        let (mut time, mut line) = (TimeText::default(), Vec::new());
        let seen = Seen {
            exchange: &exchange,
            elapsed: Duration::ZERO,
            headers: Headers::default(),
        };
        read.write(&seen, &mut time, &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
    }
}
