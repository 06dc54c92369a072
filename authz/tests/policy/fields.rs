//! Every row of the Fields table and every `when` key (specs/istio-waypoint.md 4.8): what matches,
//! what does not, and what the `not` twin makes of something absent.

use std::net::IpAddr;

use cairn_config_schema::snapshot::{Condition, Operation, PolicyRule, Source};
use http::header::HeaderName;

use crate::request::{
    Request, blocks, globs, matches, methods, operation, paths, ports, request, source, strings,
    when,
};

/// Asserts each row: values (with `!`: of the `not` twin), and whether the rule matches.
fn rows(rule: impl Fn(&[&str]) -> PolicyRule, request: &Request, rows: &[(&[&str], bool)]) {
    for (values, expected) in rows {
        assert_eq!(
            matches(&rule(values), request),
            *expected,
            "{values:?} {request:?}"
        );
    }
}

fn principals(values: &[&str]) -> PolicyRule {
    source(Source {
        principals: strings(values),
        ..Source::default()
    })
}

fn namespaces(values: &[&str]) -> PolicyRule {
    source(Source {
        namespaces: globs(values),
        ..Source::default()
    })
}

fn service_accounts(values: &[&str]) -> PolicyRule {
    source(Source {
        service_accounts: strings(values),
        ..Source::default()
    })
}

fn trust_domains(values: &[&str]) -> PolicyRule {
    source(Source {
        trust_domains: strings(values),
        ..Source::default()
    })
}

fn ip_blocks(values: &[&str]) -> PolicyRule {
    source(Source {
        ip_blocks: blocks(values),
        ..Source::default()
    })
}

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
fn principals_are_the_identity_without_the_scheme() {
    rows(
        principals,
        &request(),
        &[
            (&["cluster.local/ns/shop/sa/web"], true),
            (&["cluster.local/ns/shop/sa/we"], false),
            (&["spiffe://cluster.local/ns/shop/sa/web"], false),
            (&["cluster.local/ns/shop/*"], true),
            (&["cluster.local/ns/sho*"], true),
            (&["*/sa/web"], true),
            (&["*/sa/we"], false),
            (&["*"], true),
            // Only a leading or a trailing star is a wildcard.
            (&["cluster.local/*/sa/web"], false),
            (&["CLUSTER.LOCAL/ns/shop/sa/web"], false),
            (&["other", "cluster.local/ns/shop/sa/web"], true),
            (&["!cluster.local/ns/shop/sa/web"], false),
            (&["!cluster.local/ns/shop/sa/api"], true),
            (&["!a", "!*/sa/web"], false),
            (&["*", "!*/sa/web"], false),
            (&["*", "!*/sa/api"], true),
        ],
    );
}

#[test]
fn namespaces_have_stars_anywhere() {
    rows(
        namespaces,
        &request(),
        &[
            (&["shop"], true),
            (&["sho"], false),
            (&["shop-eu"], false),
            (&["s*p"], true),
            (&["*op"], true),
            (&["sh*"], true),
            (&["*"], true),
            (&["*x*"], false),
            (&["!shop"], false),
            (&["!s*"], false),
            (&["!web"], true),
        ],
    );
}

#[test]
fn service_accounts_are_exact_in_any_trust_domain() {
    let elsewhere = request().peer("spiffe://other.example/ns/shop/sa/web");
    let rows_: &[(&[&str], bool)] = &[
        (&["shop/web"], true),
        (&["shop/we"], false),
        (&["hop/web"], false),
        (&["shop/web2"], false),
        (&["web"], false),
        (&["!shop/web"], false),
        (&["!shop/api"], true),
    ];
    rows(service_accounts, &request(), rows_);
    rows(service_accounts, &elsewhere, rows_);
}

#[test]
fn trust_domains_have_string_forms() {
    rows(
        trust_domains,
        &request(),
        &[
            (&["cluster.local"], true),
            (&["cluster.loca"], false),
            (&["cluster.*"], true),
            (&["*.local"], true),
            (&["*"], true),
            (&["!cluster.local"], false),
            (&["!other.example"], true),
        ],
    );
}

#[test]
fn a_peer_without_identity_matches_no_source_and_every_not_source() {
    let fields = [principals, namespaces, service_accounts, trust_domains];
    for field in fields {
        rows(
            field,
            &request().no_peer(),
            &[(&["*"], false), (&[""], false), (&["!*"], true)],
        );
    }
}

#[test]
fn an_identity_of_another_form_has_a_principal_but_no_namespace_or_account() {
    let peer = request().peer("spiffe://cluster.local/gateway");
    rows(principals, &peer, &[(&["cluster.local/gateway"], true)]);
    rows(trust_domains, &peer, &[(&["cluster.local"], true)]);
    rows(namespaces, &peer, &[(&["*"], false), (&["!*"], true)]);
    rows(service_accounts, &peer, &[(&["*"], false), (&["!*"], true)]);
}

#[test]
fn ip_blocks_are_the_tcp_peer() {
    rows(
        ip_blocks,
        &request(),
        &[
            (&["10.0.0.7"], true),
            (&["10.0.0.0/24"], true),
            (&["10.0.0.8/29"], false),
            (&["0.0.0.0/0"], true),
            // Families do not mix.
            (&["::/0"], false),
            // IPv4 inside IPv6 is the IPv4 address.
            (&["::ffff:10.0.0.7"], true),
            (&["::ffff:10.0.0.0/120"], true),
            (&["::ffff:10.0.1.0/120"], false),
            (&["::ffff:0:0/96"], true),
            // The remote address is another field.
            (&["192.0.2.9"], false),
            (&["!10.0.0.0/8"], false),
            (&["!10.1.0.0/16"], true),
            (&["10.0.0.0/8", "!10.0.0.7"], false),
        ],
    );
    let mapped = Request {
        source_ip: "::ffff:10.0.0.7".parse().unwrap(),
        ..request()
    };
    rows(
        ip_blocks,
        &mapped,
        &[(&["10.0.0.0/24"], true), (&["!10.0.0.0/24"], false)],
    );
    let v6 = Request {
        source_ip: "fd00::7".parse().unwrap(),
        ..request()
    };
    rows(
        ip_blocks,
        &v6,
        &[
            (&["fd00::/8"], true),
            (&["fd00::8"], false),
            (&["0.0.0.0/0"], false),
        ],
    );
}

#[test]
fn remote_ip_blocks_are_the_address_after_x_forwarded_for() {
    rows(
        |values| {
            source(Source {
                remote_ip_blocks: blocks(values),
                ..Source::default()
            })
        },
        &request(),
        &[
            (&["192.0.2.0/24"], true),
            (&["10.0.0.7"], false),
            (&["!192.0.2.9"], false),
        ],
    );
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
