//! Network policies, sources and requests at random, from few words, so that they often meet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    AuthenticationMode, Binding, CalicoHttp, CalicoPath, CiliumHttpRule, Criteria, Direction,
    Entity, HeaderExpectation, HttpRules, LabelExpression, Mismatch, NetSets, NetworkAction,
    NetworkPolicy, NetworkRule, NetworkTier, Pattern, Peer, Peers, PortSet, Standing, Surface,
    Workload, WorkloadType,
};
use http::HeaderMap;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// An expression, and what it matches in plain code.
type Meaning = (&'static str, fn(&str) -> bool);

pub const PATTERNS: [Meaning; 5] = [
    ("/a", |v| v == "/a"),
    ("/a.*", |v| v.starts_with("/a")),
    ("/a|/b", |v| v == "/a" || v == "/b"),
    ("(?i)/A", |v| v.eq_ignore_ascii_case("/a")),
    (".*x=1", |v| v.ends_with("x=1")),
];
const METHODS: [&str; 3] = ["GET", "POST", "get"];

/// Labels, namespace and service account of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub labels: BTreeMap<String, String>,
    pub namespace: String,
    pub account: String,
    /// The last byte of its address.
    pub number: u8,
    /// Of the mesh, and yet no endpoint of the cluster.
    pub outside: bool,
}

/// What is asked, by whom.
#[derive(Clone, Debug)]
pub struct Request {
    pub source: World,
    /// Whether the waypoint knows a Pod with the source's address.
    pub known: bool,
    pub port: u16,
    /// Method, path, query; `None` is TCP.
    pub http: Option<(String, String, Option<String>)>,
    pub headers: HeaderMap,
}

pub const PORTS: [u16; 3] = [80, 8080, 9090];

impl World {
    pub fn identity(&self) -> Identity {
        Identity::of_workload("cluster.local", &self.namespace, &self.account).unwrap()
    }

    /// The Pod.
    pub fn workload(&self) -> Workload {
        let labels = self.labels.iter();
        let labels = labels.map(|(k, v)| (k.as_str().into(), v.as_str().into()));
        Workload {
            key: ObjectKey::new(self.namespace.as_str(), "client"),
            addresses: Vec::new(),
            identity: self.identity(),
            hbone: true,
            workload_name: "client".into(),
            workload_type: WorkloadType::Pod,
            canonical_name: "".into(),
            canonical_revision: "".into(),
            app: "".into(),
            version: "".into(),
            node: "".into(),
            labels: Some(Arc::new(labels.collect())),
            namespace_labels: Some(Arc::default()),
            host_network: false,
            behind_gateway: false,
            named_ports: Box::default(),
            binding: Binding::Unbound,
        }
    }

    pub fn address(&self) -> IpAddr {
        IpAddr::from([10, 0, 2, self.number])
    }
}

impl Request {
    /// The address it comes from, of which a Pod is known or not.
    pub fn address(&self) -> IpAddr {
        match self.known {
            true => self.source.address(),
            false => IpAddr::from([10, 0, 2, 200]),
        }
    }
}

pub fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for app in [None, Some("a"), Some("b")] {
        for tier in [None, Some("x")] {
            for (namespace, account) in [("shop", "web"), ("shop", "api"), ("other", "web")] {
                let pairs = [("app", app), ("tier", tier)];
                let labels = pairs
                    .into_iter()
                    .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())));
                worlds.push(World {
                    labels: labels.collect(),
                    namespace: namespace.to_owned(),
                    account: account.to_owned(),
                    number: worlds.len() as u8 + 1,
                    outside: false,
                });
            }
        }
    }
    worlds
}

pub fn request() -> impl Strategy<Value = Request> {
    let path = select(vec!["/a", "/A", "/ab", "/a/b", "/b", "/c", "/a%20b"]);
    let query = weighted(0.3, select(vec!["x=1", "y"]));
    let http = (select(METHODS.to_vec()), path, query);
    let http = http.prop_map(|(m, p, q)| (m.to_owned(), p.to_owned(), q.map(str::to_owned)));
    let headers = vec((select(vec!["x-a", "x-b"]), select(vec!["1", "2"])), 0..4);
    (
        select(worlds()),
        prop::bool::weighted(0.8),
        select(PORTS.to_vec()),
        weighted(0.85, http),
        headers,
    )
        .prop_map(|(source, known, port, http, pairs)| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value.parse().unwrap());
            }
            Request {
                source,
                known,
                port,
                http,
                headers,
            }
        })
}

fn labels() -> impl Strategy<Value = LabelExpression> {
    let key = || select(vec!["app", "tier", "io.kubernetes.pod.namespace"]);
    let leaf = prop_oneof![
        Just(LabelExpression::everything()),
        (key(), select(vec!["a", "b", "x", "shop"]))
            .prop_map(|(k, v)| LabelExpression::equals(k, v)),
        key().prop_map(|k| LabelExpression::Has(k.into())),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(LabelExpression::negated),
            vec(inner.clone(), 0..3).prop_map(LabelExpression::All),
            vec(inner, 0..3).prop_map(LabelExpression::Any),
        ]
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        6 => labels().prop_map(Peer::Endpoints),
        1 => select(vec![Entity::All, Entity::Cluster, Entity::World, Entity::None])
            .prop_map(Peer::Entity),
        1 => Just(Peer::Cidr { block: "10.0.0.0/8".parse().unwrap(), except: Vec::new() }),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(PATTERNS.map(|(source, _)| source).to_vec())
        .prop_map(|source| Pattern::compile(source).unwrap())
}

fn expectation() -> impl Strategy<Value = HeaderExpectation> {
    let mismatch = select(vec![
        Mismatch::Fail,
        Mismatch::Log,
        Mismatch::Add,
        Mismatch::Delete,
        Mismatch::Replace,
    ]);
    let value = weighted(0.8, select(vec!["1", "2", "1,2"]));
    (select(vec!["x-a", "x-b"]), value, mismatch).prop_map(|(name, value, mismatch)| {
        HeaderExpectation {
            name: name.parse().unwrap(),
            value: value.map(|v| v.parse().unwrap()),
            mismatch,
        }
    })
}

fn cilium_http() -> impl Strategy<Value = HttpRules> {
    let headers = vec(
        (
            select(vec!["x-a", "x-b"]),
            weighted(0.5, select(vec!["1", "1,2"])),
        ),
        0..2,
    );
    let rule = (
        weighted(0.4, select(vec!["GET", "GET|POST"])),
        weighted(0.7, pattern()),
        headers,
        prop_oneof![2 => Just(Vec::new()), 1 => vec(expectation(), 1..3)],
    );
    let rule = rule.prop_map(|(method, path, headers, header_matches)| CiliumHttpRule {
        method: method.map(|m| Pattern::compile(m).unwrap()),
        path,
        host: None,
        headers: headers
            .into_iter()
            .map(|(n, v)| (n.parse().unwrap(), v.map(|v| v.parse().unwrap())))
            .collect(),
        header_matches,
        never: None,
    });
    prop_oneof![
        1 => Just(HttpRules::NotAsked),
        3 => vec(rule, 0..4).prop_map(HttpRules::Cilium),
    ]
}

fn ports() -> impl Strategy<Value = Option<Vec<PortSet>>> {
    let set = prop_oneof![
        Just(PortSet::Range(8080, 8080)),
        Just(PortSet::Range(80, 8080)),
        Just(PortSet::Not(vec![PortSet::Range(80, 80)])),
    ];
    weighted(0.6, vec(set, 0..3))
}

pub fn policy(surface: Surface, default_deny: bool, rules: Vec<NetworkRule>) -> NetworkPolicy {
    NetworkPolicy {
        origin: Origin {
            kind: Kind::CiliumNetworkPolicy,
            key: ObjectKey::new("shop", "p"),
        },
        direction: Direction::Ingress,
        surface,
        standing: Standing::InForce,
        default_deny,
        rules,
        broken: None,
    }
}

fn cilium_rule() -> impl Strategy<Value = NetworkRule> {
    let peers = prop_oneof![
        1 => Just(Peers::Anybody),
        4 => vec(peer(), 0..3).prop_map(Peers::AnyOf),
    ];
    let mode = select(vec![
        AuthenticationMode::Disabled,
        AuthenticationMode::Required,
        AuthenticationMode::TestAlwaysFail,
    ]);
    let deny = prop::bool::weighted(0.2);
    (
        peers,
        ports(),
        cilium_http(),
        weighted(0.2, mode),
        deny,
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |(peers, ports, http, authentication, deny, broken)| NetworkRule {
                index: 0,
                path: "spec".into(),
                action: if deny {
                    NetworkAction::Deny
                } else {
                    NetworkAction::Allow
                },
                peers,
                ports,
                // Deny rules have no L7 (specs/policies.md 2.1.1).
                http: if deny { HttpRules::NotAsked } else { http },
                authentication: authentication.filter(|_| !deny),
                broken: broken.then(|| "broken".into()),
            },
        )
}

/// Up to `most` policies.
pub fn cilium_policies(most: usize) -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let one = (vec(cilium_rule(), 0..4), prop::bool::weighted(0.8));
    vec(
        one.prop_map(|(rules, deny)| policy(Surface::Cilium, deny, rules)),
        1..=most,
    )
}

fn criteria() -> impl Strategy<Value = Peers> {
    let nets = weighted(
        0.2,
        select(vec!["10.0.2.0/24", "10.0.2.0/29", "10.9.0.0/16"]),
    );
    let account = weighted(0.2, select(vec!["web", "api"]));
    let set = || weighted(0.2, select(vec!["10.0.2.4/32", "10.0.2.8/29"]));
    (
        weighted(0.6, labels()),
        weighted(0.2, labels()),
        nets,
        account,
        (set(), set()),
    )
        .prop_map(|(selector, not_selector, nets, account, (set, not_set))| {
            let nets = nets.map(|net| vec![net.parse().unwrap()]);
            let names = account.map(|name| vec![name.into()]);
            let sets = |net: Option<&str>| NetSets {
                nets: net.map(|net| net.parse().unwrap()).into_iter().collect(),
                ..NetSets::default()
            };
            Peers::Criteria(Box::new(Criteria {
                nets,
                sets: sets(set.filter(|_| selector.is_some())),
                not_sets: sets(not_set.filter(|_| not_selector.is_some())),
                selector,
                not_selector,
                service_accounts: names,
                ..Criteria::default()
            }))
        })
}

fn calico_http() -> impl Strategy<Value = HttpRules> {
    let path = prop_oneof![
        Just(CalicoPath::Exact("/a".into())),
        Just(CalicoPath::Exact("/a b".into())),
        Just(CalicoPath::Prefix("/a".into())),
        Just(CalicoPath::Prefix("/".into())),
    ];
    let http = (vec(select(vec!["GET", "POST", "*"]), 0..2), vec(path, 0..3));
    let http = http.prop_map(|(methods, paths)| {
        let methods = methods.into_iter().map(Into::into).collect();
        HttpRules::Calico(CalicoHttp { methods, paths })
    });
    prop_oneof![1 => Just(HttpRules::NotAsked), 1 => http]
}

fn calico_rule() -> impl Strategy<Value = NetworkRule> {
    let action = select(vec![
        NetworkAction::Allow,
        NetworkAction::Allow,
        NetworkAction::Deny,
        NetworkAction::Pass,
        NetworkAction::Log,
    ]);
    let peers = prop_oneof![1 => Just(Peers::Anybody), 3 => criteria()];
    (
        action,
        peers,
        ports(),
        calico_http(),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(action, peers, ports, http, broken)| NetworkRule {
            index: 0,
            path: "spec".into(),
            action,
            peers,
            ports,
            http,
            authentication: None,
            broken: broken.then(|| "broken".into()),
        })
}

/// Policies of up to three tiers, in order, up to `most` in each.
pub fn calico_policies(most: usize) -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let tier = (any::<bool>(), vec(vec(calico_rule(), 0..4), 1..=most));
    vec(tier, 1..4).prop_map(|tiers| {
        let mut all = Vec::new();
        for (index, (passes_by_default, policies)) in tiers.into_iter().enumerate() {
            let tier = Arc::new(NetworkTier {
                name: format!("tier-{index}").into(),
                order: Some(index as f64),
                passes_by_default,
            });
            let of = |rules| policy(Surface::Calico(tier.clone()), true, rules);
            all.extend(policies.into_iter().map(of));
        }
        all
    })
}
