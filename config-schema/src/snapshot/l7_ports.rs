//! Which service ports need a proxy that reads what is said: what the kernel redirect steers, and
//! nothing else. A pure function of the snapshot; how ports are steered is not decided here.

use std::net::SocketAddr;

use super::{AppProtocol, Binding, RedirectFailure, Service, ServicePort, Snapshot};
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
    pub fn l7_ports(&self) -> Vec<L7Port> {
        let Some(waypoint) = &self.waypoint else {
            return Vec::new();
        };
        let blocked = waypoint.blocked.is_some();
        let mut ports: Vec<L7Port> = self
            .services
            .values()
            .filter(|service| service.binding == Binding::Served)
            .flat_map(|service| {
                let needed = service.ports.iter();
                let needed = needed.filter(move |port| blocked || needs_proxy(service, port));
                needed.flat_map(move |port| dialled_as(service, port))
            })
            .collect();
        ports.sort();
        ports.dedup_by(|a, b| a.address == b.address);
        ports
    }
}

fn dialled_as<'s>(service: &'s Service, port: &ServicePort) -> impl Iterator<Item = L7Port> + 's {
    let number = port.number;
    service.addresses.iter().map(move |ip| L7Port {
        address: SocketAddr::new(*ip, number),
        service: service.key.clone(),
        fails_open: service.redirect_failure == RedirectFailure::Open,
    })
}

/// Any policy counts, not only one with fields of HTTP: what targets a waypoint or a Service is
/// enforced by nobody but the waypoint (specs/istio-waypoint.md 4.8), on TCP ports too.
fn needs_proxy(service: &Service, port: &ServicePort) -> bool {
    let speaks_http = match port.protocol {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => true,
        // Undeclared is no wish for a proxy: it would cost a server that speaks first a second.
        AppProtocol::Tcp | AppProtocol::Sniff => false,
    };
    speaks_http || !port.routes.is_empty() || !service.policies.is_empty()
}
