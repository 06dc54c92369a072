//! Endpoints in other clusters: what is behind the services of this one there, and what is told of it. Which workloads
//! there are is `elsewhere`'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Findings;
use super::elsewhere::{Ground, counted, is_elsewhere, listed, of_other_cluster};
use super::elsewhere_gateways::{Far, Gateways};
use super::elsewhere_left_out::LeftOut;
use super::workloads::Pods;
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::discovered::DiscoveredWorkload;
use crate::identity::Identity;
use crate::limits::CAPACITY_MAX;
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::{Loaded, Resources};
use crate::snapshot::{ClusterKey, Endpoint, NetworkGateway, Service, Whereabouts, Workload};

/// Workloads of other clusters that may receive something, by `namespace/hostname` of the services they are behind.
#[derive(Default)]
pub(super) struct Elsewhere<'a> {
    by_service: FxHashMap<&'a str, Behind<'a>>,
    own_network: Arc<str>,
}

/// What is behind a service elsewhere.
#[derive(Default)]
struct Behind<'a> {
    members: Vec<Member<'a>>,
    far: Vec<FarMember<'a>>,
}

/// A workload behind a gateway, or all those of a service there.
struct FarMember<'a> {
    told: &'a DiscoveredWorkload,
    ports: &'a [(u16, u16)],
    gateway: SocketAddr,
    identity: Identity,
    expected: Vec<Identity>,
}

/// A workload behind a service.
struct Member<'a> {
    workload: Arc<Workload>,
    address: IpAddr,
    ports: &'a [(u16, u16)],
    told: &'a DiscoveredWorkload,
}

impl<'a> Elsewhere<'a> {
    /// Takes in a workload: it has its addresses, unless they are its node's, and is behind its services. Where an
    /// entry says the same as a Pod, the address is the Pod's.
    pub fn add(
        &mut self,
        (told, is_pod): (&'a DiscoveredWorkload, bool),
        workload: Arc<Workload>,
        pods: &mut Pods,
    ) {
        let own = workload.addresses.iter().filter(|_| !told.host_network);
        for address in own {
            match is_pod {
                true => drop(pods.by_address.insert(*address, workload.clone())),
                false => {
                    let there = pods.by_address.entry(*address);
                    there.or_insert_with(|| workload.clone());
                }
            }
        }
        let Some(address) = workload.addresses.first().copied() else {
            return;
        };
        for (service, ports) in &told.services {
            let behind = self.by_service.entry(service).or_default();
            behind.members.push(Member {
                workload: workload.clone(),
                address,
                ports,
                told,
            });
        }
    }

    /// Takes in what is behind a gateway of another network, but for services of which nobody tells who may answer.
    pub fn add_far(
        &mut self,
        far: &Far<'a>,
        gateways: &Gateways<'_>,
        leave_out: &mut impl FnMut(LeftOut, String),
    ) {
        self.own_network = gateways.own_network();
        for (service, ports) in &far.told.services {
            let expected = gateways.expected(service, far.told);
            if expected.is_empty() {
                leave_out(LeftOut::NobodyExpected, format!(" ({service})"));
                continue;
            }
            let behind = self.by_service.entry(service).or_default();
            behind.far.push(FarMember {
                told: far.told,
                ports,
                gateway: far.gateway,
                identity: far.identity.clone(),
                expected,
            });
        }
    }

    /// Services that other clusters have, and this one does not.
    pub fn tell_of_strangers(&self, ground: &Ground<'_>, findings: &mut Findings) {
        if self.by_service.is_empty() {
            return;
        }
        let here: FxHashSet<String> = ground.services.values().map(full_name).collect();
        let strangers = self.by_service.keys().filter(|name| !here.contains(**name));
        let mut strangers: Vec<String> = strangers.map(|name| (*name).to_owned()).collect();
        if strangers.is_empty() {
            return;
        }
        strangers.sort_unstable();
        let message = format!(
            "istiod tells of {} that this cluster has not: {}",
            counted(strangers.len(), "service"),
            listed(&strangers)
        );
        let finding = Diagnostic::new(Severity::Info, Code::ParentNotFound, message)
            .with_effect("nothing leads to their endpoints")
            .with_hint("what holds for a service is said by its Service here: create it, without a selector that fits");
        findings.push(finding);
    }

    /// Adds what is behind the services of this cluster elsewhere. An address that a service has here already is
    /// what it is here.
    pub fn add_endpoints(
        &self,
        resources: &Resources,
        services: &BTreeMap<ObjectKey, Service>,
        clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    ) {
        if self.by_service.is_empty() {
            return;
        }
        for (key, service) in services.iter().filter(|(_, service)| !service.is_entry()) {
            let Some(object) = resources.services.get(key).and_then(Loaded::object) else {
                continue;
            };
            // `internalTrafficPolicy: Local` is about nodes of this cluster.
            if object.spec.internal_traffic_policy_local {
                continue;
            }
            let Some(behind) = self.by_service.get(&*full_name(service)) else {
                continue;
            };
            let any_health = object.spec.publish_not_ready_addresses;
            let gateways = behind.through_gateways(service, any_health);
            for port in &service.ports {
                let cluster = ClusterKey::new(key.clone(), port.number);
                let Some(endpoints) = clusters.get_mut(&cluster) else {
                    continue;
                };
                let members = behind.members.iter();
                let members = members.filter(|m| m.told.is_healthy || any_health);
                let more = members.filter_map(|member| member.endpoint(port.number));
                let mut all = endpoints.to_vec();
                all.extend(more);
                let far = gateways.values();
                all.extend(far.filter_map(|g| g.endpoint(service, port.number, &self.own_network)));
                // Stable: what is here stays first.
                all.sort_by_key(|endpoint| endpoint.address);
                all.dedup_by_key(|endpoint| endpoint.address);
                *endpoints = all.into();
            }
        }
    }
}

/// A service as istiod names it.
fn full_name(service: &Service) -> String {
    format!("{}/{}", service.key.namespace, service.hostname)
}

impl Member<'_> {
    /// Where a port of the service leads. `None`: nowhere.
    fn endpoint(&self, port: u16) -> Option<Endpoint> {
        let (_, target) = self.ports.iter().find(|(service, _)| *service == port)?;
        if *target == 0 || self.told.capacity == 0 {
            return None;
        }
        let address = SocketAddr::new(self.address, *target);
        Some(Endpoint {
            weight: self.told.capacity.min(CAPACITY_MAX),
            whereabouts: whereabouts(self.told),
            ..Endpoint::new(address, Some(self.workload.clone()))
        })
    }
}

fn whereabouts(told: &DiscoveredWorkload) -> Option<Arc<Whereabouts>> {
    let place = &told.locality;
    (!place.is_unknown()).then(|| {
        Arc::new(Whereabouts {
            locality: place.clone(),
            ..Whereabouts::default()
        })
    })
}

/// What of a service is reached through one gateway.
struct Through<'b, 'a> {
    members: Vec<&'b FarMember<'a>>,
    workload: Arc<Workload>,
}

impl<'a> Behind<'a> {
    /// By gateways: which of those behind it gets a request is the gateway's to say, so that all are one endpoint.
    fn through_gateways<'b>(
        &'b self,
        service: &Service,
        any_health: bool,
    ) -> BTreeMap<(SocketAddr, &'b Identity), Through<'b, 'a>> {
        let mut through = BTreeMap::new();
        let far = self.far.iter();
        for member in far.filter(|m| m.told.is_healthy || any_health) {
            let at = through.entry((member.gateway, &member.identity));
            let there = at.or_insert_with(|| Through {
                members: Vec::new(),
                workload: Arc::new(member.stand_in(service)),
            });
            there.members.push(member);
        }
        through
    }
}

impl FarMember<'_> {
    /// What is known of whom a gateway leads to. It is in the namespace of its service, as all that a Service has; the
    /// identity is the gateway's, for its is the certificate that is seen, and who is behind it changes by the request.
    fn stand_in(&self, service: &Service) -> Workload {
        let key = &service.key;
        let identity = self.identity.clone();
        Workload {
            behind_gateway: true,
            ..of_other_cluster(self.told, &key.namespace, &key.name, identity)
        }
    }
}

impl Through<'_, '_> {
    /// The endpoint that stands for all of them. `None`: none of them has the port.
    fn endpoint(&self, service: &Service, port: u16, own_network: &Arc<str>) -> Option<Endpoint> {
        let has_port = |m: &&&FarMember<'_>| m.ports.iter().any(|(number, _)| *number == port);
        let members: Vec<&&FarMember<'_>> = self.members.iter().filter(has_port).collect();
        let first = members.first()?;
        let sum = |sum: u32, m: &&&FarMember<'_>| sum.saturating_add(m.told.capacity);
        let capacity = members.iter().fold(0, sum);
        if capacity == 0 {
            return None;
        }
        let mut identities: Vec<Identity> =
            members.iter().flat_map(|m| m.expected.clone()).collect();
        identities.sort_unstable();
        identities.dedup();
        let gateway = NetworkGateway {
            network: first.told.network.clone(),
            own_network: own_network.clone(),
            authority: format!("{}:{port}", service.hostname).into(),
            identities: identities.into(),
            target_port: target_port(&members, port),
        };
        Some(Endpoint {
            weight: capacity.min(CAPACITY_MAX),
            whereabouts: whereabouts(first.told),
            gateway: Some(Arc::new(gateway)),
            ..Endpoint::new(first.gateway, Some(self.workload.clone()))
        })
    }
}

/// The port of the workloads that a port of the service leads to, if it is told and the same of all.
fn target_port(members: &[&&FarMember<'_>], port: u16) -> Option<u16> {
    let ports = members.iter().flat_map(|member| member.ports.iter());
    let mut targets = ports.filter(|(number, _)| *number == port);
    let (_, first) = targets.next().filter(|(_, target)| *target != 0)?;
    targets.all(|(_, other)| other == first).then_some(*first)
}

/// Subsets are made by labels, which nobody tells of workloads of other clusters.
pub(super) fn tell_of_subsets(
    clusters: &BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    findings: &mut Findings,
) {
    let elsewhere = |endpoints: &[Endpoint]| endpoints.iter().filter(|e| is_elsewhere(e)).count();
    for (key, endpoints) in clusters.iter().filter(|(key, _)| key.subset.is_none()) {
        let count = elsewhere(endpoints);
        if count == 0 {
            continue;
        }
        let of_port = clusters.range(key.clone()..).skip(1);
        let of_port = of_port.take_while(|(k, _)| (&k.service, k.port) == (&key.service, key.port));
        let without = of_port.filter(|(_, endpoints)| elsewhere(endpoints) == 0);
        let without: Vec<String> = without
            .filter_map(|(key, _)| Some(key.subset.as_deref()?.to_owned()))
            .collect();
        if without.is_empty() {
            continue;
        }
        let message = format!(
            "{} of {key} in other clusters belong to none of these subsets, for their labels are not known: {}",
            counted(count, "endpoint"),
            listed(&without)
        );
        let origin = Origin {
            kind: Kind::Service,
            key: key.service.clone(),
        };
        let finding = Diagnostic::warning(Code::Unsupported, message)
            .with_effect("what leads to these subsets stays in this cluster")
            .of(origin, "");
        findings.push(finding);
    }
}
