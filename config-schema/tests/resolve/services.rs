//! Services: addresses, ports, protocols (specs/istio-waypoint.md 2.5, 4.1).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{AppProtocol, Binding};

use super::support::{
    Ask, GATEWAY, NAMESPACE, break_object, documents, load, resolved, shop, shop_with,
};

fn service(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop{metadata}}}\nspec: {{{spec}}}"
    )
}

#[test]
fn a_service_has_both_families_a_host_name_and_protocols_by_port() {
    let spec = "clusterIPs: [10.0.0.9, \"fd00::9\"], ports: [{port: 80, appProtocol: http2}, {name: grpc-x, port: 90}, {port: 70}]";
    let snapshot = shop_with(&[&service("dual", "", spec)]);
    let dual = snapshot.service("shop/dual");
    assert_eq!(dual.addresses.len(), 2);
    assert_eq!(&*dual.hostname, "dual.shop.svc.cluster.local");
    let protocols: Vec<_> = dual.ports.iter().map(|p| (p.number, p.protocol)).collect();
    assert_eq!(
        protocols,
        [
            (80, AppProtocol::Http2),
            (90, AppProtocol::Grpc),
            (70, AppProtocol::Sniff)
        ]
    );
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
}

#[test]
fn the_host_name_ends_in_the_cluster_domain() {
    let options = Options {
        cluster_domain: Some("corp.example".into()),
        ..Options::default()
    };
    let snapshot = resolve(&load(&shop(&[])), &options);
    assert_eq!(
        &*snapshot.service("shop/web").hostname,
        "web.shop.svc.corp.example"
    );
}

#[test]
fn an_unknown_app_protocol_is_sniffed_and_said() {
    let spec = "clusterIP: 10.0.0.9, ports: [{name: http, port: 80, appProtocol: example.com/own}]";
    let snapshot = shop_with(&[&service("own", "", spec)]);
    let port = &snapshot.service("shop/own").ports[0];
    assert_eq!(port.protocol, AppProtocol::Sniff);
    assert_eq!(
        snapshot.said(),
        ["info bad-value Service/shop/own spec.ports[0].appProtocol"]
    );
}

#[test]
fn services_without_a_virtual_ip_are_not_served() {
    for spec in [
        "clusterIP: None, ports: [{port: 80}]",
        "type: ExternalName, externalName: a.example",
        "ports: [{port: 80}]",
    ] {
        let inherited = shop_with(&[&service("bare", "", spec)]);
        let binding = &inherited.service("shop/bare").binding;
        assert!(matches!(binding, Binding::Refused(_)), "{spec}");
        assert_eq!(inherited.said(), ["info not-attached Service/shop/bare"]);

        let label = ", labels: {istio.io/use-waypoint: waypoint}";
        let asked = shop_with(&[&service("bare", label, spec)]);
        assert_eq!(asked.said(), ["warning not-attached Service/shop/bare"]);
    }
}

#[test]
fn an_address_belongs_to_the_oldest_service_that_has_it() {
    let spec = "clusterIP: 10.0.0.9, ports: [{port: 80}]";
    let young = service("a", ", creationTimestamp: \"2026-02-01T00:00:00Z\"", spec);
    let old = service("b", ", creationTimestamp: \"2026-01-01T00:00:00Z\"", spec);
    let undated = service("c", "", spec);
    let snapshot = resolved(&documents(&[GATEWAY, NAMESPACE, &young, &old, &undated]));
    assert_eq!(snapshot.service("shop/b").binding, Binding::Served);
    for loser in ["shop/a", "shop/c"] {
        let service = snapshot.service(loser);
        assert!(service.addresses.is_empty());
        assert!(matches!(service.binding, Binding::Refused(_)));
    }
    let conflicts = snapshot
        .diagnostics
        .iter()
        .filter(|d| d.code == Code::Conflict);
    assert_eq!(conflicts.count(), 2);
}

#[test]
fn a_service_that_is_not_served_still_keeps_its_address_from_others() {
    let unserved = service(
        "a",
        ", labels: {istio.io/use-waypoint: none}",
        "clusterIP: 10.0.0.9, ports: [{port: 80}]",
    );
    let served = service("b", "", "clusterIP: 10.0.0.9, ports: [{port: 80}]");
    let snapshot = shop_with(&[&unserved, &served]);
    assert!(matches!(
        snapshot.service("shop/b").binding,
        Binding::Refused(_)
    ));
}

#[test]
fn a_port_declared_twice_is_that_of_the_first() {
    let spec = "clusterIP: 10.0.0.9, ports: [{name: http, port: 80}, {name: tcp, port: 80}]";
    let snapshot = shop_with(&[&service("twice", "", spec)]);
    let ports = &snapshot.service("shop/twice").ports;
    assert_eq!((ports.len(), ports[0].protocol), (1, AppProtocol::Http));
    assert_eq!(
        snapshot.said(),
        ["error conflict Service/shop/twice spec.ports[1].port"]
    );
}

#[test]
fn a_service_that_can_not_be_read_is_not_there() {
    let mut resources = load(&shop(&[]));
    break_object(&mut resources.services, Kind::Service, "shop/web");
    let snapshot = resolve(&resources, &Options::default());
    assert!(
        !snapshot
            .services
            .contains_key(&super::support::key("shop/web"))
    );
    assert_eq!(snapshot.said(), ["error unreadable Service/shop/web"]);
}
