//! Pods with their identities and the names that telemetry gives them
//! (specs/istio-waypoint.md 2.6, 3, 4.1).

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::attachment::{Attachment, Traffic};
use super::discovered::OfPods;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::discovered::Tunnel;
use crate::identity::{Identity, IdentityError};
use crate::origin::ObjectKey;
use crate::resources::kube::PodSpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{Labels, Locality, Mesh, Workload, WorkloadType};

/// Labels that name a workload, the first that is there (specs/istio-waypoint.md 4.1).
pub(super) const CANONICAL_NAME: [&str; 3] = [
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
];
/// The same for its version.
pub(super) const CANONICAL_REVISION: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];

/// Every pod, found by address and by name.
#[derive(Default)]
pub(super) struct Pods {
    /// Each workload by each of its addresses.
    pub by_address: FxHashMap<IpAddr, Arc<Workload>>,
    /// Each workload by its pod.
    pub by_key: FxHashMap<ObjectKey, Arc<Workload>>,
    /// WorkloadEntries with an address, by their own names.
    pub entries: FxHashMap<ObjectKey, Arc<Workload>>,
    /// Pods that exist but whose identity is unknown. Nothing may be sent to them, for without an
    /// identity to expect it would go in plain text.
    pub unknown: FxHashSet<ObjectKey>,
    /// Addresses of such pods, as far as they are known.
    pub unknown_addresses: FxHashSet<IpAddr>,
    /// Where pods are, as istiod tells by the labels of their nodes.
    pub localities: FxHashMap<ObjectKey, Locality>,
}

impl Pods {
    /// Workloads of this cluster by their addresses: those whose labels are known.
    pub fn here(&self) -> impl Iterator<Item = (IpAddr, Arc<Workload>)> + '_ {
        let all = self.by_address.iter();
        all.filter(|(_, workload)| workload.labels.is_some())
            .map(|(address, workload)| (*address, workload.clone()))
    }
}

/// Every pod that runs.
pub(super) fn resolve(
    resources: &Resources,
    mesh: &Mesh,
    attachment: &Attachment<'_>,
    discovered: &OfPods<'_>,
    findings: &mut Findings,
) -> Pods {
    let mut pods = Pods::default();
    let mut shared = Shared::new(resources, mesh);
    pods.unknown_addresses.extend(&resources.doubtful_pod_ips);
    let mut by_age: Vec<&Arc<Object<PodSpec>>> = Vec::with_capacity(resources.pods.len());
    for loaded in resources.pods.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => by_age.push(object),
            Loaded::Broken(broken) => {
                findings.push(unreadable(
                    broken,
                    "its identity is unknown, so nothing is sent to it",
                ));
                pods.unknown.insert(broken.origin.key.clone());
                pods.unknown_addresses.extend(&broken.pod_ips);
            }
        }
    }
    // The youngest last, for an address that two pods claim is the younger one's: the kubelet
    // gives a freed address away before the old pod's status says so.
    by_age.sort_by_key(|object| object.meta.created_s.unwrap_or(i64::MAX));
    for object in by_age.into_iter().filter(|object| !object.spec.finished) {
        match workload(object, attachment, &mut shared, findings) {
            Some(mut workload) => {
                if let Some(told) = discovered.of(&workload) {
                    workload.hbone |= told.tunnel == Tunnel::Hbone;
                    pods.localities
                        .insert(workload.key.clone(), told.locality.clone());
                }
                add(&mut pods, object, Arc::new(workload), findings);
            }
            None => {
                pods.unknown.insert(object.origin.key.clone());
                pods.unknown_addresses.extend(object.spec.pod_ips.iter());
            }
        }
    }
    pods
}

fn add(
    pods: &mut Pods,
    object: &Object<PodSpec>,
    workload: Arc<Workload>,
    findings: &mut Findings,
) {
    pods.by_key
        .insert(object.origin.key.clone(), workload.clone());
    // The address of a pod in the host's network is the node's, which many pods share.
    if object.spec.host_network {
        return;
    }
    for address in &workload.addresses {
        let earlier = pods.by_address.insert(*address, workload.clone());
        if let Some(earlier) = earlier.filter(|earlier| earlier.key != workload.key) {
            let finding = Diagnostic::warning(
                Code::Conflict,
                format!("address {address} is also that of Pod {}", earlier.key),
            )
            .with_effect(format!(
                "it counts as the address of {}, the younger one",
                workload.key
            ));
            findings.push(object.mark(finding, "status.podIPs"));
        }
    }
}

/// What many pods have in common, once.
struct Shared<'a> {
    mesh: &'a Mesh,
    /// Labels of the namespaces.
    labels: FxHashMap<Arc<str>, Arc<Labels>>,
    /// By namespace and service account.
    identities: FxHashMap<(Arc<str>, Arc<str>), Result<Identity, IdentityError>>,
    latest: Arc<str>,
}

impl<'a> Shared<'a> {
    fn new(resources: &Resources, mesh: &'a Mesh) -> Self {
        let readable = resources.namespaces.values().filter_map(Loaded::object);
        let labels = |o: &Arc<Object<_>>| (o.origin.key.name.clone(), o.meta.labels.clone());
        Self {
            mesh,
            labels: readable.map(labels).collect(),
            identities: FxHashMap::default(),
            latest: "latest".into(),
        }
    }

    fn identity(
        &mut self,
        namespace: &Arc<str>,
        account: &Arc<str>,
    ) -> Result<Identity, IdentityError> {
        let trust_domain = &self.mesh.trust_domain;
        let known = self
            .identities
            .entry((namespace.clone(), account.clone()))
            .or_insert_with(|| Identity::of_workload(trust_domain, namespace, account));
        known.clone()
    }
}

/// `None`: it has no identity, which a finding says.
fn workload(
    object: &Object<PodSpec>,
    attachment: &Attachment<'_>,
    shared: &mut Shared<'_>,
    findings: &mut Findings,
) -> Option<Workload> {
    let key = &object.origin.key;
    let spec = &object.spec;
    let account = match &*spec.service_account {
        "" => Arc::from("default"),
        _ => spec.service_account.clone(),
    };
    let identity = match shared.identity(&key.namespace, &account) {
        Ok(identity) => identity,
        Err(error) => {
            let finding = Diagnostic::error(
                Code::BadValue,
                format!("service account '{account}' gives no identity: {error}"),
            )
            .with_effect("nothing is sent to this pod");
            findings.push(object.mark(finding, "spec.serviceAccountName"));
            return None;
        }
    };
    let (workload_name, workload_type) = owner(object);
    let label = |name: &str| object.meta.labels.get(name).filter(|v| !v.is_empty());
    let first = |names: &[&str]| names.iter().find_map(|name| label(name)).cloned();
    Some(Workload {
        key: key.clone(),
        addresses: spec.pod_ips.to_vec(),
        identity,
        hbone: is_hbone(object),
        canonical_name: first(&CANONICAL_NAME).unwrap_or_else(|| workload_name.clone()),
        canonical_revision: first(&CANONICAL_REVISION).unwrap_or_else(|| shared.latest.clone()),
        app: label("app").cloned().unwrap_or_default(),
        version: label("version").cloned().unwrap_or_default(),
        node: spec.node.clone(),
        labels: Some(object.meta.labels.clone()),
        namespace_labels: shared.labels.get(&key.namespace).cloned(),
        named_ports: spec.named_ports.clone(),
        host_network: spec.host_network,
        behind_gateway: false,
        binding: attachment.bind(object, Traffic::Workload, findings),
        workload_name,
        workload_type,
    })
}

fn is_hbone(object: &Object<PodSpec>) -> bool {
    let annotation = object.meta.annotations.get("ambient.istio.io/redirection");
    let label = object.meta.labels.get("networking.istio.io/tunnel");
    annotation.is_some_and(|value| &**value == "enabled")
        || label.is_some_and(|value| &**value == "http")
}

/// The name and kind of what made the pod: a Deployment rather than its ReplicaSet, a CronJob
/// rather than its Job. Istio knows no further kinds; a StatefulSet's pod is of type `pod`.
fn owner(object: &Object<PodSpec>) -> (Arc<str>, WorkloadType) {
    let Some((kind, name)) = &object.spec.owner else {
        return (object.origin.key.name.clone(), WorkloadType::Pod);
    };
    match &**kind {
        "ReplicaSet" => {
            let hash = object.meta.labels.get("pod-template-hash");
            let deployment = match hash {
                Some(hash) => name.strip_suffix(&**hash).and_then(|n| n.strip_suffix('-')),
                None => without_hash(name),
            };
            match deployment {
                Some(deployment) => (deployment.into(), WorkloadType::Deployment),
                None => (name.clone(), WorkloadType::Pod),
            }
        }
        "Deployment" => (name.clone(), WorkloadType::Deployment),
        "Job" => match without_schedule(name) {
            Some(cron_job) => (cron_job.into(), WorkloadType::CronJob),
            None => (name.clone(), WorkloadType::Job),
        },
        "CronJob" => (name.clone(), WorkloadType::CronJob),
        _ => (name.clone(), WorkloadType::Pod),
    }
}

/// `web` of `web-6d4cf56db6`. Kubernetes writes hashes without vowels and without 0, 1 and 3.
fn without_hash(replica_set: &str) -> Option<&str> {
    let (deployment, hash) = replica_set.rsplit_once('-')?;
    let safe = |c: u8| b"bcdfghjklmnpqrstvwxz2456789".contains(&c);
    let is_hash = (1..=10).contains(&hash.len()) && hash.bytes().all(safe);
    (is_hash && !deployment.is_empty()).then_some(deployment)
}

/// `report` of `report-28473920`: a CronJob numbers its Jobs by the minute of their schedule.
fn without_schedule(job: &str) -> Option<&str> {
    let (cron_job, minute) = job.rsplit_once('-')?;
    let is_minute = (8..=10).contains(&minute.len()) && minute.bytes().all(|c| c.is_ascii_digit());
    (is_minute && !cron_job.is_empty()).then_some(cron_job)
}
