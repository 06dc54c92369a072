//! WorkloadEntries, and the endpoints that ServiceEntries list in the same words: workloads outside of
//! Kubernetes (specs/istio-waypoint.md 4.2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::attachment::{Attachment, Traffic};
use super::workloads::{CANONICAL_NAME, CANONICAL_REVISION, Pods};
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::identity::Identity;
use crate::origin::ObjectKey;
use crate::resources::service_entry::WorkloadEntrySpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{Binding, Labels, Locality, Mesh, Whereabouts, Workload, WorkloadType};

const TUNNEL: &str = "networking.istio.io/tunnel";
const NETWORK: &str = "topology.istio.io/network";

/// Adds every WorkloadEntry that has an address to the pods. An address that a pod has stays the pod's.
pub(super) fn add(
    resources: &Resources,
    (mesh, network): (&Mesh, &str),
    attachment: &Attachment<'_>,
    pods: &mut Pods,
    findings: &mut Findings,
) {
    for (key, loaded) in &resources.workload_entries {
        let object = match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => object,
            Loaded::Broken(broken) => {
                findings.push(unreadable(broken, "nothing is sent to it"));
                continue;
            }
        };
        report(object, &object.spec, "spec", findings);
        let listed = Listed {
            spec: &object.spec,
            namespace: &key.namespace,
            mesh,
        };
        let labels = listed.labels_with(&object.meta.labels);
        if let Some(other) = listed.other_network(&labels, network) {
            findings.push(object.mark(beyond(&other, network), "spec.network"));
            continue;
        }
        let address = object.spec.address.as_deref().unwrap_or_default();
        let Ok(address) = address.parse::<IpAddr>() else {
            continue;
        };
        let address = address.to_canonical();
        if let Some(pod) = pods.by_address.get(&address) {
            let message = format!("address {address} is that of Pod {}", pod.key);
            let finding = Diagnostic::warning(Code::Conflict, message)
                .with_effect("it counts as the address of the Pod");
            findings.push(object.mark(finding, "spec.address"));
            continue;
        }
        let binding = attachment.bind(object, Traffic::Workload, findings);
        match listed.workload(key.clone(), address, labels, binding) {
            Ok(workload) => {
                let workload = Arc::new(workload);
                pods.by_address.insert(address, workload.clone());
                pods.entries.insert(key.clone(), workload);
            }
            Err(message) => {
                pods.unknown_addresses.insert(address);
                let finding =
                    Diagnostic::error(Code::BadValue, message).with_effect("nothing is sent to it");
                findings.push(object.mark(finding, "spec.serviceAccount"));
            }
        }
    }
}

/// What is written and changes nothing here.
pub(super) fn report<T>(
    object: &Object<T>,
    spec: &WorkloadEntrySpec,
    path: &str,
    findings: &mut Findings,
) {
    let address = spec.address.as_deref().unwrap_or_default();
    let is_name = address.parse::<IpAddr>().is_err();
    let locality = spec.locality.as_deref().filter(|_| is_name);
    if locality.is_some_and(|locality| !locality.is_empty()) {
        let message = "locality of an endpoint has no effect yet";
        let finding = Diagnostic::new(Severity::Info, Code::Unsupported, message)
            .with_effect("what its name leads to gets its share wherever it is");
        findings.push(object.mark(finding, &format!("{path}.locality")));
    }
}

/// What is said of a workload in another network than the waypoint's own: its address is somebody else's here.
pub(super) fn beyond(network: &str, own: &str) -> Diagnostic {
    let (message, hint) = match own {
        // Who has one network, and wrote its name, is told where it is missing.
        "" => (
            format!("it is in network {network}, and this waypoint is told no network"),
            "--network, or istio.network in the chart, says which network is this waypoint's",
        ),
        own => (
            format!("it is in network {network}, and this waypoint in {own}"),
            "what is in other networks is reached through their gateways, by Services that istiod tells of",
        ),
    };
    Diagnostic::warning(Code::Unsupported, message)
        .with_effect("nothing is sent to it")
        .with_hint(hint)
}

/// A workload as written.
pub(super) struct Listed<'a> {
    pub spec: &'a WorkloadEntrySpec,
    pub namespace: &'a Arc<str>,
    pub mesh: &'a Mesh,
}

impl Listed<'_> {
    /// The network that it is in, by `network` or its label, if that is not this one. Without either it is in this one.
    pub fn other_network(&self, labels: &Labels, own: &str) -> Option<Arc<str>> {
        let written = self.spec.network.as_deref().map(Arc::from);
        let written = written.filter(|network: &Arc<str>| !network.is_empty());
        let network = written.or_else(|| labels.get(NETWORK).cloned())?;
        (!network.is_empty() && *network != *own).then_some(network)
    }

    /// `locality`.
    pub fn whereabouts(&self) -> Option<Arc<Whereabouts>> {
        let written = self.spec.locality.as_deref().filter(|l| !l.is_empty())?;
        Some(Arc::new(Whereabouts {
            locality: Locality::parse(written),
            ..Whereabouts::default()
        }))
    }

    /// `labels`.
    pub fn labels(&self) -> Labels {
        self.labels_with(&BTreeMap::new())
    }

    /// `labels`, and those of the object.
    pub fn labels_with(&self, more: &BTreeMap<Arc<str>, Arc<str>>) -> Labels {
        let own = self.spec.labels.iter().flatten();
        let own = own.map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())));
        more.iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .chain(own)
            .collect()
    }

    /// An endpoint of a ServiceEntry as a workload, if it is reached by HBONE; others need none.
    pub fn tunnelled(&self) -> Result<Option<Arc<Workload>>, String> {
        let labels = self.labels();
        let address = self.spec.address.as_deref().unwrap_or_default();
        let Ok(address) = address.parse::<IpAddr>() else {
            return Ok(None);
        };
        if !is_tunnelled(&labels) {
            return Ok(None);
        }
        let key = ObjectKey {
            namespace: self.namespace.clone(),
            name: address.to_string().into(),
        };
        let workload = self.workload(key, address, labels, Binding::Unbound)?;
        Ok(Some(Arc::new(workload)))
    }

    fn workload(
        &self,
        key: ObjectKey,
        address: IpAddr,
        labels: Labels,
        binding: Binding,
    ) -> Result<Workload, String> {
        let account = self.spec.service_account.as_deref();
        let account = account.filter(|a| !a.is_empty()).unwrap_or("default");
        let identity = Identity::of_workload(&self.mesh.trust_domain, self.namespace, account);
        let identity =
            identity.map_err(|e| format!("service account '{account}' gives no identity: {e}"))?;
        let label = |name: &str| labels.get(name).filter(|v| !v.is_empty()).cloned();
        let first = |names: &[&str]| names.iter().find_map(|name| label(name));
        Ok(Workload {
            addresses: vec![address],
            identity,
            hbone: is_tunnelled(&labels),
            workload_name: key.name.clone(),
            workload_type: WorkloadType::Pod,
            canonical_name: first(&CANONICAL_NAME).unwrap_or_else(|| key.name.clone()),
            canonical_revision: first(&CANONICAL_REVISION).unwrap_or_else(|| "latest".into()),
            app: label("app").unwrap_or_default(),
            version: label("version").unwrap_or_default(),
            node: "".into(),
            labels: Some(Arc::new(labels)),
            namespace_labels: None,
            named_ports: Default::default(),
            host_network: false,
            behind_gateway: false,
            binding,
            key,
        })
    }
}

fn is_tunnelled(labels: &Labels) -> bool {
    labels.get(TUNNEL).is_some_and(|value| &**value == "http")
}
