//! What `cairn explain` says, case by case; and that it says what the engine decides.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

const MESH: &str = include_str!("tests/mesh.yaml");

/// The text for a question about the mesh above, and the outcome.
fn ask(line: &[&str]) -> (String, Outcome) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    fs::write(&file, MESH).unwrap();
    let always = ["explain", "--config", file.to_str().unwrap()];
    let args = Line::parse_from(always.iter().chain(line)).args;
    let loaded = configuration::load(&args.config, &args.choice);
    let question = Question {
        from: explain::client(&args.from, args.from_ip, &loaded.snapshot).unwrap(),
        to: &args.to,
        method: &args.method,
        path: &args.path,
        headers: args.headers.iter().cloned().collect(),
        tcp: args.tcp,
        server_name: args.sni.as_deref(),
        keys: Default::default(),
        now_s: 0,
    };
    let report = explain::judge(loaded.snapshot, question).unwrap();
    let text = text::render(&report, args.verbose, Paint::none()).unwrap();
    (text, outcome(&report))
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|l| l == *line),
            "no line `{line}` in\n{text}"
        );
    }
}

#[test]
fn allowed_request_shows_rule_route_shares_and_endpoints() {
    let (text, outcome) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "--path",
        "/a//items?x=1",
    ]);
    assert_eq!(
        text,
        "\
from       spiffe://cluster.local/ns/shop/sa/client (10.244.0.9, Pod/shop/client-1)
to         web:80 (Service/shop/web at 10.96.1.1:80, taken as http)
request    GET /a//items?x=1  Host: web
normalised /a/items?x=1
verdict    ALLOW by AuthorizationPolicy/shop/readers rule 0: method GET is GET
route      HTTPRoute/shop/canary rule 0: path prefix /a
goes to     90.0 % shop/web-v1:80 (weight 9)
             as /b/items?x=1
             request header  + x-version: one
             request header  + x-envoy-original-path: /a/items?x=1
             10.244.0.1:8080  by HBONE to spiffe://cluster.local/ns/shop/sa/web, Pod/shop/web-1
            10.0 % shop/web-v2:80 (weight 1)
             as /b/items?x=1
             request header  + x-version: one
             request header  + x-envoy-original-path: /a/items?x=1
             10.244.0.2:8080  by plain TCP
"
    );
    assert_eq!(outcome, Outcome::Fine);
}

#[test]
fn denied_request_names_the_nearest_allow() {
    let (text, outcome) = ask(&["--from", "shop/client", "--to", "web.shop:80", "-X", "POST"]);
    has(
        &text,
        &[
            "verdict    DENY by default: no ALLOW rule matches, nearest allow is \
             AuthorizationPolicy/shop/readers rule 0: method POST is not GET",
            "client     403 \"RBAC: access denied\" (rbac_access_denied_matched_policy[none])",
        ],
    );
    assert_eq!(outcome, Outcome::No);
}

#[test]
fn grpc_request_is_denied_in_grpc() {
    let grpc = "content-type: application/grpc";
    let (text, _) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "-X",
        "POST",
        "-H",
        grpc,
    ]);
    assert!(
        text.contains("client     200 grpc-status 7 \"RBAC: access denied\""),
        "{text}"
    );
}

#[test]
fn path_trick_is_refused_before_policy() {
    let (text, outcome) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "--path",
        "/a%2fadmin",
    ]);
    assert!(text.contains("client     400 \"bad path\""), "{text}");
    assert!(!text.contains("verdict"), "{text}");
    assert_eq!(outcome, Outcome::No);
}

#[test]
fn redirect_shows_its_location_and_is_fine() {
    let (text, outcome) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "10.96.1.1:80",
        "--path",
        "/old",
    ]);
    assert!(
        text.contains("client     301 to http://10.96.1.1/new"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::Fine);
}

#[test]
fn no_route_and_no_endpoint_are_failures() {
    let (text, outcome) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "--path",
        "/nowhere",
    ]);
    has(&text, &["route      none matches"]);
    assert!(text.contains("client     404 (route_not_found)"), "{text}");
    assert_eq!(outcome, Outcome::No);
    let (text, outcome) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "--path",
        "/empty",
    ]);
    assert!(text.contains("503 \"no healthy upstream\""), "{text}");
    assert_eq!(outcome, Outcome::No);
}

#[test]
fn tcp_service_is_refused_at_connect() {
    let (text, outcome) = ask(&["--from", "shop/client", "--to", "db:5432"]);
    assert!(
        text.contains("client     REFUSED: CONNECT is answered 401: policy denies it"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::No);
    let (text, outcome) = ask(&["--from", "shop/web", "--to", "db:5432"]);
    assert!(text.contains("goes to    shop/db:5432"), "{text}");
    assert_eq!(outcome, Outcome::Fine);
}

#[test]
fn what_is_not_served_says_why() {
    let (text, _) = ask(&["--from", "shop/client", "--to", "web-v1:80"]);
    assert!(
        text.contains("Service/shop/web-v1 is not bound to a waypoint"),
        "{text}"
    );
    let (text, _) = ask(&["--from", "shop/client", "--to", "web:81"]);
    assert!(text.contains("Service/shop/web has no such port"), "{text}");
    let (text, _) = ask(&["--from", "shop/client", "--to", "10.9.9.9:80"]);
    assert!(
        text.contains("nothing in the configuration has this address"),
        "{text}"
    );
}

#[test]
fn hostnames_end_in_the_cluster_domain() {
    let question = |more: &[&str], to: &str| {
        let line = [more, &["--from", "shop/client", "--to", to]].concat();
        ask(&line).0
    };
    let corp = ["--cluster-domain", "Corp.Example"];
    for (more, to, found) in [
        (&[][..], "web.shop.svc.cluster.local:80", true),
        (&[][..], "web.shop.svc.corp.example:80", false),
        (&corp, "web.shop.svc.corp.example:80", true),
        (&corp, "web.shop.svc.cluster.local:80", false),
    ] {
        let text = question(more, to);
        assert_eq!(text.contains("Service/shop/web at"), found, "{to}\n{text}");
    }
}

#[test]
fn peer_of_another_trust_domain_does_not_get_in() {
    let (text, outcome) = ask(&[
        "--from",
        "spiffe://evil/ns/shop/sa/client",
        "--to",
        "web:80",
    ]);
    assert!(
        text.contains("REFUSED at the TLS handshake: trust domain evil"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::No);
}

#[test]
fn verbose_shows_every_clause() {
    let (text, _) = ask(&[
        "--from",
        "shop/client",
        "--to",
        "web:80",
        "-X",
        "POST",
        "-v",
    ]);
    assert!(
        text.contains("no  to[0].operation.methods: method POST is not GET"),
        "{text}"
    );
}
