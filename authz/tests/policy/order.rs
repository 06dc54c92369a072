//! The order of decision: CUSTOM, DENY, ALLOW (specs/istio-waypoint.md 4.8), and how a denial is
//! named in Envoy's terms.

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{Action, PolicyRule};

use crate::request::{decide, methods, policy, request};

fn details(verdict: &Verdict) -> Option<String> {
    assert!(!verdict.allowed || verdict.response_code_details().is_none());
    verdict.response_code_details()
}

#[test]
fn without_policies_everything_is_allowed() {
    let verdict = decide(&[], &request());
    assert!(verdict.allowed);
    assert_eq!((verdict.policy, verdict.rule), (None, None));
}

#[test]
fn deny_wins_over_allow() {
    let allow = policy("a-allow", Action::Allow, vec![PolicyRule::default()]);
    let rules = vec![methods(&["POST"]), methods(&["GET"])];
    let deny = policy("z-deny", Action::Deny, rules);
    let verdict = decide(&[allow, deny], &request());
    assert_eq!(
        details(&verdict).as_deref(),
        Some("rbac_access_denied_matched_policy[ns[shop]-policy[z-deny]-rule[1]]")
    );
}

#[test]
fn a_deny_that_does_not_match_leaves_the_rest_alone() {
    let deny = policy("deny", Action::Deny, vec![methods(&["POST"])]);
    assert!(decide(std::slice::from_ref(&deny), &request()).allowed);
    let allow = policy("allow", Action::Allow, vec![methods(&["GET"])]);
    assert!(decide(&[deny.clone(), allow], &request()).allowed);
    let other = policy("allow", Action::Allow, vec![methods(&["HEAD"])]);
    assert!(!decide(&[deny, other], &request()).allowed);
}

#[test]
fn one_allow_policy_denies_what_no_allow_rule_matches() {
    let allow = policy("allow", Action::Allow, vec![methods(&["POST"])]);
    let verdict = decide(&[allow], &request());
    assert_eq!(
        details(&verdict).as_deref(),
        Some("rbac_access_denied_matched_policy[none]")
    );
}

#[test]
fn allow_policies_are_or() {
    let policies = [
        policy("a", Action::Allow, vec![methods(&["POST"])]),
        policy(
            "b",
            Action::Allow,
            vec![methods(&["PUT"]), methods(&["GET"])],
        ),
    ];
    let verdict = decide(&policies, &request());
    assert!(verdict.allowed);
    assert_eq!(verdict.policy.unwrap().origin.key.name.as_ref(), "b");
    assert_eq!(verdict.rule, Some(1));
}

#[test]
fn a_matching_custom_rule_denies_when_its_provider_can_not_be_asked() {
    let policies = [
        policy("allow", Action::Allow, vec![PolicyRule::default()]),
        policy("ask", Action::Custom, vec![methods(&["GET"])]),
    ];
    assert!(!decide(&policies, &request()).allowed);
    // What its rules do not match is not its business.
    assert!(decide(&policies, &request().method("POST")).allowed);
}
