//! Which objects other objects name, of kinds that are not watched as a whole: the ConfigMaps with certificates
//! of BackendTLSPolicies. What they mean is decided when references are followed.

use std::sync::Arc;

use serde::Deserialize;

use super::Change;
use super::api::{Collection, KindRef};
use crate::kinds::{Scope, WATCHED, WatchedKind};

#[derive(Deserialize)]
struct Policy {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: Arc<str>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    validation: Validation,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Validation {
    ca_certificate_refs: Vec<Reference>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    kind: String,
    name: Arc<str>,
}

/// What an object names that is to be followed for it. `None`: it names nothing.
pub(super) fn collections(change: &Change) -> Option<Vec<Collection>> {
    if !change.path.starts_with("kubernetes:BackendTLSPolicy/") {
        return None;
    }
    let policy: Policy = serde_json::from_str(change.text.as_ref()?).ok()?;
    let (config_map, always) = config_maps()?;
    let names = policy.spec.validation.ca_certificate_refs.into_iter();
    // Those of the name that is followed anyway are followed once.
    let names = names.filter(|reference| {
        reference.kind == "ConfigMap" && !["", always].contains(&&*reference.name)
    });
    let found: Vec<Collection> = names
        .map(|reference| Collection {
            kind: config_map,
            namespace: Some(policy.metadata.namespace.clone()),
            name: Some(reference.name),
        })
        .collect();
    (!found.is_empty()).then_some(found)
}

/// The kind of which only some are followed, and the name that always is.
fn config_maps() -> Option<(KindRef, &'static str)> {
    WATCHED.iter().find_map(|kind| match kind.scope {
        Scope::Named(always) => Some((KindRef(kind), always)),
        Scope::All => None,
    })
}

/// The collections that are followed from the start: all of each kind, or what always counts of it.
pub(super) fn from_the_start() -> Vec<Collection> {
    let collection = |kind: &'static WatchedKind| Collection {
        kind: KindRef(kind),
        namespace: None,
        name: match kind.scope {
            Scope::All => None,
            Scope::Named(name) => Some(name.into()),
        },
    };
    WATCHED.iter().map(collection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_the_config_maps_of_its_namespace() {
        let text = r#"{"metadata":{"namespace":"shop","name":"p"},"spec":{"validation":{"caCertificateRefs":[
            {"group":"","kind":"ConfigMap","name":"ca"},{"group":"","kind":"Secret","name":"other"}]}}}"#;
        let policy = Change::put("kubernetes:BackendTLSPolicy/shop/p".into(), text.into());
        let named = collections(&policy).unwrap();
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].kind.0.plural, "configmaps");
        assert_eq!(named[0].namespace.as_deref(), Some("shop"));
        assert_eq!(named[0].name.as_deref(), Some("ca"));
        let other = Change::put("kubernetes:Service/shop/p".into(), text.into());
        assert_eq!(collections(&other), None);
    }
}
