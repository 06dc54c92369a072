//! The fields of `source` (specs/istio-waypoint.md 4.8, fields): what matches, what does not, and
//! what the `not` twin makes of something absent.

use cairn_config_schema::snapshot::{PolicyRule, Source};

use crate::request::{Request, blocks, globs, request, rows, source, strings};

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
