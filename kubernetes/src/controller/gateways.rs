//! Which Gateways are ours: those of a class whose controller we are, whatever the class is called, and of our
//! revision (specs/istio-waypoint.md 1.7). All others are left alone.

use std::collections::{BTreeMap, BTreeSet};

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::status::CONTROLLER;
use serde_json::Value;

use crate::watch::Objects;

/// On a Gateway or its namespace: the control plane that is to see to it.
const REVISION: &str = "istio.io/rev";

/// A Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Managed {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its class.
    pub class: String,
    /// Revision it is of.
    pub revision: String,
    /// The whole object.
    pub object: Value,
}

/// What there is of Gateways.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Ours.
    pub managed: BTreeMap<ObjectKey, Managed>,
    /// Of a class of ours and another revision: another controller of this kind sees to them.
    pub of_other_revisions: BTreeSet<ObjectKey>,
    /// Namespaces and `metadata.uid`s of Gateways for which a controller of this kind may have made objects: those of
    /// a class of ours, whatever their revision, and those whose class is gone, for their waypoints run on.
    pub owners: BTreeSet<(Box<str>, String)>,
    /// Gateways of classes that are other controllers', with their `metadata.uid`: they may have been ours.
    pub of_others: BTreeMap<ObjectKey, String>,
    /// Names of these classes.
    others_classes: BTreeSet<String>,
}

impl Found {
    /// Namespaces and `metadata.uid`s of Gateways that are other controllers'.
    pub fn others_owners(&self) -> BTreeSet<(Box<str>, String)> {
        let others = self.of_others.iter();
        others
            .map(|(key, uid)| ((&*key.namespace).into(), uid.clone()))
            .collect()
    }

    /// Whether a class is another controller's, and not merely missing.
    pub fn of_others_class(&self, class: &str) -> bool {
        self.others_classes.contains(class)
    }
}

/// Finds them. `revision` is ours.
pub fn find(objects: &Objects, revision: &str) -> Found {
    let classes: BTreeMap<String, bool> = of_kind(objects, "GatewayClass")
        .filter_map(|class| {
            let is_ours = text(&class, "/spec/controllerName") == Some(CONTROLLER);
            Some((text(&class, "/metadata/name")?.to_owned(), is_ours))
        })
        .collect();
    let others = classes.iter().filter(|(_, is_ours)| !**is_ours);
    let mut found = Found {
        others_classes: others.map(|(name, _)| name.clone()).collect(),
        ..Found::default()
    };
    for object in of_kind(objects, "Gateway") {
        let Some(gateway) = Managed::read(object, objects) else {
            continue;
        };
        let class = classes.get(&gateway.class);
        if class != Some(&false) {
            let owner = ((&*gateway.key.namespace).into(), gateway.uid.clone());
            found.owners.insert(owner);
        } else {
            let (key, uid) = (gateway.key.clone(), gateway.uid.clone());
            found.of_others.insert(key, uid);
        }
        if class != Some(&true) {
            continue;
        }
        if gateway.revision == revision {
            found.managed.insert(gateway.key.clone(), gateway);
        } else {
            found.of_other_revisions.insert(gateway.key);
        }
    }
    found
}

impl Managed {
    /// `None`: it is being deleted, or is no Gateway.
    fn read(object: Value, objects: &Objects) -> Option<Self> {
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return None;
        }
        let namespace = text(&object, "/metadata/namespace")?.to_owned();
        let own = label(&object, REVISION);
        let inherited = || {
            let namespace = objects.get(&*format!("kubernetes:Namespace/{namespace}"))?;
            let namespace: Value = serde_json::from_str(namespace).ok()?;
            Some(label(&namespace, REVISION)?.to_owned())
        };
        let revision = own.map(str::to_owned).or_else(inherited);
        Some(Self {
            key: ObjectKey::new(&*namespace, text(&object, "/metadata/name")?),
            uid: text(&object, "/metadata/uid")?.to_owned(),
            generation: object.pointer("/metadata/generation")?.as_i64()?,
            class: text(&object, "/spec/gatewayClassName")?.to_owned(),
            revision: revision.unwrap_or_else(|| "default".to_owned()),
            object,
        })
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.object.pointer("/metadata/annotations")?;
        annotations.get(key)?.as_str()
    }

    /// Name, port and protocol of each listener.
    pub fn listeners(&self) -> Vec<(String, u16, String)> {
        let listeners = self
            .object
            .pointer("/spec/listeners")
            .and_then(Value::as_array);
        let read = |listener: &Value| {
            let port = listener.get("port")?.as_u64()?;
            Some((
                text(listener, "/name")?.to_owned(),
                u16::try_from(port).ok()?,
                text(listener, "/protocol")?.to_owned(),
            ))
        };
        listeners.into_iter().flatten().filter_map(read).collect()
    }

    /// Addresses that its owner gave it: somebody else runs it then (1.2).
    pub fn manual_addresses(&self) -> Option<&Value> {
        let addresses = self.object.pointer("/spec/addresses")?;
        (!addresses.as_array()?.is_empty()).then_some(addresses)
    }

    /// Whether its status has addresses: only then istiod leads anybody to it.
    pub fn has_addresses(&self) -> bool {
        let addresses = self.object.pointer("/status/addresses");
        addresses
            .and_then(Value::as_array)
            .is_some_and(|all| !all.is_empty())
    }

    /// Group, kind and name of `infrastructure.parametersRef`.
    pub fn parameters(&self) -> Option<(&str, &str, &str)> {
        let reference = self.object.pointer("/spec/infrastructure/parametersRef")?;
        let of = |key| reference.get(key).and_then(Value::as_str);
        Some((of("group")?, of("kind")?, of("name")?))
    }
}

/// Every object of a kind.
pub fn of_kind<'a>(objects: &'a Objects, kind: &str) -> impl Iterator<Item = Value> + use<'a> {
    with_prefix(objects, format!("kubernetes:{kind}/"))
        .filter_map(|(_, text)| serde_json::from_str(text).ok())
}

/// Every object whose path begins so.
pub fn with_prefix(
    objects: &Objects,
    prefix: String,
) -> impl Iterator<Item = (&std::sync::Arc<str>, &std::sync::Arc<str>)> {
    let from = std::ops::Bound::Included(prefix.as_str());
    let all = objects.range::<str, _>((from, std::ops::Bound::Unbounded));
    let all: Vec<_> = all
        .take_while(|(path, _)| path.starts_with(&prefix))
        .collect();
    all.into_iter()
}

/// A text in an object.
pub fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

/// A label of an object.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(key)?.as_str()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// Objects of an API server, by their paths.
    pub fn objects(all: &[Value]) -> Objects {
        let path = |object: &Value| {
            let kind = object["kind"].as_str().unwrap();
            let name = text(object, "/metadata/name").unwrap();
            match text(object, "/metadata/namespace") {
                Some(namespace) => format!("kubernetes:{kind}/{namespace}/{name}"),
                None => format!("kubernetes:{kind}/{name}"),
            }
        };
        let all = all.iter().map(|o| (path(o).into(), o.to_string().into()));
        all.collect()
    }

    pub fn class(name: &str, controller: &str) -> Value {
        json!({"kind": "GatewayClass", "metadata": {"name": name}, "spec": {"controllerName": controller}})
    }

    pub fn gateway(name: &str, class: &str, labels: Value) -> Value {
        json!({"kind": "Gateway",
            "metadata": {"name": name, "namespace": "shop", "uid": "u-1", "generation": 2, "labels": labels},
            "spec": {"gatewayClassName": class, "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}})
    }

    fn names(found: &Found) -> Vec<&str> {
        found.managed.keys().map(|key| &*key.name).collect()
    }

    #[test]
    fn a_gateway_is_ours_by_the_controller_of_its_class_and_not_by_the_name_of_it() {
        let all = objects(&[
            class("mine", CONTROLLER),
            class("cairn-waypoint", "somebody.example/else"),
            gateway("a", "mine", json!({})),
            gateway("b", "cairn-waypoint", json!({})),
            gateway("c", "missing", json!({})),
        ]);
        assert_eq!(names(&find(&all, "default")), ["a"]);
    }

    /// specs/istio-waypoint.md 1.7, TestOtherRevisionIgnored.
    #[test]
    fn one_of_another_revision_is_left_alone_by_its_own_label_or_that_of_its_namespace() {
        let namespace = |revision: &str| json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": {REVISION: revision}}});
        let mut all = vec![
            class("mine", CONTROLLER),
            gateway("plain", "mine", json!({})),
            gateway("canary", "mine", json!({REVISION: "canary"})),
        ];
        assert_eq!(names(&find(&objects(&all), "default")), ["plain"]);
        assert_eq!(names(&find(&objects(&all), "canary")), ["canary"]);
        all.push(namespace("canary"));
        assert_eq!(names(&find(&objects(&all), "canary")), ["canary", "plain"]);
    }

    #[test]
    fn one_that_is_being_deleted_is_nobodys_any_more() {
        let mut going = gateway("a", "mine", json!({}));
        going["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
        let all = objects(&[class("mine", CONTROLLER), going]);
        assert_eq!(find(&all, "default"), Found::default());
    }
}
