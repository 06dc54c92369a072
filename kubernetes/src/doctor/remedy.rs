//! What closes the ways past a waypoint: an AuthorizationPolicy that ztunnel enforces at the pods, by which nobody
//! but the waypoint and the agents of its Gateway comes in (docs/security.md).

use cairn_config_schema::resources::Loaded;
use cairn_config_schema::resources::istio::MeshConfigSpec;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Patient, agents};
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

/// What to do before one knows whom to let in.
pub(super) const DISPUTED: &str = "have the ConfigMap istio (trustDomain) and the controller (--trust-domain) say the same, then ask again";

/// What to do where who enforces is not let in.
pub(super) const ADMIT: &str = "apply the AuthorizationPolicy below, which admits whoever enforces, and take away what refuses them";

/// Who the waypoint is to the ztunnel of a pod. `None`: there is no waypoint, or the mesh and the
/// waypoint are told different trust domains, and to let in the wrong one would lock out the waypoint.
fn principal(patient: &Patient<'_>) -> Option<String> {
    let told = &*patient.snapshot.mesh.trust_domain;
    let meshes = patient.cluster.resources.mesh_config.values();
    let said = |loaded: &Loaded<MeshConfigSpec>| loaded.object()?.spec.trust_domain.clone();
    if meshes.filter_map(said).any(|said| said != told) {
        return None;
    }
    let identity = cairn_authz::waypoint::identity(patient.snapshot)?;
    Some(identity.principal().to_owned())
}

/// Everybody who enforces for the Gateway that serves the Service: the waypoint first, then the agents of nodes. Empty
/// where the waypoint's own is not known.
pub(super) fn principals(patient: &Patient<'_>) -> Vec<String> {
    let Some(waypoint) = principal(patient) else {
        return Vec::new();
    };
    let agents = super::ways::serving(patient)
        .map(|gateway| agents::principals(patient.cluster, gateway, &waypoint));
    let mut principals = vec![waypoint];
    principals.extend(agents.into_iter().flatten());
    principals
}

/// The policy for the pods of a Service. `None`: it has no selector, or no waypoint of ours serves it.
pub(super) fn remedy(patient: &Patient<'_>) -> Option<Remedy> {
    let key = &patient.service.key;
    let waypoint = super::ways::serving(patient)?;
    let principals = principals(patient);
    if principals.is_empty() {
        return None;
    }
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
            "rules": [{"from": [{"source": {"principals": principals}}]}],
        },
    })))
}
