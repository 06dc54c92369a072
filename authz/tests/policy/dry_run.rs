//! Dry run and AUDIT: evaluated and reported, never enforced. What network policies add is tested
//! beside them.

use cairn_authz::{DryRun, Verdict, Would};
use cairn_config_schema::snapshot::{Action, Policy, PolicyRule};

use crate::request::{decide, methods, policy, provider, request, set};

fn dry(name: &str, action: Action, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        dry_run: true,
        ..policy(name, action, rules)
    }
}

fn run(verdict: &Verdict) -> &DryRun {
    verdict.dry_run.as_ref().expect("something is tried")
}

/// What each policy says: its name, rule and word.
fn told(verdict: &Verdict) -> Vec<(&str, Option<usize>, Would)> {
    let outcomes = run(verdict).outcomes.iter();
    outcomes
        .map(|o| (&*o.policy.key.name, o.rule, o.would))
        .collect()
}

/// Whether it would be allowed, and the policy and rule that would decide.
fn would(verdict: &Verdict) -> (bool, Option<&str>, Option<usize>) {
    let run = run(verdict);
    let name = run.origin().map(|origin| &*origin.key.name);
    (run.allowed(), name, run.rule_index())
}

#[test]
fn a_dry_run_deny_is_told_but_not_done() {
    let rules = vec![methods(&["POST"]), methods(&["GET"])];
    let verdict = decide(&[dry("deny", Action::Deny, rules)], &request());
    assert!(verdict.allowed);
    assert_eq!(verdict.policy, None);
    assert_eq!(told(&verdict), [("deny", Some(1), Would::Deny)]);
    assert_eq!(would(&verdict), (false, Some("deny"), Some(1)));
}

#[test]
fn a_dry_run_allow_neither_allows_nor_makes_deny_the_default() {
    let nothing = dry("nothing", Action::Allow, vec![]);
    let verdict = decide(&[nothing], &request());
    assert!(verdict.allowed);
    assert_eq!(told(&verdict), [("nothing", None, Would::Deny)]);
    assert_eq!(would(&verdict), (false, None, None));

    let policies = [
        dry("everything", Action::Allow, vec![PolicyRule::default()]),
        policy("nothing", Action::Allow, vec![]),
    ];
    let verdict = decide(&policies, &request());
    assert!(!verdict.allowed);
    assert_eq!(told(&verdict), [("everything", Some(0), Would::Allow)]);
    assert_eq!(would(&verdict), (true, Some("everything"), Some(0)));
}

#[test]
fn every_policy_is_told_of_and_the_last_word_is_that_of_all_together() {
    let policies = [
        dry("a-other", Action::Allow, vec![methods(&["POST"])]),
        dry("allow", Action::Allow, vec![methods(&["GET"])]),
        dry("custom", Action::Custom, vec![methods(&["PUT"])]),
        dry("deny", Action::Deny, vec![methods(&["GET"])]),
        dry("deny-more", Action::Deny, vec![methods(&["GET"])]),
    ];
    let verdict = decide(&policies, &request());
    assert_eq!(
        told(&verdict),
        [
            // Another one allows it, so that this one would not be missed.
            ("a-other", None, Would::Nothing),
            ("allow", Some(0), Would::Allow),
            ("custom", None, Would::Nothing),
            ("deny", Some(0), Would::Deny),
            ("deny-more", Some(0), Would::Deny),
        ]
    );
    assert_eq!(would(&verdict), (false, Some("deny"), Some(0)));
}

#[test]
fn what_is_in_force_has_its_say_in_the_dry_run() {
    let policies = [
        policy("deny", Action::Deny, vec![methods(&["GET"])]),
        policy("readers", Action::Allow, vec![methods(&["GET"])]),
        dry("writers", Action::Allow, vec![methods(&["POST"])]),
    ];
    let verdict = decide(&policies, &request());
    assert_eq!(would(&verdict), (false, Some("deny"), Some(0)));
    let verdict = decide(&policies[1..], &request());
    assert_eq!(would(&verdict), (true, Some("readers"), Some(0)));
    assert_eq!(told(&verdict), [("writers", None, Would::Nothing)]);
}

#[test]
fn no_provider_is_asked_in_a_dry_run() {
    let nobody = dry("custom", Action::Custom, vec![methods(&["GET"])]);
    let somebody = Policy {
        provider: Some(provider("auth")),
        ..nobody.clone()
    };
    let verdict = decide(std::slice::from_ref(&somebody), &request());
    assert!(verdict.allowed);
    assert_eq!(told(&verdict), [("custom", Some(0), Would::Ask)]);
    // What it would say is unknown, and taken for a yes.
    assert_eq!(would(&verdict), (true, None, None));
    assert!(set(&[somebody]).questions(&request().facts()).is_empty());

    // Without anybody to ask it would deny.
    let verdict = decide(&[nobody], &request());
    assert!(verdict.allowed);
    assert_eq!(told(&verdict), [("custom", Some(0), Would::Deny)]);
    assert_eq!(would(&verdict), (false, Some("custom"), Some(0)));
}

#[test]
fn a_broken_policy_that_is_tried_denies_in_the_dry_run_only() {
    for action in [Action::Allow, Action::Deny, Action::Custom] {
        let broken = Policy {
            broken: Some("spec.rules: expected a list".into()),
            ..dry("bad", action, vec![PolicyRule::default()])
        };
        let verdict = decide(&[broken], &request());
        assert!(verdict.allowed);
        assert_eq!(told(&verdict), [("bad", None, Would::Deny)]);
        assert_eq!(would(&verdict), (false, Some("bad"), None));
    }
}

#[test]
fn where_nothing_is_tried_nothing_is_told() {
    let enforced = policy("deny", Action::Deny, vec![methods(&["GET"])]);
    assert_eq!(decide(&[enforced], &request()).dry_run, None);
}

/// specs/istio-waypoint.md 4.8: "AUDIT: only tags; never denies".
#[test]
fn audit_records_what_matches_and_decides_nothing() {
    let audited = |policies: &[Policy]| {
        let verdict = decide(policies, &request());
        let hits = verdict.audit.iter();
        let hits: Vec<_> = hits
            .map(|a| (a.policy.origin.key.name.to_string(), a.rule))
            .collect();
        (verdict.allowed, hits)
    };
    let watch = |rules| policy("watch", Action::Audit, rules);
    let rules = vec![methods(&["POST"]), methods(&["GET"])];
    let hit = vec![("watch".to_owned(), Some(1))];
    assert_eq!(audited(&[watch(rules.clone())]), (true, hit.clone()));
    let deny = policy("deny", Action::Deny, vec![PolicyRule::default()]);
    assert_eq!(audited(&[watch(rules), deny]), (false, hit));
    assert_eq!(audited(&[watch(vec![methods(&["POST"])])]), (true, vec![]));
    assert_eq!(audited(&[watch(vec![])]), (true, vec![]));
    // Not known to match is recorded, and denies nothing.
    let broken = Policy {
        broken: Some("spec.rules: expected a list".into()),
        ..watch(vec![])
    };
    let whole = vec![("watch".to_owned(), None)];
    assert_eq!(audited(&[broken]), (true, whole));
    let rule = PolicyRule {
        broken: Some("spec.rules[0]: what".into()),
        ..PolicyRule::default()
    };
    let first = vec![("watch".to_owned(), Some(0))];
    assert_eq!(audited(&[watch(vec![rule])]), (true, first));
}
