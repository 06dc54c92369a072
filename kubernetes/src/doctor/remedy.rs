//! What closes the ways past a waypoint: an AuthorizationPolicy that ztunnel enforces at the pods, by which nobody
//! but the waypoint comes in (docs/security.md).

use serde::Serialize;
use serde_json::{Value, json};

use super::Patient;
use crate::objects::{name_of, namespace_of};

/// An object to apply.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Remedy(pub Value);

impl Remedy {
    /// `AuthorizationPolicy shop/web-only-from-waypoint`.
    pub fn named(&self) -> String {
        let (namespace, name) = (namespace_of(&self.0), name_of(&self.0));
        format!("AuthorizationPolicy {namespace}/{name}")
    }
}

/// The policy for the pods of a Service. `None`: it has no selector, or no waypoint of ours serves it.
pub(super) fn remedy(patient: &Patient<'_>) -> Option<Remedy> {
    let key = &patient.service.key;
    let waypoint = super::ways::serving(patient)?;
    let principal = cairn_authz::waypoint::identity(patient.snapshot)?;
    let service = patient.cluster.object("Service", key)?;
    let selector = service.pointer("/spec/selector")?.as_object()?;
    if selector.is_empty() {
        return None;
    }
    Some(Remedy(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": format!("{}-only-from-{}", key.name, waypoint.name),
            "namespace": &*key.namespace,
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": [principal.principal()]}}]}],
        },
    })))
}
