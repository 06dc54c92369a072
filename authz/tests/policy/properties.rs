//! Properties over generated policies and requests: the engine equals the oracle, explanations equal
//! decisions, and no change of configuration opens what it should not.

use std::sync::Arc;

use cairn_authz::{Explanation, PolicySet, Verdict, Would};
use cairn_config_schema::snapshot::{Action, Policy};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{action, policies, request, rule, small_rule};
use crate::oracle;
use crate::request::{Request, decide, policy, set};

/// The verdict names a policy and rule that the oracle finds matching, of an action that fits.
fn assert_named_rightly(verdict: &Verdict, request: &Request) {
    let (Some(policy), Some(rule)) = (&verdict.policy, verdict.rule) else {
        let broken = verdict.policy.as_ref().is_none_or(|p| p.broken.is_some());
        assert!(broken && verdict.rule.is_none(), "{verdict:?}");
        return;
    };
    assert_eq!(verdict.allowed, policy.action == Action::Allow);
    assert!(!policy.dry_run && policy.action != Action::Audit);
    assert!(oracle::rule_matches(
        &policy.rules[rule],
        policy.action,
        request
    ));
}

fn assert_shadow(verdict: &Verdict, policies: &[Policy], request: &Request) {
    let tried = |p: &&Policy| p.dry_run && p.action != Action::Audit;
    let tried: Vec<&Policy> = policies.iter().filter(tried).collect();
    let Some(run) = &verdict.dry_run else {
        assert!(tried.is_empty());
        return;
    };
    assert_eq!(run.allowed(), oracle::would_allow(policies, request));
    assert_eq!(run.outcomes.len(), tried.len());
    let by_default = !run.allowed() && run.origin().is_none();
    for policy in tried {
        let mut outcomes = run.outcomes.iter();
        let told = outcomes.find(|o| o.policy == policy.origin).unwrap();
        let matches = oracle::policy_matches(policy, request);
        let expected = match policy.action {
            _ if policy.broken.is_some() => Would::Deny,
            Action::Allow if matches => Would::Allow,
            Action::Allow if by_default => Would::Deny,
            Action::Deny if matches => Would::Deny,
            Action::Custom if matches => Would::Ask,
            _ => Would::Nothing,
        };
        assert_eq!(told.would, expected, "{policy:?}");
        assert_eq!(told.rule.is_some(), matches && policy.broken.is_none());
    }
}

/// Every AUDIT policy that matches is recorded, and no other.
fn assert_audited(verdict: &Verdict, policies: &[Policy], request: &Request) {
    let audit = policies.iter().filter(|p| p.action == Action::Audit);
    let matching = audit.filter(|p| p.broken.is_some() || oracle::policy_matches(p, request));
    let mut expected: Vec<_> = matching.map(|p| p.origin.clone()).collect();
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    let told = verdict.audit.iter().map(|a| a.policy.origin.clone());
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

/// As resolving does it: what only records is not tried.
fn resolved(mut policies: Vec<Policy>) -> Vec<Policy> {
    let audit = policies.iter_mut().filter(|p| p.action == Action::Audit);
    audit.for_each(|p| p.dry_run = false);
    policies
}

/// Rule by rule, an explanation says what the oracle says, and its parts agree with each other.
fn assert_explained(explanation: &Explanation, policies: &[Policy], request: &Request) {
    assert_eq!(explanation.policies.len(), policies.len());
    for outcome in &explanation.policies {
        let key = &outcome.policy.key;
        let policy = policies.iter().find(|p| p.origin.key == *key).unwrap();
        if policy.broken.is_some() {
            assert!(outcome.matched && outcome.broken.is_some());
            continue;
        }
        assert_eq!(outcome.rules.len(), policy.rules.len());
        assert_eq!(outcome.matched, outcome.rules.iter().any(|r| r.matched));
        for (written, told) in policy.rules.iter().zip(&outcome.rules) {
            let expected = oracle::rule_matches(written, policy.action, request);
            assert_eq!(told.matched, expected, "{told:?}");
            let failed = told.clauses.iter().any(|c| !c.matched);
            assert!(told.matched || failed || told.note.is_some(), "{told:?}");
        }
    }
}

fn assert_nearest_allow(explanation: &Explanation, policies: &[Policy]) {
    let mut allow = policies
        .iter()
        .filter(|p| p.action == Action::Allow && !p.dry_run);
    let by_default = !explanation.allowed && explanation.policy.is_none();
    let expected = by_default && allow.any(|p| !p.rules.is_empty());
    assert_eq!(explanation.nearest_allow.is_some(), expected);
    if let Some(nearest) = &explanation.nearest_allow {
        let mut outcomes = explanation.policies.iter();
        let outcome = outcomes.find(|o| o.policy == nearest.policy).unwrap();
        let rule = &outcome.rules[nearest.rule];
        assert!(outcome.action == Action::Allow && !outcome.dry_run && !rule.matched);
        let mut failed = rule.clauses.iter().filter(|c| !c.matched);
        assert!(failed.any(|c| c.words == nearest.failed) || rule.note.is_some());
        assert!(explanation.reason.ends_with(&nearest.to_string()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn decide_equals_the_oracle(policies in policies(), request in request()) {
        let policies = resolved(policies);
        let verdict = decide(&policies, &request);
        prop_assert_eq!(verdict.allowed, oracle::allowed(&policies, &request));
        assert_named_rightly(&verdict, &request);
        assert_shadow(&verdict, &policies, &request);
        assert_audited(&verdict, &policies, &request);
    }

    #[test]
    fn policies_that_are_tried_or_only_record_change_no_verdict(
        policies in policies(),
        request in request(),
    ) {
        let policies = resolved(policies);
        let decides = |p: &&Policy| !p.dry_run && p.action != Action::Audit;
        let without: Vec<_> = policies.iter().filter(decides).cloned().collect();
        let (with, without) = (decide(&policies, &request), decide(&without, &request));
        prop_assert_eq!(with.allowed, without.allowed);
        prop_assert_eq!(with.policy, without.policy);
        prop_assert_eq!(with.rule, without.rule);
    }

    #[test]
    fn one_rule_equals_the_oracle(
        rule in prop_oneof![1 => rule().boxed(), 2 => small_rule().boxed()],
        request in request(),
    ) {
        for action in [Action::Allow, Action::Deny, Action::Custom] {
            let expected = oracle::rule_matches(&rule, action, &request);
            let verdict = decide(&[policy("p", action, vec![rule.clone()])], &request);
            prop_assert_eq!(verdict.allowed, expected == (action == Action::Allow));
        }
    }

    #[test]
    fn explain_equals_decide(policies in policies(), request in request()) {
        let policies = resolved(policies);
        let set = set(&policies);
        let facts = request.facts();
        let verdict = set.decide(&facts);
        let explanation = set.explain(&facts);
        prop_assert_eq!(explanation.allowed, verdict.allowed);
        prop_assert_eq!(explanation.rule, verdict.rule);
        let policy = verdict.policy.as_ref().map(|p| p.origin.clone());
        prop_assert_eq!(&explanation.policy, &policy);
        prop_assert_eq!(&explanation.reason, &verdict.reason(&set, &facts));
        prop_assert!(!explanation.reason.is_empty());
        assert_explained(&explanation, &policies, &request);
        assert_nearest_allow(&explanation, &policies);
    }

    #[test]
    fn the_order_of_policies_changes_nothing(
        (one, other) in policies().prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())),
        request in request(),
    ) {
        prop_assert_eq!(decide(&one, &request), decide(&other, &request));
    }

    #[test]
    fn a_policy_given_twice_counts_once(policies in policies(), request in request()) {
        let once: Vec<_> = policies.into_iter().map(Arc::new).collect();
        let twice: Vec<_> = once.iter().chain(&once).cloned().collect();
        let facts = request.facts();
        let (once, twice) = (PolicySet::compile(&once), PolicySet::compile(&twice));
        prop_assert_eq!(once.decide(&facts), twice.decide(&facts));
        prop_assert_eq!(once.explain(&facts), twice.explain(&facts));
    }

    #[test]
    fn another_deny_policy_never_allows(
        policies in policies(),
        rules in vec(rule(), 0..3),
        request in request(),
    ) {
        let before = decide(&policies, &request).allowed;
        let mut more = policies;
        more.push(policy("another", Action::Deny, rules));
        prop_assert!(before || !decide(&more, &request).allowed);
    }

    #[test]
    fn one_allow_rule_less_never_allows(
        policies in policies(),
        rules in vec(rule(), 1..4),
        at in any::<prop::sample::Index>(),
        request in request(),
    ) {
        let with = |rules| {
            let mut policies = policies.clone();
            policies.push(policy("another", Action::Allow, rules));
            decide(&policies, &request).allowed
        };
        let mut less = rules.clone();
        less.remove(at.index(rules.len()));
        prop_assert!(with(rules) || !with(less));
    }

    #[test]
    fn one_allow_policy_less_never_allows_while_another_remains(
        policies in policies(),
        kept in vec(rule(), 0..3),
        removed in vec(rule(), 0..3),
        request in request(),
    ) {
        let mut policies = policies;
        policies.push(policy("kept", Action::Allow, kept));
        let after = decide(&policies, &request).allowed;
        policies.push(policy("removed", Action::Allow, removed));
        prop_assert!(decide(&policies, &request).allowed || !after);
    }

    #[test]
    fn breaking_a_rule_or_policy_never_allows(
        policies in policies(),
        whole in any::<bool>(),
        action in action(),
        rules in vec(rule(), 1..3),
        request in request(),
    ) {
        let with = |another: Policy| {
            let mut policies = policies.clone();
            policies.push(another);
            decide(&policies, &request).allowed
        };
        let intact = policy("another", action, rules);
        let mut broken = intact.clone();
        let reason = Some("broken by the test".into());
        if whole {
            broken.broken = reason;
        } else {
            broken.rules[0].broken = reason;
        }
        prop_assert!(with(intact) || !with(broken));
    }
}
