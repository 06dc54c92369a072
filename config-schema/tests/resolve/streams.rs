//! Routes of connections that can not be read, and what they refuse therefore (specs/istio-waypoint.md
//! 4.4). What readable ones mean is in conformance/golden/streams.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::{Loaded, TargetRef};
use cairn_config_schema::snapshot::{ServerNames, Snapshot};

use crate::support::{Ask, broken, key, load, shop, shop_with, target};

/// Names of the routes of connections on a port.
fn streams(snapshot: &Snapshot, service: &str, port: u16) -> Vec<String> {
    let ports = &snapshot.service(service).ports;
    let port = ports.iter().find(|p| p.number == port).unwrap();
    let routes = port.stream_routes.iter();
    routes.map(|route| route.origin.to_string()).collect()
}

#[test]
fn a_route_that_can_not_be_read_refuses_what_it_may_have_been_for() {
    for (targets, ports) in [
        (None, vec![9000]),
        (Some(vec![target("", "Service", "web")]), vec![9000]),
        (Some(vec![target("", "Service", "api")]), vec![]),
    ] {
        let mut resources = load(&shop(&[]));
        let unread = broken(Kind::TLSRoute, "shop/t", targets.clone());
        resources
            .tls_routes
            .insert(key("shop/t"), Loaded::Broken(unread));
        let snapshot = resolve(&resources, &Options::default());
        for port in [80, 8080, 9000] {
            let expected: Vec<&str> = match ports.contains(&port) {
                true => vec!["TLSRoute/shop/t"],
                false => vec![],
            };
            assert_eq!(
                streams(&snapshot, "shop/web", port),
                expected,
                "{targets:?}"
            );
        }
        if ports.is_empty() {
            continue;
        }
        let port = &snapshot.service("shop/web").ports[2];
        let rule = &port.stream_routes[0].rules[0];
        assert!(rule.broken.is_some());
        // What is no TLS was not meant by a TLSRoute.
        assert_eq!(rule.matches[0].server_names, Some(ServerNames::Any));
        assert_eq!(snapshot.finding(Code::Unreadable).path, "");
    }
}

#[test]
fn a_virtual_service_that_can_not_be_read_refuses_connections_only_if_it_may_have_meant_them() {
    let host = |kind: &str, name: &str| TargetRef {
        kind: kind.into(),
        name: name.into(),
        ..TargetRef::default()
    };
    for (targets, refuses) in [
        (Some(vec![host("host", "web")]), false),
        (Some(vec![host("host", "web"), host("streams", "")]), true),
        (Some(vec![host("host", "api"), host("streams", "")]), false),
        (None, true),
    ] {
        let mut resources = load(&shop(&[]));
        let unread = broken(Kind::VirtualService, "shop/v", targets.clone());
        resources
            .virtual_services
            .insert(key("shop/v"), Loaded::Broken(unread));
        let snapshot = resolve(&resources, &Options::default());
        let found = streams(&snapshot, "shop/web", 9000);
        assert_eq!(!found.is_empty(), refuses, "{targets:?}");
    }
}

#[test]
fn a_route_that_names_a_port_twice_is_there_once() {
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: t, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}, {group: '', kind: Service, name: web, port: 9000}]
  rules: [{backendRefs: [{name: web, port: 9000}]}]
";
    let snapshot = shop_with(&[route]);
    assert_eq!(streams(&snapshot, "shop/web", 9000), ["TCPRoute/shop/t"]);
    assert_eq!(streams(&snapshot, "shop/web", 80), [""; 0]);
}
