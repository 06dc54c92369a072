//! What the CNI of the cluster makes of a connection: of Kubernetes' NetworkPolicies (specs/policies.md
//! 2.3) here, of those of Cilium and Calico in `network::cni`. For `explain` and lints; a waypoint
//! enforces none of it.

use std::net::IpAddr;

use cairn_config_schema::origin::Origin;
pub use cairn_config_schema::snapshot::Direction;
use cairn_config_schema::snapshot::{
    KubeNetworkPolicy, KubePeer, KubePort, KubeRule, LabelView, PortSet, Selecting, Transport,
    Truth, Workload,
};

/// One end of a connection, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct End<'a> {
    /// Labels and namespace.
    pub view: LabelView<'a>,
    /// Its addresses. Empty: not known.
    pub addresses: &'a [IpAddr],
    /// Names of its ports. `None`: not known.
    pub named_ports: Option<&'a [(std::sync::Arc<str>, u16)]>,
    /// In the network of its node: then what holds for it is up to the CNI.
    pub host_network: bool,
    /// The pod.
    pub workload: Option<&'a Workload>,
}

impl<'a> End<'a> {
    /// A pod.
    pub fn of(workload: &'a Workload) -> Self {
        Self {
            view: LabelView {
                pod: workload.labels.as_deref(),
                namespace: Some(&workload.key.namespace),
                namespace_labels: workload.namespace_labels.as_deref(),
                service_account: workload.account(),
            },
            addresses: &workload.addresses,
            named_ports: Some(&workload.named_ports),
            host_network: workload.host_network,
            workload: Some(workload),
        }
    }
}

/// Whether a connection passes, and by which policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// It does. Unknown: what it depends on is not in the configuration.
    pub passes: Truth,
    /// The policies that speak: the one that lets it through, else all that select the end.
    pub policies: Vec<Origin>,
    /// Where the rule that lets it through stands: `spec.ingress[0]`.
    pub rule: Option<std::sync::Arc<str>>,
    /// A name of what is not known.
    pub unknown: Option<&'static str>,
}

/// A connection from one end to the other.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Where it starts.
    pub from: End<'a>,
    /// Where it goes.
    pub to: End<'a>,
    /// The port there.
    pub port: u16,
    /// Over what.
    pub transport: Transport,
}

impl Connection<'_> {
    /// What these policies make of it at one end. Those that do not select the end say nothing.
    pub fn passage<'p>(
        &self,
        policies: impl IntoIterator<Item = &'p KubeNetworkPolicy>,
        direction: Direction,
    ) -> Passage {
        let (own, other) = match direction {
            Direction::Ingress => (&self.to, &self.from),
            Direction::Egress => (&self.from, &self.to),
        };
        let mut speaking = Speaking::default();
        for policy in policies {
            let selects = selects(policy, own);
            if selects == Truth::No {
                continue;
            }
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            let silent = policy.broken.is_none() && rules.is_none();
            if silent {
                continue;
            }
            if policy.broken.is_some() || own.host_network || selects == Truth::Unknown {
                speaking.not_known(&policy.origin, unknown_word(policy, own));
                continue;
            }
            speaking.isolating.push(policy.origin.clone());
            for rule in rules.iter().flatten() {
                match self.matches(rule, policy, other) {
                    Truth::Yes => {
                        return Passage {
                            passes: Truth::Yes,
                            policies: vec![policy.origin.clone()],
                            rule: Some(rule.path.clone()),
                            unknown: None,
                        };
                    }
                    Truth::Unknown => speaking.not_known(&policy.origin, "the other end"),
                    Truth::No => {}
                }
            }
        }
        speaking.passage()
    }

    /// What the policies of Cilium and Calico make of it at one end, as a CNI sees it: without what is
    /// inside of a tunnel.
    pub fn passage_of_network(&self, policies: &[Selecting], direction: Direction) -> Passage {
        crate::network::cni::passage(self, policies, direction)
    }

    fn matches(&self, rule: &KubeRule, policy: &KubeNetworkPolicy, other: &End<'_>) -> Truth {
        let peers = rule.peers.as_ref().map_or(Truth::Yes, |peers| {
            Truth::any(peers.iter().map(|peer| is(other, peer, policy)))
        });
        let ports = rule.ports.as_ref().map_or(Truth::Yes, |ports| {
            Truth::any(ports.iter().map(|port| self.goes_to(port)))
        });
        peers.and(ports)
    }

    fn goes_to(&self, port: &KubePort) -> Truth {
        let by_port = match &port.port {
            None => Truth::Yes,
            Some(PortSet::Range(first, last)) => (*first..=*last).contains(&self.port).into(),
            // A name is one of the destination's ports, in both directions.
            Some(PortSet::Named(name)) => match self.to.named_ports {
                None => Truth::Unknown,
                Some(named) => (named.iter())
                    .any(|(n, number)| n == name && *number == self.port)
                    .into(),
            },
            Some(PortSet::Not(_)) => Truth::Unknown,
        };
        Truth::from(port.protocol == self.transport).and(by_port)
    }
}

/// Whether a policy selects an end: a pod of its namespace by its labels.
pub fn selects(policy: &KubeNetworkPolicy, end: &End<'_>) -> Truth {
    let namespace = match end.view.namespace {
        None => Truth::Unknown,
        Some(namespace) => (*policy.origin.key.namespace == *namespace).into(),
    };
    namespace.and(policy.selector.holds(&|key| end.view.of_pod(key)))
}

fn is(end: &End<'_>, peer: &KubePeer, policy: &KubeNetworkPolicy) -> Truth {
    match peer {
        KubePeer::Pods { namespaces, pods } => {
            let by_namespace = match (namespaces, end.view.namespace) {
                (_, None) => Truth::Unknown,
                (None, Some(own)) => (*policy.origin.key.namespace == *own).into(),
                (Some(labels), _) => labels.holds(&|key| end.view.of_namespace(key)),
            };
            let by_pod = by_namespace.and(pods.holds(&|key| end.view.of_pod(key)));
            // Whether a pod in the network of its node is its labels or the node: undefined (2.3).
            match end.host_network {
                true => by_pod.and(Truth::Unknown),
                false => by_pod,
            }
        }
        // Meant for addresses outside the cluster; whether it is for pods, too, is up to the CNI.
        KubePeer::Block { block, except } => {
            let inside = |ip: &IpAddr| block.contains(ip) && !except.iter().any(|e| e.contains(ip));
            match end.addresses {
                [] => Truth::Unknown,
                addresses => Truth::from(addresses.iter().any(inside)).and(Truth::Unknown),
            }
        }
    }
}

fn unknown_word(policy: &KubeNetworkPolicy, own: &End<'_>) -> &'static str {
    match (&policy.broken, own.host_network) {
        (Some(_), _) => "what a policy says that can not be read",
        (None, true) => "whether the policy holds in the network of the node",
        (None, false) => "whether the policy selects the pod",
    }
}

/// What was found on the way through the policies.
#[derive(Default)]
struct Speaking {
    isolating: Vec<Origin>,
    doubtful: Vec<Origin>,
    unknown: Option<&'static str>,
}

impl Speaking {
    fn not_known(&mut self, policy: &Origin, what: &'static str) {
        if !self.doubtful.contains(policy) {
            self.doubtful.push(policy.clone());
        }
        self.unknown.get_or_insert(what);
    }

    fn passage(self) -> Passage {
        let (passes, policies) = match (&self.unknown, self.isolating.is_empty()) {
            (Some(_), _) => (Truth::Unknown, self.doubtful),
            (None, true) => (Truth::Yes, Vec::new()),
            (None, false) => (Truth::No, self.isolating),
        };
        Passage {
            passes,
            policies,
            rule: None,
            unknown: self.unknown,
        }
    }
}
