//! The pods of a waypoint: which are ready, and what each has in force beside what is written.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask::Acknowledgements;
use crate::cluster::Cluster;
use crate::objects::{condition, name_of, namespace_of};
use crate::pod::shown;
use crate::versions::{Differs, differs};

/// What a pod answers to GET /acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Acknowledgement {
    /// The snapshot in force.
    pub snapshot: u64,
    /// The Gateway that is served; absent when everything is refused.
    pub gateway: Option<String>,
    /// Generations in force by `Kind/namespace/name`.
    #[serde(default)]
    pub objects: BTreeMap<String, i64>,
    /// Fingerprints of the same.
    #[serde(default)]
    pub fingerprints: BTreeMap<String, u64>,
    /// Objects that it does not tell of, for their number.
    #[serde(default)]
    pub left_out: usize,
}

impl Acknowledgement {
    /// What it has of an object, if that is not what is written.
    pub(crate) fn differs(&self, name: &str, written: Version) -> Option<Differs> {
        differs((&self.objects, &self.fingerprints), name, written)
    }
}

/// One pod of a waypoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replica {
    /// Name of the pod.
    pub pod: String,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Version of the snapshot in force; counts in each pod by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<u64>,
    /// Objects of which another text is in force than is written.
    pub behind: Vec<String>,
    /// Why it did not say what is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}

/// The pods of a Gateway, those that end left out.
pub(super) fn of(
    cluster: &Cluster,
    gateway: &ObjectKey,
    acknowledged: &Acknowledgements,
) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for pod in cluster.pods_of(gateway) {
        let key = ObjectKey::new(namespace_of(pod), name_of(pod));
        let said = acknowledged.get(&key);
        let (snapshot, behind, silent) = match said {
            None => (None, Vec::new(), None),
            Some(Err(why)) => (None, Vec::new(), Some(why.clone())),
            Some(Ok(said)) => (Some(said.snapshot), behind(cluster, said), None),
        };
        replicas.push(Replica {
            pod: key.name.to_string(),
            ready: is_ready(pod),
            snapshot,
            behind,
            silent,
        });
    }
    replicas
}

/// Whether a pod takes traffic.
pub(crate) fn is_ready(pod: &Value) -> bool {
    matches!(condition(pod, "Ready"), Some(("True", _)))
}

/// Whether a pod of this Gateway takes traffic.
pub(crate) fn any_ready(cluster: &Cluster, gateway: &ObjectKey) -> bool {
    cluster.pods_of(gateway).any(is_ready)
}

/// Replicas that the Deployment of a Gateway asks for.
pub(super) fn wanted(cluster: &Cluster, gateway: &ObjectKey) -> Option<u64> {
    let own = cluster.deployment_of(gateway)?;
    own.pointer("/spec/replicas").map_or(Some(1), Value::as_u64)
}

/// Objects that were changed since what this pod has, that it does not have yet, or has and are gone.
pub(crate) fn behind(cluster: &Cluster, said: &Acknowledgement) -> Vec<String> {
    differing(cluster, said)
        .into_iter()
        .map(|(_, why)| why)
        .collect()
}

/// The same, each with the name of the object as the pod tells it.
pub(crate) fn differing(cluster: &Cluster, said: &Acknowledgement) -> Vec<(String, String)> {
    let versions = versions(cluster);
    let mut behind = Vec::new();
    for (name, has) in &said.objects {
        let why = match versions.get(name) {
            Some(written) => match said.differs(name, *written) {
                None => continue,
                Some(Differs::Text(_)) => format!("{name}: another text of generation {has}"),
                Some(_) => format!("{name}: generation {has} of {}", written.generation),
            },
            // One that can not be read has no version here; what is in force of it is an earlier one.
            None => match unread_generation(cluster, name) {
                Some(written) if written == *has => continue,
                Some(written) => format!("{name}: generation {has} of {written}"),
                None => format!("{}: deleted", shown(name)),
            },
        };
        behind.push((name.clone(), why));
    }
    if said.left_out == 0 {
        let known = cluster.resources.versions();
        let names = known.map(|(origin, _)| origin.to_string());
        let missing = names.filter(|name| !said.objects.contains_key(name));
        behind.extend(missing.map(|name| {
            let why = format!("{name}: not there yet");
            (name, why)
        }));
    }
    behind
}

/// Versions of all that waypoints tell of, by `Kind/namespace/name`, or `Kind/name`.
pub(crate) fn versions(cluster: &Cluster) -> BTreeMap<String, Version> {
    let resources = &cluster.resources;
    let all = resources.versions().chain(resources.gateway_versions());
    all.map(|(origin, version)| (origin.to_string(), version))
        .collect()
}

/// The generation of an object as the API server has it.
fn unread_generation(cluster: &Cluster, name: &str) -> Option<i64> {
    let (kind, rest) = name.split_once('/')?;
    let (namespace, object) = rest.split_once('/').unwrap_or(("", rest));
    let there = cluster.object(kind, &ObjectKey::new(namespace, object))?;
    there.pointer("/metadata/generation")?.as_i64()
}
