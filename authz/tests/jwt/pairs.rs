//! Tokens and rules in pairs, 100,000 of them: what is said of each, at first and from memory, beside the
//! naive reading.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use cairn_authz::jwt::{Authenticator, Memory};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{Made, NOW_S, PLACES, Written, ask, compiled, is_valid, made, rules, sign};

const SETS: u32 = 1_000;
const TOKENS_PER_SET: usize = 100;
/// Tokens that are signed; each meets many sets of rules, and stands in different places.
const TOKENS: usize = 2_000;

fn signed() -> &'static [(Made, String)] {
    static SIGNED: OnceLock<Vec<(Made, String)>> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let mut runner = TestRunner::deterministic();
        let mut one = || made().new_tree(&mut runner).unwrap().current();
        let all = (0..TOKENS).map(|_| one());
        all.map(|made| (made.clone(), sign(&made))).collect()
    })
}

/// 100,000 pairs of a token and rules: a thousand sets of rules, a hundred tokens to each.
#[test]
fn a_token_is_valid_if_and_only_if_one_rule_says_so() {
    let config = ProptestConfig {
        cases: SETS,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mix: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    let picks = vec((any::<Index>(), select(PLACES)), TOKENS_PER_SET);
    let outcome = TestRunner::new(config).run(&(rules(), picks), |(rules, picks)| {
        let authenticator = compiled(&rules);
        for (index, place) in picks {
            let (made, token) = index.get(signed());
            let made = Made {
                place,
                ..made.clone()
            };
            let seen = judge(&authenticator, &rules, &made, token)?;
            *mix.borrow_mut().entry(seen).or_default() += 1;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let mix = mix.into_inner();
    let all: usize = mix.values().sum();
    assert_eq!(all, SETS as usize * TOKENS_PER_SET);
    assert_eq!(mix.len(), 3, "{mix:?}");
    assert!(mix.values().all(|seen| seen * 100 > all), "{mix:?}");
}

/// Asks twice, so that what is remembered is held against the oracle, too.
fn judge(
    authenticator: &Authenticator,
    rules: &[Written],
    made: &Made,
    token: &str,
) -> Result<&'static str, TestCaseError> {
    let mut memory = Memory::new();
    let is_looked_at = rules.iter().any(|rule| rule.places.contains(&made.place));
    let expected = rules.iter().any(|rule| is_valid(made, rule));
    for time in ["first", "from memory"] {
        match ask(authenticator, (made, token), &mut memory, NOW_S) {
            Ok(principal) => {
                let whose = expected.then(|| format!("{}/user", made.issuer));
                prop_assert!(expected || !is_looked_at, "{}: accepted {:?}", time, made);
                prop_assert_eq!(principal, whose);
            }
            Err(reason) => prop_assert!(is_looked_at && !expected, "{}: {}", time, reason),
        }
    }
    prop_assert_eq!(memory.len(), usize::from(expected));
    // What is remembered ends with the token.
    if let Some(until) = made.expires_s.filter(|_| expected) {
        prop_assert!(ask(authenticator, (made, token), &mut memory, until + 60).is_ok());
        prop_assert!(ask(authenticator, (made, token), &mut memory, until + 61).is_err());
        prop_assert!(memory.is_empty());
    }
    Ok(match (is_looked_at, expected) {
        (false, _) => "not looked at",
        (true, true) => "valid",
        (true, false) => "refused",
    })
}
