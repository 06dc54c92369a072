//! Network policies that are only tried: the verdict is as without them, and what would be is as with
//! them. What each says is what it says alone.

use cairn_authz::{TrialOutcome, Verdict, Would};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{NetworkPolicy, Standing, World};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate::{Request, calico_policies, cilium_policies, request};
use crate::properties::{set, with_facts};

fn decide(policies: &[NetworkPolicy], request: &Request) -> Verdict {
    let set = set(policies, Some(request.port));
    with_facts(request, |facts| set.decide(facts))
}

fn of_world(policies: &[NetworkPolicy], world: World) -> Vec<NetworkPolicy> {
    let of_world = policies.iter().filter(|p| p.standing.is_in(world));
    let enforced = of_world.cloned().map(|policy| NetworkPolicy {
        standing: Standing::InForce,
        ..policy
    });
    enforced.collect()
}

/// Each policy with a name of its own and a standing.
fn standing(mut policies: Vec<NetworkPolicy>, standings: &[Standing]) -> Vec<NetworkPolicy> {
    for (index, policy) in policies.iter_mut().enumerate() {
        policy.origin.key = ObjectKey::new("shop", format!("p{index}"));
        policy.standing = standings[index % standings.len()];
        if policy.standing == Standing::Removal {
            policy.rules.clear();
            policy.default_deny = false;
        }
    }
    policies
}

fn standings() -> impl Strategy<Value = Vec<Standing>> {
    let one = select(vec![
        Standing::InForce,
        Standing::InForce,
        Standing::Superseded,
        Standing::Tried,
        Standing::Tried,
        Standing::Removal,
    ]);
    vec(one, 1..6)
}

fn assert_tried(policies: &[NetworkPolicy], request: &Request) -> Result<(), TestCaseError> {
    let verdict = decide(policies, request);
    let in_force = decide(&of_world(policies, World::InForce), request);
    prop_assert_eq!(verdict.allowed, in_force.allowed);
    prop_assert_eq!(&verdict.origin(), &in_force.origin());
    prop_assert_eq!(verdict.rule_index(), in_force.rule_index());
    prop_assert_eq!(in_force.dry_run, None);
    let differs = policies.iter().any(|p| p.standing != Standing::InForce);
    prop_assert_eq!(verdict.dry_run.is_some(), differs);
    let Some(run) = &verdict.dry_run else {
        return Ok(());
    };
    let trial = decide(&of_world(policies, World::Trial), request);
    prop_assert_eq!(run.allowed(), trial.allowed);
    prop_assert_eq!(run.origin(), trial.origin());
    prop_assert_eq!(run.rule_index(), trial.rule_index());
    for policy in policies {
        let said = run.outcomes.iter().find(|o| o.policy == policy.origin);
        match (policy.standing, said) {
            (Standing::Tried, Some(said)) => assert_said_alone(policy, said, request)?,
            (Standing::Removal, Some(said)) if verdict.allowed == trial.allowed => {
                prop_assert_eq!(said.would, Would::Nothing);
            }
            (Standing::Removal, Some(said)) => {
                prop_assert_eq!(said.would == Would::Allow, trial.allowed);
            }
            (_, said) => prop_assert_eq!(said, None),
        }
    }
    Ok(())
}

/// What is said to be allowed or denied by a rule is so with the policy alone.
fn assert_said_alone(
    policy: &NetworkPolicy,
    said: &TrialOutcome,
    request: &Request,
) -> Result<(), TestCaseError> {
    let alone = decide(
        &of_world(std::slice::from_ref(policy), World::Trial),
        request,
    );
    prop_assert_eq!(said.rule, alone.rule_index());
    match said.would {
        Would::Allow => prop_assert!(alone.allowed && said.rule.is_some()),
        Would::Deny => prop_assert!(!alone.allowed),
        Would::Nothing => prop_assert_eq!(said.rule, None),
        Would::Ask => prop_assert!(false, "network policies ask nobody"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn cilium_policies_that_are_tried_change_no_verdict(
        policies in cilium_policies(4),
        standings in standings(),
        request in request(),
    ) {
        assert_tried(&standing(policies, &standings), &request)?;
    }

    #[test]
    fn calico_policies_that_are_tried_change_no_verdict(
        policies in calico_policies(4),
        standings in standings(),
        request in request(),
    ) {
        assert_tried(&standing(policies, &standings), &request)?;
    }
}
