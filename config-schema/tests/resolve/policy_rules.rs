//! What the rules of an AuthorizationPolicy say, field by field (specs/istio-waypoint.md 4.8).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::snapshot::{Condition, PathPattern, PolicyRule, Snapshot, StringMatch};

use super::support::{Ask, shop_with};

fn policy(action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{action: {action}, targetRefs: [{{group: \"\", kind: Service, name: web}}], rules: [{{{rule}}}]}}"
    )
}

fn snapshot(rule: &str) -> Snapshot {
    shop_with(&[&policy("ALLOW", rule)])
}

/// A rule of which nothing is said.
fn good(rule: &str) -> PolicyRule {
    let snapshot = snapshot(rule);
    assert!(snapshot.said().is_empty(), "{rule}: {:#?}", snapshot.said());
    let rule = snapshot.policy("shop/web").rules[0].clone();
    assert!(rule.broken.is_none());
    rule
}

/// A rule that works, with one warning at this path below the rule.
fn warned(rule: &str, path: &str) -> PolicyRule {
    warned_as("bad-value", rule, path)
}

/// The same with another code.
fn warned_as(code: &str, rule: &str, path: &str) -> PolicyRule {
    let snapshot = snapshot(rule);
    let expected = format!("warning {code} AuthorizationPolicy/shop/p spec.rules[0].{path}");
    assert_eq!(snapshot.said(), [expected], "{rule}");
    let rule = snapshot.policy("shop/web").rules[0].clone();
    assert!(rule.broken.is_none());
    rule
}

/// A rule that can not be evaluated, for one reason at this path below the rule.
fn breaks(rule: &str, code: &str, path: &str) {
    let snapshot = snapshot(rule);
    let expected = format!("error {code} AuthorizationPolicy/shop/p spec.rules[0].{path}");
    assert_eq!(snapshot.said(), [expected], "{rule}");
    let found = &snapshot.policy("shop/web").rules[0];
    assert_eq!(
        *found,
        PolicyRule {
            broken: Some(snapshot.diagnostics[0].message.as_str().into()),
            ..PolicyRule::default()
        },
        "a broken rule is nothing but its reason"
    );
}

fn source(text: &str) -> String {
    format!("from: [{{source: {{{text}}}}}]")
}

fn operation(text: &str) -> String {
    format!("to: [{{operation: {{{text}}}}}]")
}

fn when(key: &str, text: &str) -> String {
    format!("when: [{{key: \"{key}\", {text}}}]")
}

fn texts(values: &[StringMatch]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn every_field_has_its_place() {
    let rule = good(&[
        source("principals: [cluster.local/ns/a/sa/b], notNamespaces: [c], ipBlocks: [10.0.0.0/8], notRemoteIpBlocks: [1.2.3.4], trustDomains: [td*]"),
        operation("hosts: [A.example], methods: [GET, POST], notPaths: [/x], ports: [\"80\"]"),
        when("request.headers[X-A]", "values: [v], notValues: [w]"),
    ].join(", "));
    let source = &rule.from[0];
    assert_eq!(
        texts(&source.principals.any_of),
        ["cluster.local/ns/a/sa/b"]
    );
    assert_eq!(texts(&source.namespaces.none_of), ["c"]);
    assert_eq!(source.ip_blocks.any_of[0].to_string(), "10.0.0.0/8");
    assert_eq!(source.remote_ip_blocks.none_of[0].to_string(), "1.2.3.4/32");
    assert_eq!(texts(&source.trust_domains.any_of), ["td*"]);
    let operation = &rule.to[0];
    assert_eq!(texts(&operation.hosts.any_of), ["a.example"]);
    assert_eq!(texts(&operation.methods.any_of), ["GET", "POST"]);
    assert_eq!(operation.paths.none_of.len(), 1);
    assert_eq!(operation.ports.any_of, [80]);
    let [Condition::RequestHeader { name, values }] = rule.when.as_slice() else {
        panic!("{:?}", rule.when);
    };
    assert_eq!(name, "x-a");
    assert_eq!(
        (texts(&values.any_of), texts(&values.none_of)),
        (vec!["v".into()], vec!["w".into()])
    );
}

#[test]
fn an_empty_rule_matches_everything() {
    assert_eq!(good(""), PolicyRule::default());
    assert_eq!(good("when: []"), PolicyRule::default());
}

#[test]
fn principals_are_expanded_over_the_trust_domain_and_its_aliases() {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: \"{trustDomain: new, trustDomainAliases: [old]}\"";
    let expanded = |rule: &str| {
        let snapshot = shop_with(&[config, &policy("ALLOW", rule)]);
        assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
        snapshot.policy("shop/web").rules[0].clone()
    };
    let rule = expanded(&source(
        "principals: [cluster.local/ns/a/sa/b, \"*/sa/c\"], notPrincipals: [\"old/ns/a/*\"]",
    ));
    let principals = &rule.from[0].principals;
    assert_eq!(
        texts(&principals.any_of),
        ["new/ns/a/sa/b", "old/ns/a/sa/b", "*/sa/c"]
    );
    assert_eq!(texts(&principals.none_of), ["new/ns/a/*", "old/ns/a/*"]);

    let rule = expanded(&when("source.principal", "values: [new/ns/a/sa/b]"));
    let [Condition::SourcePrincipal(values)] = rule.when.as_slice() else {
        panic!("{:?}", rule.when);
    };
    assert_eq!(texts(&values.any_of), ["new/ns/a/sa/b", "old/ns/a/sa/b"]);
}

#[test]
fn a_principal_of_a_foreign_trust_domain_is_kept_and_warned_of() {
    let rule = warned(
        &source("principals: [other/ns/a/sa/b]"),
        "from[0].source.principals[0]",
    );
    assert_eq!(texts(&rule.from[0].principals.any_of), ["other/ns/a/sa/b"]);
}

#[test]
fn a_principal_with_its_scheme_breaks_the_rule() {
    breaks(
        &source("principals: [\"spiffe://cluster.local/ns/a/sa/b\"]"),
        "bad-value",
        "from[0].source.principals[0]",
    );
}

#[test]
fn namespaces_have_stars_anywhere() {
    let rule = good(&source(
        "namespaces: [a, \"a*\", \"*a\", \"*\", \"a*b\", \"*a*\"]",
    ));
    assert_eq!(
        rule.from[0].namespaces.any_of,
        [
            StringMatch::Exact("a".into()),
            StringMatch::Prefix("a".into()),
            StringMatch::Suffix("a".into()),
            StringMatch::Any,
            StringMatch::Glob("a*b".into()),
            StringMatch::Glob("*a*".into()),
        ]
    );
}

#[test]
fn service_accounts_are_exact_and_of_the_policys_namespace_unless_they_say_otherwise() {
    let rule = good(&source("serviceAccounts: [web, bank/pay]"));
    assert_eq!(
        texts(&rule.from[0].service_accounts.any_of),
        ["shop/web", "bank/pay"]
    );
    for account in ["web*", "*", "a/b/c", "/a", "a/"] {
        breaks(
            &source(&format!("notServiceAccounts: [\"{account}\"]")),
            "bad-value",
            "from[0].source.notServiceAccounts[0]",
        );
    }
}

#[test]
fn ip_blocks_are_addresses_or_blocks_of_both_families() {
    let rule = good(&source(
        "ipBlocks: [10.1.2.3, 10.1.2.3/8, \"fd00::1\", \"fd00::/8\"]",
    ));
    let blocks: Vec<_> = rule.from[0]
        .ip_blocks
        .any_of
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        blocks,
        ["10.1.2.3/32", "10.0.0.0/8", "fd00::1/128", "fd00::/8"]
    );
    for block in ["10.1.2", "10.0.0.0/33", "a.example"] {
        breaks(
            &source(&format!("ipBlocks: [\"{block}\"]")),
            "bad-value",
            "from[0].source.ipBlocks[0]",
        );
    }
}

#[test]
fn ports_are_numbers_as_strings() {
    for port in ["0", "65536", "http", "+80", "8*", "-1"] {
        breaks(
            &operation(&format!("ports: [\"{port}\"]")),
            "bad-value",
            "to[0].operation.ports[0]",
        );
    }
}

#[test]
fn paths_are_texts_or_templates() {
    let rule = good(&operation(
        "paths: [/a, \"/a*\", \"*/a\", \"/a*b\", \"/a/{*}/b\", \"/a/{**}\"]",
    ));
    let kinds: Vec<&str> = (rule.to[0].paths.any_of.iter())
        .map(|pattern| match pattern {
            PathPattern::Text(StringMatch::Exact(_)) => "exact",
            PathPattern::Text(StringMatch::Prefix(_)) => "prefix",
            PathPattern::Text(StringMatch::Suffix(_)) => "suffix",
            PathPattern::Text(_) => "other",
            PathPattern::Template(_) => "template",
        })
        .collect();
    // A star inside is literal.
    assert_eq!(
        kinds,
        ["exact", "prefix", "suffix", "exact", "template", "template"]
    );
    for path in ["/a/{**}/{*}", "/a{*}", "/a/{id}", "/a/{*}/b*", "a/{*}"] {
        breaks(
            &operation(&format!("paths: [\"{path}\"]")),
            "bad-value",
            "to[0].operation.paths[0]",
        );
    }
}

#[test]
fn paths_are_escaped_as_normalised_requests_are() {
    let rule = good(&operation("paths: [/%7euser, \"/caf%c3%a9/{*}\"]"));
    let paths = serde_json::to_value(&rule.to[0].paths.any_of).unwrap();
    assert_eq!(paths, serde_json::json!(["/~user", "/caf%C3%A9/{*}"]));
}

#[test]
fn values_that_can_hardly_be_meant_are_warned_of() {
    for path in ["admin", "/a//b", "/a/../b", "/a?b=c"] {
        let text = operation(&format!("notPaths: [\"{path}\"]"));
        warned(&text, "to[0].operation.notPaths[0]");
    }
    let methods = operation("methods: [get]");
    warned_as("lower-case-method", &methods, "to[0].operation.methods[0]");
}

#[test]
fn empty_values_and_empty_items_break_the_rule() {
    for (rule, path) in [
        (source("principals: [\"\"]"), "from[0].source.principals[0]"),
        (operation("notHosts: [\"\"]"), "to[0].operation.notHosts[0]"),
        (when("source.ip", "values: [\"\"]"), "when[0].values[0]"),
    ] {
        breaks(&rule, "bad-value", path);
    }
    for (rule, path) in [
        ("from: []".to_owned(), "from"),
        ("from: [{}]".to_owned(), "from[0].source"),
        ("from: [{source: {}}]".to_owned(), "from[0].source"),
        ("to: []".to_owned(), "to"),
        ("to: [{}]".to_owned(), "to[0].operation"),
        ("to: [{operation: {}}]".to_owned(), "to[0].operation"),
        // A template that rendered nobody must not let everybody in.
        (
            source("principals: [], namespaces: [a]"),
            "from[0].source.principals",
        ),
        (when("source.ip", "values: []"), "when[0]"),
        ("when: [{key: source.ip}]".to_owned(), "when[0]"),
    ] {
        breaks(&rule, "missing-field", path);
    }
    good(&source("notPrincipals: [], namespaces: [a]"));
}

#[test]
fn the_names_of_a_claim_are_in_brackets() {
    let key = "request.auth.claims[https://a.example/roles][b]";
    let rule = good(&when(key, "values: [a]"));
    let Condition::Claim { path, .. } = &rule.when[0] else {
        panic!("{:?}", rule.when);
    };
    assert_eq!(path.join(" "), "https://a.example/roles b");
    for key in [
        "request.auth.claims",
        "request.auth.claims[]",
        "request.auth.claims[a",
        "request.auth.claims[a]b]",
        "request.auth.claims[a].b",
        "request.auth.other",
    ] {
        breaks(&when(key, "values: [a]"), "bad-value", "when[0].key");
    }
}

#[test]
fn keys_that_a_waypoint_does_not_have_break_the_rule() {
    for key in ["connection.sni", "experimental.envoy.filters.a[b]"] {
        breaks(&when(key, "values: [a]"), "unsupported", "when[0].key");
    }
    for key in [
        "source.ports",
        "request.headers",
        "request.headers[a b]",
        "request.headers[]",
    ] {
        breaks(&when(key, "values: [a]"), "bad-value", "when[0].key");
    }
    let snapshot = snapshot(&when("source.namespaces", "values: [a]"));
    let hint = snapshot.finding(Code::BadValue).hint.as_deref();
    assert_eq!(hint, Some("did you mean source.namespace?"));
}

#[test]
fn every_key_has_its_condition() {
    for (key, value, expected) in [
        ("source.ip", "10.0.0.1", "SourceIp"),
        ("remote.ip", "10.0.0.1", "RemoteIp"),
        ("source.namespace", "a", "SourceNamespace"),
        ("source.principal", "*", "SourcePrincipal"),
        ("source.serviceAccount", "a", "SourceServiceAccount"),
        ("source.trustDomain", "a", "SourceTrustDomain"),
        ("destination.ip", "10.0.0.1", "DestinationIp"),
        ("destination.port", "80", "DestinationPort"),
        ("request.headers[a]", "*", "RequestHeader"),
    ] {
        for list in ["values", "notValues"] {
            let rule = good(&when(key, &format!("{list}: [\"{value}\"]")));
            let found = format!("{:?}", rule.when[0]);
            assert!(found.starts_with(expected), "{key}: {found}");
        }
    }
}

#[test]
fn the_effect_of_a_broken_rule_depends_on_the_action() {
    let effect = |action: &str, annotation: &str| {
        let yaml = policy(action, &source("ipBlocks: [a]")).replace(
            "namespace: shop}",
            &format!("namespace: shop{annotation}}}"),
        );
        let snapshot = shop_with(&[&yaml]);
        snapshot.diagnostics[0].effect.clone().unwrap()
    };
    assert_eq!(effect("ALLOW", ""), "this rule allows nothing to shop/web");
    assert_eq!(
        effect("DENY", ""),
        "this rule denies every request and connection to shop/web"
    );
    let dry = ", annotations: {istio.io/dry-run: \"true\"}";
    assert!(effect("DENY", dry).contains("dry run"));
}

/// Requests reach policy without the dot at the end of their host.
#[test]
fn a_host_is_compared_without_its_last_dot_wherever_it_is_written() {
    for (value, expected) in [
        ("Web.shop.", StringMatch::Exact("Web.shop".into())),
        ("web.shop.:80", StringMatch::Exact("web.shop:80".into())),
        ("*.shop.", StringMatch::Suffix(".shop".into())),
        ("web.*", StringMatch::Prefix("web.".into())),
    ] {
        let rule = good(&when(
            "request.headers[Host]",
            &format!("values: [\"{value}\"]"),
        ));
        let [Condition::RequestHeader { values, .. }] = rule.when.as_slice() else {
            panic!("{:?}", rule.when);
        };
        assert_eq!(values.any_of, [expected], "{value}");
    }
}
