//! Who a network policy sees at the other end (specs/policies.md 2.1.2). What is not known of the
//! source is [`Truth::Unknown`]: an allow by it does not match, a deny by it does.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    Criteria, Entity, LabelExpression, LabelView, Labels, Peer, Sources, Truth, Workload,
};
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::candidates::{Candidates, Field, Key};
use crate::facts::{Attestation, Facts};

/// The source of a request or stream.
pub(super) struct Source<'a> {
    view: LabelView<'a>,
    ip: IpAddr,
    /// The workload with the source's address and identity.
    pub(super) workload: Option<&'a Workload>,
    /// It has the identity of a workload of the mesh.
    has_identity: bool,
    /// And has shown a certificate for it. Plain text out of a pod's own network namespace is no mutual
    /// authentication, whoever vouches for it (specs/policies.md 2.1.6: "plaintext: deny").
    pub(super) authenticated: bool,
}

impl<'a> Source<'a> {
    /// The source by its address. A workload of another identity is not the source: addresses are
    /// given away anew, certificates are not.
    pub(super) fn of(facts: &Facts<'a>, sources: &'a FxHashMap<IpAddr, Arc<Workload>>) -> Self {
        let ip = facts.source_ip.to_canonical();
        let workload = sources.get(&ip).map(|w| &**w);
        let workload = workload.filter(|w| facts.peer.is_none_or(|peer| is_of(w, peer)));
        let view = match (workload, facts.peer) {
            (Some(workload), _) => LabelView {
                pod: Some(&workload.labels),
                namespace: Some(&workload.key.namespace),
                namespace_labels: workload.namespace_labels.as_deref(),
                service_account: workload.identity.service_account(),
            },
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
            workload,
            has_identity: facts.peer.is_some(),
            authenticated: facts.peer.is_some() && facts.attested_by == Attestation::Certificate,
        }
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
    }

    /// Whether it is known to be a workload of the mesh.
    fn is_endpoint(&self) -> bool {
        self.workload.is_some() || self.has_identity
    }

    /// Whether the source is among those of a rule.
    pub(super) fn is_among(&self, sources: &Sources) -> Truth {
        match sources {
            Sources::Anybody => Truth::Yes,
            Sources::AnyOf(peers) => Truth::any(peers.iter().map(|peer| self.is(peer))),
            Sources::Criteria(criteria) => self.meets(criteria),
        }
    }

    pub(super) fn is(&self, peer: &Peer) -> Truth {
        match peer {
            Peer::Endpoints(labels) => self.has(labels),
            Peer::Entity(entity) => self.is_of(*entity),
            Peer::Cidr { block, except } => {
                let inside = block.contains(&self.ip) && !contains(except, self.ip);
                self.unless_known(inside)
            }
            Peer::Unknowable(_) => self.unless_known(true),
        }
    }

    fn has(&self, labels: &LabelExpression) -> Truth {
        let holds = labels.holds(&|key| self.view.of_pod(key));
        match self.is_endpoint() {
            true => holds,
            // It may be no endpoint at all, which no selector selects.
            false => holds.and(Truth::Unknown),
        }
    }

    fn of_namespace(&self, labels: &LabelExpression) -> Truth {
        let holds = labels.holds(&|key| self.view.of_namespace(key));
        match self.is_endpoint() {
            true => holds,
            false => holds.and(Truth::Unknown),
        }
    }

    fn is_of(&self, entity: Entity) -> Truth {
        match entity {
            Entity::All => Truth::Yes,
            Entity::None => Truth::No,
            Entity::Cluster if self.is_endpoint() => Truth::Yes,
            Entity::Cluster => Truth::Unknown,
            Entity::World => self.unless_known(true),
            Entity::WorldIpv4 => self.unless_known(self.ip.is_ipv4()),
            Entity::WorldIpv6 => self.unless_known(self.ip.is_ipv6()),
            Entity::Host
            | Entity::RemoteNode
            | Entity::Init
            | Entity::Ingress
            | Entity::Health
            | Entity::Unmanaged
            | Entity::KubeApiserver => match self.workload {
                Some(_) => Truth::No,
                None => Truth::Unknown,
            },
        }
    }

    /// Something that no known workload is, and that others may be: a certificate alone does not
    /// show that its bearer is in the cluster.
    fn unless_known(&self, may_be: bool) -> Truth {
        match may_be && self.workload.is_none() {
            true => Truth::Unknown,
            false => Truth::No,
        }
    }

    fn meets(&self, criteria: &Criteria) -> Truth {
        let nets = criteria.nets.as_ref();
        let by_address = nets.is_none_or(|nets| contains(nets, self.ip))
            && !contains(&criteria.not_nets, self.ip)
            && criteria
                .ip_version
                .is_none_or(|v| (v == 4) == self.ip.is_ipv4());
        let account = match (&criteria.service_accounts, self.view.service_account) {
            (None, _) => Truth::Yes,
            (Some(names), Some(account)) => names.iter().any(|n| **n == *account).into(),
            (Some(_), None) => Truth::Unknown,
        };
        let yes = |labels: &Option<LabelExpression>| labels.as_ref().map(|l| self.has(l));
        Truth::from(by_address)
            .and(account)
            .and(yes(&criteria.selector).unwrap_or(Truth::Yes))
            .and(yes(&criteria.not_selector).map_or(Truth::Yes, Truth::negated))
            .and(match &criteria.namespace_selector {
                Some(labels) => self.of_namespace(labels),
                None => Truth::Yes,
            })
    }

    /// The source in words.
    pub(super) fn words(&self) -> String {
        match (self.workload, self.view.namespace) {
            (Some(workload), _) => format!("source Pod {}", workload.key),
            (None, Some(namespace)) => format!(
                "source {} of namespace {namespace}, of which no Pod is known",
                self.ip
            ),
            (None, None) => format!("source {}, of which no Pod is known", self.ip),
        }
    }
}

fn is_of(workload: &Workload, peer: &Identity) -> bool {
    let own = &workload.identity;
    own.namespace() == peer.namespace() && own.service_account() == peer.service_account()
}

fn contains(blocks: &[IpNet], ip: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(&ip))
}
