//! `metadata` of an object, strictly, and of a Gateway the one condition that is looked at. What labels and
//! annotations mean is decided where they are used.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xxhash_rust::xxh64::xxh64;

use super::catalog;
use super::fault::Fault;
use super::names::Names;
use super::node::Node;
use super::path::Path;
use super::read::read as read_typed;
use crate::diagnostics::{Code, Severity};
use crate::origin::{Kind, Origin};
use crate::resources::Meta;

/// A copy of the object that `kubectl apply` leaves in it; as large as the object, and never read.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The metadata, strictly; what a waypoint needs of it is kept.
pub(super) fn read(
    origin: &Origin,
    node: &Node<'_>,
    names: &mut Names,
    faults: &mut Vec<Fault>,
) -> Option<Meta> {
    let entry = node.entry("metadata")?;
    let path = Path::ROOT.key("metadata");
    let meta: ObjectMeta = read_typed(&entry.value, entry.at(), &path, &["managedFields"], faults)?;
    if !catalog::is_namespaced(origin.kind)
        && let Some(namespace) = entry
            .value
            .entry("namespace")
            .filter(|e| !e.value.is_null())
    {
        let message = format!("a {} is in no namespace", origin.kind);
        let fault = Fault::error(
            Code::BadValue,
            message,
            "metadata.namespace",
            namespace.at(),
        );
        faults.push(
            fault
                .with_severity(Severity::Warning)
                .with_hint("remove it"),
        );
    }
    let mut shared = |map: Option<BTreeMap<String, String>>| {
        let ours = map.into_iter().flatten();
        let ours = ours.filter(|(key, _)| key != LAST_APPLIED);
        let texts = ours.map(|(key, value)| (names.share(&key), names.share(&value)));
        let texts = texts.collect();
        names.share_texts(texts)
    };
    Some(Meta {
        labels: shared(meta.labels),
        annotations: shared(meta.annotations),
        created_s: meta.creation_timestamp.map(|t| t.0.as_second()),
        generation: meta.generation,
        uid: uid(node),
        programmed: (origin.kind == Kind::Gateway)
            .then(|| condition(node, "Programmed"))
            .flatten(),
    })
}

/// What stands for `metadata.uid`; read leniently, for it counts of broken objects too.
pub(super) fn uid(node: &Node<'_>) -> Option<u64> {
    let uid = node.get("metadata")?.get("uid")?;
    let text = uid.text().filter(|text| !text.is_empty() && !uid.is_null());
    // The same in every release: it is part of what waypoints tell (`Version`).
    Some(xxh64(text?.as_bytes(), 0))
}

/// Whether the status has a condition; read leniently, for it is not the user's.
fn condition(node: &Node<'_>, name: &str) -> Option<bool> {
    let conditions = node.get("status")?.get("conditions")?;
    let is_it = |c: &&Node<'_>| c.get("type").and_then(Node::text) == Some(name);
    let condition = conditions.items().iter().find(is_it)?;
    match condition.get("status")?.text()? {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}
