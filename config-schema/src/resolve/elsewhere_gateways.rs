//! Who the gateways of other networks are, and what is told of what is behind them. Endpoints are made of that in
//! `elsewhere_endpoints`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::elsewhere::identity;
use super::elsewhere_left_out::LeftOut;
use crate::discovered::{
    Discovered, DiscoveredWorkload, GatewayDestination, Tunnel, is_network_gateway,
};
use crate::identity::Identity;
use crate::snapshot::Mesh;

/// Where gateways take tunnels unless they say another port (specs/istio-waypoint.md 1.6).
const HBONE_PORT: u16 = 15008;

/// Whether a workload is in another network, and so behind a gateway. What istiod makes of all endpoints of a service in a
/// network has no address, and says the cluster of the gateway's object: this one, if the Gateway is of class `istio-remote`
/// here.
pub(super) fn is_far(told: &Discovered, workload: &DiscoveredWorkload) -> bool {
    let stands_for_many = workload.addresses.is_empty() && workload.gateway.is_some();
    workload.network != told.network && (stands_for_many || !told.is_own(workload))
}

/// Who is at the addresses of gateways.
pub(super) struct Gateways<'a> {
    told: &'a Discovered,
    mesh: &'a Mesh,
    /// By network, address and port for tunnels: who makes a Gateway with another port of that address takes nothing from
    /// this one. `None`: accounts differ, or the mesh does not accept it.
    by_address: FxHashMap<(&'a str, SocketAddr), Option<Identity>>,
}

/// Who a gateway is. Istiod tells no trust domain of those that it makes of Gateways: they are of this mesh.
fn identity_of_gateway(mesh: &Mesh, told: &DiscoveredWorkload) -> Option<Identity> {
    let told = DiscoveredWorkload {
        trust_domain: match &*told.trust_domain {
            "" => mesh.trust_domain.clone(),
            _ => told.trust_domain.clone(),
        },
        ..told.clone()
    };
    identity(mesh, &told).ok()
}

/// The port at the end of a gateway's uid. Without one, or if it is 0, it is the usual one.
fn port_of(uid: &str) -> u16 {
    let last = uid.strip_prefix("NetworkGateway/");
    let last = last.and_then(|rest| rest.rsplit('/').next());
    let port = last.and_then(|port| port.parse().ok());
    port.filter(|port| *port != 0).unwrap_or(HBONE_PORT)
}

/// A workload in another network, or all those of a service there.
pub(super) struct Far<'a> {
    pub told: &'a DiscoveredWorkload,
    /// The gateway, with the port of its tunnels.
    pub gateway: SocketAddr,
    /// Who that is.
    pub identity: Identity,
}

impl<'a> Gateways<'a> {
    pub fn of(told: &'a Discovered, mesh: &'a Mesh) -> Self {
        let mut by_address: FxHashMap<(&'a str, SocketAddr), Option<Identity>> =
            FxHashMap::default();
        let all = told.workloads.iter();
        for (uid, gateway) in all.filter(|(uid, w)| is_network_gateway(uid, w)) {
            let who = identity_of_gateway(mesh, gateway);
            for address in &gateway.addresses {
                let at = SocketAddr::new(*address, port_of(uid));
                let there = by_address.entry((&*gateway.network, at));
                let there = there.or_insert_with(|| who.clone());
                if *there != who {
                    *there = None;
                }
            }
        }
        Self {
            told,
            mesh,
            by_address,
        }
    }

    /// The gateway that the uid of what stands for all endpoints of a service names, behind `SplitHorizonWorkload`: by
    /// the gateway's own uid, in the form that says no port.
    fn named(&self, uid: &str, network: &str, ip: IpAddr) -> Option<&DiscoveredWorkload> {
        let (_, rest) = uid.split_once("/SplitHorizonWorkload/")?;
        // Namespace, name and address; behind them namespace and host of the service.
        let (end, _) = rest.match_indices('/').nth(2)?;
        let uid = rest.get(..end)?;
        let gateway = self.told.workloads.get(uid)?;
        let is_there = *gateway.network == *network && gateway.addresses.contains(&ip);
        (is_there && is_network_gateway(uid, gateway)).then_some(&**gateway)
    }

    /// The way to a workload of another network, or why there is none, with a detail.
    pub fn reach<'w>(
        &self,
        uid: &str,
        workload: &'w DiscoveredWorkload,
    ) -> Result<Far<'w>, (LeftOut, String)> {
        let network = match &*workload.network {
            "" => "the default network",
            name => name,
        };
        if workload.tunnel != Tunnel::Hbone {
            return Err((LeftOut::Untunnelled, format!(" ({network})")));
        }
        let gateway = workload.gateway.as_ref();
        let (ip, port, of) = match gateway.map(|g| (&g.destination, g.port)) {
            Some((GatewayDestination::Address { network, ip }, port)) => (*ip, port, network),
            Some((GatewayDestination::Host(name), _)) => {
                return Err((LeftOut::NamedGateway, format!(" ({network}, {name})")));
            }
            Some((GatewayDestination::Nowhere, _)) | None => {
                return Err((LeftOut::NoGateway, format!(" ({network})")));
            }
        };
        let gateway = SocketAddr::new(ip, port);
        let identity = match self.named(uid, of, ip) {
            Some(named) => identity_of_gateway(self.mesh, named),
            None => self.by_address.get(&(&**of, gateway)).cloned().flatten(),
        };
        match identity {
            Some(identity) => Ok(Far {
                told: workload,
                gateway,
                identity,
            }),
            None => Err((LeftOut::UnknownGateway, format!(" ({network}, {gateway})"))),
        }
    }

    /// Who may answer for a service behind a gateway, of those whom the mesh accepts: whom istiod names for the service,
    /// and the account of the workload if it has one of its own. In order, each once.
    pub fn expected(&self, service: &str, workload: &DiscoveredWorkload) -> Vec<Identity> {
        let named = self.told.identities.get(service);
        let named = named.map_or(&[][..], |named| named).iter();
        let accepted = |who: &&Identity| self.mesh.accepts_trust_domain(who.trust_domain());
        let own = match &*workload.service_account {
            "" => None,
            _ => identity(self.mesh, workload).ok(),
        };
        let mut all: Vec<Identity> = named.filter(accepted).cloned().chain(own).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The network of this waypoint.
    pub fn own_network(&self) -> Arc<str> {
        self.told.network.clone()
    }
}
