//! The whole way of a request (specs/policies.md 2.4): what the CNI and ztunnel, who enforce it and not
//! this waypoint, make of it before and after. Asks `cairn-authz`, which knows what they would say.

use std::net::{IpAddr, SocketAddr};

use cairn_authz::cni::{Connection, Direction, End, Passage};
use cairn_authz::waypoint;
use cairn_authz::ztunnel::{self, Arrival, Arrived};
use cairn_config_schema::origin::{Kind, Origin};
use cairn_config_schema::snapshot::{LabelView, Snapshot, Transport, Truth, Workload};

use super::report::{By, Link, LinkOutcome, Report};

/// Where ztunnel and waypoints take tunnels (specs/istio-waypoint.md 1.6).
const HBONE: u16 = 15008;

/// Every link of the chain in order, as far as the request gets here.
pub(super) fn of(snapshot: &Snapshot, report: &Report) -> Vec<Link> {
    let way = Way::of(snapshot, report);
    let mut links = vec![
        way.egress_of_client(),
        Link {
            outcome: LinkOutcome::Passes,
            reason: "opens the tunnel to the waypoint; AuthorizationPolicies bind where a connection arrives, so that none is asked here".to_owned(),
            ..Link::new("client-ztunnel", By::Ztunnel, "the client's side".to_owned())
        },
        way.ingress_of_waypoint(),
        here(report),
    ];
    let endpoints = report.backends.iter().flat_map(|b| &b.endpoints);
    for endpoint in endpoints {
        let port = match endpoint.hbone {
            Some(_) => HBONE,
            None => endpoint.address.port(),
        };
        let is_gateway = endpoint.behind.is_some();
        let port = if is_gateway {
            endpoint.address.port()
        } else {
            port
        };
        let ztunnel = || way.ztunnel_of_destination(endpoint.address);
        let of_endpoint = [
            Some(way.egress_of_waypoint(endpoint.address.ip(), port)),
            Some(match is_gateway {
                true => way.behind_gateway(endpoint.address.ip(), port),
                false => way.ingress_of_destination(endpoint.address.ip(), port),
            }),
            (endpoint.hbone.is_some() && !is_gateway).then(ztunnel),
        ];
        for link in of_endpoint.into_iter().flatten() {
            add(&mut links, link);
        }
    }
    in_order(&mut links);
    links
}

/// Endpoints of which the same is to be said are one link; the first is named.
fn add(links: &mut Vec<Link>, link: Link) {
    let same = links.iter_mut().find(|other| {
        other.link == link.link
            && other.outcome == link.outcome
            && other.policies == link.policies
            && other.rule == link.rule
    });
    match same {
        Some(same) => same.more += 1,
        None => links.push(link),
    }
}

/// Link by link, whatever the endpoints.
fn in_order(links: &mut [Link]) {
    const ORDER: [&str; 7] = [
        "client-egress",
        "client-ztunnel",
        "waypoint-ingress",
        "waypoint",
        "waypoint-egress",
        "destination-ingress",
        "destination-ztunnel",
    ];
    links.sort_by_key(|link| ORDER.iter().position(|name| *name == link.link));
}

/// What this waypoint does, which the rest of the report has in full.
fn here(report: &Report) -> Link {
    let refused = report.refused.as_ref().map(|r| r.reason.clone());
    let answered = report.answer.as_ref().map(|a| match &a.reason {
        Some(reason) => format!("answers {}: {reason}", a.status),
        None => format!("answers {}", a.status),
    });
    let verdict = report.verdict.as_ref();
    let denied = verdict.is_some_and(|v| !v.allowed);
    let outcome = match refused.is_some() || denied || !report.passes {
        true => LinkOutcome::Denied,
        false => LinkOutcome::Passes,
    };
    let reason = refused
        .or_else(|| verdict.map(|v| v.reason.clone()))
        .or(answered);
    Link {
        outcome,
        policies: verdict.and_then(|v| v.policy.clone()).into_iter().collect(),
        rule: verdict.and_then(|v| v.rule).map(|rule| rule.to_string()),
        reason: reason.unwrap_or_default(),
        ..Link::new("waypoint", By::Waypoint, "this waypoint".to_owned())
    }
}

/// Both ends and the waypoint between them.
struct Way<'a> {
    snapshot: &'a Snapshot,
    client: End<'a>,
    client_name: String,
    waypoint: End<'a>,
    waypoint_name: String,
    waypoint_address: Option<IpAddr>,
}

impl<'a> Way<'a> {
    fn of(snapshot: &'a Snapshot, report: &'a Report) -> Self {
        let client = &report.client;
        let pod = snapshot.workloads.get(&client.ip.to_canonical());
        let pods = waypoint::pods(snapshot);
        let own = pods.first();
        let gateway = snapshot.waypoint.as_ref().map(|w| &w.origin.key);
        Self {
            client: match pod {
                Some(pod) => End::of(pod),
                None => in_namespace(client.identity.namespace()),
            },
            client_name: match pod {
                Some(pod) => format!("Pod/{}", pod.key),
                None => client.identity.to_string(),
            },
            waypoint: match own {
                Some(pod) => End::of(pod),
                None => in_namespace(gateway.map(|key| &*key.namespace)),
            },
            waypoint_name: match own {
                Some(pod) => format!("the waypoint, Pod/{}", pod.key),
                None => "the waypoint".to_owned(),
            },
            waypoint_address: own.and_then(|pod| pod.addresses.first().copied()),
            snapshot,
        }
    }

    fn egress_of_client(&self) -> Link {
        let what = format!("egress of {} to the waypoint", self.client_name);
        let link = Link::new("client-egress", By::Cni, what);
        let to = (&self.waypoint, HBONE);
        self.by_cni(link, (&self.client, to), Direction::Egress)
    }

    fn ingress_of_waypoint(&self) -> Link {
        let what = format!("ingress of {}, port {HBONE}", self.waypoint_name);
        let link = Link::new("waypoint-ingress", By::Cni, what);
        let to = (&self.waypoint, HBONE);
        self.by_cni(link, (&self.client, to), Direction::Ingress)
    }

    fn egress_of_waypoint(&self, address: IpAddr, port: u16) -> Link {
        let (end, name) = self.destination(&address);
        let what = format!("egress of {} to {name}, port {port}", self.waypoint_name);
        let link = Link::new("waypoint-egress", By::Cni, what);
        self.by_cni(link, (&self.waypoint, (&end, port)), Direction::Egress)
    }

    fn ingress_of_destination(&self, address: IpAddr, port: u16) -> Link {
        let (end, name) = self.destination(&address);
        let what = format!("ingress of {name}, port {port}, from the waypoint");
        let link = Link::new("destination-ingress", By::Cni, what);
        if self.is_elsewhere(&address) {
            return in_another_cluster(link);
        }
        self.by_cni(link, (&self.waypoint, (&end, port)), Direction::Ingress)
    }

    /// What is enforced in another network nobody here knows.
    fn behind_gateway(&self, address: IpAddr, port: u16) -> Link {
        let what = format!("behind the gateway {address}, port {port}");
        in_another_cluster(Link::new("destination-ingress", By::Cni, what))
    }

    fn destination(&self, address: &IpAddr) -> (End<'a>, String) {
        match self.workload(address) {
            Some(pod) => (End::of(pod), format!("Pod/{}", pod.key)),
            None => (End::default(), address.to_string()),
        }
    }

    fn workload(&self, address: &IpAddr) -> Option<&'a Workload> {
        self.snapshot.workloads.get(address).map(AsRef::as_ref)
    }

    /// Whether only istiod tells of the workload at an address.
    fn is_elsewhere(&self, address: &IpAddr) -> bool {
        let workload = self.workload(address);
        workload.is_some_and(|workload| workload.labels.is_none())
    }

    fn by_cni(
        &self,
        link: Link,
        (from, (to, port)): (&End<'_>, (&End<'_>, u16)),
        direction: Direction,
    ) -> Link {
        let connection = Connection {
            from: *from,
            to: *to,
            port,
            transport: Transport::Tcp,
        };
        let policies = self.snapshot.kube_network.iter().map(AsRef::as_ref);
        let of_kube = connection.passage(policies, direction);
        let of_network = connection.passage_of_network(&self.snapshot.network.all, direction);
        let Passage {
            passes,
            policies,
            rule,
            unknown,
        } = together(of_kube, of_network);
        let reason = match (passes, policies.is_empty(), &rule) {
            (Truth::Yes, true, _) => "no NetworkPolicy speaks of it".to_owned(),
            (Truth::Yes, false, _) => "a rule lets it through".to_owned(),
            (Truth::No, _, Some(_)) => "a rule denies it".to_owned(),
            (Truth::No, _, None) => {
                "NetworkPolicies select it, and no rule lets it through".to_owned()
            }
            (Truth::Unknown, _, _) => {
                format!(
                    "it is not known: {}",
                    unknown.unwrap_or("what it depends on")
                )
            }
        };
        Link {
            outcome: passes.into(),
            policies,
            rule: rule.map(|rule| rule.to_string()),
            reason,
            ..link
        }
    }

    /// AuthorizationPolicies by selector or for the namespace: ztunnel enforces them at the pod, where
    /// the client is the waypoint.
    fn ztunnel_of_destination(&self, address: SocketAddr) -> Link {
        let (_, name) = self.destination(&address.ip());
        let link = Link::new("destination-ztunnel", By::Ztunnel, name);
        if self.is_elsewhere(&address.ip()) {
            return in_another_cluster(link);
        }
        let identity = waypoint::identity(self.snapshot);
        let (Some(pod), Some(identity)) = (self.workload(&address.ip()), identity) else {
            return Link {
                outcome: LinkOutcome::Unknown,
                reason: "the pod is not in the configuration".to_owned(),
                ..link
            };
        };
        let arrival = Arrival {
            peer: &identity,
            source: self.waypoint_address,
            destination: address,
        };
        let policies: Vec<_> = ztunnel::of_pod(&self.snapshot.ztunnel, pod).collect();
        if policies.is_empty() {
            return Link {
                outcome: LinkOutcome::Passes,
                reason: "no AuthorizationPolicy by selector or for the namespace".to_owned(),
                ..link
            };
        }
        let Arrived {
            passes,
            policy,
            rule,
        } = ztunnel::judge(&policies, &arrival);
        let reason = match (passes, &policy) {
            (Truth::Unknown, _) => {
                "it is not known: the address of the waypoint, or what a policy says".to_owned()
            }
            (Truth::No, None) => format!("no rule allows {identity}, whom it sees as the client"),
            (Truth::No, Some(_)) => format!("a rule denies {identity}, whom it sees as the client"),
            (Truth::Yes, None) => format!("nothing denies {identity}, whom it sees as the client"),
            (Truth::Yes, Some(_)) => format!("it sees {identity} as the client"),
        };
        Link {
            outcome: passes.into(),
            policies: match (policy, passes) {
                (Some(policy), _) => vec![policy],
                (None, Truth::Yes) => Vec::new(),
                (None, _) => policies.iter().map(|p| p.policy.origin.clone()).collect(),
            },
            rule: rule.map(|rule| rule.to_string()),
            reason,
            ..link
        }
    }
}

/// Policies of this cluster do not hold there.
fn in_another_cluster(link: Link) -> Link {
    Link {
        outcome: LinkOutcome::Unknown,
        reason: "it is in another cluster, whose policies are not known here".to_owned(),
        ..link
    }
}

/// What NetworkPolicies of Kubernetes and those of the CNI's own kinds come to. Cilium takes both for one
/// list (specs/policies.md 2.1.3); Calico puts Kubernetes' into a tier, and which of both is asked first
/// depends on orders that are not looked at here.
fn together(of_kube: Passage, of_network: Passage) -> Passage {
    let speaks = |passage: &Passage| !passage.policies.is_empty();
    if !speaks(&of_network) {
        return of_kube;
    }
    if !speaks(&of_kube) || of_kube.passes == of_network.passes {
        return of_network;
    }
    let is_cilium = |origin: &Origin| {
        matches!(
            origin.kind,
            Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy
        )
    };
    let of_cilium = of_network.policies.iter().all(is_cilium);
    let is_denied_by_rule = of_network.passes == Truth::No && of_network.rule.is_some();
    match of_network.passes {
        Truth::Unknown => of_network,
        _ if !of_cilium => Passage {
            passes: Truth::Unknown,
            policies: [of_kube.policies, of_network.policies].concat(),
            rule: None,
            unknown: Some("which of both kinds of policies Calico asks first"),
        },
        Truth::Yes => of_network,
        Truth::No if is_denied_by_rule => of_network,
        Truth::No => of_kube,
    }
}

/// An end of which nothing but the namespace is known.
fn in_namespace(namespace: Option<&str>) -> End<'_> {
    End {
        view: LabelView {
            namespace,
            ..LabelView::default()
        },
        ..End::default()
    }
}
