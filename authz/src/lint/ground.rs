//! What lints look at: the objects, what they mean, and who is meant by the policies. Judges nothing.

use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{Binding, Endpoint, Policy, Service, Snapshot, Workload};
use rustc_hash::FxHashMap;

/// The configuration under the lints.
pub(super) struct Ground<'a> {
    /// As written.
    pub resources: &'a Resources,
    /// What it means.
    pub snapshot: &'a Snapshot,
    /// The policies that this waypoint enforces, each once, with the services it applies to.
    pub enforced: Vec<Enforced<'a>>,
}

/// A policy and where it applies.
pub(super) struct Enforced<'a> {
    /// The policy.
    pub policy: &'a Arc<Policy>,
    /// The served services, by their number in [`Snapshot::served`], in order.
    pub reach: Vec<usize>,
    /// The services themselves.
    pub services: Vec<&'a Service>,
}

impl<'a> Ground<'a> {
    /// Looks up who is meant once.
    pub fn new(resources: &'a Resources, snapshot: &'a Snapshot) -> Self {
        let mut enforced: Vec<Enforced<'a>> = Vec::new();
        let mut places: FxHashMap<*const Policy, usize> = FxHashMap::default();
        for (number, service) in snapshot.served().enumerate() {
            for policy in &service.policies {
                let place = *places.entry(Arc::as_ptr(policy)).or_insert_with(|| {
                    enforced.push(Enforced {
                        policy,
                        reach: Vec::new(),
                        services: Vec::new(),
                    });
                    enforced.len() - 1
                });
                if let Some(of) = enforced.get_mut(place) {
                    of.reach.push(number);
                    of.services.push(service);
                }
            }
        }
        Self {
            resources,
            snapshot,
            enforced,
        }
    }

    /// The endpoints of everything served, each with its pod.
    pub fn endpoints(&self) -> impl Iterator<Item = (&'a Endpoint, &'a Arc<Workload>)> {
        let served = self.snapshot.clusters.iter();
        let served = served.filter(|(key, _)| {
            let service = self.snapshot.services.get(&key.service);
            service.is_some_and(|s| s.binding == Binding::Served)
        });
        let endpoints = served.flat_map(|(_, endpoints)| endpoints.iter());
        endpoints.filter_map(|e| Some((e, e.workload.as_ref()?)))
    }
}

/// A rule in a sentence: `AuthorizationPolicy/shop/a rule 0`.
pub(super) fn named(origin: &Origin, rule: usize) -> String {
    format!("{origin} rule {rule}")
}
