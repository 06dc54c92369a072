//! Whether the ztunnel of a pod lets in nobody but the waypoint (specs/policies.md 2.8): shown by what the policies
//! say, and not by trying identities, for the next one to come may be one that was not tried.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{
    Action, Condition, PolicyRule, Snapshot, Source, StringMatch, Values, Workload, ZtunnelPolicy,
};

/// What keeps others out of a pod that is in the mesh.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lock {
    /// This policy does.
    Closed(Origin),
    /// Nothing does, for this reason.
    Open(String),
}

/// The lock of a pod. `admitted` are the principals of those who enforce, and may come in; none: nobody may.
pub(super) fn of(snapshot: &Snapshot, pod: &Workload, admitted: &[String]) -> Lock {
    let policies: Vec<&ZtunnelPolicy> =
        cairn_authz::ztunnel::of_pod(&snapshot.ztunnel, pod).collect();
    // A broken policy is none to istiod: it must not count as a lock.
    let whole = policies
        .iter()
        .map(|p| &p.policy)
        .filter(|p| p.broken.is_none() && !p.dry_run);
    let deny =
        |p: &&&std::sync::Arc<cairn_config_schema::snapshot::Policy>| p.action == Action::Deny;
    let refusing = whole.clone().filter(|p| deny(&p));
    for policy in refusing {
        if policy
            .rules
            .iter()
            .any(|rule| denies_all_but(rule, admitted))
        {
            return Lock::Closed(policy.origin.clone());
        }
    }
    let mut first = None;
    for policy in whole.filter(|p| p.action == Action::Allow) {
        for (index, rule) in policy.rules.iter().enumerate() {
            if !admits_only(rule, admitted) {
                let origin = &policy.origin;
                return Lock::Open(format!(
                    "{origin} rule {index} lets in others than the waypoint"
                ));
            }
        }
        first.get_or_insert_with(|| policy.origin.clone());
    }
    match first {
        Some(origin) => Lock::Closed(origin),
        None => {
            Lock::Open("no AuthorizationPolicy keeps others than the waypoint from it".to_owned())
        }
    }
}

/// Whether the policies of a pod let a principal in, as far as they name it: no lock by denial leaves it out, and if there
/// is any ALLOW policy, one that can be read names it or does not ask who comes.
pub(super) fn admits(snapshot: &Snapshot, pod: &Workload, principal: &str) -> bool {
    let own = [principal.to_owned()];
    let of_pod = cairn_authz::ztunnel::of_pod(&snapshot.ztunnel, pod);
    let whole: Vec<_> = of_pod
        .map(|p| &p.policy)
        .filter(|p| p.broken.is_none() && !p.dry_run)
        .collect();
    let leaves_out = |rule: &PolicyRule| {
        rule.to.is_empty()
            && rule.when.is_empty()
            && rule.from.iter().any(|source| {
                let excepted = &source.principals.none_of;
                let names = excepted.iter().all(|v| matches!(v, StringMatch::Exact(_)));
                names && !excepted.is_empty() && !excepted.iter().any(|value| is(value, &own))
            })
    };
    let mut denials = whole.iter().filter(|p| p.action == Action::Deny);
    if denials.any(|policy| policy.rules.iter().any(leaves_out)) {
        return false;
    }
    let names = |values: &Values<StringMatch>| {
        values.any_of.is_empty()
            || values
                .any_of
                .iter()
                .any(|value| is(value, &own) || !matches!(value, StringMatch::Exact(_)))
    };
    let lets_in = |rule: &PolicyRule| {
        let by_source = rule.from.is_empty() || rule.from.iter().any(|s| names(&s.principals));
        let by_condition = rule.when.iter().all(|condition| match condition {
            Condition::SourcePrincipal(values) => names(values),
            _ => true,
        });
        rule.broken.is_none() && by_source && by_condition
    };
    let mut allows = whole
        .iter()
        .filter(|p| p.action == Action::Allow)
        .peekable();
    allows.peek().is_none() || allows.any(|policy| policy.rules.iter().any(lets_in))
}

/// Whether an ALLOW rule says, for every source, that it is the waypoint.
fn admits_only(rule: &PolicyRule, admitted: &[String]) -> bool {
    if rule.broken.is_some() {
        return false;
    }
    let named = |source: &Source| is_only(&source.principals, admitted);
    let by_source = !rule.from.is_empty() && rule.from.iter().all(named);
    let by_condition = |condition: &Condition| match condition {
        Condition::SourcePrincipal(values) => is_only(values, admitted),
        _ => false,
    };
    by_source || rule.when.iter().any(by_condition)
}

/// Whether values are there, and each is the principal of one that enforces.
fn is_only(values: &Values<StringMatch>, admitted: &[String]) -> bool {
    !values.any_of.is_empty() && values.any_of.iter().all(|value| is(value, admitted))
}

fn is(value: &StringMatch, admitted: &[String]) -> bool {
    matches!(value, StringMatch::Exact(name) if admitted.iter().any(|own| **name == **own))
}

/// Whether a DENY rule denies everybody but the waypoint, on every port.
fn denies_all_but(rule: &PolicyRule, admitted: &[String]) -> bool {
    if rule.broken.is_some() || !rule.to.is_empty() || !rule.when.is_empty() {
        return false;
    }
    rule.from.iter().any(|source| {
        let rest = Source {
            principals: Values::default(),
            ..source.clone()
        };
        let excepted = &source.principals.none_of;
        rest == Source::default()
            && source.principals.any_of.is_empty()
            && !excepted.is_empty()
            && excepted.iter().all(|value| is(value, admitted))
    })
}
