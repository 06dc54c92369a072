//! Whom policies of a Service become narrower for at Cilium, or denials leave out: clients without labels, and
//! other ways to the same pods.

use super::ground::{Ground, in_force};
use super::istio_rules::Said;
use super::report::{Draft, Outcome};
use crate::origin::{ObjectKey, Origin};
use crate::snapshot::{Binding, Service};

/// Other Services that lead to pods of this one.
pub(super) fn sharing<'a>(
    ground: &Ground<'a>,
    service: &'a Service,
) -> impl Iterator<Item = &'a Service> + use<'a> {
    let pods = ground.pods_of(service);
    let ways = pods.iter().flat_map(|pod| ground.behind.services(&pod.key));
    let mut others: Vec<ObjectKey> = ways.cloned().collect();
    others.retain(|key| *key != service.key);
    others.sort();
    others.dedup();
    let services = &ground.snapshot.services;
    others
        .into_iter()
        .filter_map(|key| services.get(&key))
        .map(|service| &**service)
}

/// Whom Cilium's selectors do not select.
pub(super) fn strangers(
    ground: &Ground<'_>,
    origin: &Origin,
    at: &str,
    said: &Said,
    denies: bool,
    draft: &mut Draft,
) {
    let strangers = ground.strangers.iter();
    for stranger in strangers.filter(|s| said.who.iter().any(|who| s.is_not_in_cluster(who))) {
        let (outcome, verb) = match denies {
            true => (Outcome::NotTranslated, "denied"),
            false => (Outcome::Narrower, "allowed"),
        };
        let why = format!("{} would not be {verb}", stranger.what);
        draft.note(origin, at, outcome, why);
    }
}

/// Other ways to the same pods, which no policy has restricted.
pub(super) fn others(ground: &Ground<'_>, service: &Service, isolates: bool, draft: &mut Draft) {
    for other in sharing(ground, service) {
        if other.binding == Binding::Served && in_force(other).next().is_some() {
            continue;
        }
        let what = if isolates {
            "denied what these policies do not allow"
        } else {
            "denied what these policies deny"
        };
        let why = format!(
            "Service {}, which has no policy of a waypoint, leads to pods of Service {}, too, and would be {what}",
            other.key, service.key
        );
        draft.note_of_all(Outcome::Narrower, &why);
    }
    let waypoint = ground.snapshot.waypoint.as_ref();
    if waypoint.is_some_and(|waypoint| waypoint.serves_workloads) {
        let why = "the waypoint serves addresses of pods, which these policies do not restrict, and they would be restricted";
        draft.note_of_all(Outcome::Narrower, why);
    }
}
