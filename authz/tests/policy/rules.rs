//! The algebra of rules: items, fields, lists, and what an empty or broken rule means
//! (specs/istio-waypoint.md 4.8, rule algebra).

use cairn_config_schema::snapshot::{Action, Condition, Operation, Policy, PolicyRule, Source};

use crate::request::{
    blocks, decide, globs, matches, methods, operation, paths, policy, ports, request, strings,
};

fn broken_rule() -> PolicyRule {
    PolicyRule {
        broken: Some("when key request.auth.claims is not supported".into()),
        ..methods(&["NEVER"])
    }
}

#[test]
fn no_rules_match_nothing_and_one_empty_rule_matches_everything() {
    let everything = vec![PolicyRule::default()];
    for (action, rules, allowed) in [
        (Action::Allow, vec![], false),
        (Action::Allow, everything.clone(), true),
        (Action::Deny, vec![], true),
        (Action::Deny, everything.clone(), false),
        (Action::Custom, vec![], true),
        (Action::Custom, everything, false),
    ] {
        for request in [request(), request().tcp(), request().no_peer()] {
            let verdict = decide(&[policy("p", action, rules.clone())], &request);
            assert_eq!(verdict.allowed, allowed, "{action:?} {rules:?} {request:?}");
        }
    }
}

#[test]
fn from_and_to_and_when_must_all_match() {
    let rule = |namespace: &str, method: &str, port: &str| PolicyRule {
        from: vec![Source {
            namespaces: globs(&[namespace]),
            ..Source::default()
        }],
        to: vec![Operation {
            methods: strings(&[method]),
            ..Operation::default()
        }],
        when: vec![Condition::DestinationPort(ports(&[port]))],
        broken: None,
    };
    assert!(matches(&rule("shop", "GET", "9080"), &request()));
    assert!(!matches(&rule("web", "GET", "9080"), &request()));
    assert!(!matches(&rule("shop", "PUT", "9080"), &request()));
    assert!(!matches(&rule("shop", "GET", "80"), &request()));
}

#[test]
fn one_item_of_a_part_is_enough() {
    let source = |namespace: &str| Source {
        namespaces: globs(&[namespace]),
        ..Source::default()
    };
    let rule = PolicyRule {
        from: vec![source("web"), source("shop")],
        ..PolicyRule::default()
    };
    assert!(matches(&rule, &request()));
}

#[test]
fn all_fields_of_an_item_must_match_and_items_do_not_mix() {
    let item = |method: &str, path: &str| Operation {
        methods: strings(&[method]),
        paths: paths(&[path]),
        ..Operation::default()
    };
    // GET is allowed on one path and the request's path with another method: together no match.
    let rule = PolicyRule {
        to: vec![item("GET", "/products/*"), item("POST", "/reviews/*")],
        ..PolicyRule::default()
    };
    assert!(!matches(&rule, &request()));
    assert!(matches(&rule, &request().method("POST")));
}

#[test]
fn every_condition_must_match() {
    let rule = |second: &str| PolicyRule {
        when: vec![
            Condition::SourceIp(blocks(&["10.0.0.0/8"])),
            Condition::DestinationPort(ports(&[second])),
        ],
        ..PolicyRule::default()
    };
    assert!(matches(&rule("9080"), &request()));
    assert!(!matches(&rule("80"), &request()));
}

#[test]
fn an_item_without_fields_matches_everything() {
    // The resolver rejects `from: [{}]` as Istio does; what is written here is still true.
    assert!(matches(&operation(Operation::default()), &request()));
}

#[test]
fn a_broken_rule_denies_all_it_might_have_denied_and_allows_nothing() {
    for request in [request(), request().tcp()] {
        for (action, allowed) in [
            (Action::Deny, false),
            (Action::Custom, false),
            (Action::Allow, false),
        ] {
            let verdict = decide(&[policy("p", action, vec![broken_rule()])], &request);
            assert_eq!(verdict.allowed, allowed, "{action:?}");
        }
    }
}

#[test]
fn a_broken_allow_rule_leaves_the_other_rules_in_force() {
    let rules = vec![broken_rule(), methods(&["GET"])];
    let verdict = decide(&[policy("p", Action::Allow, rules)], &request());
    assert!(verdict.allowed);
    assert_eq!(verdict.rule, Some(1));
}

#[test]
fn a_broken_policy_denies_everything_whatever_its_action() {
    let everything = policy("all", Action::Allow, vec![PolicyRule::default()]);
    for action in [Action::Allow, Action::Deny, Action::Custom] {
        let broken = Policy {
            broken: Some("spec.rules: expected a list".into()),
            ..policy("bad", action, vec![PolicyRule::default()])
        };
        for request in [request(), request().tcp()] {
            let verdict = decide(&[everything.clone(), broken.clone()], &request);
            assert!(!verdict.allowed, "{action:?}");
            let by = verdict.policy.as_ref().map(|p| p.origin.to_string());
            assert_eq!(by.as_deref(), Some("AuthorizationPolicy/shop/bad"));
            assert_eq!(verdict.rule, None);
            assert_eq!(
                verdict.response_code_details().as_deref(),
                Some("rbac_access_denied_matched_policy[ns[shop]-policy[bad]-rule[broken]]")
            );
        }
    }
}
