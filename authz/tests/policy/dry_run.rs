//! Dry-run policies: evaluated and reported by action, never enforced.

use cairn_authz::Shadow;
use cairn_config_schema::snapshot::{Action, Policy, PolicyRule};

use crate::request::{decide, methods, policy, request};

fn dry(name: &str, action: Action, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        dry_run: true,
        ..policy(name, action, rules)
    }
}

/// Action, policy, rule, would be allowed.
fn told(shadow: &[Shadow]) -> Vec<(Action, Option<&str>, Option<usize>, bool)> {
    let name = |s: &Shadow| s.policy.as_ref().map(|p| p.origin.key.name.clone());
    assert!(shadow.iter().all(|s| name(s).is_some() || s.rule.is_none()));
    shadow
        .iter()
        .map(|s| {
            let name = s.policy.as_ref().map(|p| p.origin.key.name.as_ref());
            (s.action, name, s.rule, s.would)
        })
        .collect()
}

#[test]
fn a_dry_run_deny_is_told_but_not_done() {
    let rules = vec![methods(&["POST"]), methods(&["GET"])];
    let verdict = decide(&[dry("deny", Action::Deny, rules)], &request());
    assert!(verdict.allowed);
    assert_eq!(verdict.policy, None);
    assert_eq!(
        told(&verdict.shadow),
        [(Action::Deny, Some("deny"), Some(1), false)]
    );
}

#[test]
fn a_dry_run_allow_neither_allows_nor_makes_deny_the_default() {
    let nothing = dry("nothing", Action::Allow, vec![]);
    let verdict = decide(&[nothing], &request());
    assert!(verdict.allowed);
    assert_eq!(told(&verdict.shadow), [(Action::Allow, None, None, false)]);

    let policies = [
        dry("everything", Action::Allow, vec![PolicyRule::default()]),
        policy("nothing", Action::Allow, vec![]),
    ];
    let verdict = decide(&policies, &request());
    assert!(!verdict.allowed);
    assert_eq!(
        told(&verdict.shadow),
        [(Action::Allow, Some("everything"), Some(0), true)]
    );
}

#[test]
fn each_action_has_a_shadow_of_its_own() {
    let policies = [
        dry("a-other", Action::Allow, vec![methods(&["POST"])]),
        dry("allow", Action::Allow, vec![methods(&["GET"])]),
        dry("deny", Action::Deny, vec![methods(&["GET"])]),
        dry("custom", Action::Custom, vec![methods(&["PUT"])]),
    ];
    assert_eq!(
        told(&decide(&policies, &request()).shadow),
        [
            (Action::Custom, None, None, true),
            (Action::Deny, Some("deny"), Some(0), false),
            (Action::Allow, Some("allow"), Some(0), true),
        ]
    );
}

#[test]
fn a_broken_dry_run_policy_denies_in_the_shadow_only() {
    for action in [Action::Allow, Action::Deny, Action::Custom] {
        let broken = Policy {
            broken: Some("spec.rules: expected a list".into()),
            ..dry("bad", action, vec![PolicyRule::default()])
        };
        let verdict = decide(&[broken], &request());
        assert!(verdict.allowed);
        assert_eq!(told(&verdict.shadow), [(action, Some("bad"), None, false)]);
    }
}

#[test]
fn without_dry_run_policies_there_is_no_shadow() {
    let enforced = policy("deny", Action::Deny, vec![methods(&["GET"])]);
    assert_eq!(decide(&[enforced], &request()).shadow, []);
}
