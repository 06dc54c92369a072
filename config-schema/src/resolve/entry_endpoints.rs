//! Endpoints of ServiceEntries: listed, selected by labels, or to be found while requests are served
//! (specs/istio-waypoint.md 4.2).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Findings;
use super::service_entries::{self, Entry, Resolution, Written, port_number};
use super::workload_entries::{self, Listed};
use super::workloads::Pods;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::Resources;
use crate::resources::service_entry::{EntryPort, EntrySelector};
use crate::snapshot::{
    ClusterKey, Discovery, Endpoint, Labels, Mesh, NamedEndpoint, Service, Whereabouts, Workload,
};

type Clusters = BTreeMap<ClusterKey, Arc<[Endpoint]>>;
type Discoveries = BTreeMap<ClusterKey, Arc<Discovery>>;

/// Where endpoints come from.
struct Ground<'a> {
    resources: &'a Resources,
    mesh: &'a Mesh,
    pods: &'a Pods,
    network: &'a str,
}

/// Something that is an endpoint of every port.
struct Candidate {
    /// An address, or a name to be looked up.
    at: Result<IpAddr, Arc<str>>,
    workload: Option<Arc<Workload>>,
    labels: Arc<Labels>,
    weight: u32,
    /// Where it is, if that is known. Of what a name leads to nothing is.
    whereabouts: Option<Arc<Whereabouts>>,
    /// Its own ports by the names of the ServiceEntry's.
    ports: BTreeMap<String, u32>,
}

/// Adds the endpoints of every port of every entry, and how more are found.
pub(super) fn resolve(
    entries: &[Entry<'_>],
    (services, resources): (&BTreeMap<ObjectKey, Service>, &Resources),
    ground: &service_entries::Ground<'_>,
    clusters: &mut Clusters,
    findings: &mut Findings,
) -> Discoveries {
    let mut discoveries = Discoveries::new();
    let ground = Ground {
        resources,
        mesh: ground.mesh,
        pods: ground.pods,
        network: ground.network,
    };
    for entry in entries {
        let candidates = ground.candidates(entry, findings);
        for host in &entry.hosts {
            let Some(service) = services.get(host) else {
                continue;
            };
            for port in &service.ports {
                let key = ClusterKey::new(host.clone(), port.number);
                let ports = entry.object.spec.ports.iter().flatten();
                let written = ports.clone().find(|p| p.number == u32::from(port.number));
                let Some(written) = written else { continue };
                let (endpoints, discovery) =
                    of_port(entry, host, written, port.number, &candidates);
                clusters.insert(key.clone(), endpoints);
                discoveries.extend(discovery.map(|found| (key, Arc::new(found))));
            }
            report_dialled(entry, service, findings);
        }
    }
    discoveries
}

fn of_port(
    entry: &Entry<'_>,
    host: &ObjectKey,
    written: &EntryPort,
    number: u16,
    candidates: &[Candidate],
) -> (Arc<[Endpoint]>, Option<Discovery>) {
    let target = written.target_port.and_then(port_number).unwrap_or(number);
    let port_of = |candidate: &Candidate| {
        let own = candidate.ports.get(&written.name).copied();
        own.and_then(port_number).unwrap_or(target)
    };
    let (mut endpoints, mut names) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let port = port_of(candidate);
        match &candidate.at {
            Ok(address) => endpoints.push(Endpoint {
                weight: candidate.weight,
                labels: (!candidate.labels.is_empty()).then(|| candidate.labels.clone()),
                whereabouts: candidate.whereabouts.clone(),
                ..Endpoint::new(SocketAddr::new(*address, port), candidate.workload.clone())
            }),
            Err(name) => names.push(NamedEndpoint {
                name: name.clone(),
                port,
                weight: candidate.weight,
                labels: candidate.labels.clone(),
            }),
        }
    }
    let discovery = match entry.resolution {
        Resolution::Static => None,
        Resolution::Dns | Resolution::DnsRoundRobin => {
            // Without endpoints the host itself is the one.
            if candidates.is_empty() && !entry.lists_endpoints() {
                names.push(NamedEndpoint {
                    name: host.name.clone(),
                    port: target,
                    weight: 1,
                    labels: Arc::default(),
                });
            }
            (!names.is_empty()).then_some(Discovery::Names {
                names,
                first_only: entry.resolution == Resolution::DnsRoundRobin,
            })
        }
        Resolution::Dynamic => Some(Discovery::RequestedHost {
            suffix: host.name.trim_start_matches('*').into(),
            port: target,
        }),
        Resolution::Dialled => Some(Discovery::DialledAddress { port: target }),
    };
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    (endpoints.into(), discovery)
}

/// `NONE` needs an address to be dialled.
fn report_dialled(entry: &Entry<'_>, service: &Service, findings: &mut Findings) {
    let is_anywhere = !service.addresses.is_empty() || !service.blocks.is_empty();
    let is_allocated = entry
        .object
        .spec
        .addresses
        .as_ref()
        .is_none_or(Vec::is_empty);
    if entry.resolution != Resolution::Dialled || is_anywhere && !is_allocated {
        return;
    }
    let message = format!(
        "resolution NONE sends to the address that was dialled, and {} has none of its own",
        service.hostname
    );
    let finding = Diagnostic::error(Code::NoEndpoints, message)
        .with_effect("connections to it are refused")
        .with_hint("resolution: DNS, or write its addresses");
    findings.push(entry.object.mark(finding, "spec.resolution"));
}

impl Entry<'_> {
    fn lists_endpoints(&self) -> bool {
        let spec = &self.object.spec;
        spec.workload_selector.is_some() || spec.endpoints.as_ref().is_some_and(|e| !e.is_empty())
    }
}

impl Ground<'_> {
    fn candidates(&self, entry: &Entry<'_>, findings: &mut Findings) -> Vec<Candidate> {
        let object = entry.object;
        if matches!(entry.resolution, Resolution::Dynamic | Resolution::Dialled) {
            if entry.lists_endpoints() {
                let finding = Diagnostic::warning(Code::Unsupported, "endpoints mean nothing here")
                    .with_effect("they receive nothing: the resolution says where to send to")
                    .with_hint("resolution: STATIC or DNS");
                findings.push(object.mark(finding, "spec.resolution"));
            }
            return Vec::new();
        }
        let found = match &object.spec.workload_selector {
            Some(selector) => self.selected(object, selector, entry.resolution, findings),
            None => self.listed(object, entry.resolution, findings),
        };
        if entry.resolution == Resolution::Static && found.is_empty() {
            let finding = Diagnostic::warning(Code::NoEndpoints, "no endpoint is known")
                .with_effect("requests to its hosts are answered 503");
            findings.push(object.mark(finding, "spec.endpoints"));
        }
        found
    }

    fn listed(
        &self,
        object: &Written,
        resolution: Resolution,
        findings: &mut Findings,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (index, spec) in object.spec.endpoints.iter().flatten().enumerate() {
            let path = format!("spec.endpoints[{index}]");
            let listed = Listed {
                spec,
                namespace: &object.origin.key.namespace,
                mesh: self.mesh,
            };
            workload_entries::report(object, spec, &path, findings);
            if let Some(other) = listed.other_network(&listed.labels(), self.network) {
                let finding = workload_entries::beyond(&other, self.network);
                findings.push(object.mark(finding, &format!("{path}.network")));
                continue;
            }
            let judged = self
                .place(spec.address.as_deref(), resolution)
                .and_then(|at| {
                    let workload =
                        match at.as_ref().ok().and_then(|ip| self.pods.by_address.get(ip)) {
                            Some(pod) if pod.key.namespace != object.origin.key.namespace => {
                                return Err(format!(
                                    "its address is that of {}, of another namespace",
                                    pod.key
                                ));
                            }
                            Some(pod) => Some(pod.clone()),
                            None => listed.tunnelled()?,
                        };
                    Ok((at, workload))
                });
            match judged {
                Ok((at, workload)) => found.push(Candidate {
                    at,
                    workload,
                    labels: Arc::new(listed.labels()),
                    weight: spec.weight.unwrap_or(1).max(1),
                    whereabouts: listed.whereabouts(),
                    ports: spec.ports.clone().unwrap_or_default(),
                }),
                Err(message) => {
                    let finding = Diagnostic::error(Code::BadValue, message)
                        .with_effect("this endpoint receives nothing");
                    findings.push(object.mark(finding, &path));
                }
            }
        }
        found
    }

    /// Where a written address leads: an IP address, or a name if names are looked up.
    fn place(
        &self,
        written: Option<&str>,
        resolution: Resolution,
    ) -> Result<Result<IpAddr, Arc<str>>, String> {
        let written = written.unwrap_or_default();
        if let Ok(address) = written.parse::<IpAddr>() {
            // A mapped address is the IPv4 address of whoever has that.
            let address = address.to_canonical();
            if address.is_unspecified() {
                return Err(format!("'{written}' is no address of an endpoint"));
            }
            return match self.pods.unknown_addresses.contains(&address) {
                true => Err(format!("the identity of the pod at {address} is unknown")),
                false => Ok(Ok(address)),
            };
        }
        let name = written.trim_end_matches('.').to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match (name.as_str(), resolution) {
            ("", _) => Err("an endpoint needs an address".to_owned()),
            (name, _) if !name.chars().all(is_name) => {
                Err(format!("'{written}' is no IP address and no name"))
            }
            (_, Resolution::Static) => Err(format!(
                "'{written}' is no IP address; names are looked up with resolution DNS alone"
            )),
            (name, _) => Ok(Err(name.into())),
        }
    }

    /// Pods and WorkloadEntries of the namespace with all of these labels.
    fn selected(
        &self,
        object: &Written,
        selector: &EntrySelector,
        resolution: Resolution,
        findings: &mut Findings,
    ) -> Vec<Candidate> {
        let own = &object.origin.key.namespace;
        let has_all = |labels: &Labels| {
            let mut wanted = selector.labels.iter();
            wanted.all(|(key, value)| labels.get(key.as_str()).is_some_and(|v| **v == **value))
        };
        // As Kubernetes has it for Services: an empty selector selects nothing.
        if selector.labels.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut pods: Vec<_> = self.pods.by_key.values().collect();
        pods.sort_by_key(|pod| &pod.key);
        for pod in pods.into_iter().filter(|p| p.key.namespace == *own) {
            let Some(labels) = pod.labels.as_ref().filter(|labels| has_all(labels)) else {
                continue;
            };
            found.extend(pod.addresses.first().map(|address| Candidate {
                at: Ok(*address),
                workload: Some(pod.clone()),
                labels: labels.clone(),
                weight: 1,
                whereabouts: None,
                ports: BTreeMap::new(),
            }));
        }
        let entries = self.resources.workload_entries.iter();
        for (key, loaded) in entries.filter(|(key, _)| key.namespace == *own) {
            let Some(entry) = loaded.object() else {
                continue;
            };
            let listed = Listed {
                spec: &entry.spec,
                namespace: &key.namespace,
                mesh: self.mesh,
            };
            let labels = listed.labels_with(&entry.meta.labels);
            // Of one in another network it is told where it is written.
            if !has_all(&labels) || listed.other_network(&labels, self.network).is_some() {
                continue;
            }
            let known = self.pods.entries.get(key).cloned();
            match self.place(entry.spec.address.as_deref(), resolution) {
                Ok(at) => found.push(Candidate {
                    at,
                    workload: known,
                    labels: Arc::new(labels),
                    weight: entry.spec.weight.unwrap_or(1).max(1),
                    whereabouts: listed.whereabouts(),
                    ports: entry.spec.ports.clone().unwrap_or_default(),
                }),
                Err(message) => {
                    let finding = Diagnostic::error(Code::BadValue, message)
                        .with_effect(format!("it receives nothing by {}", object.origin));
                    findings.push(entry.mark(finding, "spec.address"));
                }
            }
        }
        found
    }
}
