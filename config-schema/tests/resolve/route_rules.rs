//! What the rules of an HTTPRoute say: matches, filters, backends (specs/gateway-api.md 1.4).

use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{
    BackendTarget, Filter, HttpRule, PathMatch, PathRewrite, Snapshot, TextMatch,
};

use super::support::{Ask, break_object, load, shop, shop_with};

const BACKEND: &str = "backendRefs: [{name: api, port: 80}]";

fn route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: 80}}]\n  rules: [{{{rule}}}]"
    )
}

fn first_rule(snapshot: &Snapshot) -> HttpRule {
    snapshot.service("shop/web").ports[0].routes[0].rules[0].clone()
}

/// The rule and what is said of it.
fn rule(text: &str) -> (HttpRule, Vec<String>) {
    let snapshot = shop_with(&[&route(text)]);
    (first_rule(&snapshot), snapshot.said())
}

/// A rule of which nothing is said.
fn good(text: &str) -> HttpRule {
    let (rule, said) = rule(text);
    assert!(said.is_empty(), "{text}: {said:?}");
    assert!(rule.broken.is_none());
    rule
}

/// A rule that answers 500, for one reason at this path below the rule.
fn breaks(text: &str, code: &str, path: &str) -> HttpRule {
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

fn filtering(text: &str) -> String {
    format!("filters: [{text}], {BACKEND}")
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
    ] {
        let rule = good(&matching(&format!("path: {written}")));
        let found = match &rule.matches[0].path {
            PathMatch::Exact(path) => format!("exact {path}"),
            PathMatch::Prefix(path) => format!("prefix {path}"),
            PathMatch::Regex(pattern) => format!("regex {}", pattern.source()),
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
        "a", "/a//b", "/a/../b", "/a/..", "/a%2Fb", "/a?b", "/a#b", "/ä",
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

#[test]
fn header_changes_keep_their_lists() {
    let change = "{set: [{name: Host, value: a}], add: [{name: X-A, value: \"1\"}], remove: [x-b]}";
    let rule = good(&filtering(&format!(
        "{{type: RequestHeaderModifier, requestHeaderModifier: {change}}}, {{type: ResponseHeaderModifier, responseHeaderModifier: {change}}}"
    )));
    let [Filter::RequestHeaders(request), Filter::ResponseHeaders(_)] = rule.filters.as_slice()
    else {
        panic!("{:?}", rule.filters);
    };
    assert_eq!(request.set[0].0, "host");
    assert_eq!(
        request.add[0],
        ("x-a".parse().unwrap(), "1".parse().unwrap())
    );
    assert_eq!(request.remove[0], "x-b");
}

#[test]
fn header_changes_that_can_not_be_made_break_the_rule() {
    for (change, code, at) in [
        (
            "set: [{name: \"a b\", value: x}]",
            "bad-value",
            "set[0].name",
        ),
        (
            "set: [{name: \":path\", value: x}]",
            "bad-value",
            "set[0].name",
        ),
        (
            "add: [{name: a, value: \"x\\ny\"}]",
            "bad-value",
            "add[0].value",
        ),
        (
            "set: [{name: a, value: x}, {name: A, value: z}]",
            "conflict",
            "set[1].name",
        ),
        ("remove: [a, a]", "conflict", "remove[1]"),
        ("remove: [content-length]", "unsupported", "remove[0]"),
        (
            "set: [{name: Transfer-Encoding, value: chunked}]",
            "unsupported",
            "set[0].name",
        ),
    ] {
        let text = filtering(&format!(
            "{{type: RequestHeaderModifier, requestHeaderModifier: {{{change}}}}}"
        ));
        breaks(
            &text,
            code,
            &format!("filters[0].requestHeaderModifier.{at}"),
        );
    }
}

#[test]
fn a_redirect_has_302_unless_it_says_otherwise() {
    let redirect = |text: &str| {
        let text = format!("filters: [{{type: RequestRedirect, requestRedirect: {{{text}}}}}]");
        match good(&text).filters.as_slice() {
            [Filter::Redirect(redirect)] => redirect.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(redirect("hostname: a.example").status, 302);
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(redirect(&format!("statusCode: {status}")).status, status);
    }
    let full =
        redirect("scheme: https, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /x}");
    assert_eq!(full.port, Some(8443));
    assert_eq!(full.path, Some(PathRewrite::Full("/x".into())));
}

#[test]
fn a_redirect_that_can_not_be_made_breaks_the_rule() {
    for (text, at) in [
        ("statusCode: 305", "statusCode"),
        ("port: 0", "port"),
        ("port: 70000", "port"),
        ("hostname: \"a.example:80\"", "hostname"),
        ("hostname: \"*.example\"", "hostname"),
        (
            "path: {type: ReplaceFullPath, replaceFullPath: x}",
            "path.replaceFullPath",
        ),
        (
            "path: {type: ReplaceFullPath, replaceFullPath: \"/x?y\"}",
            "path.replaceFullPath",
        ),
    ] {
        breaks(
            &format!("filters: [{{type: RequestRedirect, requestRedirect: {{{text}}}}}]"),
            "bad-value",
            &format!("filters[0].requestRedirect.{at}"),
        );
    }
    breaks(
        "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath}}}]",
        "missing-field",
        "filters[0].requestRedirect.path.replaceFullPath",
    );
}

const PREFIX_REWRITE: &str = "{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";

#[test]
fn a_prefix_is_replaced_only_where_every_match_is_a_prefix() {
    let rule = good(&format!(
        "matches: [{{path: {{value: /a}}}}], filters: [{PREFIX_REWRITE}], {BACKEND}"
    ));
    let [Filter::Rewrite(rewrite)] = rule.filters.as_slice() else {
        panic!("{:?}", rule.filters);
    };
    assert_eq!(rewrite.path, Some(PathRewrite::Prefix("/b".into())));
    assert_eq!(rewrite.hostname.as_ref().unwrap(), "b.example");

    breaks(
        &format!(
            "matches: [{{path: {{value: /a}}}}, {{path: {{type: Exact, value: /c}}}}], filters: [{PREFIX_REWRITE}], {BACKEND}"
        ),
        "conflict",
        "filters[0].urlRewrite.path.replacePrefixMatch",
    );
}

#[test]
fn rewrite_and_redirect_on_one_rule_are_incompatible() {
    breaks(
        &format!(
            "filters: [{PREFIX_REWRITE}, {{type: RequestRedirect, requestRedirect: {{port: 1}}}}]"
        ),
        "conflict",
        "filters",
    );
}

#[test]
fn a_filter_twice_or_without_content_breaks_the_rule() {
    let set = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}";
    breaks(
        &filtering(&format!("{set}, {set}")),
        "conflict",
        "filters[1]",
    );
    breaks(
        &filtering("{type: RequestHeaderModifier}"),
        "missing-field",
        "filters[0]",
    );
}

#[test]
fn filters_that_are_left_out_break_the_rule_and_are_never_skipped() {
    for filter in [
        "{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}}}",
        "{type: CORS, cors: {allowOrigins: [\"*\"]}}",
        "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: api, port: 80}}}",
        "{type: ExtensionRef, extensionRef: {group: g, kind: K, name: ext}}",
    ] {
        let rule = breaks(&filtering(filter), "unsupported", "filters[0]");
        assert_eq!(rule.matches.len(), 1);
    }
}

#[test]
fn fields_that_are_left_out_break_the_rule() {
    for (field, at) in [
        ("timeouts: {request: 1s}", "timeouts.request"),
        (
            "timeouts: {backendRequest: 10ms}",
            "timeouts.backendRequest",
        ),
        ("retry: {attempts: 2}", "retry"),
        ("sessionPersistence: {sessionName: s}", "sessionPersistence"),
    ] {
        breaks(&format!("{field}, {BACKEND}"), "unsupported", at);
    }
    // Zero means none, which is what there is.
    good(&format!(
        "timeouts: {{request: 0s, backendRequest: 0h0m}}, {BACKEND}"
    ));
}

fn target(rule: &HttpRule, index: usize) -> String {
    match &rule.backends[index].target {
        BackendTarget::Cluster(cluster) => cluster.to_string(),
        BackendTarget::Invalid(reason) => format!("500: {reason}"),
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
fn a_backends_own_filters_are_header_changes_only() {
    let of_backend =
        |filter: &str| format!("backendRefs: [{{name: api, port: 80, filters: [{filter}]}}]");
    let rule = good(&of_backend(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}",
    ));
    assert!(matches!(
        rule.backends[0].filters[0],
        Filter::RequestHeaders(_)
    ));
    breaks(
        &of_backend("{type: URLRewrite, urlRewrite: {hostname: a.example}}"),
        "unsupported",
        "backendRefs[0].filters[0]",
    );
}

#[test]
fn a_rule_has_its_name() {
    let rule = good(&format!("name: main, {BACKEND}"));
    assert_eq!(rule.name, Some(Arc::from("main")));
}
