//! Properties over generated policies and requests: no change of configuration opens what it should
//! not. That the engine equals the oracle is in `pairs`.

use std::sync::Arc;

use cairn_authz::PolicySet;
use cairn_config_schema::snapshot::{Action, Policy};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{action, policies, request, rule, small_rule};
use crate::oracle;
use crate::request::{decide, policy};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

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
    fn policies_that_are_tried_or_only_record_change_no_verdict(
        policies in policies(),
        request in request(),
    ) {
        let decides = |p: &&Policy| !p.dry_run && p.action != Action::Audit;
        let without: Vec<_> = policies.iter().filter(decides).cloned().collect();
        let (with, without) = (decide(&policies, &request), decide(&without, &request));
        prop_assert_eq!(with.allowed, without.allowed);
        prop_assert_eq!(with.policy, without.policy);
        prop_assert_eq!(with.rule, without.rule);
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
