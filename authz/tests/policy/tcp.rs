//! Rules on TCP streams: what only HTTP has drops an ALLOW rule whole, and from any other rule only
//! the field, so that less is allowed and more is denied (specs/istio-waypoint.md 4.8).

use cairn_config_schema::snapshot::{Action, Condition, Operation, PolicyRule, Source};
use http::header::HeaderName;

use crate::request::{
    Request, blocks, decide, globs, methods, operation, paths, policy, ports, request, strings,
    when,
};

fn allowed(action: Action, rule: PolicyRule, request: &Request) -> bool {
    decide(&[policy("p", action, vec![rule])], request).allowed
}

/// Each HTTP-only field alone, none of which would match the request if it were HTTP.
fn http_only_rules() -> Vec<PolicyRule> {
    let header = |values: &[&str]| {
        when(Condition::RequestHeader {
            name: HeaderName::from_static("x-role"),
            values: strings(values),
        })
    };
    let op = Operation::default;
    vec![
        methods(&["NONE"]),
        methods(&["!GET"]),
        operation(Operation {
            hosts: strings(&["none"]),
            ..op()
        }),
        operation(Operation {
            hosts: strings(&["!reviews*"]),
            ..op()
        }),
        operation(Operation {
            paths: paths(&["/none"]),
            ..op()
        }),
        operation(Operation {
            paths: paths(&["/none/{*}"]),
            ..op()
        }),
        operation(Operation {
            paths: paths(&["!/{**}"]),
            ..op()
        }),
        header(&["admin"]),
        header(&["*", "!admin"]),
    ]
}

#[test]
fn a_deny_rule_of_only_http_fields_denies_all_tcp() {
    for rule in http_only_rules() {
        for action in [Action::Deny, Action::Custom] {
            assert!(allowed(action, rule.clone(), &request()), "{rule:?}");
            assert!(!allowed(action, rule.clone(), &request().tcp()), "{rule:?}");
        }
    }
}

#[test]
fn an_allow_rule_with_http_fields_allows_no_tcp() {
    for mut rule in http_only_rules() {
        assert!(!allowed(Action::Allow, rule.clone(), &request().tcp()));
        // Nor does it with parts beside them that do match.
        rule.from.push(Source {
            namespaces: globs(&["shop"]),
            ..Source::default()
        });
        rule.to.push(Operation {
            ports: ports(&["9080"]),
            ..Operation::default()
        });
        assert!(!allowed(Action::Allow, rule, &request().tcp()));
    }
}

#[test]
fn a_deny_rule_keeps_the_fields_that_tcp_has() {
    let rule = |port: &str| {
        operation(Operation {
            methods: strings(&["DELETE"]),
            ports: ports(&[port]),
            ..Operation::default()
        })
    };
    assert!(!allowed(Action::Deny, rule("9080"), &request().tcp()));
    assert!(allowed(Action::Deny, rule("80"), &request().tcp()));
    let from = |block: &str| PolicyRule {
        from: vec![Source {
            ip_blocks: blocks(&[block]),
            ..Source::default()
        }],
        ..methods(&["DELETE"])
    };
    assert!(!allowed(Action::Deny, from("10.0.0.0/8"), &request().tcp()));
    assert!(allowed(
        Action::Deny,
        from("172.16.0.0/12"),
        &request().tcp()
    ));
}

#[test]
fn an_item_emptied_is_any_even_beside_one_that_does_not_match() {
    let port = Operation {
        ports: ports(&["80"]),
        ..Operation::default()
    };
    let rule = PolicyRule {
        to: vec![
            port.clone(),
            Operation {
                methods: strings(&["DELETE"]),
                ..Operation::default()
            },
        ],
        ..PolicyRule::default()
    };
    assert!(!allowed(Action::Deny, rule, &request().tcp()));
    assert!(allowed(Action::Deny, operation(port), &request().tcp()));
}

#[test]
fn rules_without_http_fields_are_the_same_on_tcp() {
    let rule = |namespace: &str| PolicyRule {
        from: vec![Source {
            namespaces: globs(&[namespace]),
            ..Source::default()
        }],
        when: vec![Condition::DestinationPort(ports(&["9080"]))],
        ..PolicyRule::default()
    };
    for request in [request(), request().tcp()] {
        assert!(allowed(Action::Allow, rule("shop"), &request));
        assert!(!allowed(Action::Allow, rule("web"), &request));
        assert!(!allowed(Action::Deny, rule("shop"), &request));
        assert!(allowed(Action::Deny, rule("web"), &request));
    }
}

#[test]
fn a_dropped_allow_rule_leaves_its_policy_and_other_rules_in_force() {
    let tcp_rule = operation(Operation {
        ports: ports(&["9080"]),
        ..Operation::default()
    });
    let both = policy("p", Action::Allow, vec![methods(&["GET"]), tcp_rule]);
    let verdict = decide(&[both], &request().tcp());
    assert!(verdict.allowed);
    assert_eq!(verdict.rule, Some(1));
}
