//! The ends of a flow as Hubble names them: labels, identity, pod and workload. Identities are numbers
//! made of the labels, the same in every replica and version; nothing hands them out.

use cairn_config_schema::snapshot::{Workload, WorkloadType};
use xxhash_rust::xxh64::xxh64;

use super::messages::{Endpoint, Service, Workload as WorkloadName};
use crate::telemetry::flow::{Record, ServiceName};
use crate::telemetry::labels::Baggage;

/// Labels that differ between pods of one workload: they would give every pod an identity of its own.
const LABELS_OF_ONE_POD: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// Hubble's number for what is outside of the cluster.
const WORLD: u32 = 2;

/// Identities of workloads are from here (specs/policies.md 3.3) to [`IDENTITY_END`].
const IDENTITY_FIRST: u64 = 256;

/// What the identities of workloads are below.
const IDENTITY_END: u64 = 1 << 24;

/// The client's end.
pub fn source(record: &Record, cluster: &str) -> Endpoint {
    match &record.source {
        Some(workload) => of_workload(workload, cluster),
        None => of_identity(record, cluster),
    }
}

/// The other end: the pod that was picked, else what is known of the service.
pub fn destination(record: &Record, cluster: &str) -> Endpoint {
    let workload = record.endpoint.as_ref().and_then(|(_, w)| w.as_deref());
    match (workload, &record.service) {
        (Some(workload), _) => of_workload(workload, cluster),
        (None, Some(service)) if service.in_mesh => {
            let namespace = service.key.namespace.to_string();
            let labels = vec![namespace_label(&namespace)];
            known(namespace, labels, cluster)
        }
        _ => world(),
    }
}

/// The service as Hubble names it.
pub fn service(service: &ServiceName) -> Service {
    Service {
        name: service.key.name.to_string(),
        namespace: service.key.namespace.to_string(),
    }
}

fn of_workload(workload: &Workload, cluster: &str) -> Endpoint {
    let namespace = workload.key.namespace.to_string();
    let (pod, other) = workload.name_and_cluster();
    let cluster = other.unwrap_or(cluster);
    let told = |name: &str| !LABELS_OF_ONE_POD.contains(&name);
    let own = workload.labels.iter().flat_map(|labels| labels.iter());
    let own = own.filter(|(name, _)| told(name));
    let mut labels: Vec<String> = own
        .map(|(name, value)| format!("k8s:{name}={value}"))
        .collect();
    labels.push(namespace_label(&namespace));
    labels.extend(workload.account().map(account_label));
    let kind = match workload.workload_type {
        WorkloadType::Deployment => "Deployment",
        WorkloadType::CronJob => "CronJob",
        WorkloadType::Job => "Job",
        WorkloadType::Pod => "Pod",
    };
    let mut endpoint = known(namespace, labels, cluster);
    endpoint.pod_name = pod.to_owned();
    endpoint.workloads = vec![WorkloadName {
        name: workload.workload_name.to_string(),
        kind: kind.to_owned(),
    }];
    endpoint
}

/// A client that is known by its certificate, and by what its baggage says.
fn of_identity(record: &Record, cluster: &str) -> Endpoint {
    let identity = &record.peer.identity;
    let Some(namespace) = identity.namespace() else {
        return world();
    };
    let mut labels = vec![namespace_label(namespace)];
    labels.extend(identity.service_account().map(account_label));
    let baggage = Baggage::parse(record.baggage.as_ref());
    let named = [("app", baggage.app), ("version", baggage.version)];
    let told = named
        .into_iter()
        .filter_map(|(name, value)| Some(format!("k8s:{name}={}", value?)));
    labels.extend(told);
    let mut endpoint = known(namespace.to_owned(), labels, cluster);
    endpoint.workloads = baggage
        .workload
        .map(|name| WorkloadName {
            name: name.to_owned(),
            kind: String::new(),
        })
        .into_iter()
        .collect();
    endpoint
}

fn known(namespace: String, mut labels: Vec<String>, cluster: &str) -> Endpoint {
    labels.push(format!("k8s:io.cilium.k8s.policy.cluster={cluster}"));
    labels.sort_unstable();
    Endpoint {
        identity: identity(&labels),
        cluster_name: cluster.to_owned(),
        namespace,
        labels,
        ..Endpoint::default()
    }
}

fn world() -> Endpoint {
    Endpoint {
        identity: WORLD,
        labels: vec!["reserved:world".to_owned()],
        ..Endpoint::default()
    }
}

fn namespace_label(namespace: &str) -> String {
    format!("k8s:io.kubernetes.pod.namespace={namespace}")
}

fn account_label(account: &str) -> String {
    format!("k8s:io.cilium.k8s.policy.serviceaccount={account}")
}

/// The number of a set of labels, which are sorted.
fn identity(labels: &[String]) -> u32 {
    let text = labels.join("\n");
    let hash = xxh64(text.as_bytes(), 0);
    let number = IDENTITY_FIRST + hash % (IDENTITY_END - IDENTITY_FIRST);
    u32::try_from(number).unwrap_or(WORLD)
}
