//! The pods of a waypoint: which are ready, and what each has in force beside what is written.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::{Cluster, GATEWAY_NAME};
use crate::objects::{condition, label, name_of, namespace_of};
use crate::pod::shown;

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
    /// Objects that it does not tell of, for their number.
    #[serde(default)]
    pub left_out: usize,
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
    /// Objects of which another generation is in force than is written.
    pub behind: Vec<String>,
    /// Why it did not say what is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}

/// The pods of a Gateway, those that end left out.
pub(super) fn of(
    cluster: &Cluster,
    gateway: &ObjectKey,
    acknowledged: &BTreeMap<ObjectKey, Result<Acknowledgement, String>>,
) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for pod in pods(cluster, gateway) {
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

/// The pods of a Gateway that are to stay.
pub(crate) fn pods<'c>(
    cluster: &'c Cluster,
    gateway: &'c ObjectKey,
) -> impl Iterator<Item = &'c Value> + 'c {
    cluster.objects("Pod").filter(|pod| {
        namespace_of(pod) == &*gateway.namespace
            && label(pod, GATEWAY_NAME) == Some(&gateway.name)
            && pod.pointer("/metadata/deletionTimestamp").is_none()
    })
}

/// Whether a pod takes traffic.
pub(crate) fn is_ready(pod: &Value) -> bool {
    matches!(condition(pod, "Ready"), Some(("True", _)))
}

/// Whether a pod of this Gateway takes traffic.
pub(crate) fn any_ready(cluster: &Cluster, gateway: &ObjectKey) -> bool {
    pods(cluster, gateway).any(is_ready)
}

/// Replicas that the Deployment of a Gateway asks for.
pub(super) fn wanted(cluster: &Cluster, gateway: &ObjectKey) -> Option<u64> {
    let mut deployments = cluster.objects("Deployment");
    let own = deployments.find(|d| {
        namespace_of(d) == &*gateway.namespace && label(d, GATEWAY_NAME) == Some(&gateway.name)
    })?;
    own.pointer("/spec/replicas").map_or(Some(1), Value::as_u64)
}

/// Objects that were changed since what this pod has, that it does not have yet, or has and are gone.
pub(crate) fn behind(cluster: &Cluster, said: &Acknowledgement) -> Vec<String> {
    let differs = |(name, has): (&String, &i64)| match generation(cluster, name) {
        Some(now) if now == *has => None,
        Some(now) => Some(format!("{name}: generation {has} of {now}")),
        None => Some(format!("{}: deleted", shown(name))),
    };
    let mut behind: Vec<String> = said.objects.iter().filter_map(differs).collect();
    if said.left_out == 0 {
        let known = cluster.resources.generations();
        let names = known.map(|(origin, _)| origin.to_string());
        let missing = names.filter(|name| !said.objects.contains_key(name));
        behind.extend(missing.map(|name| format!("{name}: not there yet")));
    }
    behind
}

/// The generation of `Kind/namespace/name`, or of `Kind/name`, as the API server has it.
fn generation(cluster: &Cluster, name: &str) -> Option<i64> {
    let (kind, rest) = name.split_once('/')?;
    let (namespace, object) = rest.split_once('/').unwrap_or(("", rest));
    let there = cluster.object(kind, &ObjectKey::new(namespace, object))?;
    there.pointer("/metadata/generation")?.as_i64()
}
