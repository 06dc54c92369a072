//! What is read of each message, and what is refused.

use super::*;
use crate::source::istiod::messages::{NamespacedHostname, NetworkAddress, Number, Port};

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

/// The gateway of a network has an address in it, or a name; its port is the usual one unless it is told.
#[test]
fn a_gateway_is_read() {
    let at = |destination, port| {
        changed(|w| {
            w.network_gateway = Some(GatewayAddress {
                destination,
                hbone_mtls_port: port,
            });
        })
    };
    let gateway = |told: Result<Told, String>| match told {
        Ok(Told::Workload(read)) => read.gateway.clone().expect("a gateway"),
        other => panic!("{other:?}"),
    };
    let address = |bytes: Vec<u8>| {
        Some(Destination::Address(NetworkAddress {
            network: "net-2".into(),
            address: bytes,
        }))
    };
    let read = gateway(at(address(vec![192, 0, 2, 1]), 0));
    let expected = GatewayDestination::Address {
        network: "net-2".into(),
        ip: "192.0.2.1".parse().unwrap(),
    };
    assert_eq!((read.destination, read.port), (expected, 15008));
    let name = Some(Destination::Hostname(NamespacedHostname {
        namespace: "istio-system".into(),
        hostname: "gw.example".into(),
    }));
    let read = gateway(at(name, 15009));
    let expected = GatewayDestination::Host("gw.example".into());
    assert_eq!((read.destination, read.port), (expected, 15009));
    assert_eq!(
        gateway(at(None, 0)).destination,
        GatewayDestination::Nowhere
    );
    let refused = at(address(vec![127, 0, 0, 1]), 0).unwrap_err();
    assert!(
        refused.contains("its gateway: 127.0.0.1 is a loopback"),
        "{refused}"
    );
    let refused = at(address(vec![1]), 0).unwrap_err();
    assert!(
        refused.contains("an address of 1 bytes is none"),
        "{refused}"
    );
    assert!(at(None, 70_000).unwrap_err().contains("beyond 65535"));
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
