//! Policies compiled for deciding: split by action, dry-run apart. Does not decide.

use std::sync::Arc;

use cairn_config_schema::snapshot::Policy;

/// The policies that apply to one service or workload, compiled. Immutable.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// Compiles the policies that apply: those of the waypoint and those of the service together.
    /// Order and duplicates do not matter. Never fails: what can not be evaluated denies.
    pub fn compile(policies: &[Arc<Policy>]) -> Self {
        Self {
            policies: policies.to_vec(),
        }
    }

    /// Whether no policy applies at all, dry-run ones included: everything is allowed.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}
