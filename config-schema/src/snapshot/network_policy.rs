//! Network policies of Cilium and Calico as they apply at a waypoint: to requests and streams that it
//! forwards to the workloads they select, or from them (specs/policies.md 2.1 and 2.5).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{ClusterKey, DnsPattern, Egress, LabelExpression, Pattern, Selecting, Workload};
use crate::origin::{ObjectKey, Origin};

/// Every network policy that selects something, and what it selects.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NetworkPolicies {
    /// The workloads behind each service port. A port without an entry has no network policy.
    #[serde(serialize_with = "super::by_text")]
    pub clusters: BTreeMap<ClusterKey, Arc<[NetworkSubject]>>,
    /// The workloads that this waypoint serves by their own addresses.
    #[serde(serialize_with = "super::by_text")]
    pub workloads: FxHashMap<IpAddr, NetworkSubject>,
    /// The policies of clients, for what they send.
    pub egress: Egress,
    /// Every workload by its addresses, for what policies ask of the source. Empty without policies.
    #[serde(skip)]
    pub sources: Arc<FxHashMap<IpAddr, Arc<Workload>>>,
    /// All of them in the order in which they are asked, for what the CNI makes of them.
    #[serde(skip)]
    pub all: Arc<[Selecting]>,
}

impl NetworkPolicies {
    /// Whether no policy selects anything.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.workloads.is_empty() && self.egress.is_empty()
    }

    /// The policies that may have a say about requests to a service port.
    pub fn about(&self, key: &ClusterKey) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let behind = self.clusters.get(key).into_iter().flat_map(|s| s.iter());
        let clients = self.egress.subjects().map(|subject| &**subject);
        behind.chain(clients).flat_map(|subject| &subject.policies)
    }
}

/// Workloads to which the same policies apply on the same port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkSubject {
    /// One of them, to name.
    pub workload: ObjectKey,
    /// The port its application listens on. `None`: whatever is dialled.
    pub port: Option<u16>,
    /// The policies that select it: Cilium's by namespace and name, then Calico's as they are ordered.
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// Set when it is not known which policies select it, so that nothing may pass, for this reason.
    pub unknown: Option<Arc<str>>,
    /// The same for policies that are only tried: nothing would pass.
    pub unknown_in_trial: Option<Arc<str>>,
}

impl NetworkSubject {
    /// Whether anything is in force for it; what is only tried does not count.
    pub fn is_enforced(&self) -> bool {
        let mut policies = self.policies.iter();
        self.unknown.is_some() || policies.any(|p| p.standing.is_in(World::InForce))
    }
}

/// From which end of a connection a policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The policies are those of the end it comes to.
    Ingress,
    /// The policies are those of the end it starts at.
    Egress,
}

/// One network policy, its rules for one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkPolicy {
    /// The object.
    pub origin: Origin,
    /// Which of its rules.
    pub direction: Direction,
    /// Whose rules of combination hold.
    pub surface: Surface,
    /// Whether it is in force, or only tried.
    pub standing: Standing,
    /// Cilium: what no rule allows is denied. A policy with `enableDefaultDeny: false` for the
    /// direction only adds. Calico: always.
    pub default_deny: bool,
    /// The rules, in the order they are written.
    pub rules: Vec<NetworkRule>,
    /// Set when the object could not be understood: whatever it selects is denied, for this reason.
    pub broken: Option<Arc<str>>,
}

/// Whether a network policy is in force, or only tried (specs/policies.md 2.5, staged policies).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// In force.
    InForce,
    /// In force, and a staged object says what should take its place, or that it should go.
    Superseded,
    /// Evaluated and reported, never enforced: annotated, or a staged policy of Calico.
    Tried,
    /// A staged object that says that another one should go. It has no rules.
    Removal,
}

/// What is enforced, or what would be if everything tried were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// What is enforced.
    InForce,
    /// What would be.
    Trial,
}

impl Standing {
    /// Whether a policy counts there.
    pub fn is_in(self, world: World) -> bool {
        match self {
            Self::InForce => true,
            Self::Superseded => world == World::InForce,
            Self::Tried => world == World::Trial,
            Self::Removal => false,
        }
    }

    /// Whether it is an object to be tried, and to be reported on.
    pub fn is_trial(self) -> bool {
        matches!(self, Self::Tried | Self::Removal)
    }
}

/// Whose rules of combination hold for a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Surface {
    /// A deny anywhere, then an allow anywhere, then the default.
    Cilium,
    /// In order, tier by tier.
    Calico(Arc<NetworkTier>),
}

/// A tier of Calico.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkTier {
    /// Its name.
    pub name: Arc<str>,
    /// Lower first; `None` comes last.
    pub order: Option<f64>,
    /// What no rule of the tier decides is left to the next tier, and not denied.
    pub passes_by_default: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkRule {
    /// Its number in its list, from 0.
    pub index: usize,
    /// Where it stands: `spec.ingress[0]`.
    pub path: Arc<str>,
    /// What a match means.
    pub action: NetworkAction,
    /// Who is at the other end. Empty: nobody.
    pub peers: Peers,
    /// On which ports of the workload that is called. `None`: any.
    pub ports: Option<Vec<PortSet>>,
    /// Which requests.
    pub http: HttpRules,
    /// `authentication.mode`.
    pub authentication: Option<AuthenticationMode>,
    /// Set when a part can not be evaluated here: an allow then allows nothing, a deny denies
    /// everything, for this reason.
    pub broken: Option<Arc<str>>,
}

/// What a matching rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkAction {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
    /// Calico: left to the next tier.
    Pass,
    /// Calico: recorded, and the next rule is asked.
    Log,
}

/// Ports from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PortSet {
    /// Numbers, both ends included.
    Range(u16, u16),
    /// A port of the pod that is called by its name, in lower case.
    Named(Arc<str>),
    /// Any but these.
    Not(Vec<PortSet>),
}

/// `authentication.mode` (specs/policies.md 2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationMode {
    /// Always succeeds.
    Disabled,
    /// The peer has shown a certificate of the mesh.
    Required,
    /// Always fails.
    TestAlwaysFail,
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Peers {
    /// Anybody: the rule names nobody.
    Anybody,
    /// Any of these; nobody if the list is empty.
    AnyOf(Vec<Peer>),
    /// Calico: all criteria hold.
    Criteria(Box<Criteria>),
}

/// One peer of a Cilium rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    /// `fromEndpoints`, `toEndpoints`: the labels of the peer.
    Endpoints(LabelExpression),
    /// `fromEntities`, `toEntities`.
    Entity(Entity),
    /// `fromCIDR` and its like: peers that are no endpoint of the cluster.
    Cidr {
        /// In this block.
        block: IpNet,
        /// And in none of these.
        except: Vec<IpNet>,
    },
    /// `toFQDNs`: a host outside the cluster by its name.
    Name(DnsPattern),
    /// `toServices`, and `services` of Calico: workloads behind one of these Services.
    Services(Vec<ObjectKey>),
    /// `fromNodes`, `fromGroups`: a waypoint does not know. The field's name.
    Unknowable(Arc<str>),
}

/// `fromEntities`, `toEntities` (specs/policies.md 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the variants are Cilium's
pub enum Entity {
    All,
    World,
    WorldIpv4,
    WorldIpv6,
    Cluster,
    Host,
    RemoteNode,
    Init,
    Ingress,
    Health,
    Unmanaged,
    KubeApiserver,
    None,
}

impl Entity {
    const NAMES: [(&'static str, Self); 13] = [
        ("all", Self::All),
        ("world", Self::World),
        ("world-ipv4", Self::WorldIpv4),
        ("world-ipv6", Self::WorldIpv6),
        ("cluster", Self::Cluster),
        ("host", Self::Host),
        ("remote-node", Self::RemoteNode),
        ("init", Self::Init),
        ("ingress", Self::Ingress),
        ("health", Self::Health),
        ("unmanaged", Self::Unmanaged),
        ("kube-apiserver", Self::KubeApiserver),
        ("none", Self::None),
    ];

    /// The entity of a name.
    pub fn parse(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        names.find(|(n, _)| *n == name).map(|(_, entity)| *entity)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names.find(|(_, e)| *e == self).map_or("", |(n, _)| n)
    }
}

/// The other end of a Calico rule: all of it holds. What is empty holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Criteria {
    /// `nets`; `None`: any.
    pub nets: Option<Vec<IpNet>>,
    /// `notNets`.
    pub not_nets: Vec<IpNet>,
    /// `selector`, with the policy's own namespace when that is implied.
    pub selector: Option<LabelExpression>,
    /// `notSelector`.
    pub not_selector: Option<LabelExpression>,
    /// `namespaceSelector`, on the labels of the namespace.
    pub namespace_selector: Option<LabelExpression>,
    /// `serviceAccounts.names`.
    pub service_accounts: Option<Vec<Arc<str>>>,
    /// `ipVersion`.
    pub ip_version: Option<u8>,
    /// Network sets that `selector` and `namespaceSelector` select.
    pub sets: NetSets,
    /// Those that `notSelector` selects.
    pub not_sets: NetSets,
    /// `services`: workloads behind one of these Services.
    pub services: Option<Vec<ObjectKey>>,
}

/// What is in the network sets of Calico that a selector selects.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NetSets {
    /// Their `nets`.
    pub nets: Vec<IpNet>,
    /// One of them has `allowedEgressDomains`, of which a waypoint does not know the addresses.
    pub has_names: bool,
    /// A set that may be among them can not be read: any address may be in it.
    pub is_unknown: bool,
}

impl NetSets {
    /// Whether nothing is in them.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which requests a rule is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpRules {
    /// Whatever is spoken.
    NotAsked,
    /// Cilium: any of these; nothing if the list is empty, and nothing that is not HTTP.
    Cilium(Vec<CiliumHttpRule>),
    /// Calico: one of the methods on one of the paths.
    Calico(CalicoHttp),
}

/// One item of `rules.http` (specs/policies.md 2.1.5). What is absent matches everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CiliumHttpRule {
    /// `method`, the whole of it.
    pub method: Option<Pattern>,
    /// `path`, the whole of it with the query.
    pub path: Option<Pattern>,
    /// `host`, the whole of it with the port if one was sent.
    pub host: Option<Pattern>,
    /// `headers`: a value, or none for presence.
    #[serde(skip)]
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// `headerMatches`.
    #[serde(skip)]
    pub header_matches: Vec<HeaderExpectation>,
    /// Set when it can not match, for this reason: a header name that no request can have.
    pub never: Option<Arc<str>>,
}

/// One item of `headerMatches`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderExpectation {
    /// The header.
    pub name: HeaderName,
    /// Its value. `None`: presence.
    pub value: Option<HeaderValue>,
    /// What happens when the header is otherwise.
    pub mismatch: Mismatch,
}

/// `mismatch` of a header match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mismatch {
    /// The rule does not match.
    Fail,
    /// Goes on.
    Log,
    /// Adds the value.
    Add,
    /// Removes the header.
    Delete,
    /// Sets the value.
    Replace,
}

/// `http` of a Calico rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CalicoHttp {
    /// Any if empty.
    pub methods: Vec<Arc<str>>,
    /// Any if empty. Normalised as a request's path is.
    pub paths: Vec<CalicoPath>,
}

/// One item of `paths`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CalicoPath {
    /// The whole path.
    Exact(Arc<str>),
    /// The path, or the beginning of it up to a slash.
    Prefix(Arc<str>),
}
