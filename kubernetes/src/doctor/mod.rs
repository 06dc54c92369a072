//! `cairn doctor`: for each Service with a policy that only a waypoint enforces, every way to its pods, and whether
//! the policy holds there (specs/istio-waypoint.md 8 #1). Judged from the cluster's objects; sends nothing.

mod ingress;
mod lock;
mod plaintext;
mod pods;
mod policies;
mod remedy;
mod ways;

pub use remedy::Remedy;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Binding, Service, Snapshot};
use serde::Serialize;

use crate::cluster::Cluster;

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Matrix {
    /// Services with a policy, by name.
    pub services: Vec<Examined>,
    /// What could not be read; without it the rest may be wrong.
    pub unread: Vec<String>,
}

/// One Service and the ways to it.
#[derive(Clone, Debug, Serialize)]
pub struct Examined {
    /// The Service.
    pub service: String,
    /// What is to hold on every way.
    pub policies: Vec<String>,
    /// The waypoint that its labels ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<String>,
    /// Every way there is.
    pub ways: Vec<Way>,
    /// What closes those past the waypoint, if objects can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// One way to the pods of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Which.
    pub from: From,
    /// What becomes of the policies on it.
    pub outcome: Outcome,
    /// Why.
    pub why: String,
    /// What to do about a bypass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
}

/// Who comes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// A captured client, by the Service's address.
    MeshByService,
    /// A captured client, by the address of a pod.
    MeshByPod,
    /// Who is not captured: pods outside of the mesh, processes on nodes, in plain text.
    OutsideOfMesh,
    /// Whoever reaches a node's port or the load balancer.
    NodePort,
    /// A Gateway of another class that routes to the Service.
    Ingress,
    /// The east-west gateway, for clients of other networks.
    OtherNetwork,
}

impl From {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::MeshByService => "clients in the mesh, by the Service's address",
            Self::MeshByPod => "clients in the mesh, by the address of a pod",
            Self::OutsideOfMesh => "clients outside of the mesh, in plain text",
            Self::NodePort => "from outside of the cluster, by node port or load balancer",
            Self::Ingress => "through an ingress gateway",
            Self::OtherNetwork => "from another network, through the east-west gateway",
        }
    }
}

/// What becomes of the policies on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// They hold.
    Enforced,
    /// Nobody comes this way.
    NotReachable,
    /// Another controller's waypoint is asked: not for us to say.
    Elsewhere,
    /// They do not hold.
    Bypass,
}

impl Outcome {
    /// In words, as loud as they should be.
    pub fn words(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::NotReachable => "not reachable",
            Self::Elsewhere => "not Cairn's",
            Self::Bypass => "BYPASS",
        }
    }
}

impl Way {
    fn new(from: From, outcome: Outcome, why: impl Into<String>) -> Self {
        Self {
            from,
            outcome,
            why: why.into(),
            close: None,
        }
    }

    fn closed_by(self, close: impl Into<String>) -> Self {
        Self {
            close: Some(close.into()),
            ..self
        }
    }
}

impl Matrix {
    /// Whether there is a way past a policy, or nobody knows.
    pub fn has_gaps(&self) -> bool {
        let bypassed = |e: &Examined| e.ways.iter().any(|w| w.outcome == Outcome::Bypass);
        !self.unread.is_empty() || self.services.iter().any(bypassed)
    }

    /// The objects that close what objects can close, each once.
    pub fn remedies(&self) -> Vec<&Remedy> {
        let mut remedies: Vec<&Remedy> = Vec::new();
        for remedy in self.services.iter().filter_map(|e| e.remedy.as_ref()) {
            if !remedies.contains(&remedy) {
                remedies.push(remedy);
            }
        }
        remedies
    }
}

/// A Service and what is known of it and its surroundings.
pub(crate) struct Patient<'a> {
    cluster: &'a Cluster,
    /// As the waypoint that serves it resolves everything; as any, if none does.
    snapshot: &'a Snapshot,
    service: &'a Service,
}

/// Examines every Service with a policy: of one namespace, or of all.
pub fn examine(cluster: &Cluster, namespace: Option<&str>) -> Matrix {
    let snapshots: BTreeMap<ObjectKey, Snapshot> = cluster
        .waypoints()
        .into_iter()
        .map(|key| (key.clone(), cluster.resolve(Some(&key))))
        .collect();
    let of_none = match snapshots.values().next() {
        Some(_) => None,
        None => Some(cluster.resolve(None)),
    };
    let Some(any) = snapshots.values().next().or(of_none.as_ref()) else {
        return Matrix::default();
    };
    let mut services = Vec::new();
    for (key, service) in &any.services {
        if namespace.is_some_and(|n| *key.namespace != *n) || service.is_entry() {
            continue;
        }
        let (snapshot, service) = serving(&snapshots, any, key, service);
        let patient = Patient {
            cluster,
            snapshot,
            service,
        };
        services.extend(examine_one(&patient));
    }
    Matrix {
        services,
        unread: cluster.unread.clone(),
    }
}

/// The snapshot of the waypoint that the labels of a Service ask for, and the Service in it.
fn serving<'a>(
    snapshots: &'a BTreeMap<ObjectKey, Snapshot>,
    any: &'a Snapshot,
    key: &ObjectKey,
    service: &'a Arc<Service>,
) -> (&'a Snapshot, &'a Service) {
    let its_own = match &service.binding {
        Binding::Other(gateway) => snapshots.get(gateway),
        _ => None,
    };
    let found = its_own.and_then(|snapshot| Some((snapshot, snapshot.services.get(key)?)));
    found.map_or((any, service), |(snapshot, service)| (snapshot, service))
}

/// `None`: no policy is for it alone to lose.
fn examine_one(patient: &Patient<'_>) -> Option<Examined> {
    let policies = policies::of(patient);
    if policies.is_empty() {
        return None;
    }
    let ways = ways::all(patient);
    let bypassed = |way: &Way| way.outcome == Outcome::Bypass;
    let by_pods = ways
        .iter()
        .any(|way| bypassed(way) && way.from != From::MeshByService);
    Some(Examined {
        service: patient.service.key.to_string(),
        policies,
        waypoint: ways::asked_for(patient).map(|key| key.to_string()),
        remedy: by_pods.then(|| remedy::remedy(patient)).flatten(),
        ways,
    })
}

#[cfg(test)]
mod tests;
