//! Rules of AuthorizationPolicies that change nothing because of another one: an ALLOW that a DENY takes
//! back whole, and an ALLOW beside one that allows everything (specs/istio-waypoint.md 4.8).

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::snapshot::{Action, PolicyRule};

use super::budget::Budget;
use super::cover;
use super::ground::{Enforced, Ground, named};

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let of = |action: Action| {
        let enforced = ground.enforced.iter();
        let acting = enforced.filter(move |e| {
            let policy = e.policy;
            policy.action == action && !policy.dry_run && policy.broken.is_none()
        });
        acting.collect::<Vec<_>>()
    };
    let (allowing, denying) = (of(Action::Allow), of(Action::Deny));
    let mut budget = Budget::new("shadowed-rule");
    for allow in &allowing {
        let done = taken_back(allow, &denying, ground, &mut budget, findings)
            && made_needless(allow, &allowing, ground, &mut budget, findings);
        if !done {
            findings.push(budget.exhausted());
            return;
        }
    }
}

/// ALLOW rules that a DENY rule matches whole. `false`: too much to compare.
fn taken_back(
    allow: &Enforced<'_>,
    denying: &[&Enforced<'_>],
    ground: &Ground<'_>,
    budget: &mut Budget,
    findings: &mut Vec<Diagnostic>,
) -> bool {
    for (index, allowed) in allow.policy.rules.iter().enumerate() {
        for deny in denying {
            if !budget.take(deny.policy.rules.len() + 1) {
                return false;
            }
            if !reaches_all_of(deny, allow) {
                continue;
            }
            let mut rules = deny.policy.rules.iter();
            let Some(rule) = rules.position(|denied| cover::rule(denied, allowed)) else {
                continue;
            };
            let by = named(&deny.policy.origin, rule);
            let finding = Diagnostic::warning(
                Code::ShadowedRule,
                format!("{by} denies everything that this rule allows"),
            )
            .with_effect("the rule allows nothing")
            .with_hint("remove it, or narrow the DENY");
            push(allow, index, finding, ground, findings);
            break;
        }
    }
    true
}

/// ALLOW rules beside one that allows everything. `false`: too much to compare.
fn made_needless(
    allow: &Enforced<'_>,
    allowing: &[&Enforced<'_>],
    ground: &Ground<'_>,
    budget: &mut Budget,
    findings: &mut Vec<Diagnostic>,
) -> bool {
    let everything = |rule: &PolicyRule| cover::is_everything(rule);
    for other in allowing {
        if !budget.take(other.policy.rules.len() + 1) {
            return false;
        }
        let Some(rule) = other.policy.rules.iter().position(everything) else {
            continue;
        };
        if !reaches_all_of(other, allow) {
            continue;
        }
        let by = named(&other.policy.origin, rule);
        let narrower = allow.policy.rules.iter().enumerate();
        let narrower = narrower.filter(|(_, rule)| !everything(rule) && rule.broken.is_none());
        for (index, _) in narrower {
            let finding = Diagnostic::warning(
                Code::ShadowedRule,
                format!("{by} allows everything, so that this rule changes nothing"),
            )
            .with_effect("what the rule does not allow is allowed all the same")
            .with_hint("ALLOW policies add up: narrow the other one, or write a DENY");
            push(allow, index, finding, ground, findings);
        }
        return true;
    }
    true
}

/// Whether one policy applies wherever the other does.
fn reaches_all_of(one: &Enforced<'_>, other: &Enforced<'_>) -> bool {
    let holds = |service: &usize| one.reach.binary_search(service).is_ok();
    one.reach.len() >= other.reach.len() && other.reach.iter().all(holds)
}

fn push(
    of: &Enforced<'_>,
    rule: usize,
    finding: Diagnostic,
    ground: &Ground<'_>,
    findings: &mut Vec<Diagnostic>,
) {
    let origin = &of.policy.origin;
    let object = ground.resources.authorization_policies.get(&origin.key);
    let path = format!("spec.rules[{rule}]");
    findings.push(match object.and_then(|loaded| loaded.object()) {
        Some(object) => object.mark(finding, &path),
        None => finding.of(origin.clone(), path),
    });
}
