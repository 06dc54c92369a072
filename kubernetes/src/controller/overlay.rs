//! Strategic merge patches, as `kubectl patch` applies them: maps merged, lists of named things by their names, other
//! lists replaced, `null` and `$patch` take away. What identifies an object can not be overlaid
//! (specs/istio-waypoint.md 1.7).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::objects::{GATEWAY_NAME, MANAGED, MadeKind};

/// The overlays of one ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlays {
    /// The ConfigMap, for messages.
    pub from: String,
    /// By the kind they are for.
    pub of: BTreeMap<MadeKind, Value>,
}

/// How deep an overlay may be.
const DEPTH_MAX: usize = 32;

/// What an overlay may say again, and not otherwise.
const IDENTITY: [&str; 6] = [
    "/apiVersion",
    "/kind",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/ownerReferences",
    "/spec/selector",
];

impl Overlays {
    /// Reads the overlays of a ConfigMap's data.
    ///
    /// # Errors
    /// The first key that is not known, or can not be read.
    pub fn read(from: String, data: &Map<String, Value>) -> Result<Self, String> {
        let mut of = BTreeMap::new();
        for (key, text) in data {
            let mut known = MadeKind::ALL.into_iter();
            let kind = known.find(|kind| kind.overlay_key() == key);
            let Some(kind) = kind else {
                let keys = MadeKind::ALL.map(MadeKind::overlay_key).join(", ");
                return Err(format!("{from}: unknown key '{key}'; there are {keys}"));
            };
            let text = text.as_str().unwrap_or_default();
            let overlay: Value =
                serde_saphyr::from_str(text).map_err(|error| format!("{from}: {key}: {error}"))?;
            match overlay {
                Value::Null => {}
                Value::Object(_) => drop(of.insert(kind, overlay)),
                _ => return Err(format!("{from}: {key}: an object was expected")),
            }
        }
        Ok(Self { from, of })
    }
}

/// Whether an overlay says that the object is not to be made at all.
pub fn deletes(overlay: &Value) -> bool {
    directive(overlay) == Some("delete")
}

/// Applies an overlay to an object that was made.
///
/// # Errors
/// What in the overlay can not be honoured.
pub fn apply(object: &mut Value, overlay: &Value) -> Result<(), String> {
    let before = object.clone();
    merge(object, overlay, "", 0)?;
    for pointer in IDENTITY {
        // Only of what has it: a ServiceAccount has no selector.
        if before.pointer(pointer) != object.pointer(pointer) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            return Err(format!("{field} can not be overlaid"));
        }
    }
    for (pointer, place) in [
        ("/metadata/labels", "metadata.labels"),
        (
            "/spec/template/metadata/labels",
            "spec.template.metadata.labels",
        ),
    ] {
        for key in [GATEWAY_NAME, MANAGED] {
            let label = |of: &Value| of.pointer(pointer).and_then(|l| l.get(key)).cloned();
            if label(&before) != label(object) {
                return Err(format!("{place}[{key}] can not be overlaid"));
            }
        }
    }
    Ok(())
}

fn directive(patch: &Value) -> Option<&str> {
    patch.get("$patch")?.as_str()
}

fn merge(into: &mut Value, patch: &Value, path: &str, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("{path} is nested deeper than {DEPTH_MAX} levels"));
    }
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").map(|value| value.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            let mut whole = patch.clone();
            whole.remove("$patch");
            *into = Value::Object(whole);
            return Ok(());
        }
        other => {
            let said = other.flatten().unwrap_or("no text");
            return Err(format!("{path}.$patch: {said} is not possible here"));
        }
    }
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(fields) = into.as_object_mut() else {
        return Ok(());
    };
    for (key, value) in patch {
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        if key == "$patch" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(list)) = fields.get_mut(list) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            return Err(format!("{path}: this directive is not supported"));
        }
        match value {
            Value::Null => drop(fields.remove(key)),
            Value::Array(items) => {
                let into = fields
                    .entry(key.clone())
                    .or_insert_with(|| Value::Array(vec![]));
                merge_list(into, items, key, &path, depth + 1)?;
            }
            value if deletes(value) => drop(fields.remove(key)),
            value => {
                let into = fields.entry(key.clone()).or_insert(Value::Null);
                merge(into, value, &path, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// By which field the items of a list are told apart, as the types of Kubernetes declare it
/// (`x-kubernetes-patch-merge-key`). `None`: the list is replaced.
fn merge_key(list: &str, items: &[Value], there: &[Value]) -> Option<&'static str> {
    match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        // Of containers, or of Services.
        "ports" => {
            let of_container = |item: &Value| item.get("containerPort").is_some();
            match items.iter().chain(there).any(of_container) {
                true => Some("containerPort"),
                false => Some("port"),
            }
        }
        _ => None,
    }
}

fn merge_list(
    into: &mut Value,
    items: &[Value],
    name: &str,
    path: &str,
    depth: usize,
) -> Result<(), String> {
    let replaces = items.iter().any(|item| directive(item) == Some("replace"));
    let there = into.as_array_mut().map(std::mem::take).unwrap_or_default();
    let key = merge_key(name, items, &there);
    let (Some(key), false) = (key, replaces) else {
        let is_directive = |item: &&Value| directive(item) == Some("replace");
        let kept = items.iter().filter(|item| !is_directive(item));
        *into = Value::Array(kept.cloned().collect());
        return Ok(());
    };
    let mut merged = there;
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(id) = item.get(key) else {
            return Err(format!("{path} has no `{key}`, by which it would be found"));
        };
        let found = merged.iter().position(|one| one.get(key) == Some(id));
        match (found, deletes(item)) {
            (Some(at), true) => drop(merged.remove(at)),
            (None, true) => {}
            (Some(at), false) => {
                if let Some(one) = merged.get_mut(at) {
                    merge(one, item, &path, depth + 1)?;
                }
            }
            (None, false) => {
                let mut one = Value::Object(Map::new());
                merge(&mut one, item, &path, depth + 1)?;
                merged.push(one);
            }
        }
    }
    *into = Value::Array(merged);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({"metadata": {"name": "w", "labels": {MANAGED: "x"}}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "containers": [
                {"name": "waypoint", "image": "cairn", "args": ["run", "--kube"], "env": [{"name": "A", "value": "1"}],
                 "ports": [{"name": "hbone", "containerPort": 15008}]},
            ],
            "tolerations": [{"key": "old"}],
        }})
    }

    #[track_caller]
    fn applied(overlay: Value) -> Value {
        let mut object = pod();
        apply(&mut object, &overlay).unwrap();
        object
    }

    /// Each row: what is written, where to look, what is there then.
    #[test]
    fn lists_are_merged_by_the_key_that_kubernetes_declares_for_them() {
        let container = |more: Value| {
            let mut container = json!({"name": "waypoint"});
            container
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"spec": {"containers": [container]}})
        };
        for (overlay, place, expected) in [
            (
                container(json!({"image": "mine"})),
                "/spec/containers/0/image",
                json!("mine"),
            ),
            (
                container(json!({"image": "mine"})),
                "/spec/containers/0/args",
                json!(["run", "--kube"]),
            ),
            (
                container(json!({"args": ["x"]})),
                "/spec/containers/0/args",
                json!(["x"]),
            ),
            (
                container(json!({"env": [{"name": "B", "value": "2"}]})),
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
            ),
            (
                container(json!({"env": [{"name": "A", "$patch": "delete"}]})),
                "/spec/containers/0/env",
                json!([]),
            ),
            (
                container(json!({"ports": [{"containerPort": 15008, "hostPort": 1}]})),
                "/spec/containers/0/ports",
                json!([{"name": "hbone", "containerPort": 15008, "hostPort": 1}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "beside", "image": "b"}]}}),
                "/spec/containers/1",
                json!({"name": "beside", "image": "b"}),
            ),
            (
                json!({"spec": {"tolerations": [{"key": "new"}]}}),
                "/spec/tolerations",
                json!([{"key": "new"}]),
            ),
            (
                json!({"spec": {"nodeSelector": {"a": "b"}}}),
                "/spec/nodeSelector",
                json!({"a": "b"}),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "only"}]}}),
                "/spec/containers",
                json!([{"name": "only"}]),
            ),
        ] {
            assert_eq!(
                applied(overlay.clone()).pointer(place),
                Some(&expected),
                "{overlay}"
            );
        }
        assert_eq!(
            applied(json!({"spec": {"tolerations": null}})).pointer("/spec/tolerations"),
            None
        );
    }

    #[test]
    fn what_identifies_an_object_stays_and_what_is_not_known_is_refused() {
        for (overlay, said) in [
            (
                json!({"metadata": {"name": "x"}}),
                "metadata.name can not be overlaid",
            ),
            (
                json!({"spec": {"selector": null}}),
                "spec.selector can not be overlaid",
            ),
            (
                json!({"metadata": {"labels": {MANAGED: "y"}}}),
                "can not be overlaid",
            ),
            (
                json!({"metadata": {"$patch": "replace"}}),
                "metadata.name can not be overlaid",
            ),
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "has no `name`",
            ),
            (
                json!({"spec": {"$retainKeys": ["x"]}}),
                "directive is not supported",
            ),
        ] {
            let why = apply(&mut pod(), &overlay).unwrap_err();
            assert!(why.contains(said), "{overlay}: {why}");
        }
        // To say again what is so is no change.
        assert_eq!(applied(json!({"metadata": {"name": "w"}})), pod());
    }

    #[test]
    fn overlays_are_read_by_the_keys_of_istio_and_no_others() {
        let read = |key: &str, text: &str| {
            let data = json!({key: text});
            Overlays::read("ConfigMap shop/o".to_owned(), data.as_object().unwrap())
        };
        let overlays = read("deployment", "spec: {replicas: 3}").unwrap();
        assert_eq!(
            overlays.of[&MadeKind::Deployment],
            json!({"spec": {"replicas": 3}})
        );
        for (key, text, said) in [
            ("deploymnt", "{}", "unknown key 'deploymnt'"),
            ("service", "[1]", "an object was expected"),
            ("service", "a: [", "ConfigMap shop/o: service: "),
        ] {
            let why = read(key, text).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        assert!(deletes(&json!({"$patch": "delete"})));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            "[a-c]{1,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let item = ("[a-c]", inner.clone()).prop_map(|(n, v)| json!({"name": n, "v": v}));
            prop_oneof![
                prop::collection::btree_map("[a-d]|env|spec", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
                prop::collection::vec(item, 0..3).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        /// As server-side apply says the same again and again.
        #[test]
        fn applying_twice_is_applying_once(base in values(), patch in values()) {
            let mut once = json!({"spec": base});
            let patch = json!({"spec": patch});
            if merge(&mut once, &patch, "", 0).is_ok() {
                let mut twice = once.clone();
                prop_assert!(merge(&mut twice, &patch, "", 0).is_ok());
                prop_assert_eq!(once, twice);
            }
        }
    }
}
