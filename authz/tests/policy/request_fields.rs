//! The fields of `operation` and the keys of `when` (specs/istio-waypoint.md 4.8): what matches,
//! what does not, and what the `not` twin makes of something absent.

use std::net::IpAddr;

use cairn_config_schema::snapshot::{Condition, Operation, PolicyRule};
use http::header::HeaderName;

use crate::request::{
    Request, blocks, globs, matches, methods, operation, paths, ports, request, rows, strings, when,
};

fn hosts(values: &[&str]) -> PolicyRule {
    operation(Operation {
        hosts: strings(values),
        ..Operation::default()
    })
}

fn header(name: &'static str) -> impl Fn(&[&str]) -> PolicyRule {
    move |values| {
        when(Condition::RequestHeader {
            name: HeaderName::from_static(name),
            values: strings(values),
        })
    }
}

#[test]
fn hosts_are_the_authority_as_sent_in_any_case() {
    rows(
        hosts,
        &request().host("Reviews.Shop:9080"),
        &[
            (&["reviews.shop:9080"], true),
            // No port is stripped.
            (&["reviews.shop"], false),
            (&["reviews.shop:*"], true),
            (&["reviews*"], true),
            (&["*.SHOP:9080"], true),
            (&["*:9081"], false),
            (&["*"], true),
            (&["a-name-longer-than-the-host-itself*"], false),
            (&["*a-name-longer-than-the-host-itself"], false),
            (&["!reviews.shop:9080"], false),
            (&["!reviews.shop"], true),
        ],
    );
}

#[test]
fn a_star_needs_a_host_or_method_only_to_be_there() {
    rows(
        hosts,
        &request().host(""),
        &[(&["*"], true), (&["!*"], false)],
    );
    rows(methods, &request().method(""), &[(&["*"], true)]);
}

#[test]
fn methods_are_case_sensitive() {
    rows(
        methods,
        &request(),
        &[
            (&["GET"], true),
            (&["get"], false),
            (&["POST", "GET"], true),
            (&["G*"], true),
            (&["*ET"], true),
            (&["*"], true),
            (&["!GET"], false),
            (&["!POST"], true),
        ],
    );
}

#[test]
fn paths_have_string_forms() {
    rows(
        |values| {
            operation(Operation {
                paths: paths(values),
                ..Operation::default()
            })
        },
        &request(),
        &[
            (&["/reviews/1"], true),
            (&["/reviews"], false),
            (&["/Reviews/1"], false),
            (&["/reviews*"], true),
            (&["/reviews/1*"], true),
            (&["*/1"], true),
            (&["*"], true),
            // A star in the middle, or braces that are no operator, are literal.
            (&["/re*/1"], false),
            (&["/{id}/1"], false),
            (&["!/reviews/*"], false),
            (&["!/admin/*"], true),
            (&["/reviews/*", "!*/1"], false),
        ],
    );
}

#[test]
fn a_star_needs_a_path_that_is_not_empty() {
    let rule = |values: &[&str]| {
        operation(Operation {
            paths: paths(values),
            ..Operation::default()
        })
    };
    rows(rule, &request().path(""), &[(&["*"], false)]);
}

#[test]
fn the_path_of_a_grpc_call_is_service_and_method() {
    let call = request().method("POST").path("/shop.Reviews/List");
    let rule = operation(Operation {
        methods: strings(&["POST"]),
        paths: paths(&["/shop.Reviews/*"]),
        ..Operation::default()
    });
    assert!(matches(&rule, &call));
    assert!(!matches(&rule, &call.path("/shop.Admin/List")));
}

#[test]
fn ports_are_the_service_port() {
    rows(
        |values| {
            operation(Operation {
                ports: ports(values),
                ..Operation::default()
            })
        },
        &request(),
        &[
            (&["9080"], true),
            (&["80"], false),
            (&["80", "9080"], true),
            (&["!9080"], false),
            (&["!80"], true),
        ],
    );
}

#[test]
fn header_values_have_string_forms() {
    rows(
        header("x-role"),
        &request().header("x-role", "admin"),
        &[
            (&["admin"], true),
            (&["Admin"], false),
            (&["adm*"], true),
            (&["*min"], true),
            (&["*"], true),
            (&["user", "admin"], true),
            (&["!admin"], false),
            (&["!user"], true),
            (&["*", "!admin"], false),
        ],
    );
}

#[test]
fn an_absent_header_matches_nothing_and_every_not() {
    rows(
        header("x-role"),
        &request(),
        &[(&["*"], false), (&["admin"], false), (&["!admin"], true)],
    );
    rows(header("x-role"), &request(), &[(&["!*"], true)]);
}

#[test]
fn a_star_needs_a_header_only_to_be_there() {
    rows(
        header("x-role"),
        &request().header("x-role", ""),
        &[(&["*"], true), (&["!*"], false), (&["admin"], false)],
    );
}

#[test]
fn several_values_of_one_header_are_one_joined_by_comma() {
    rows(
        header("x-role"),
        &request().header("x-role", "user").header("x-role", "admin"),
        &[
            (&["user,admin"], true),
            (&["user"], false),
            (&["admin"], false),
            (&["user*"], true),
            (&["user,*"], true),
            (&["*admin"], true),
            (&["*,admin"], true),
            (&["*user,admin"], true),
            (&["*xuser,admin"], false),
            (&["*"], true),
            (&["!user"], true),
            (&["!user,admin"], false),
        ],
    );
}

#[test]
fn several_cookies_are_one_joined_by_semicolon() {
    // RFC 9113 8.2.3; Envoy's inline cookie header does the same.
    rows(
        header("cookie"),
        &request().header("cookie", "a=1").header("cookie", "b=2"),
        &[(&["a=1; b=2"], true), (&["a=1,b=2"], false)],
    );
}

#[test]
fn the_header_host_is_the_authority() {
    // HTTP/2 sends no host header; a rule about it must not be blind there.
    rows(
        header("host"),
        &request(),
        &[
            (&["reviews.shop:9080"], true),
            (&["*"], true),
            (&["!reviews.shop:9080"], false),
        ],
    );
    let two_names = request().header("host", "other");
    rows(header("host"), &two_names, &[(&["other"], false)]);
}

#[test]
fn header_values_need_not_be_text() {
    let mut sent = request();
    let value = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
    sent.headers.insert("x-role", value);
    rows(
        header("x-role"),
        &sent,
        &[(&["caf*"], true), (&["caf"], false), (&["*"], true)],
    );
}

#[test]
fn conditions_ask_the_same_facts_as_source_and_operation() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let request = Request {
        destination_ip: address("::ffff:240.0.0.5"),
        ..request()
    };
    for (condition, expected) in [
        (Condition::SourceIp(blocks(&["10.0.0.0/24"])), true),
        (Condition::SourceIp(blocks(&["192.0.2.9"])), false),
        (Condition::RemoteIp(blocks(&["192.0.2.9"])), true),
        (Condition::RemoteIp(blocks(&["!192.0.2.9"])), false),
        (Condition::DestinationIp(blocks(&["240.0.0.5"])), true),
        (Condition::DestinationIp(blocks(&["10.0.0.7"])), false),
        (Condition::DestinationPort(ports(&["9080"])), true),
        (Condition::DestinationPort(ports(&["!9080"])), false),
        (Condition::SourceNamespace(globs(&["s*p"])), true),
        (Condition::SourceNamespace(globs(&["web"])), false),
        (Condition::SourcePrincipal(strings(&["*/sa/web"])), true),
        (Condition::SourcePrincipal(strings(&["!*"])), false),
        (
            Condition::SourceServiceAccount(strings(&["shop/web"])),
            true,
        ),
        (
            Condition::SourceServiceAccount(strings(&["shop/api"])),
            false,
        ),
        (Condition::SourceTrustDomain(strings(&["cluster.*"])), true),
        (Condition::SourceTrustDomain(strings(&["other"])), false),
    ] {
        let rule = when(condition);
        assert_eq!(matches(&rule, &request), expected, "{rule:?}");
    }
}
