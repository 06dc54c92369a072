//! What istiod tells of the pods of this cluster. The objects of the API server say what a pod is; istiod adds
//! that it is reached by HBONE, and where it is. Workloads of other clusters are `elsewhere`'s.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::discovered::{Discovered, DiscoveredWorkload};
use crate::snapshot::Workload;

/// Accounts of the cluster's own pods.
#[derive(Default)]
pub(super) struct OfPods<'a> {
    by_name: FxHashMap<(&'a str, &'a str), &'a DiscoveredWorkload>,
}

impl<'a> OfPods<'a> {
    pub fn new(told: Option<&'a Discovered>) -> Self {
        let Some(told) = told else {
            return Self::default();
        };
        let prefix = format!("{}//Pod/", told.cluster);
        let of_pod = |(uid, workload): (&Arc<str>, &'a Arc<DiscoveredWorkload>)| {
            let is_own = uid.starts_with(&prefix) && told.is_own(workload);
            is_own.then_some(((&*workload.namespace, &*workload.name), &**workload))
        };
        Self {
            by_name: told.workloads.iter().filter_map(of_pod).collect(),
        }
    }

    /// What is told of a pod. `None`: nothing, or of an earlier one with its name: whose addresses, account or trust
    /// domain are others.
    pub fn of(&self, pod: &Workload) -> Option<&'a DiscoveredWorkload> {
        let told = *self.by_name.get(&(&*pod.key.namespace, &*pod.key.name))?;
        let account = Some(account(told));
        let has_address = |address| pod.addresses.contains(address);
        let is_it = told.addresses.iter().any(has_address)
            && account == pod.identity.service_account()
            && trust_domain(told) == pod.identity.trust_domain();
        is_it.then_some(told)
    }
}

/// The service account of a workload.
pub(super) fn account(told: &DiscoveredWorkload) -> &str {
    match &*told.service_account {
        "" => "default",
        account => account,
    }
}

/// The trust domain of a workload: istiod leaves out the usual one.
pub(super) fn trust_domain(told: &DiscoveredWorkload) -> &str {
    match &*told.trust_domain {
        "" => "cluster.local",
        trust_domain => trust_domain,
    }
}
