//! Which objects other objects name, of kinds that are not watched as a whole: the ConfigMaps with certificates
//! of BackendTLSPolicies. What they mean is decided when references are followed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::Change;
use super::api::{Collection, KindRef};
use crate::kinds::{Scope, WATCHED, WatchedKind, watched_kind};
use crate::limits::{NAMED_MAX, NAMED_PER_NAMESPACE_MAX};

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
    let config_map = config_maps()?;
    let names = policy.spec.validation.ca_certificate_refs.into_iter();
    let names = names.filter(|reference| {
        reference.kind == "ConfigMap" && config_map.0.can_be_named(&reference.name)
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

/// The kind of which only some are followed.
fn config_maps() -> Option<KindRef> {
    watched_kind("ConfigMap").map(KindRef)
}

/// Those of them that are followed, in order, and how many are not: whoever may write policies in one namespace
/// must not have a waypoint open watches without end.
pub(super) fn within_limits<'c>(
    all: impl Iterator<Item = &'c Collection>,
) -> (Vec<Collection>, usize) {
    let all: BTreeSet<&Collection> = all.collect();
    let mut followed: Vec<Collection> = Vec::new();
    let mut of_namespace = 0;
    for collection in &all {
        let last = followed.last().map(|last| &last.namespace);
        if last != Some(&collection.namespace) {
            of_namespace = 0;
        }
        if of_namespace < NAMED_PER_NAMESPACE_MAX && followed.len() < NAMED_MAX {
            of_namespace += 1;
            followed.push((*collection).clone());
        }
    }
    let left_out = all.len() - followed.len();
    (followed, left_out)
}

/// Whether an object that was known earlier would be followed now: one of a name that always is, of another
/// namespace, is not, and nobody would ever say that it is gone.
pub(super) fn is_followed(path: &str, istio_namespace: &str) -> bool {
    let always = WATCHED.iter().filter_map(|kind| match kind.scope {
        Scope::OfIstio(name) => Some((kind, name)),
        Scope::All => None,
    });
    let mut strays = always.filter(|(kind, name)| {
        let prefix = format!("kubernetes:{}/", kind.title());
        let key = path
            .strip_prefix(&*prefix)
            .and_then(|rest| rest.split_once('/'));
        key.is_some_and(|(of, called)| called == *name && of != istio_namespace)
    });
    strays.next().is_none()
}

/// The collections that are followed from the start: all of each kind, or what always counts of it.
pub(super) fn from_the_start(istio_namespace: &str) -> Vec<Collection> {
    let collection = |kind: &'static WatchedKind| Collection {
        kind: KindRef(kind),
        namespace: match kind.scope {
            Scope::All => None,
            Scope::OfIstio(_) => Some(istio_namespace.into()),
        },
        name: match kind.scope {
            Scope::All => None,
            Scope::OfIstio(name) => Some(name.into()),
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
        // No object is called so, and the settings of the mesh are nobody's certificates.
        for name in ["a,b", "istio", ""] {
            let text = text.replace("\"ca\"", &format!("{name:?}"));
            let policy = Change::put("kubernetes:BackendTLSPolicy/shop/p".into(), text.into());
            assert_eq!(collections(&policy), None, "{name}");
        }
    }

    #[test]
    fn the_settings_of_the_mesh_are_those_of_one_namespace() {
        let first = from_the_start("istio-system");
        let follows = |path: &str| first.iter().any(|collection| collection.has(path));
        assert!(follows("kubernetes:ConfigMap/istio-system/istio"));
        assert!(!follows("kubernetes:ConfigMap/evil/istio"));
        let here = |path| is_followed(path, "istio-system");
        assert!(!here("kubernetes:ConfigMap/evil/istio"));
        assert!(here("kubernetes:ConfigMap/istio-system/istio"));
        assert!(here("kubernetes:ConfigMap/evil/ca"));
        assert!(here("kubernetes:Service/evil/istio"));
        // Another one, if that is where Istio is; and then no longer the usual one.
        let first = from_the_start("mesh");
        let follows = |path: &str| first.iter().any(|collection| collection.has(path));
        assert!(follows("kubernetes:ConfigMap/mesh/istio"));
        assert!(!follows("kubernetes:ConfigMap/istio-system/istio"));
        let of_before = "kubernetes:ConfigMap/istio-system/istio";
        assert!(!is_followed(of_before, "mesh"));
    }

    #[test]
    fn one_namespace_has_its_share_of_what_is_named() {
        let collection = |namespace: usize, name: usize| Collection {
            kind: config_maps().unwrap(),
            namespace: Some(format!("{namespace:03}").into()),
            name: Some(format!("{name:03}").into()),
        };
        let all: Vec<_> = (0..100).map(|i| collection(0, i)).collect();
        let other = collection(1, 0);
        let (followed, left_out) = within_limits(all.iter().chain([&other, &other]));
        assert_eq!(followed.len(), NAMED_PER_NAMESPACE_MAX + 1);
        assert_eq!(followed.last(), Some(&other));
        assert_eq!(left_out, 100 - NAMED_PER_NAMESPACE_MAX);
        let all: Vec<_> = (0..600).map(|i| collection(i, 0)).collect();
        assert_eq!(within_limits(all.iter()).0.len(), NAMED_MAX);
    }
}
