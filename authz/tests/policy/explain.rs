//! What a user reads: reasons, nearest allow, the text of an explanation.

use cairn_config_schema::snapshot::{Action, Condition, Operation, Policy, PolicyRule, Source};
use http::header::HeaderName;

use crate::request::{
    Request, globs, methods, operation, paths, policy, ports, request, set, strings, when,
};

fn reason(policies: &[Policy], request: &Request) -> String {
    let set = set(policies);
    let facts = request.facts();
    set.decide(&facts).reason(&set, &facts)
}

fn viewer() -> Policy {
    let rule = PolicyRule {
        from: vec![Source {
            namespaces: globs(&["shop"]),
            ..Source::default()
        }],
        ..methods(&["GET", "HEAD"])
    };
    let admin = PolicyRule {
        from: vec![Source {
            principals: strings(&["*/sa/admin"]),
            ..Source::default()
        }],
        ..methods(&["DELETE"])
    };
    policy("viewer", Action::Allow, vec![rule, admin])
}

#[test]
fn a_denial_by_default_names_the_nearest_allow_and_its_first_failed_clause() {
    assert_eq!(
        reason(&[viewer()], &request().method("POST")),
        "no ALLOW rule matches, nearest allow is AuthorizationPolicy/shop/viewer rule 0: \
         method POST is not one of GET, HEAD"
    );
}

#[test]
fn nearest_is_the_fewest_failed_clauses_then_the_furthest_along() {
    let explanation = |request: Request| {
        let nearest = set(&[viewer()]).explain(&request.facts()).nearest_allow;
        nearest.map(|n| (n.rule, n.failed))
    };
    // Rule 1 fails only in `from`, rule 0 only in `to`: rule 0 came further.
    let nearest = explanation(request().method("DELETE"));
    let failed = "method DELETE is not one of GET, HEAD".to_owned();
    assert_eq!(nearest, Some((0, failed)));
    // From another namespace rule 0 fails in both parts, rule 1 in one.
    let elsewhere = request().peer("spiffe://cluster.local/ns/web/sa/x");
    let nearest = explanation(elsewhere.method("DELETE"));
    let failed = "principal cluster.local/ns/web/sa/x is not */sa/admin".to_owned();
    assert_eq!(nearest, Some((1, failed)));
    assert_eq!(explanation(request()), None);
}

#[test]
fn of_several_items_the_one_that_came_closest_counts() {
    let item = |path: &str, port: &str| Operation {
        methods: strings(&["GET"]),
        paths: paths(&[path]),
        ports: ports(&[port]),
        ..Operation::default()
    };
    let rule = PolicyRule {
        to: vec![item("/admin", "80"), item("/reviews/*", "80")],
        ..PolicyRule::default()
    };
    let far = operation(item("/admin", "9080"));
    let far = PolicyRule {
        when: vec![Condition::SourceNamespace(globs(&["web"]))],
        ..far
    };
    let reason = reason(&[policy("p", Action::Allow, vec![far, rule])], &request());
    assert!(
        reason.ends_with("shop/p rule 1: port 9080 is not 80"),
        "{reason}"
    );
}

#[test]
fn a_denial_by_rule_names_what_matched() {
    let rule = PolicyRule {
        from: vec![Source {
            principals: strings(&["!*/sa/admin"]),
            ..Source::default()
        }],
        to: vec![
            Operation {
                ports: ports(&["80"]),
                ..Operation::default()
            },
            Operation {
                paths: paths(&["/admin/{**}", "/reviews/*"]),
                ..Operation::default()
            },
        ],
        ..PolicyRule::default()
    };
    assert_eq!(
        reason(&[policy("deny", Action::Deny, vec![rule])], &request()),
        "principal cluster.local/ns/shop/sa/web is not */sa/admin (notPrincipals) and \
         path /reviews/1 is one of /admin/{**}, /reviews/*"
    );
}

#[test]
fn the_other_reasons() {
    let get = || vec![methods(&["GET"])];
    let broken = Policy {
        broken: Some("spec.rules: expected a list".into()),
        ..policy("p", Action::Allow, vec![])
    };
    let broken_rule = |action| {
        let rule = PolicyRule {
            broken: Some("unknown key".into()),
            ..PolicyRule::default()
        };
        policy("p", action, vec![rule])
    };
    for (policies, request, expected) in [
        (vec![], request(), "no policy applies"),
        (
            vec![policy("p", Action::Deny, vec![methods(&["PUT"])])],
            request(),
            "no rule that denies matches and no ALLOW policy applies",
        ),
        (
            vec![policy("p", Action::Allow, get())],
            request(),
            "method GET is GET",
        ),
        (
            vec![policy("p", Action::Allow, vec![PolicyRule::default()])],
            request(),
            "the rule matches everything",
        ),
        (
            vec![policy("p", Action::Allow, vec![])],
            request(),
            "no ALLOW rule matches, for the ALLOW policies that apply have no rules",
        ),
        (
            vec![policy("p", Action::Custom, get())],
            request(),
            "there is no extension provider 'x', and method GET is GET",
        ),
        (
            vec![broken],
            request(),
            "can not be evaluated and so denies everything: spec.rules: expected a list",
        ),
        (
            vec![broken_rule(Action::Deny)],
            request(),
            "can not be evaluated and so denies everything: unknown key",
        ),
        (
            vec![broken_rule(Action::Allow)],
            request(),
            "no ALLOW rule matches, nearest allow is AuthorizationPolicy/shop/p rule 0: \
             can not be evaluated and so allows nothing: unknown key",
        ),
        (
            vec![policy("p", Action::Allow, get())],
            request().tcp(),
            "no ALLOW rule matches, nearest allow is AuthorizationPolicy/shop/p rule 0: \
             has parts that only HTTP has, and on TCP such an ALLOW rule matches nothing",
        ),
        (
            vec![policy("p", Action::Deny, get())],
            request().tcp(),
            "the rule matches everything",
        ),
    ] {
        assert_eq!(reason(&policies, &request), expected, "{policies:?}");
    }
}

#[test]
fn header_values_are_never_written_for_they_may_be_credentials() {
    let header = |values: &[&str]| {
        when(Condition::RequestHeader {
            name: HeaderName::from_static("x-token"),
            values: strings(values),
        })
    };
    let sent = request().header("x-token", "s3cret");
    let policies = [policy("p", Action::Allow, vec![header(&["a", "b"])])];
    let explanation = set(&policies).explain(&sent.facts());
    assert!(!explanation.to_string().contains("s3cret"));
    assert!(
        explanation
            .reason
            .ends_with(": header x-token is not one of a, b")
    );
    let absent = reason(&policies, &request());
    assert!(absent.ends_with(": header x-token (absent) is not one of a, b"));
}

#[test]
fn reasons_are_bounded_and_carry_no_control_characters() {
    let many: Vec<String> = (0..200).map(|n| format!("/{}", "x".repeat(n))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let rule = operation(Operation {
        paths: paths(&many),
        ..Operation::default()
    });
    let hostile = request().path(&format!("/\u{1b}[31m{}", "y".repeat(60_000)));
    let reason = reason(&[policy("p", Action::Allow, vec![rule])], &hostile);
    assert!(reason.len() < 1024, "{} bytes", reason.len());
    assert!(reason.contains("/\\u{1b}[31m") && reason.ends_with(" and 195 more"));
}

#[test]
fn the_text_form_shows_every_clause() {
    let shadow = Policy {
        dry_run: true,
        ..policy("trial", Action::Deny, vec![methods(&["POST"])])
    };
    let explanation = set(&[viewer(), shadow]).explain(&request().method("POST").facts());
    assert_eq!(
        explanation.to_string(),
        "\
denied: no ALLOW rule matches, nearest allow is AuthorizationPolicy/shop/viewer rule 0: method POST is not one of GET, HEAD
ALLOW AuthorizationPolicy/shop/viewer: does not match
  rule 0: does not match
    yes from[0].source.namespaces: namespace shop is shop
    no  to[0].operation.methods: method POST is not one of GET, HEAD
  rule 1: does not match
    no  from[0].source.principals: principal cluster.local/ns/shop/sa/web is not */sa/admin
    no  to[0].operation.methods: method POST is not DELETE
DENY AuthorizationPolicy/shop/trial (dry run): matches
  rule 0: matches
    yes to[0].operation.methods: method POST is POST
dry run: would deny, as now by AuthorizationPolicy/shop/trial rule 0: method POST is POST
  AuthorizationPolicy/shop/trial rule 0: deny"
    );
}

#[test]
fn the_json_form_has_stable_keys() {
    let explanation = set(&[viewer()]).explain(&request().facts());
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["allowed"], true);
    assert_eq!(json["policy"]["key"]["name"], "viewer");
    assert_eq!(json["rule"], 0);
    assert_eq!(json["policies"][0]["action"], "ALLOW");
    let clause = &json["policies"][0]["rules"][0]["clauses"][0];
    assert_eq!(clause["path"], "from[0].source.namespaces");
    assert_eq!(clause["matched"], true);
}
