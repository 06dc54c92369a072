//! From a message of istiod's to what is kept of it. What can not be understood is refused whole, for half of a
//! workload may be another one; what follows from a workload is `cairn_config_schema::resolve`'s business.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::discovered::{
    DiscoveredGateway, DiscoveredWorkload, GatewayDestination, TargetPorts, Tunnel,
};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Locality, WorkloadType};
use prost::Message;

use super::messages::{
    ADDRESS_TYPE, Address, AddressKind, Any, GatewayAddress, GatewayDestination as Destination,
    PortList, Service, Workload,
};
use crate::guarded::forbidden;
use crate::limits::{XDS_IDENTITIES_MAX, XDS_NAME_BYTES_MAX, XDS_RESOURCE_BYTES_MAX};

/// Where gateways take tunnels unless istiod says another port (specs/istio-waypoint.md 1.6).
const HBONE_PORT: u16 = 15008;

/// What is kept of a resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Workload(Arc<DiscoveredWorkload>),
    /// Of a service only that it is there: what holds for it is said by its Service.
    Service,
    /// And who may answer for it elsewhere: `namespace/hostname`, and identities.
    Answered(Arc<str>, Arc<[Identity]>),
}

/// Texts that many workloads share.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: HashSet<Arc<str>>,
    swept: usize,
}

impl Texts {
    fn share(&mut self, text: String) -> Arc<str> {
        if let Some(same) = self.all.get(text.as_str()) {
            return same.clone();
        }
        let new: Arc<str> = text.into();
        self.all.insert(new.clone());
        new
    }

    /// Forgets what nobody holds any more, once there is twice of what there was.
    pub fn sweep(&mut self) {
        if self.all.len() > 2 * self.swept {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.swept = self.all.len();
        }
    }
}

/// Reads a resource. `allow_local`: workloads may be on loopback.
pub(super) fn resource(
    name: &str,
    resource: Option<&Any>,
    allow_local: bool,
    texts: &mut Texts,
) -> Result<Told, String> {
    let any = resource.ok_or("it is empty")?;
    if name.is_empty() || name.len() > XDS_NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err(format!(
            "its name is empty, longer than {XDS_NAME_BYTES_MAX} bytes or has control characters"
        ));
    }
    if any.type_url != ADDRESS_TYPE {
        return Err("it is of another type".to_owned());
    }
    if any.value.len() > XDS_RESOURCE_BYTES_MAX {
        return Err(format!("it has more than {XDS_RESOURCE_BYTES_MAX} bytes"));
    }
    let address = Address::decode(any.value.as_slice()).map_err(|error| error.to_string())?;
    match address.kind {
        Some(AddressKind::Workload(workload)) if workload.uid != name => {
            Err("its uid is not its name".to_owned())
        }
        Some(AddressKind::Workload(workload)) => {
            let read = read(*workload, allow_local, texts)?;
            Ok(Told::Workload(Arc::new(read)))
        }
        Some(AddressKind::Service(service)) if service.hostname.is_empty() => {
            Err("the service has no hostname".to_owned())
        }
        Some(AddressKind::Service(service)) => answered(&service),
        None => Err("it is neither a workload nor a service".to_owned()),
    }
}

/// Who may answer for a service. What is no SPIFFE ID is nobody's whom a tunnel could end at.
fn answered(service: &Service) -> Result<Told, String> {
    let names = service.subject_alt_names.iter();
    let mut identities: Vec<Identity> = names.filter_map(|san| Identity::parse(san).ok()).collect();
    // istiod has them in any order.
    identities.sort_unstable();
    identities.dedup();
    match identities.len() {
        0 => Ok(Told::Service),
        1..=XDS_IDENTITIES_MAX => {
            let name = format!("{}/{}", service.namespace, service.hostname);
            Ok(Told::Answered(name.into(), identities.into()))
        }
        many => Err(format!(
            "{many} identities may answer for it, more than {XDS_IDENTITIES_MAX}"
        )),
    }
}

fn gateway(
    told: GatewayAddress,
    allow_local: bool,
    texts: &mut Texts,
) -> Result<DiscoveredGateway, String> {
    let destination = match told.destination {
        None => GatewayDestination::Nowhere,
        Some(Destination::Hostname(name)) => GatewayDestination::Host(texts.share(name.hostname)),
        Some(Destination::Address(at)) => GatewayDestination::Address {
            ip: ip_address(&at.address, allow_local).map_err(|e| format!("its gateway: {e}"))?,
            network: texts.share(at.network),
        },
    };
    let port = match told.hbone_mtls_port {
        0 => HBONE_PORT,
        port => u16::try_from(port).map_err(|_| "the port of its gateway is beyond 65535")?,
    };
    Ok(DiscoveredGateway { destination, port })
}

fn read(
    told: Workload,
    allow_local: bool,
    texts: &mut Texts,
) -> Result<DiscoveredWorkload, String> {
    let tunnels = [Tunnel::None, Tunnel::Hbone, Tunnel::LegacyMtls];
    let tunnel = one_of("tunnel_protocol", told.tunnel_protocol, tunnels)?;
    let is_healthy = one_of("status", told.status, [true, false])?;
    let host_network = one_of("network_mode", told.network_mode, [false, true])?;
    let addresses = told.addresses.iter();
    let addresses: Result<Vec<IpAddr>, String> = addresses
        .map(|bytes| ip_address(bytes, allow_local))
        .collect();
    let mut services = Vec::with_capacity(told.services.len());
    for (name, ports) in told.services {
        let ports = ports_of(&name, &ports)?;
        services.push((texts.share(name), ports));
    }
    services.sort_unstable();
    let place = told.locality.unwrap_or_default();
    let gateway = told.network_gateway;
    let gateway = gateway.map(|told| self::gateway(told, allow_local, texts));
    Ok(DiscoveredWorkload {
        name: told.name.into(),
        namespace: texts.share(told.namespace),
        cluster: texts.share(told.cluster_id),
        network: texts.share(told.network),
        addresses: addresses?,
        tunnel,
        trust_domain: texts.share(told.trust_domain),
        service_account: texts.share(told.service_account),
        gateway: gateway.transpose()?,
        wants_proxy_protocol: told.application_tunnel.is_some_and(|t| t.protocol != 0),
        node: texts.share(told.node),
        canonical_name: texts.share(told.canonical_name),
        canonical_revision: texts.share(told.canonical_revision),
        workload_name: texts.share(told.workload_name),
        workload_type: match told.workload_type {
            0 => Some(WorkloadType::Deployment),
            1 => Some(WorkloadType::CronJob),
            2 => Some(WorkloadType::Pod),
            3 => Some(WorkloadType::Job),
            _ => None,
        },
        services: services.into(),
        is_healthy,
        locality: Locality {
            region: texts.share(place.region),
            zone: texts.share(place.zone),
            subzone: texts.share(place.subzone),
        },
        host_network,
        capacity: told.capacity.map_or(1, |number| number.value),
    })
}

/// The meaning of an enumeration's number. One that is new may mean that nothing of the rest is as it seems.
fn one_of<T: Copy, const N: usize>(field: &str, value: i32, meanings: [T; N]) -> Result<T, String> {
    let meaning = usize::try_from(value).ok().and_then(|at| meanings.get(at));
    let unknown = || format!("{field} {value} is not known here");
    meaning.copied().ok_or_else(unknown)
}

fn ip_address(bytes: &[u8], allow_local: bool) -> Result<IpAddr, String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    let address = address.map_err(|_| format!("an address of {} bytes is none", bytes.len()))?;
    let address = address.to_canonical();
    match forbidden(address, allow_local) {
        Some(why) => Err(format!("{address} is {why}, and no workload's")),
        None => Ok(address),
    }
}

fn ports_of(service: &str, list: &PortList) -> Result<TargetPorts, String> {
    let number = |port: u32| u16::try_from(port).ok();
    let ports = list.ports.iter();
    let ports: Option<TargetPorts> = ports
        .map(|port| Some((number(port.service_port)?, number(port.target_port)?)))
        .collect();
    ports.ok_or_else(|| format!("a port of service {service} is beyond 65535"))
}

#[cfg(test)]
mod tests;
