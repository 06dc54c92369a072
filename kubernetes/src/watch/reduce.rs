//! An object of the API server as the text that the parser gets: what a waypoint never reads is left out, so
//! that it is neither kept nor taken for a change. What the rest means is the parser's.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::json::{self, Kept};
use crate::kinds::WatchedKind;

/// How much of an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// All but the history of its fields.
    Whole,
    /// What a waypoint reads.
    Needed,
    /// What the agent of a node reads of its Pods ([`PodOfNode`](super::PodOfNode)).
    OfNode,
}

/// An object as a file would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reduced {
    pub path: Arc<str>,
    pub text: Arc<str>,
}

/// `kubectl apply` keeps the whole object in it once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is read of metadata (`cairn_config_schema::resources::Meta`, and what routes' age needs).
const METADATA: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "creationTimestamp",
    "generation",
];

/// What is read of a Pod that [`needed`] leaves as it is: most of a Pod is in its containers, volumes and conditions.
static POD: Kept = Kept::AllBut(&[
    (
        "spec",
        Kept::Keys(&[
            ("nodeName", Kept::Whole),
            ("hostNetwork", Kept::Whole),
            ("serviceAccountName", Kept::Whole),
            ("serviceAccount", Kept::Whole),
            ("containers", Kept::Items(&CONTAINER)),
            ("initContainers", Kept::Items(&CONTAINER)),
        ]),
    ),
    (
        "status",
        Kept::Keys(&[
            ("phase", Kept::Whole),
            ("podIP", Kept::Whole),
            ("podIPs", Kept::Whole),
        ]),
    ),
]);

static CONTAINER: Kept = Kept::Keys(&[
    ("name", Kept::Whole),
    ("ports", Kept::Whole),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
    ("startupProbe", PROBE),
]);

const PROBE: Kept = Kept::Keys(&[("httpGet", Kept::Whole)]);

/// How much has to be read of an object for [`reduce`].
pub(super) fn kept(kind: &WatchedKind, detail: Detail) -> &'static Kept {
    match detail {
        Detail::Needed if kind.plural == "pods" => &POD,
        _ => &Kept::Whole,
    }
}

/// Where it was: `metadata.resourceVersion`.
pub(super) fn version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str()
}

/// What an object is called.
pub(super) fn path(kind: &WatchedKind, object: &Value) -> Result<Arc<str>, Refusal> {
    let metadata = object.get("metadata");
    let text = |key| metadata.and_then(|m| m.get(key)).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty());
    let Some(name) = name else {
        let message = format!("a {} without a name", kind.title());
        return Err(Refusal::malformed(message));
    };
    Ok(kind
        .path(text("namespace").unwrap_or_default(), name)
        .into())
}

/// The text of an object. Items of lists do not say what they are, so `version` is written into it.
pub(super) fn reduce(
    kind: &WatchedKind,
    version: &str,
    mut object: Value,
    detail: Detail,
) -> Result<Reduced, Refusal> {
    let path = path(kind, &object)?;
    let Some(fields) = object.as_object_mut() else {
        return Err(Refusal::malformed(format!("{path} is no object")));
    };
    fields.insert("apiVersion".to_owned(), kind.api_version(version).into());
    fields.insert("kind".to_owned(), kind.kind.into());
    if let Some(metadata) = child(fields, "metadata") {
        metadata.remove("managedFields");
        if let Some(annotations) = child(metadata, "annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    match detail {
        Detail::Whole => {}
        Detail::Needed => needed(kind, fields),
        Detail::OfNode => of_node(fields),
    }
    let text = json::text(&object).map_err(|e| Refusal::malformed(e.to_string()))?;
    Ok(Reduced {
        path,
        text: text.into(),
    })
}

fn child<'v>(of: &'v mut Map<String, Value>, key: &str) -> Option<&'v mut Map<String, Value>> {
    of.get_mut(key)?.as_object_mut()
}

fn needed(kind: &WatchedKind, fields: &mut Map<String, Value>) {
    let is_pod = kind.plural == "pods";
    if let Some(metadata) = child(fields, "metadata") {
        metadata.retain(|key, value| match key.as_str() {
            // Who made a Pod is its workload.
            "ownerReferences" if is_pod => {
                only_controller(value);
                true
            }
            key => METADATA.contains(&key),
        });
        if is_pod && let Some(annotations) = child(metadata, "annotations") {
            let is_ours = |key: &str| key.contains("istio.io/") || key.contains("cairn.dev/");
            annotations.retain(|key, _| is_ours(key));
        }
    }
    match kind.plural {
        "pods" => {
            keep(fields, "status", &["phase", "podIP", "podIPs"]);
            pod_spec(fields);
        }
        "endpointslices" => {
            for endpoint in items(fields, "endpoints") {
                // The last is what the API puts beside the reference to a Pod: its version.
                keep(endpoint, "targetRef", &["kind", "namespace", "name"]);
                endpoint.remove("deprecatedTopology");
            }
        }
        // Whether it is programmed (`Meta::programmed`).
        "gateways" => keep(fields, "status", &["conditions"]),
        // Addresses that istiod gave it (specs/istio-waypoint.md 4.2).
        "serviceentries" => keep(fields, "status", &["addresses"]),
        _ => {
            fields.remove("status");
        }
    }
}

fn of_node(fields: &mut Map<String, Value>) {
    keep(fields, "metadata", &["name", "namespace", "uid", "labels"]);
    keep(fields, "spec", &["serviceAccountName", "hostNetwork"]);
    keep(fields, "status", &["phase", "podIP", "podIPs"]);
}

fn keep(fields: &mut Map<String, Value>, key: &str, keys: &[&str]) {
    if let Some(inner) = child(fields, key) {
        inner.retain(|key, _| keys.contains(&key.as_str()));
    }
}

fn items<'v>(
    fields: &'v mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'v mut Map<String, Value>> {
    let items = fields.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// What `cairn_config_schema::resources::kube::PodSpec` is made of.
fn pod_spec(fields: &mut Map<String, Value>) {
    let keys = [
        "nodeName",
        "hostNetwork",
        "serviceAccountName",
        "serviceAccount",
        "containers",
        "initContainers",
    ];
    keep(fields, "spec", &keys);
    let Some(spec) = child(fields, "spec") else {
        return;
    };
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            container.retain(|key, _| {
                matches!(
                    key.as_str(),
                    "name" | "ports" | "livenessProbe" | "readinessProbe" | "startupProbe"
                )
            });
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                keep(container, probe, &["httpGet"]);
            }
        }
    }
}

fn only_controller(owners: &mut Value) {
    if let Some(owners) = owners.as_array_mut() {
        owners.retain(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeSeed;
    use serde_json::json;

    use super::*;
    use crate::json::{Object, ObjectOf};
    use crate::kinds::watched_kind;

    /// Keys that are kept and others, maps where lists should be and the other way round.
    fn anything() -> impl Strategy<Value = Value> {
        const KEYS: [&str; 22] = [
            "spec",
            "status",
            "metadata",
            "containers",
            "initContainers",
            "nodeName",
            "hostNetwork",
            "serviceAccountName",
            "serviceAccount",
            "name",
            "ports",
            "env",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "httpGet",
            "exec",
            "phase",
            "podIP",
            "podIPs",
            "conditions",
            "managedFields",
        ];
        let leaf = prop_oneof![Just(json!(null)), any::<u8>().prop_map(|n| json!(n))];
        leaf.prop_recursive(6, 60, 6, |inner| {
            let map =
                prop::collection::btree_map(prop::sample::select(&KEYS[..]), inner.clone(), 0..6);
            let list = prop::collection::vec(inner, 0..3);
            prop_oneof![3 => map.prop_map(|map| json!(map)), 1 => list.prop_map(|list| json!(list))]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// What is skipped while an object is read is what would be left out of it.
        #[test]
        fn what_is_not_read_is_not_needed(
            (spec, status, more) in (anything(), anything(), anything()),
            list in any::<bool>(),
            container in anything(),
        ) {
            let mut object = json!({"metadata": {"name": "a"}, "spec": spec, "status": status, "more": more});
            if list && let Some(spec) = object["spec"].as_object_mut() {
                spec.insert("containers".to_owned(), json!([container]));
            }
            let text = object.to_string();
            for kind in ["Pod", "EndpointSlice", "Gateway", "HTTPRoute"].map(|kind| watched_kind(kind).unwrap()) {
                for detail in [Detail::Whole, Detail::Needed, Detail::OfNode] {
                    let whole: Object = serde_json::from_str(&text).unwrap();
                    let mut reader = serde_json::Deserializer::from_str(&text);
                    let read = ObjectOf(kept(kind, detail)).deserialize(&mut reader).unwrap();
                    prop_assert_eq!(reduce(kind, "v1", read.0, detail), reduce(kind, "v1", whole.0, detail));
                }
            }
        }
    }

    /// Otherwise the property would hold by itself.
    #[test]
    fn of_a_pod_that_is_needed_little_is_read() {
        let text = r#"{"metadata":{"name":"a"},"spec":{"volumes":[1],"containers":[{"name":"c","env":[1]}]},"status":{"conditions":[1]}}"#;
        let mut reader = serde_json::Deserializer::from_str(text);
        let pod = watched_kind("Pod").unwrap();
        let read = ObjectOf(kept(pod, Detail::Needed)).deserialize(&mut reader);
        let expected = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}, "status": {}});
        assert_eq!(read.unwrap().0, expected);
    }

    fn reduced(kind: &str, object: Value) -> Value {
        let kind = watched_kind(kind).unwrap();
        let text = reduce(kind, "v1", object, Detail::Needed).unwrap().text;
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_pod_is_its_place_identity_ports_and_probes() {
        let pod = json!({
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "a"},
                "annotations": {"ambient.istio.io/redirection": "enabled", "other": "x"},
                "managedFields": [{}],
                "ownerReferences": [{"kind": "Job", "name": "j"},
                                    {"kind": "ReplicaSet", "name": "a-1", "controller": true}],
            },
            "spec": {
                "nodeName": "n", "serviceAccountName": "s", "volumes": [{"name": "v"}],
                "containers": [{
                    "name": "c", "image": "i", "env": [{"name": "TOKEN", "value": "secret"}],
                    "ports": [{"name": "http", "containerPort": 80}],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
                    "livenessProbe": {"exec": {"command": ["x"]}},
                }],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{}]},
        });
        assert_eq!(
            reduced("Pod", pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"},
                    "annotations": {"ambient.istio.io/redirection": "enabled"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "a-1", "controller": true}],
                },
                "spec": {
                    "nodeName": "n", "serviceAccountName": "s",
                    "containers": [{
                        "name": "c",
                        "ports": [{"name": "http", "containerPort": 80}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
                        "livenessProbe": {},
                    }],
                },
                "status": {"phase": "Running", "podIP": "10.0.0.1"},
            })
        );
    }

    /// Conditions come and go with every probe: no news to the agent of a node.
    #[test]
    fn to_its_node_a_pod_is_who_it_is_and_its_addresses() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "a"}, "annotations": {"x": "y"}},
            "spec": {"serviceAccountName": "s", "hostNetwork": true, "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{}]},
        });
        let kind = watched_kind("Pod").unwrap();
        let text = reduce(kind, "v1", pod, Detail::OfNode).unwrap().text;
        let kept: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            kept,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"}},
                "spec": {"serviceAccountName": "s", "hostNetwork": true},
                "status": {"phase": "Running", "podIP": "10.0.0.1"},
            })
        );
    }

    /// What others write into an object's status is nothing that a waypoint goes by.
    #[test]
    fn a_change_of_status_or_of_a_version_is_no_change() {
        let route = |version: &str, status: &str| {
            json!({"metadata": {"name": "r", "namespace": "shop", "resourceVersion": version},
                "spec": {"rules": []}, "status": {"parents": [status]}})
        };
        assert_eq!(
            reduced("HTTPRoute", route("1", "a")),
            reduced("HTTPRoute", route("2", "b"))
        );
    }

    #[test]
    fn what_is_read_of_a_status_stays() {
        let with = |status: Value| json!({"metadata": {"name": "x"}, "status": status});
        let gateway = reduced(
            "Gateway",
            with(json!({"conditions": [1], "addresses": [2]})),
        );
        assert_eq!(gateway["status"], json!({"conditions": [1]}));
        let entry = reduced(
            "ServiceEntry",
            with(json!({"addresses": [1], "conditions": [2]})),
        );
        assert_eq!(entry["status"], json!({"addresses": [1]}));
    }

    #[test]
    fn an_object_without_a_name_is_refused() {
        let kind = watched_kind("Pod").unwrap();
        let refusal = reduce(kind, "v1", json!({"metadata": {}}), Detail::Needed).unwrap_err();
        assert_eq!(refusal.message, "a Pod without a name");
    }
}
