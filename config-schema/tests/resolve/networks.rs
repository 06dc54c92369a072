//! Services in other networks, which are reached through the gateways there (docs/kube-source.md, specs/istio-waypoint.md
//! 2.6).

use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::discovered::{
    DiscoveredGateway, DiscoveredWorkload, GatewayDestination, Tunnel,
};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, Snapshot};

use super::elsewhere::{OWN, POD, WEB_HOST, endpoint, ip, messages, remote, told};
use super::elsewhere_labels::cilium;
use super::mesh::mesh_config;
use super::support::{Ask, key, load, shop};

/// Uid of the gateway, as istiod makes it of a Gateway.
const GATEWAY: &str = "NetworkGateway/net-2/192.0.2.1/15008";
/// Uid of what stands for all endpoints of a service in a network.
const WEB: &str =
    "net-2/SplitHorizonWorkload/istio-system/eastwest/192.0.2.1/shop/web.shop.svc.cluster.local";
/// What is sent to without them.
const NEAR: [&str; 1] = ["10.1.0.1:8000"];
const BOTH: [&str; 2] = ["10.1.0.1:8000", "192.0.2.1:15008"];

/// The gateway of `net-2`: `istio-system/eastwest` at 192.0.2.1. Istiod tells no more than this: neither a cluster, nor a
/// trust domain, nor a tunnel.
fn gateway() -> DiscoveredWorkload {
    DiscoveredWorkload {
        name: "eastwest".into(),
        namespace: "istio-system".into(),
        network: "net-2".into(),
        service_account: "eastwest".into(),
        addresses: vec![ip("192.0.2.1")],
        is_healthy: true,
        capacity: 1,
        ..DiscoveredWorkload::default()
    }
}

/// Three endpoints of `shop/web` behind it.
fn web() -> DiscoveredWorkload {
    DiscoveredWorkload {
        name: WEB.into(),
        network: "net-2".into(),
        addresses: Vec::new(),
        service_account: "".into(),
        capacity: 3,
        gateway: Some(DiscoveredGateway {
            destination: GatewayDestination::Address {
                network: "net-2".into(),
                ip: ip("192.0.2.1"),
            },
            port: 15008,
        }),
        services: [(WEB_HOST.into(), [(80, 8080), (8080, 0)].into())].into(),
        ..remote("192.0.2.1")
    }
}

fn identities(names: &[&str]) -> Arc<[Identity]> {
    let each = names.iter().map(|name| Identity::parse(name).unwrap());
    each.collect()
}

const OF_WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The shop with one pod of its own, these workloads, and who may answer for `shop/web`.
fn with_answering(
    more: &[&str],
    workloads: &[(&str, DiscoveredWorkload)],
    answering: &[&str],
) -> Snapshot {
    let mut told = told(workloads);
    told.network = "net-1".into();
    if !answering.is_empty() {
        told.identities = [(WEB_HOST.into(), identities(answering))].into();
    }
    let options = Options {
        discovered: Some(Arc::new(told)),
        ..Options::default()
    };
    let more = [&[POD], more].concat();
    resolve(&load(&shop(&more)), &options)
}

fn with(workloads: &[(&str, DiscoveredWorkload)]) -> Snapshot {
    with_answering(&[], workloads, &[OF_WEB])
}

#[test]
fn a_service_of_another_network_is_reached_through_its_gateway() {
    let snapshot = with(&[(GATEWAY, gateway()), (WEB, web())]);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    let found = endpoint(&snapshot, "192.0.2.1:15008");
    let at_gateway = found.hbone_identity().unwrap().uri();
    assert_eq!(
        at_gateway,
        "spiffe://cluster.local/ns/istio-system/sa/eastwest"
    );
    let behind = found.gateway.as_ref().unwrap();
    assert_eq!(&*behind.authority, "web.shop.svc.cluster.local:80");
    assert_eq!(behind.identities, identities(&[OF_WEB]));
    assert_eq!((&*behind.network, &*behind.own_network), ("net-2", "net-1"));
    assert_eq!(found.weight, 3, "as many as there are behind it");
    let workload = found.workload.as_ref().unwrap();
    assert_eq!(workload.key.to_string(), "shop/web@east");
    assert_eq!(workload.labels, None, "nobody tells them");
    assert!(workload.behind_gateway, "it stands for others");
    assert_eq!(workload.account(), None, "the identity is the gateway's");
    // The port of the workload is the business of the other side.
    assert_eq!(
        snapshot.endpoints("shop/web", 8080),
        ["10.1.0.1:8001", "192.0.2.1:15008"]
    );
    assert!(!snapshot.workloads.contains_key(&ip("192.0.2.1")));
    assert_eq!(messages(&snapshot, "istiod tells"), [""; 0]);
}

/// In the form that other versions of istiod have.
#[test]
fn a_gateway_is_known_by_namespace_name_and_address_too() {
    let uid = "istio-system/eastwest/192.0.2.1";
    let snapshot = with(&[(uid, gateway()), (WEB, web())]);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    for uid in [
        "other/eastwest/192.0.2.1",
        "istio-system//192.0.2.1",
        "istio-system/eastwest/192.0.2.2",
        "istio-system/eastwest/192.0.2.1/more",
    ] {
        let snapshot = with(&[(uid, gateway()), (WEB, web())]);
        assert_eq!(snapshot.endpoints("shop/web", 80), NEAR, "{uid}");
    }
}

/// Never in plain text, and never to whoever is there: what is not known of the way leaves the service out.
#[test]
fn without_all_of_the_way_nothing_is_sent() {
    let towards = |destination| DiscoveredWorkload {
        gateway: Some(DiscoveredGateway {
            destination,
            port: 15008,
        }),
        ..web()
    };
    let of_stranger = DiscoveredWorkload {
        trust_domain: "elsewhere.example".into(),
        ..gateway()
    };
    let other = DiscoveredWorkload {
        service_account: "other".into(),
        ..gateway()
    };
    let without_gateway = DiscoveredWorkload {
        gateway: None,
        ..web()
    };
    let plain = DiscoveredWorkload {
        tunnel: Tunnel::None,
        ..web()
    };
    let of_sidecars = DiscoveredWorkload {
        tunnel: Tunnel::LegacyMtls,
        ..web()
    };
    let named = towards(GatewayDestination::Host("gw.example".into()));
    let there = || (GATEWAY, gateway());
    let second = "istio-system/second/192.0.2.1";
    let of_other_port = DiscoveredWorkload {
        gateway: Some(DiscoveredGateway {
            port: 15009,
            ..web().gateway.unwrap()
        }),
        ..web()
    };
    for (workloads, words) in [
        (vec![(WEB, web())], "it is not known who they are"),
        (
            vec![(GATEWAY, of_stranger), (WEB, web())],
            "it is not known who they are",
        ),
        (
            vec![there(), (second, other), (WEB, web())],
            "it is not known who they are",
        ),
        (
            vec![there(), (WEB, of_other_port)],
            "it is not known who they are",
        ),
        (
            vec![there(), (WEB, without_gateway)],
            "no gateway leads there",
        ),
        (
            vec![there(), (WEB, towards(GatewayDestination::Nowhere))],
            "no gateway leads there",
        ),
        (vec![there(), (WEB, named)], "have names and no addresses"),
        (vec![there(), (WEB, plain)], "have no tunnel of their own"),
        (
            vec![there(), (WEB, of_sidecars)],
            "have no tunnel of their own",
        ),
    ] {
        let snapshot = with(&workloads);
        assert_eq!(snapshot.endpoints("shop/web", 80), NEAR, "{words}");
        let told = messages(&snapshot, words);
        assert_eq!(told.len(), 1, "{words}: {:?}", snapshot.diagnostics);
        assert!(told[0].starts_with("1 workload ") && told[0].contains(WEB));
    }
}

#[test]
fn who_may_answer_has_to_be_known() {
    let there = || (GATEWAY, gateway());
    for answering in [&[][..], &["spiffe://elsewhere.example/ns/shop/sa/web"]] {
        let snapshot = with_answering(&[], &[there(), (WEB, web())], answering);
        assert_eq!(snapshot.endpoints("shop/web", 80), NEAR);
        let finding = snapshot.finding(Code::NoEndpoints);
        assert!(
            finding.message.contains("nobody tells who may answer"),
            "{}",
            finding.message
        );
    }
}

#[test]
fn what_can_take_nothing_there_gets_nothing() {
    for change in [
        |w: &mut DiscoveredWorkload| w.is_healthy = false,
        |w: &mut DiscoveredWorkload| w.capacity = 0,
        |w: &mut DiscoveredWorkload| w.services = [].into(),
    ] {
        let mut web = web();
        change(&mut web);
        let snapshot = with(&[(GATEWAY, gateway()), (WEB, web)]);
        assert_eq!(snapshot.endpoints("shop/web", 80), NEAR);
    }
}

/// Whoever may write an entry into one namespace could else be the gateway of a network.
#[test]
fn an_entry_is_no_gateway() {
    let entry = DiscoveredWorkload {
        namespace: "tenant".into(),
        cluster: "east".into(),
        tunnel: Tunnel::Hbone,
        service_account: "tenant".into(),
        ..gateway()
    };
    let uid = "east/networking.istio.io/WorkloadEntry/tenant/mine";
    let snapshot = with(&[(uid, entry.clone()), (WEB, web())]);
    assert_eq!(snapshot.endpoints("shop/web", 80), NEAR);
    let snapshot = with(&[(GATEWAY, gateway()), (uid, entry), (WEB, web())]);
    assert_eq!(
        snapshot.endpoints("shop/web", 80),
        BOTH,
        "it takes nothing away"
    );
}

/// Whoever may make a Gateway of class `istio-remote` could else cut off a network, by its address and another port.
#[test]
fn a_gateway_at_another_port_of_the_address_is_another_one() {
    let other = DiscoveredWorkload {
        namespace: "tenant".into(),
        service_account: "tenant".into(),
        ..gateway()
    };
    let at_other_port = "NetworkGateway/net-2/192.0.2.1/15009";
    for uid in [GATEWAY, "NetworkGateway/net-2/192.0.2.1/0"] {
        let workloads = [
            (uid, gateway()),
            (at_other_port, other.clone()),
            (WEB, web()),
        ];
        let snapshot = with(&workloads);
        assert_eq!(snapshot.endpoints("shop/web", 80), BOTH, "{uid}");
        let at_gateway = endpoint(&snapshot, "192.0.2.1:15008").hbone_identity();
        assert_eq!(at_gateway.unwrap().namespace(), Some("istio-system"));
    }
}

/// With several clusters istiod tells no port of a gateway, but of what is behind it, by its uid, which gateway that is:
/// who makes another Gateway at its address, and a gateway at another port than the usual one, cut off nothing.
#[test]
fn what_names_its_gateway_is_reached_through_that_one() {
    let mine = DiscoveredWorkload {
        namespace: "tenant".into(),
        service_account: "tenant".into(),
        ..gateway()
    };
    let gateways = [
        ("istio-system/eastwest/192.0.2.1", gateway()),
        ("tenant/mine/192.0.2.1", mine),
    ];
    for port in [15008, 15009] {
        let at_port = DiscoveredWorkload {
            gateway: Some(DiscoveredGateway {
                port,
                ..web().gateway.unwrap()
            }),
            ..web()
        };
        let told = [&gateways[..], &[(WEB, at_port)]].concat();
        let snapshot = with(&told);
        let address = format!("192.0.2.1:{port}");
        assert_eq!(snapshot.endpoints("shop/web", 80), [NEAR[0], &address]);
        let at_gateway = endpoint(&snapshot, &address).hbone_identity();
        assert_eq!(at_gateway.unwrap().namespace(), Some("istio-system"));
    }
}

/// The Gateway of class `istio-remote` is in this cluster, which istiod then says of what is behind it.
#[test]
fn what_is_behind_a_gateway_that_this_cluster_declares_is_reached() {
    let web = DiscoveredWorkload {
        cluster: OWN.into(),
        ..web()
    };
    let snapshot = with(&[(GATEWAY, gateway()), (WEB, web)]);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
}

#[test]
fn a_gateway_is_of_the_trust_domain_of_the_mesh() {
    let workloads = [(GATEWAY, gateway()), (WEB, web())];
    let config = mesh_config("istio-system", "trustDomain: prod");
    let of_web = "spiffe://prod/ns/shop/sa/web";
    let snapshot = with_answering(&[&config], &workloads, &[of_web]);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    let found = endpoint(&snapshot, "192.0.2.1:15008");
    let at_gateway = found.hbone_identity().unwrap().uri();
    assert_eq!(at_gateway, "spiffe://prod/ns/istio-system/sa/eastwest");
}

/// Networks may have the same blocks of addresses.
#[test]
fn an_address_of_another_network_is_nobodys_here() {
    let pod = DiscoveredWorkload {
        addresses: vec![ip("10.1.0.1"), ip("10.0.0.1")],
        service_account: "thief".into(),
        ..web()
    };
    let workloads = [(GATEWAY, gateway()), ("east//Pod/shop/web-9", pod)];
    let snapshot = with(&workloads);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    let own = &snapshot.workloads[&ip("10.1.0.1")];
    assert_eq!(own.key.to_string(), "shop/web-1");
    assert!(!snapshot.workloads.contains_key(&ip("10.0.0.1")));
    assert!(snapshot.unidentified.is_empty());
    assert_eq!(messages(&snapshot, "have addresses"), [""; 0]);
    // Its account may answer, besides.
    let behind = endpoint(&snapshot, "192.0.2.1:15008")
        .gateway
        .clone()
        .unwrap();
    let thief = "spiffe://cluster.local/ns/shop/sa/thief";
    assert_eq!(behind.identities, identities(&[thief, OF_WEB]));
}

/// Which of them gets a request the gateway says.
#[test]
fn all_behind_one_gateway_are_one_endpoint() {
    let second = DiscoveredWorkload {
        capacity: 4,
        ..web()
    };
    let unhealthy = DiscoveredWorkload {
        is_healthy: false,
        ..web()
    };
    let workloads = [
        (GATEWAY, gateway()),
        (WEB, web()),
        ("net-2/second", second),
        ("net-2/third", unhealthy),
    ];
    let snapshot = with(&workloads);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    assert_eq!(endpoint(&snapshot, "192.0.2.1:15008").weight, 7);
}

/// Nobody tells labels of what is behind a gateway: what depends on them is closed, as for other clusters.
#[test]
fn a_policy_that_may_be_about_it_leaves_it_out() {
    let told = [(GATEWAY, gateway()), (WEB, web())];
    let endpoints = |policy: &str| {
        let snapshot = with_answering(&[&cilium(policy)], &told, &[OF_WEB]);
        snapshot.endpoints("shop/web", 80)
    };
    for policy in [
        "{endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}",
        "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {app: web}}]}]}",
        "{endpointSelector: {}, egress: [{toCIDR: [192.0.2.0/24]}]}",
        // The account that is known is the gateway's.
        "{endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}]}]}",
        "{endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: eastwest}}, ingress: [{}]}",
        "{endpointSelector: {}, egressDeny: [{toEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: web}}]}]}",
    ] {
        assert_eq!(endpoints(policy), NEAR, "{policy}");
    }
    assert_eq!(
        endpoints("{endpointSelector: {}, egress: [{toEntities: [all]}]}"),
        BOTH
    );
}

const PORTS_OF_INGRESS: &str =
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '8000'}]}]}]}";
const PORTS_OF_EGRESS: &str = "{endpointSelector: {}, egress: [{toEntities: [all]}], egressDeny: [{toEntities: [all], toPorts: [{ports: [{port: '8080'}]}]}]}";

/// The gateway's port is none of the workload's: a rule about 15008, which ambient needs for everybody, is not about what
/// is called behind it (specs/policies.md 2.4).
#[test]
fn policies_are_about_the_port_of_the_workload_behind_a_gateway() {
    let told = [(GATEWAY, gateway()), (WEB, web())];
    let of = |policy: &str| with_answering(&[&cilium(policy)], &told, &[OF_WEB]);
    let web = ClusterKey::new(key("shop/web"), 80);

    let snapshot = of(PORTS_OF_INGRESS);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    let subjects = snapshot.network.clusters[&web].iter();
    let ports: Vec<_> = subjects.map(|subject| subject.port).collect();
    assert_eq!(ports, [Some(8000), Some(8080)]);

    let snapshot = of(PORTS_OF_EGRESS);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    let destinations = snapshot.network.egress.destinations[&web].iter();
    let ports: Vec<_> = destinations.map(|destination| destination.port).collect();
    assert_eq!(ports, [Some(8000), Some(8080)]);
}

#[test]
fn where_that_port_is_not_known_a_policy_of_ports_leaves_it_out() {
    let leading_to = |target| DiscoveredWorkload {
        services: [(WEB_HOST.into(), [(80, target)].into())].into(),
        ..web()
    };
    let gateway = || (GATEWAY, gateway());
    let unknown = [gateway(), (WEB, leading_to(0))];
    let different = [
        gateway(),
        (WEB, leading_to(8080)),
        ("net-2/second", leading_to(8000)),
    ];
    let without_ports = "{endpointSelector: {}, ingress: [{}]}";
    let of = |policy: &str, told: &[_]| with_answering(&[&cilium(policy)], told, &[OF_WEB]);
    for told in [&unknown[..], &different] {
        for policy in [PORTS_OF_INGRESS, PORTS_OF_EGRESS] {
            let snapshot = of(policy, told);
            assert_eq!(snapshot.endpoints("shop/web", 80), NEAR, "{policy}");
            let finding = messages(&snapshot, "speaks of ports");
            assert_eq!(finding.len(), 1, "{:?}", snapshot.diagnostics);
        }
        let snapshot = of(without_ports, told);
        assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    }
    // Each port of a service by itself: of 80 it is known, of 8080 not.
    let snapshot = of(PORTS_OF_INGRESS, &[gateway(), (WEB, web())]);
    assert_eq!(snapshot.endpoints("shop/web", 80), BOTH);
    assert_eq!(snapshot.endpoints("shop/web", 8080), ["10.1.0.1:8001"]);
}
