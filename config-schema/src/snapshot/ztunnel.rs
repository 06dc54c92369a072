//! AuthorizationPolicies that are not for a waypoint, in the form in which the destination's ztunnel
//! enforces them (specs/policies.md 2.8). A waypoint enforces none of it: `explain` and lints look.

use std::sync::Arc;

use serde::Serialize;

use super::{LabelExpression, Policy};

/// One policy by selector, for a namespace, or for the mesh.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZtunnelPolicy {
    /// What is left of it at L4. A dry run is not known to ztunnel.
    pub policy: Arc<Policy>,
    /// For pods of this namespace. `None`: of every one.
    pub namespace: Option<Arc<str>>,
    /// On the labels of the pods.
    pub selector: LabelExpression,
    /// Rules on HTTP were left out, or lost a part.
    pub reduced: bool,
}
