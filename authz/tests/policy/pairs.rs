//! The engine equals the oracle, and explanations equal decisions, on 100,000 pairs of policies and a
//! request each: a thousand sets of policies, a hundred requests to each.

use std::cell::RefCell;
use std::collections::BTreeMap;

use cairn_authz::{Explanation, Verdict, Would};
use cairn_config_schema::snapshot::{Action, Policy, Provider};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::generate::{many_policies, policies, request};
use crate::oracle;
use crate::request::{Request, set};

const SETS: u32 = 1_000;
const REQUESTS_PER_SET: usize = 100;

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

/// What would be is what the oracle says of all policies, and what each says is its own.
fn assert_tried(verdict: &Verdict, policies: &[Policy], request: &Request) {
    let tried: Vec<&Policy> = policies.iter().filter(|p| p.dry_run).collect();
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
            Action::Custom if matches => match policy.provider {
                Some(Provider::Ask(_)) => Would::Ask,
                _ => Would::Deny,
            },
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
    let expected: Vec<_> = matching.map(|p| p.origin.clone()).collect();
    let told = verdict.audit.iter().map(|a| a.policy.origin.clone());
    assert_eq!(told.collect::<Vec<_>>(), expected);
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

/// Holds a property for every pair, and asserts that no outcome is rare: a test that hardly ever
/// denies says little.
fn for_all(
    sets: impl Strategy<Value = Vec<Policy>>,
    property: impl Fn(&[Policy], &[Request], &mut dyn FnMut(&Verdict)),
) {
    let config = ProptestConfig {
        cases: SETS,
        ..ProptestConfig::default()
    };
    let mix: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&(sets, vec(request(), REQUESTS_PER_SET)), |pairs| {
        property(&pairs.0, &pairs.1, &mut |verdict: &Verdict| {
            *mix.borrow_mut().entry(outcome_of(verdict)).or_default() += 1;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let mix = mix.into_inner();
    let all: usize = mix.values().sum();
    assert_eq!(all, SETS as usize * REQUESTS_PER_SET);
    assert_eq!(mix.len(), 5, "{mix:?}");
    // The rarest, a broken policy, is some eight in a thousand, in lumps of a whole set of requests.
    assert!(mix.values().all(|seen| seen * 500 > all), "{mix:?}");
}

fn outcome_of(verdict: &Verdict) -> &'static str {
    match (verdict.allowed, verdict.policy.is_some(), verdict.rule) {
        (true, false, _) => "allowed, for no policy allows anybody",
        (true, true, _) => "allowed by a rule",
        (false, false, _) => "denied, for no rule allows it",
        (false, true, Some(_)) => "denied by a rule",
        (false, true, None) => "denied, for a policy is broken",
    }
}

#[test]
fn decide_equals_the_oracle() {
    let sets = prop_oneof![policies().boxed(), many_policies().boxed()];
    for_all(sets, |policies, requests, seen| {
        let set = set(policies);
        for request in requests {
            let verdict = set.decide(&request.facts());
            assert_eq!(verdict.allowed, oracle::allowed(policies, request));
            assert_named_rightly(&verdict, request);
            assert_tried(&verdict, policies, request);
            assert_audited(&verdict, policies, request);
            seen(&verdict);
        }
    });
}

#[test]
fn providers_are_asked_and_their_yes_counts_as_the_oracle_says() {
    for_all(policies(), |policies, requests, seen| {
        let set = set(policies);
        for request in requests {
            let facts = request.facts();
            let asked = set.questions(&facts);
            let names: Vec<String> = asked.iter().map(|q| q.provider.name.to_string()).collect();
            assert_eq!(names, oracle::questions(policies, request));
            let verdict = set.decide_settled(&facts);
            let expected = oracle::allowed_when_asked(policies, request);
            assert_eq!(verdict.allowed, expected);
            assert_audited(&verdict, policies, request);
            seen(&verdict);
        }
    });
}

#[test]
fn the_rule_that_decides_is_the_first_that_matches() {
    for_all(many_policies(), |policies, requests, seen| {
        let set = set(policies);
        for request in requests {
            let verdict = set.decide(&request.facts());
            if let (Some(policy), Some(rule)) = (&verdict.policy, verdict.rule) {
                let mut same = policies
                    .iter()
                    .filter(|p| p.action == policy.action && !p.dry_run && p.broken.is_none());
                let first = same.find_map(|p| {
                    let mut rules = p.rules.iter();
                    let at = rules.position(|r| oracle::rule_matches(r, p.action, request))?;
                    Some((p.origin.clone(), at))
                });
                assert_eq!(first, Some((policy.origin.clone(), rule)));
            }
            seen(&verdict);
        }
    });
}

#[test]
fn explain_equals_decide() {
    for_all(policies(), |policies, requests, seen| {
        let set = set(policies);
        for request in requests {
            let facts = request.facts();
            let verdict = set.decide(&facts);
            let explanation = set.explain(&facts);
            assert_eq!(explanation.allowed, verdict.allowed);
            assert_eq!(explanation.rule, verdict.rule);
            let policy = verdict.policy.as_ref().map(|p| p.origin.clone());
            assert_eq!(explanation.policy, policy);
            assert_eq!(explanation.reason, verdict.reason(&set, &facts));
            assert!(!explanation.reason.is_empty());
            assert_explained(&explanation, policies, request);
            assert_nearest_allow(&explanation, policies);
            seen(&verdict);
        }
    });
}
