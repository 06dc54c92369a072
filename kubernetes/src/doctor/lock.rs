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

/// The lock of a pod. `waypoint` is the principal that may come in; `None`: nobody may.
pub(super) fn of(snapshot: &Snapshot, pod: &Workload, waypoint: Option<&str>) -> Lock {
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
            .any(|rule| denies_all_but(rule, waypoint))
        {
            return Lock::Closed(policy.origin.clone());
        }
    }
    let mut first = None;
    for policy in whole.filter(|p| p.action == Action::Allow) {
        for (index, rule) in policy.rules.iter().enumerate() {
            if !admits_only(rule, waypoint) {
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

/// Whether an ALLOW rule says, for every source, that it is the waypoint.
fn admits_only(rule: &PolicyRule, waypoint: Option<&str>) -> bool {
    if rule.broken.is_some() {
        return false;
    }
    let named = |source: &Source| is_only(&source.principals, waypoint);
    let by_source = !rule.from.is_empty() && rule.from.iter().all(named);
    let by_condition = |condition: &Condition| match condition {
        Condition::SourcePrincipal(values) => is_only(values, waypoint),
        _ => false,
    };
    by_source || rule.when.iter().any(by_condition)
}

/// Whether values are there, and each is the waypoint's principal.
fn is_only(values: &Values<StringMatch>, waypoint: Option<&str>) -> bool {
    !values.any_of.is_empty() && values.any_of.iter().all(|value| is(value, waypoint))
}

fn is(value: &StringMatch, waypoint: Option<&str>) -> bool {
    matches!((value, waypoint), (StringMatch::Exact(name), Some(waypoint)) if **name == *waypoint)
}

/// Whether a DENY rule denies everybody but the waypoint, on every port.
fn denies_all_but(rule: &PolicyRule, waypoint: Option<&str>) -> bool {
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
            && excepted.iter().all(|value| is(value, waypoint))
    })
}
