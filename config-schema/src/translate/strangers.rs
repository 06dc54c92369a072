//! Clients that have an identity of the mesh and no labels at Cilium: pods in the network of their node, which
//! it takes for the node (specs/policies.md 2.1.2), and workloads outside of Kubernetes.

use std::sync::Arc;

use super::behind::running;
use super::who::Who;
use crate::resources::service_entry::WorkloadEntrySpec;
use crate::resources::{Loaded, Resources};

/// One of them.
pub(super) struct Stranger {
    /// In words.
    pub what: String,
    namespace: Arc<str>,
    account: Arc<str>,
    /// To Cilium it is a node, which is in the cluster.
    is_node: bool,
}

/// All of the input.
pub(super) fn all(resources: &Resources) -> Vec<Stranger> {
    let account = |text: &str| match text {
        "" => Arc::from("default"),
        text => Arc::from(text),
    };
    let pods = running(resources).filter(|pod| pod.spec.host_network);
    let pods = pods.map(|pod| Stranger {
        what: format!(
            "Pod {}, which is in the network of its node and no pod to Cilium,",
            pod.origin.key
        ),
        namespace: pod.origin.key.namespace.clone(),
        account: account(&pod.spec.service_account),
        is_node: true,
    });
    let outside = |of: String, namespace: &Arc<str>, spec: &WorkloadEntrySpec| Stranger {
        what: format!("{of}, which is outside of Kubernetes and no pod to Cilium,"),
        namespace: namespace.clone(),
        account: account(spec.service_account.as_deref().unwrap_or_default()),
        is_node: false,
    };
    let entries = resources.workload_entries.values();
    let entries = entries.filter_map(Loaded::object);
    let entries = entries.map(|entry| {
        let of = entry.origin.to_string();
        outside(of, &entry.origin.key.namespace, &entry.spec)
    });
    let services = resources.service_entries.values();
    let services = services.filter_map(Loaded::object);
    let listed = services.flat_map(|entry| {
        let endpoints = entry.spec.endpoints.iter().flatten();
        let own = endpoints.filter(|e| e.service_account.as_ref().is_some_and(|a| !a.is_empty()));
        own.map(move |spec| {
            let of = format!("an endpoint of {}", entry.origin);
            outside(of, &entry.origin.key.namespace, spec)
        })
    });
    pods.chain(entries).chain(listed).collect()
}

impl Stranger {
    /// Whether it is among these clients.
    pub fn is(&self, who: &Who) -> bool {
        match who {
            // Whoever it is need not be known.
            Who::Anybody => false,
            Who::Meshed => true,
            Who::Of { namespace, account } => {
                let by_account = account.as_ref();
                *namespace == self.namespace && by_account.is_none_or(|a| *a == self.account)
            }
        }
    }

    /// Whether it is among these clients, and not among those of Cilium's entity `cluster`.
    pub fn is_not_in_cluster(&self, who: &Who) -> bool {
        self.is(who) && !(self.is_node && *who == Who::Meshed)
    }
}
