//! What the rules of an HTTPRoute say: matches and backends (specs/gateway-api.md 1.4). Filters are in
//! `route_filters`.

use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{
    BackendTarget, HttpRule, PathMatch, SessionCarrier, Snapshot, TextMatch,
};

use super::support::{Ask, break_object, load, shop, shop_with};

pub const BACKEND: &str = "backendRefs: [{name: api, port: 80}]";

fn route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: 80}}]\n  rules: [{{{rule}}}]"
    )
}

fn first_rule(snapshot: &Snapshot) -> HttpRule {
    snapshot.service("shop/web").ports[0].routes[0].rules[0].clone()
}

/// The rule and what is said of it.
pub fn rule(text: &str) -> (HttpRule, Vec<String>) {
    let snapshot = shop_with(&[&route(text)]);
    (first_rule(&snapshot), snapshot.said())
}

/// A rule of which nothing is said.
pub fn good(text: &str) -> HttpRule {
    let (rule, said) = rule(text);
    assert!(said.is_empty(), "{text}: {said:?}");
    assert!(rule.broken.is_none());
    rule
}

/// A rule that answers 500, for one reason at this path below the rule.
pub fn breaks(text: &str, code: &str, path: &str) -> HttpRule {
    let snapshot = shop_with(&[&route(text)]);
    let rule = first_rule(&snapshot);
    assert!(rule.broken.is_some(), "{text}");
    let expected = format!("error {code} HTTPRoute/shop/r spec.rules[0].{path}");
    assert_eq!(snapshot.said(), [expected], "{text}");
    let effect = snapshot.diagnostics[0].effect.as_deref().unwrap();
    assert_eq!(
        effect,
        "requests to shop/web:80 that this rule matches are answered 500"
    );
    rule
}

fn matching(text: &str) -> String {
    format!("matches: [{{{text}}}], {BACKEND}")
}

#[test]
fn a_path_is_exact_a_prefix_without_trailing_slash_or_an_expression() {
    for (written, expected) in [
        ("{type: Exact, value: /a/}", "exact /a/"),
        ("{type: PathPrefix, value: /a/}", "prefix /a"),
        ("{type: PathPrefix, value: /}", "prefix "),
        ("{value: /a}", "prefix /a"),
        ("{type: PathPrefix}", "prefix "),
        ("{type: RegularExpression, value: \"/a|/b\"}", "regex /a|/b"),
        // As requests are when they are compared with it.
        (
            "{type: Exact, value: /%7euser/%c3%a9}",
            "exact /~user/%C3%A9",
        ),
    ] {
        let rule = good(&matching(&format!("path: {written}")));
        let found = match &rule.matches[0].path {
            PathMatch::Exact(path) => format!("exact {path}"),
            PathMatch::Prefix(path) => format!("prefix {path}"),
            PathMatch::Regex(pattern) => format!("regex {}", pattern.source()),
            PathMatch::Begins { .. } => panic!("of VirtualServices"),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn no_matches_are_the_prefix_of_everything() {
    for text in [BACKEND.to_owned(), format!("matches: [], {BACKEND}")] {
        let rule = good(&text);
        assert_eq!(rule.matches.len(), 1);
        assert!(matches!(&rule.matches[0].path, PathMatch::Prefix(p) if p.is_empty()));
    }
}

#[test]
fn method_headers_and_query_parameters_are_matched() {
    let rule = good(&matching(
        "method: PATCH, headers: [{name: X-A, value: \"1\"}, {name: x-b, type: RegularExpression, value: \"v[0-9]\"}], queryParams: [{name: q, value: \"1\"}, {name: Q, type: RegularExpression, value: x+}]",
    ));
    let found = &rule.matches[0];
    assert_eq!(found.method.as_ref().unwrap(), "PATCH");
    assert_eq!(found.headers[0].name, "x-a");
    assert!(matches!(&found.headers[0].value, TextMatch::Exact(v) if &**v == "1"));
    assert!(matches!(&found.headers[1].value, TextMatch::Regex(p) if p.matches("v1")));
    // Names of query parameters are case-sensitive, so these are two.
    assert_eq!(found.query.len(), 2);
}

#[test]
fn only_the_first_match_of_a_name_counts() {
    let (rule, said) = rule(&matching(
        "headers: [{name: x-a, value: \"1\"}, {name: X-A, value: \"2\"}], queryParams: [{name: q, value: \"1\"}, {name: q, value: \"2\"}]",
    ));
    assert_eq!(
        (rule.matches[0].headers.len(), rule.matches[0].query.len()),
        (1, 1)
    );
    assert!(rule.broken.is_none());
    assert_eq!(
        said,
        [
            "warning conflict HTTPRoute/shop/r spec.rules[0].matches[0].headers[1]",
            "warning conflict HTTPRoute/shop/r spec.rules[0].matches[0].queryParams[1]",
        ]
    );
}

#[test]
fn a_path_that_no_request_can_have_breaks_the_rule_which_then_matches_all_paths() {
    for path in [
        "a",
        "/a//b",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/..",
        "/a%2Fb",
        "/a?b",
        "/a#b",
        "/ä",
    ] {
        for kind in ["Exact", "PathPrefix"] {
            let text = matching(&format!("path: {{type: {kind}, value: \"{path}\"}}"));
            let rule = breaks(&text, "bad-value", "matches[0].path.value");
            assert!(matches!(&rule.matches[0].path, PathMatch::Prefix(p) if p.is_empty()));
        }
    }
}

#[test]
fn a_broken_expression_matches_every_value_of_its_header() {
    let rule = breaks(
        &matching(
            "path: {value: /a}, headers: [{name: x-a, type: RegularExpression, value: \"(\"}]",
        ),
        "bad-value",
        "matches[0].headers[0].value",
    );
    let found = &rule.matches[0];
    assert!(matches!(&found.path, PathMatch::Prefix(p) if &**p == "/a"));
    assert!(matches!(&found.headers[0].value, TextMatch::Regex(p) if p.matches("any\nthing")));
}

#[test]
fn a_broken_expression_for_a_path_matches_every_path_with_the_rest_of_the_match() {
    let rule = breaks(
        &matching("method: GET, path: {type: RegularExpression, value: \"(\"}"),
        "bad-value",
        "matches[0].path.value",
    );
    let found = &rule.matches[0];
    assert!(matches!(&found.path, PathMatch::Regex(p) if p.matches("/any/thing")));
    assert_eq!(found.method.as_ref().unwrap(), "GET");
}

#[test]
fn a_name_that_no_header_can_have_is_left_out_of_the_broken_match() {
    let rule = breaks(
        &matching("headers: [{name: \"a b\", value: \"1\"}]"),
        "bad-value",
        "matches[0].headers[0].name",
    );
    assert!(rule.matches[0].headers.is_empty());
    breaks(
        &matching("queryParams: [{name: \"\", value: \"1\"}]"),
        "bad-value",
        "matches[0].queryParams[0].name",
    );
}

/// GEP-1619. What is broken about sessions is in the golden case routing/sessions.
#[test]
fn sessions_have_a_name_of_their_own_and_last_whole_seconds() {
    let session = |written: &str| {
        let rule = good(&format!("sessionPersistence: {{{written}}}, {BACKEND}"));
        (*rule.traffic.session.unwrap()).clone()
    };
    let read = session("idleTimeout: 1500ms");
    let SessionCarrier::Cookie { name, permanent } = &read.carrier else {
        panic!("{read:?}")
    };
    assert!(name.starts_with("cairn-session-"), "{name}");
    assert_eq!(
        (*permanent, read.absolute_timeout_s, read.idle_timeout_s),
        (false, None, Some(2))
    );
    assert_eq!(
        session("idleTimeout: 1500ms"),
        read,
        "the same at every start"
    );
    let header = session("type: Header, sessionName: X-Cart").carrier;
    assert_eq!(header, SessionCarrier::Header("x-cart".parse().unwrap()));
    assert_eq!(good(BACKEND).traffic.session, None);
}

/// GEP-1619, "Traffic Splitting": a session stays at a backend of weight 0.
#[test]
fn a_backend_of_weight_0_is_kept_for_sessions_alone() {
    const BACKENDS: &str = "backendRefs: [{name: api, port: 80}, {name: web, port: 80, weight: 0}]";
    assert_eq!(good(BACKENDS).backends.len(), 1);
    let with = good(&format!(
        "sessionPersistence: {{sessionName: s}}, {BACKENDS}"
    ));
    let weights: Vec<u32> = with.backends.iter().map(|b| b.weight).collect();
    assert_eq!(weights, [1, 0]);
}

fn target(rule: &HttpRule, index: usize) -> String {
    match &rule.backends[index].target {
        BackendTarget::Cluster(cluster) => cluster.to_string(),
        BackendTarget::Invalid(reason) => format!("500: {reason}"),
        BackendTarget::Unknown(reason) => format!("503: {reason}"),
    }
}

#[test]
fn backends_are_services_of_any_namespace_with_weights() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: bank}\nspec: {clusterIP: 10.9.0.1, ports: [{port: 443}]}";
    let text =
        "backendRefs: [{name: api, port: 80, weight: 9}, {name: pay, namespace: bank, port: 443}]";
    let snapshot = shop_with(&[other, &route(text)]);
    let rule = first_rule(&snapshot);
    assert_eq!(
        (target(&rule, 0), rule.backends[0].weight),
        ("shop/api:80".to_owned(), 9)
    );
    assert_eq!(
        (target(&rule, 1), rule.backends[1].weight),
        ("bank/pay:443".to_owned(), 1)
    );
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
}

#[test]
fn a_backend_that_leads_nowhere_keeps_its_share_and_answers_500() {
    for (reference, at) in [
        ("{name: gone, port: 80}", "name"),
        ("{name: api, port: 81}", "port"),
        ("{name: api}", "port"),
        (
            "{kind: Hostname, group: networking.istio.io, name: a.example}",
            "kind",
        ),
        ("{name: api, namespace: elsewhere, port: 80}", "name"),
    ] {
        let text = format!("backendRefs: [{reference}, {{name: api, port: 80}}]");
        let snapshot = shop_with(&[&route(&text)]);
        let rule = first_rule(&snapshot);
        assert!(target(&rule, 0).starts_with("500: "), "{reference}");
        assert_eq!(target(&rule, 1), "shop/api:80");
        assert!(rule.broken.is_none());
        let finding = snapshot.finding(Code::BackendNotFound);
        assert_eq!(finding.path, format!("spec.rules[0].backendRefs[0].{at}"));
        assert!(finding.effect.as_deref().unwrap().contains("its share"));
    }
}

#[test]
fn a_backend_that_can_not_be_read_answers_500() {
    let mut resources = load(&shop(&[&route(BACKEND)]));
    break_object(&mut resources.services, Kind::Service, "shop/api");
    let snapshot = resolve(&resources, &Options::default());
    let target = target(&first_rule(&snapshot), 0);
    assert!(target.contains("line 3 is nonsense"), "{target}");
}

#[test]
fn weight_zero_takes_nothing_even_if_the_service_is_missing() {
    let rule = good("backendRefs: [{name: gone, port: 80, weight: 0}, {name: api, port: 80}]");
    assert_eq!(rule.backends.len(), 1);
}

#[test]
fn a_rule_without_any_weight_answers_500_and_says_so() {
    for refs in [
        "",
        "backendRefs: [], ",
        "backendRefs: [{name: api, port: 80, weight: 0}]",
    ] {
        let (rule, said) = rule(refs);
        assert!(rule.backends.is_empty() && rule.broken.is_none());
        assert_eq!(
            said,
            ["warning missing-field HTTPRoute/shop/r spec.rules[0].backendRefs"]
        );
    }
}

#[test]
fn an_impossible_weight_breaks_the_rule() {
    for weight in ["-1", "1000001"] {
        breaks(
            &format!("backendRefs: [{{name: api, port: 80, weight: {weight}}}]"),
            "bad-value",
            "backendRefs[0].weight",
        );
    }
}

#[test]
fn a_redirect_has_no_use_for_backends() {
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {port: 1}}]";
    let (rule, said) = rule(&format!("{redirect}, {BACKEND}"));
    assert!(rule.broken.is_none());
    assert_eq!(
        said,
        ["warning conflict HTTPRoute/shop/r spec.rules[0].backendRefs"]
    );
}

#[test]
fn a_rule_has_its_name() {
    let rule = good(&format!("name: main, {BACKEND}"));
    assert_eq!(rule.name, Some(Arc::from("main")));
}

/// Requests are matched without the dot at the end of their host.
#[test]
fn a_match_on_host_is_compared_without_its_last_dot() {
    let found = good(&matching("headers: [{name: Host, value: web.shop.}]"));
    let headers = &found.matches[0].headers;
    assert!(matches!(&headers[0].value, TextMatch::Exact(v) if &**v == "web.shop"));
    let ends_in_dot =
        matching("headers: [{name: host, type: RegularExpression, value: 'web[.]shop\\.'}]");
    let (_, said) = rule(&ends_in_dot);
    assert_eq!(said.len(), 1, "{said:?}");
}
