//! Which workloads a network policy selects, by what is known of them.

use std::sync::Arc;

use super::{LabelExpression, LabelView, NetworkPolicy, Truth};

/// A network policy and what it selects.
#[derive(Clone, Debug)]
pub struct Selecting {
    /// The policy.
    pub policy: Arc<NetworkPolicy>,
    /// On the labels of a workload, its namespace among them.
    pub selector: LabelExpression,
    /// On the labels of the namespace.
    pub namespace_selector: LabelExpression,
}

impl Selecting {
    /// Whether the policy selects a workload, as far as that is known.
    pub fn selects(&self, view: &LabelView<'_>) -> Truth {
        let by_pod = self.selector.holds(&|key| view.of_pod(key));
        by_pod.and(self.namespace_selector.holds(&|key| view.of_namespace(key)))
    }
}
