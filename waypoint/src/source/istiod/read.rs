//! From a message of istiod's to what is kept of it. What can not be understood is refused whole, for half of a
//! workload may be another one; what follows from a workload is `cairn_config_schema::resolve`'s business.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::discovered::{DiscoveredWorkload, TargetPorts, Tunnel};
use cairn_config_schema::snapshot::{Locality, WorkloadType};
use prost::Message;

use super::messages::{ADDRESS_TYPE, Address, AddressKind, Any, PortList, Workload};
use crate::guarded::forbidden;
use crate::limits::{XDS_NAME_BYTES_MAX, XDS_RESOURCE_BYTES_MAX};

/// What is kept of a resource.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    Workload(Arc<DiscoveredWorkload>),
    /// Of a service only that it is there: what holds for it is said by its Service.
    Service,
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
        Some(AddressKind::Service(_)) => Ok(Told::Service),
        None => Err("it is neither a workload nor a service".to_owned()),
    }
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
    Ok(DiscoveredWorkload {
        name: told.name.into(),
        namespace: texts.share(told.namespace),
        cluster: texts.share(told.cluster_id),
        network: texts.share(told.network),
        addresses: addresses?,
        tunnel,
        trust_domain: texts.share(told.trust_domain),
        service_account: texts.share(told.service_account),
        has_gateway: told.network_gateway.is_some(),
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
mod tests {
    use super::*;
    use crate::source::istiod::messages::{Number, Port, Service};

    const UID: &str = "west//Pod/shop/web-1";

    fn workload() -> Workload {
        let ports = PortList {
            ports: vec![Port {
                service_port: 80,
                target_port: 8080,
            }],
        };
        Workload {
            uid: UID.into(),
            name: "web-1".into(),
            namespace: "shop".into(),
            cluster_id: "west".into(),
            addresses: vec![vec![10, 2, 0, 1]],
            tunnel_protocol: 1,
            services: [("shop/web.shop.svc.cluster.local".to_owned(), ports)].into(),
            ..Workload::default()
        }
    }

    fn told(kind: AddressKind) -> Result<Told, String> {
        let any = Any {
            type_url: ADDRESS_TYPE.into(),
            value: Address { kind: Some(kind) }.encode_to_vec(),
        };
        resource(UID, Some(&any), false, &mut Texts::default())
    }

    fn changed(change: impl FnOnce(&mut Workload)) -> Result<Told, String> {
        let mut workload = workload();
        change(&mut workload);
        told(AddressKind::Workload(Box::new(workload)))
    }

    /// specs/istio-waypoint.md 6.2; what is left out has its default.
    #[test]
    fn a_workload_is_read() {
        let Ok(Told::Workload(read)) = changed(|_| ()) else {
            panic!("a workload");
        };
        assert_eq!(read.tunnel, Tunnel::Hbone);
        assert!(read.is_healthy && !read.host_network);
        assert_eq!(read.capacity, 1);
        assert_eq!(read.addresses, ["10.2.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(&*read.services[0].0, "shop/web.shop.svc.cluster.local");
        assert_eq!(*read.services[0].1, [(80, 8080)]);
        let Ok(Told::Workload(read)) = changed(|w| {
            w.capacity = Some(Number { value: 7 });
            w.workload_type = 9;
        }) else {
            panic!("a workload");
        };
        assert_eq!((read.capacity, read.workload_type), (7, None));
        // Every pod with a sidecar.
        let Ok(Told::Workload(read)) = changed(|w| w.tunnel_protocol = 2) else {
            panic!("a workload");
        };
        assert_eq!(read.tunnel, Tunnel::LegacyMtls);
    }

    /// A mapped address is the IPv4 address of whoever has that.
    #[test]
    fn an_address_has_one_form() {
        let mapped = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 2, 0, 1];
        let Ok(Told::Workload(read)) = changed(|w| w.addresses = vec![mapped]) else {
            panic!("a workload");
        };
        assert_eq!(read.addresses, ["10.2.0.1".parse::<IpAddr>().unwrap()]);
    }

    /// A guess could send in plain text, or to the wrong one.
    #[test]
    fn what_is_not_understood_is_refused() {
        let refused = |result: Result<Told, String>| result.unwrap_err();
        let cases = [
            (
                changed(|w| w.tunnel_protocol = 7),
                "tunnel_protocol 7 is not known here",
            ),
            (changed(|w| w.status = 2), "status 2 is not known here"),
            (
                changed(|w| w.network_mode = -1),
                "network_mode -1 is not known here",
            ),
            (
                changed(|w| w.uid = "other".into()),
                "its uid is not its name",
            ),
            (
                changed(|w| w.addresses = vec![vec![1, 2]]),
                "an address of 2 bytes is none",
            ),
            (
                changed(|w| w.addresses = vec![vec![127, 0, 0, 1]]),
                "127.0.0.1 is a loopback address, and no workload's",
            ),
            (
                changed(|w| w.addresses = vec![vec![169, 254, 169, 254]]),
                "169.254.169.254 is a metadata address, and no workload's",
            ),
            (
                told(AddressKind::Service(Service::default())),
                "the service has no hostname",
            ),
        ];
        for (result, reason) in cases {
            assert_eq!(refused(result), reason);
        }
        let beyond = changed(|w| {
            for list in w.services.values_mut() {
                list.ports[0].target_port = 70_000;
            }
        });
        assert!(refused(beyond).ends_with("is beyond 65535"));
        let read = |any: Option<&Any>| resource(UID, any, false, &mut Texts::default());
        assert_eq!(refused(read(None)), "it is empty");
        let mut any = Any {
            type_url: "other".into(),
            value: Vec::new(),
        };
        assert_eq!(refused(read(Some(&any))), "it is of another type");
        any.type_url = ADDRESS_TYPE.into();
        assert_eq!(
            refused(read(Some(&any))),
            "it is neither a workload nor a service"
        );
        any.value = vec![0xff];
        assert!(read(Some(&any)).is_err(), "garbage");
    }

    #[test]
    fn texts_that_nobody_holds_are_forgotten() {
        let mut texts = Texts::default();
        let held = texts.share("held".into());
        for n in 0..10 {
            texts.share(n.to_string());
        }
        texts.sweep();
        assert_eq!(texts.all.len(), 1);
        assert!(Arc::ptr_eq(&held, &texts.share("held".into())));
    }
}
