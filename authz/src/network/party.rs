//! Who a network policy sees at the other end (specs/policies.md 2.1.2). What is not known of the
//! source is [`Truth::Unknown`]: an allow by it does not match, a deny by it does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    Criteria, Destination, DestinationAddress, DestinationPlace, Entity, Family, LabelExpression,
    LabelView, Labels, NetSets, Peer, Peers, Truth, Workload,
};
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::host::Host;
use crate::candidates::{Candidates, Field, Key};
use crate::cni::End;
use crate::facts::{Attestation, Facts};

/// The other end of a request or stream, seen from the workload whose policies are asked: the source
/// at ingress, the destination at egress.
#[derive(Clone, Copy)]
pub(super) struct Party<'a> {
    view: LabelView<'a>,
    ip: IpAddr,
    /// Of the address only the family is known, which `ip` stands for.
    found_later: bool,
    /// The workload with its address, and its identity.
    pub(super) workload: Option<&'a Workload>,
    /// Without a workload: where it is.
    place: Place,
    /// Which end it is.
    is_source: bool,
    /// The Services it is behind. `None`: that is not known.
    services: Option<&'a [ObjectKey]>,
    /// The host of a ServiceEntry that leads to it.
    host: Option<Host<'a>>,
    /// It has shown a certificate for its identity, or will have to. Plain text out of a pod's own
    /// network namespace is no mutual authentication, whoever vouches for it (specs/policies.md 2.1.6:
    /// "plaintext: deny").
    pub(super) authenticated: bool,
}

/// Where a party is of which no Pod is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has the identity of a workload of the mesh, or is behind a Service for Pods.
    Mesh,
    /// An address outside the cluster, as a Service without a selector names it.
    Outside,
    /// Nobody knows.
    Anywhere,
}

impl<'a> Party<'a> {
    /// The source by its address. A workload of another identity is not the source: addresses are
    /// given away anew, certificates are not.
    pub(super) fn source(facts: &Facts<'a>, sources: &'a FxHashMap<IpAddr, Arc<Workload>>) -> Self {
        let ip = facts.source_ip.to_canonical();
        let workload = sources.get(&ip).map(|w| &**w);
        let workload = workload.filter(|w| facts.peer.is_none_or(|peer| w.may_be(peer)));
        let view = match (workload, facts.peer) {
            (Some(workload), _) => view(workload),
            (None, Some(peer)) => LabelView {
                namespace: peer.namespace(),
                service_account: peer.service_account(),
                ..LabelView::default()
            },
            (None, None) => LabelView::default(),
        };
        Self {
            view,
            ip,
            found_later: false,
            host: None,
            workload,
            place: match facts.peer {
                Some(_) => Place::Mesh,
                None => Place::Anywhere,
            },
            is_source: true,
            services: None,
            authenticated: facts.peer.is_some() && facts.attested_by == Attestation::Certificate,
        }
    }

    /// What the source may be after. Both ends have to be authenticated: a tunnel to the destination is
    /// opened for its identity alone.
    pub(super) fn destination(
        destination: &'a Destination,
        source: &Party<'_>,
        facts: &Facts<'a>,
    ) -> Self {
        let there = destination.workload.as_deref();
        // Of another cluster: it has a namespace and an account, and neither what a selector nor what an entity
        // or a block of addresses says of Pods is known of it.
        let is_elsewhere = there.is_some_and(|workload| workload.labels.is_none());
        let workload = there.filter(|_| !is_elsewhere);
        let place = &destination.place;
        let (ip, found_later) = match destination.address {
            DestinationAddress::At(ip) => (ip, false),
            DestinationAddress::Dialled => (facts.destination_ip.to_canonical(), false),
            DestinationAddress::Found(Family::V4) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true),
            DestinationAddress::Found(Family::V6) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), true),
        };
        Self {
            view: match (there, place) {
                (Some(workload), _) => view(workload),
                (None, DestinationPlace::Inside(namespace)) => LabelView {
                    namespace: Some(namespace),
                    ..LabelView::default()
                },
                (None, DestinationPlace::Outside) => LabelView::default(),
            },
            ip,
            found_later,
            host: destination
                .host
                .as_deref()
                .map(|host| Host::read(host, facts)),
            workload,
            place: match place {
                DestinationPlace::Inside(_) if is_elsewhere => Place::Anywhere,
                DestinationPlace::Inside(_) => Place::Mesh,
                DestinationPlace::Outside => Place::Outside,
            },
            is_source: false,
            services: Some(&destination.services),
            authenticated: source.authenticated && there.is_some_and(|w| w.hbone),
        }
    }

    /// One end of a connection as a CNI sees it: by its labels and address. Who it is by a certificate
    /// it does not see.
    pub(super) fn of_end(end: &End<'a>, is_source: bool) -> Self {
        let address = end.addresses.first().copied();
        Self {
            view: end.view,
            ip: address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ip| ip.to_canonical()),
            found_later: address.is_none(),
            host: None,
            workload: end.workload,
            place: match end.view.namespace {
                Some(_) => Place::Mesh,
                None => Place::Anywhere,
            },
            is_source,
            services: None,
            authenticated: false,
        }
    }

    /// The namespace, as far as it is known.
    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.view.namespace
    }

    /// The address.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether its address is known.
    pub(super) fn has_address(&self) -> bool {
        !self.found_later
    }

    /// Whether everything is known that rules ask of it.
    pub(super) fn is_wholly_known(&self) -> bool {
        self.workload.is_some() && self.view.namespace_labels.is_some()
    }

    /// Whether its namespace and service account are known.
    pub(super) fn has_account(&self) -> bool {
        self.view.namespace.is_some() && self.view.service_account.is_some()
    }

    /// The keys of what is known of it, and of the path, of the fields that rules are listed under.
    pub(super) fn keys<'k>(
        &'k self,
        candidates: &'k Candidates,
        path: Option<&'k str>,
    ) -> impl Iterator<Item = Key> + 'k {
        let one = |field: Field, value: Option<&str>| {
            let value = value.filter(|_| candidates.asks(field))?;
            Some(Key::of(field, &[value]))
        };
        let labels = |field: Field, labels: Option<&'k Labels>| {
            let labels = labels.filter(|_| candidates.asks(field));
            let labels = labels.into_iter().flatten();
            labels.map(move |(key, value)| Key::of(field, &[&**key, &**value]))
        };
        let path = path.map(str::as_bytes).unwrap_or_default();
        let of_identity = [
            one(Field::Namespace, self.view.namespace),
            one(Field::Account, self.view.service_account),
        ];
        let of_identity = of_identity.into_iter().flatten();
        of_identity
            .chain(labels(Field::PodLabel, self.view.pod))
            .chain(labels(Field::NamespaceLabel, self.view.namespace_labels))
            .chain(candidates.of_path(path))
            .chain(candidates.of_address(Field::Address, self.ip))
    }

    /// Whether it is known to be a workload of the mesh.
    fn is_endpoint(&self) -> bool {
        self.workload.is_some() || self.place == Place::Mesh
    }

    /// Whether it shares the network of its node: to Cilium it is the node, to Calico no endpoint.
    fn is_node(&self) -> bool {
        self.workload.is_some_and(|workload| workload.host_network)
    }

    /// Whether the party is among those of a rule.
    pub(super) fn is_among(&self, peers: &Peers) -> Truth {
        match peers {
            Peers::Anybody => Truth::Yes,
            Peers::AnyOf(peers) => Truth::any(peers.iter().map(|peer| self.is(peer))),
            Peers::Criteria(criteria) => self.meets(criteria),
        }
    }

    pub(super) fn is(&self, peer: &Peer) -> Truth {
        match peer {
            Peer::Endpoints(labels) => self.has(labels),
            Peer::Entity(entity) => self.is_of(*entity),
            Peer::Cidr { block, except } => {
                let inside = self.is_within(block).and(self.is_in_any(except).negated());
                self.is_outside(inside)
            }
            Peer::Name(pattern) => match (self.workload, self.place) {
                (Some(_), _) | (None, Place::Mesh) => Truth::No,
                (None, Place::Outside | Place::Anywhere) => self
                    .host
                    .map_or(Truth::Unknown, |host| host.is_called(pattern)),
            },
            Peer::Services(services) => self.is_behind(services),
            Peer::Unknowable(_) => match self.workload {
                Some(workload) if !workload.host_network => Truth::No,
                _ => Truth::Unknown,
            },
        }
    }

    /// Whether its address is in a block. Of one that DNS is still to say the whole of its family is
    /// known, and nothing smaller.
    fn is_within(&self, block: &IpNet) -> Truth {
        match block.contains(&self.ip) {
            contains if !self.found_later => contains.into(),
            true if block.prefix_len() == 0 => Truth::Yes,
            _ if block.addr().is_ipv4() == self.ip.is_ipv4() => Truth::Unknown,
            _ => Truth::No,
        }
    }

    fn is_in_any(&self, blocks: &[IpNet]) -> Truth {
        Truth::any(blocks.iter().map(|block| self.is_within(block)))
    }

    fn is_behind(&self, services: &[ObjectKey]) -> Truth {
        let own = self.services;
        let is_one = own.is_some_and(|own| own.iter().any(|own| services.contains(own)));
        match (is_one, self.workload) {
            (true, _) => Truth::Yes,
            (false, Some(_)) if own.is_some() => Truth::No,
            // Some Pod behind a Service may be behind another one, too.
            (false, _) => Truth::Unknown,
        }
    }

    fn has(&self, labels: &LabelExpression) -> Truth {
        self.as_endpoint(|| labels.holds(&|key| self.view.of_pod(key)))
    }

    fn of_namespace(&self, labels: &LabelExpression) -> Truth {
        self.as_endpoint(|| labels.holds(&|key| self.view.of_namespace(key)))
    }

    /// What holds of it if it is an endpoint, which alone selectors select.
    fn as_endpoint(&self, holds: impl Fn() -> Truth) -> Truth {
        match self.place {
            _ if self.is_node() => Truth::No,
            Place::Outside if self.workload.is_none() => Truth::No,
            _ if self.is_endpoint() => holds(),
            _ => holds().and(Truth::Unknown),
        }
    }

    fn is_of(&self, entity: Entity) -> Truth {
        match entity {
            Entity::All => Truth::Yes,
            Entity::None => Truth::No,
            Entity::Cluster if self.is_endpoint() => Truth::Yes,
            Entity::Cluster => Truth::Unknown,
            Entity::World => self.is_outside(Truth::Yes),
            Entity::WorldIpv4 => self.is_outside(self.ip.is_ipv4().into()),
            Entity::WorldIpv6 => self.is_outside(self.ip.is_ipv6().into()),
            Entity::Host
            | Entity::RemoteNode
            | Entity::Init
            | Entity::Ingress
            | Entity::Health
            | Entity::Unmanaged
            | Entity::KubeApiserver => match self.workload {
                Some(_) if !self.is_node() => Truth::No,
                _ => Truth::Unknown,
            },
        }
    }

    /// Something that no known workload is, and that others may be: a certificate alone does not
    /// show that its bearer is in the cluster, nor an address where nothing else says so.
    fn is_outside(&self, may_be: Truth) -> Truth {
        match (self.workload, self.place) {
            (Some(_), _) => Truth::No,
            (None, Place::Outside) => may_be,
            (None, Place::Mesh | Place::Anywhere) => may_be.and(Truth::Unknown),
        }
    }

    fn meets(&self, criteria: &Criteria) -> Truth {
        let nets = criteria.nets.as_ref();
        let version = criteria.ip_version;
        let by_version = version.is_none_or(|v| (v == 4) == self.ip.is_ipv4());
        let by_address = (nets.map_or(Truth::Yes, |nets| self.is_in_any(nets)))
            .and(self.is_in_any(&criteria.not_nets).negated())
            .and(by_version.into());
        let account = match (&criteria.service_accounts, self.view.service_account) {
            (None, _) => Truth::Yes,
            (Some(names), Some(account)) => names.iter().any(|n| **n == *account).into(),
            (Some(_), None) => Truth::Unknown,
        };
        let by_services = criteria.services.as_ref();
        by_address
            .and(account)
            .and(self.is_selected(criteria))
            .and(self.is_not_selected(criteria))
            .and(by_services.map_or(Truth::Yes, |services| self.is_behind(services)))
    }

    /// `selector` and `namespaceSelector`: an endpoint by its labels, or an address by those of a set.
    fn is_selected(&self, criteria: &Criteria) -> Truth {
        let (selector, namespaces) = (&criteria.selector, &criteria.namespace_selector);
        if selector.is_none() && namespaces.is_none() {
            return Truth::Yes;
        }
        let by_pod = selector
            .as_ref()
            .map_or(Truth::Yes, |labels| self.has(labels));
        let by_namespace = namespaces.as_ref();
        let by_namespace = by_namespace.map_or(Truth::Yes, |labels| self.of_namespace(labels));
        Truth::any([by_pod.and(by_namespace), self.is_in(&criteria.sets)])
    }

    fn is_not_selected(&self, criteria: &Criteria) -> Truth {
        let Some(labels) = &criteria.not_selector else {
            return Truth::Yes;
        };
        Truth::any([self.has(labels), self.is_in(&criteria.not_sets)]).negated()
    }

    fn is_in(&self, sets: &NetSets) -> Truth {
        match self.is_in_any(&sets.nets) {
            Truth::No if sets.is_unknown => Truth::Unknown,
            // What a name stands for is not known here; no Pod has one.
            Truth::No if sets.has_names && !self.is_endpoint() => Truth::Unknown,
            by_address => by_address,
        }
    }

    /// The party in words.
    pub(super) fn words(&self) -> String {
        let end = match self.is_source {
            true => "source",
            false => "destination",
        };
        let family = if self.ip.is_ipv4() { "IPv4" } else { "IPv6" };
        match (self.workload, self.view.namespace) {
            (None, _) if self.found_later => format!(
                "{end} {}, found by name at some {family} address",
                self.host.map_or_else(String::new, |host| host.to_string())
            ),
            (Some(workload), _) => format!("{end} Pod {}", workload.key),
            (None, Some(namespace)) => format!(
                "{end} {} of namespace {namespace}, of which no Pod is known",
                self.ip
            ),
            (None, None) => format!("{end} {}, of which no Pod is known", self.ip),
        }
    }
}

/// What is known of a workload.
fn view(workload: &Workload) -> LabelView<'_> {
    LabelView {
        pod: workload.labels.as_deref(),
        namespace: Some(&workload.key.namespace),
        namespace_labels: workload.namespace_labels.as_deref(),
        service_account: workload.account(),
    }
}
