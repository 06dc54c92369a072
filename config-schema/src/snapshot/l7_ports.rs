//! Which service ports need a proxy that reads what is said: what the kernel redirect steers, and
//! nothing else. A pure function of the snapshot; how ports are steered is not decided here.

use std::net::SocketAddr;

use super::{
    AppProtocol, Binding, ClusterKey, HttpRules, LimitTarget, NetworkPolicy, RedirectFailure,
    Service, ServicePort, Snapshot,
};
use crate::origin::ObjectKey;

/// A service port as clients dial it, with something for a proxy to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct L7Port {
    /// Virtual IP and service port.
    pub address: SocketAddr,
    /// The service.
    pub service: ObjectKey,
    /// Whether connections go past the proxy while it does not listen.
    pub fails_open: bool,
}

impl Snapshot {
    /// The ports of this waypoint's services that a proxy has something to do for, by address. A port
    /// that is not among them has no route, no policy and no declared HTTP: L4, left to the kernel.
    ///
    /// `None`: nobody knows, for there are Gateways and none could be chosen, or something can not be
    /// read. What is steered must stay so: a second Gateway is no wish to pass policy by.
    pub fn l7_ports(&self) -> Option<Vec<L7Port>> {
        let Some(waypoint) = &self.waypoint else {
            return self.without_gateways.then(Vec::new);
        };
        let blocked = waypoint.blocked.is_some();
        let mut ports: Vec<L7Port> = self
            .services
            .values()
            .filter(|service| service.binding == Binding::Served)
            .flat_map(|service| {
                let needed = service.ports.iter();
                let needed = needed.filter(move |port| blocked || self.needs_proxy(service, port));
                needed.flat_map(move |port| dialled_as(service, port))
            })
            .collect();
        ports.sort();
        ports.dedup_by(|a, b| a.address == b.address);
        Some(ports)
    }

    /// All ports of all services that name a Gateway, or can not be told not to: what a proxy might
    /// have to do something for while nobody knows which Gateway this is.
    pub fn ports_of_any_gateway(&self) -> Vec<L7Port> {
        let names_one = |service: &&std::sync::Arc<Service>| service.binding != Binding::Unbound;
        let services = self.services.values().filter(names_one);
        let ports = services.flat_map(|service| {
            let ports = service.ports.iter();
            ports.flat_map(move |port| dialled_as(service, port))
        });
        let mut ports: Vec<L7Port> = ports.collect();
        ports.sort();
        ports.dedup_by(|a, b| a.address == b.address);
        ports
    }

    /// Any AuthorizationPolicy counts, not only one with fields of HTTP: what targets a waypoint or a
    /// Service is enforced by nobody but the waypoint (specs/istio-waypoint.md 4.8), on TCP ports too.
    /// Of network policies only those with something at L7 do: the CNI enforces the rest.
    fn needs_proxy(&self, service: &Service, port: &ServicePort) -> bool {
        let speaks_http = match port.protocol {
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => true,
            // Undeclared is no wish for a proxy: it would cost a server that speaks first a second.
            AppProtocol::Tcp | AppProtocol::Sniff => false,
        };
        let may_be_http = port.protocol != AppProtocol::Tcp;
        let asks_for_tokens = !self.authentications.of_service(&service.key).is_empty();
        speaks_http
            || !port.routes.is_empty()
            || !port.stream_routes.is_empty()
            || !service.policies.is_empty()
            || (may_be_http && asks_for_tokens)
            || (may_be_http && self.is_limited(service))
            || self.has_network_policy_at_l7(service, port)
    }

    /// Routes that a TrafficPolicy is for count by themselves.
    fn is_limited(&self, service: &Service) -> bool {
        let mut targets = self.limits.iter().flat_map(|limits| &limits.targets);
        targets.any(|target| match target {
            LimitTarget::Waypoint => true,
            LimitTarget::Service(key) => *key == service.key,
            LimitTarget::Route(_) => false,
        })
    }

    fn has_network_policy_at_l7(&self, service: &Service, port: &ServicePort) -> bool {
        let key = ClusterKey::new(service.key.clone(), port.number);
        let subjects = self.network.clusters.get(&key);
        subjects.into_iter().flat_map(|s| s.iter()).any(|subject| {
            subject.unknown.is_some() || subject.policies.iter().any(|policy| is_at_l7(policy))
        })
    }
}

/// What can not be evaluated counts: only the proxy knows to deny for it.
fn is_at_l7(policy: &NetworkPolicy) -> bool {
    policy.broken.is_some()
        || policy.rules.iter().any(|rule| {
            rule.broken.is_some()
                || rule.authentication.is_some()
                || rule.http != HttpRules::NotAsked
        })
}

fn dialled_as<'s>(service: &'s Service, port: &ServicePort) -> impl Iterator<Item = L7Port> + 's {
    let number = port.number;
    service.addresses.iter().map(move |ip| L7Port {
        address: SocketAddr::new(*ip, number),
        service: service.key.clone(),
        fails_open: service.redirect_failure == RedirectFailure::Open,
    })
}
