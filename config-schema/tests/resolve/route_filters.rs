//! Filters of HTTPRoute rules and of their backends (specs/gateway-api.md 1.4).

use cairn_config_schema::snapshot::{
    Filter, HostPattern, HttpRule, Names, OriginPattern, PathRewrite,
};

use super::route_rules::{BACKEND, breaks, good, rule};
use super::support::{Ask, shop_with};

fn filtering(text: &str) -> String {
    format!("filters: [{text}], {BACKEND}")
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
    let filter = "{type: ExtensionRef, extensionRef: {group: g, kind: K, name: ext}}";
    let rule = breaks(&filtering(filter), "unsupported", "filters[0]");
    assert_eq!(rule.matches.len(), 1);
    let of_backend = format!("backendRefs: [{{name: api, port: 80, filters: [{filter}]}}]");
    breaks(&of_backend, "unsupported", "backendRefs[0].filters[0]");
    for rule in [filtering(filter), of_backend] {
        let calls = format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {{name: r, namespace: shop}}, \
             spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{{rule}}}]}}}}"
        );
        let snapshot = shop_with(&[&calls]);
        let said = snapshot.said().join("\n");
        assert!(
            said.contains("error unsupported GRPCRoute/shop/r spec.rules[0]."),
            "{said}"
        );
    }
}

#[test]
fn a_backends_own_filters_are_those_of_a_rule_but_for_cors() {
    let of_backend =
        |filter: &str| format!("backendRefs: [{{name: api, port: 80, filters: [{filter}]}}]");
    let rule = good(&of_backend(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}",
    ));
    assert!(matches!(
        rule.backends[0].filters[0],
        Filter::RequestHeaders(_)
    ));
    for filter in [
        "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
        "{type: RequestRedirect, requestRedirect: {hostname: a.example}}",
        "{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}}}",
    ] {
        assert_eq!(good(&of_backend(filter)).backends[0].filters.len(), 1);
    }
    breaks(
        &of_backend("{type: CORS, cors: {allowOrigins: [\"*\"]}}"),
        "unsupported",
        "backendRefs[0].filters[0]",
    );
    breaks(
        &of_backend(
            "{type: URLRewrite, urlRewrite: {hostname: a.example}}, {type: RequestRedirect, requestRedirect: {port: 1}}",
        ),
        "conflict",
        "backendRefs[0].filters",
    );
}

/// The mirrors of a rule as `to numerator/denominator`.
fn mirrors(rule: &HttpRule) -> Vec<String> {
    let of = |filter: &Filter| match filter {
        Filter::Mirror(m) => format!("{} {}/{}", m.target, m.numerator, m.denominator),
        other => panic!("{other:?}"),
    };
    rule.filters.iter().map(of).collect()
}

#[test]
fn a_rule_has_any_number_of_mirrors_each_for_a_share() {
    let mirror = |more: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: api, port: 80}}{more}}}}}"
        )
    };
    let all = [
        mirror(""),
        mirror(", percent: 5"),
        mirror(", fraction: {numerator: 1, denominator: 3}"),
        mirror(", fraction: {numerator: 7}"),
    ];
    let rule = good(&filtering(&all.join(", ")));
    let expected = ["1/1", "5/100", "1/3", "7/100"].map(|share| format!("shop/api:80 {share}"));
    assert_eq!(mirrors(&rule), expected);
    for (more, code, at) in [
        (", percent: 101", "bad-value", "percent"),
        (
            ", fraction: {numerator: 2, denominator: 1}",
            "bad-value",
            "fraction",
        ),
        (
            ", fraction: {numerator: 1, denominator: 0}",
            "bad-value",
            "fraction",
        ),
    ] {
        let at = format!("filters[0].requestMirror.{at}");
        breaks(&filtering(&mirror(more)), code, &at);
    }
    breaks(
        &filtering(&mirror(", percent: 5, fraction: {numerator: 1}")),
        "conflict",
        "filters[0].requestMirror",
    );
}

/// specs/gateway-api.md 1.4, "Mirror": the requests themselves are as they were.
#[test]
fn a_mirror_that_leads_nowhere_is_left_out_and_said() {
    let filter = "{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}";
    let (rule, said) = rule(&filtering(filter));
    assert!(rule.filters.is_empty() && rule.broken.is_none());
    assert_eq!(
        said,
        [
            "error backend-not-found HTTPRoute/shop/r spec.rules[0].filters[0].requestMirror.backendRef.name"
        ]
    );
}

#[test]
fn cors_has_origins_names_and_the_apis_defaults() {
    let cors = |fields: &str| {
        let rule = good(&filtering(&format!("{{type: CORS, cors: {{{fields}}}}}")));
        match rule.filters.as_slice() {
            [Filter::Cors(cors)] => (**cors).clone(),
            other => panic!("{other:?}"),
        }
    };
    let read = cors(
        "allowOrigins: [\"https://*.a.example\", \"HTTP://b.example:8080\", \"http://c.example:*\"], allowMethods: [PUT, GET], allowHeaders: [\"*\"], exposeHeaders: [x-a, x-b], maxAge: 60, allowCredentials: true",
    );
    let of = |scheme: &str, host, port| OriginPattern::Of {
        scheme: scheme.into(),
        host,
        port,
    };
    let expected = [
        of(
            "https",
            HostPattern::EndsWith(".a.example".into()),
            Some(443),
        ),
        of("http", HostPattern::Exact("b.example".into()), Some(8080)),
        of("http", HostPattern::Exact("c.example".into()), None),
    ];
    assert_eq!(read.allow_origins, expected);
    // Methods that need no preflight are always allowed.
    assert_eq!(
        read.allow_methods,
        Names::Listed("GET, HEAD, POST, PUT".into())
    );
    assert_eq!(read.allow_headers, Names::Any);
    assert_eq!(read.expose_headers, Names::Listed("x-a, x-b".into()));
    assert!(read.max_age_s == 60 && read.allow_credentials);
    let read = cors("allowOrigins: [\"*\"]");
    assert_eq!(read.allow_origins, [OriginPattern::Any]);
    assert!(read.max_age_s == 5 && !read.allow_credentials);
    for (field, at) in [
        ("allowOrigins: [a.example]", "allowOrigins[0]"),
        ("allowOrigins: [\"https://a.*.example\"]", "allowOrigins[0]"),
        ("allowOrigins: [\"https://a.example/\"]", "allowOrigins[0]"),
        ("allowHeaders: [\"x y\"]", "allowHeaders[0]"),
        ("maxAge: 0", "maxAge"),
    ] {
        let filter = format!("{{type: CORS, cors: {{{field}}}}}");
        breaks(
            &filtering(&filter),
            "bad-value",
            &format!("filters[0].cors.{at}"),
        );
    }
}
