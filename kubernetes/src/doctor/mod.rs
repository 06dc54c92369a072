//! `cairn doctor`: for each Service with a policy that only a waypoint enforces, every way to its pods, and whether
//! the policy holds there (specs/istio-waypoint.md 8 #1). Judged from the cluster's objects and, if they were asked, from
//! what the pods of waypoints and agents say; sends nothing to a service.

mod agents;
mod asked;
mod ingress;
mod lock;
mod plaintext;
mod pods;
mod policies;
mod probe;
mod remedy;
mod ways;

pub use asked::{Asked, Role};
pub use probe::{Answers, ask};
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
    /// Pods of waypoints and agents, and what they said; none if nobody was asked.
    pub asked: Vec<Asked>,
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
    /// What to do about it.
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
    /// A client whose node has an agent, by the Service's address.
    ByAgent,
    /// A client that an agent is to steer, on a node that has no ready one.
    NodeWithoutAgent,
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
            Self::ByAgent => "clients that an agent of their node steers",
            Self::NodeWithoutAgent => "clients on nodes without a ready agent",
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

    /// Whether something is to be done about it: policies do not hold on it, or who should come can not.
    pub fn is_gap(&self) -> bool {
        self.outcome == Outcome::Bypass || self.close.is_some()
    }

    fn closed_by(self, close: impl Into<String>) -> Self {
        Self {
            close: Some(close.into()),
            ..self
        }
    }
}

impl Matrix {
    /// Whether there is a way past a policy, one that should lead through a waypoint and does not, a pod that is to be
    /// mended, or nobody knows.
    pub fn has_gaps(&self) -> bool {
        let has_gap = |e: &Examined| e.ways.iter().any(Way::is_gap);
        !self.unread.is_empty()
            || self.services.iter().any(has_gap)
            || self.asked.iter().any(|asked| asked.mend.is_some())
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
    /// What pods said, if they were asked.
    answers: Option<&'a Answers>,
}

/// Examines every Service with a policy: of one namespace, or of all. `answers` is what [`ask`] was told for the same
/// namespace; without it objects alone count.
pub fn examine(cluster: &Cluster, namespace: Option<&str>, answers: Option<&Answers>) -> Matrix {
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
            answers,
        };
        services.extend(examine_one(&patient));
    }
    let gateways = probe::concerned(cluster, namespace);
    let asked = answers.map(|answers| asked::of(cluster, &gateways, answers));
    Matrix {
        services,
        asked: asked.unwrap_or_default(),
        unread: cluster.unread.clone(),
    }
}

/// Names after another, the first of many.
fn named_some(names: &[&str]) -> String {
    const SOME: usize = 3;
    let first: Vec<&str> = names.iter().take(SOME).copied().collect();
    match names.len().saturating_sub(SOME) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
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
    // What objects at the pods mend: whoever comes past the waypoint, and agents that are not let in.
    let at_pods = |way: &Way| match way.from {
        From::MeshByService | From::ByAgent => way.close.as_deref() == Some(remedy::ADMIT),
        _ => way.outcome == Outcome::Bypass,
    };
    let by_pods = ways.iter().any(at_pods);
    Some(Examined {
        service: patient.service.key.to_string(),
        policies,
        waypoint: ways::asked_for(patient).map(|key| key.to_string()),
        remedy: by_pods.then(|| remedy::remedy(patient)).flatten(),
        ways,
    })
}

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
