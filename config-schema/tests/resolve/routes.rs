//! HTTPRoutes on services (specs/istio-waypoint.md 4.3, specs/gateway-api.md 1.4).

use std::sync::Arc;

use cairn_config_schema::diagnostics::{Code, Severity};
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::{Loaded, TargetRef};
use cairn_config_schema::snapshot::{PathMatch, Snapshot};

use super::support::{
    API, Ask, GATEWAY, WEB, break_object, broken, documents, key, load, resolved, shop, shop_with,
    target,
};

fn route(namespace: &str, parents: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: {namespace}}}\nspec:\n  parentRefs: [{parents}]\n  rules: [{{backendRefs: [{{name: api, namespace: shop, port: 80}}]}}]"
    )
}

const TO_WEB: &str = "{group: \"\", kind: Service, name: web}";

#[test]
fn a_route_is_on_every_http_port_of_its_service_and_shared() {
    let snapshot = shop_with(&[&route("shop", TO_WEB)]);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
    assert_eq!(snapshot.routes("shop/web", 8080), ["shop/r"]);
    // Port 9000 is TCP: no HTTPRoute can apply to it.
    assert!(snapshot.routes("shop/web", 9000).is_empty());
    assert!(snapshot.routes("shop/api", 80).is_empty());
    let ports = &snapshot.service("shop/web").ports;
    assert!(Arc::ptr_eq(&ports[0].routes[0], &ports[1].routes[0]));
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
}

#[test]
fn port_and_section_name_of_a_parent_limit_the_route() {
    for limit in ["port: 8080", "sectionName: http-admin"] {
        let parent = format!("{{group: \"\", kind: Service, name: web, {limit}}}");
        let snapshot = shop_with(&[&route("shop", &parent)]);
        assert!(snapshot.routes("shop/web", 80).is_empty(), "{limit}");
        assert_eq!(snapshot.routes("shop/web", 8080), ["shop/r"], "{limit}");
    }
}

#[test]
fn two_parents_that_name_one_port_attach_the_route_once() {
    let parents = format!("{TO_WEB}, {{group: \"\", kind: Service, name: web, port: 80}}");
    let snapshot = shop_with(&[&route("shop", &parents)]);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
}

#[test]
fn a_parent_that_names_nothing_is_an_error() {
    for (parent, path) in [
        ("{group: \"\", kind: Service, name: wep}", "name"),
        ("{group: \"\", kind: Service, name: web, port: 81}", "port"),
        (
            "{group: \"\", kind: Service, name: web, sectionName: x}",
            "sectionName",
        ),
    ] {
        let snapshot = shop_with(&[&route("shop", parent)]);
        assert!(snapshot.routes("shop/web", 80).is_empty());
        assert_eq!(
            snapshot.said(),
            [format!(
                "error parent-not-found HTTPRoute/shop/r spec.parentRefs[0].{path}"
            )]
        );
    }
}

#[test]
fn a_tcp_port_takes_no_route() {
    let parent = "{group: \"\", kind: Service, name: web, port: 9000}";
    let snapshot = shop_with(&[&route("shop", parent)]);
    assert!(snapshot.routes("shop/web", 9000).is_empty());
    assert_eq!(
        snapshot.said(),
        ["error not-attached HTTPRoute/shop/r spec.parentRefs[0].port"]
    );
}

#[test]
fn a_route_of_another_namespace_is_attached_for_the_callers_of_that_one() {
    let parent = "{group: \"\", kind: Service, name: web, namespace: shop}";
    let snapshot = shop_with(&[&route("bank", parent)]);
    assert_eq!(snapshot.routes("shop/web", 80), ["bank/r"]);
}

/// One kind for a port; nobody can take a service's routes away from another namespace's callers.
#[test]
fn a_grpc_route_takes_the_place_of_http_routes_of_its_namespace() {
    let parent = "{group: \"\", kind: Service, name: web, namespace: shop, port: 80}";
    let grpc = |namespace: &str| {
        route(namespace, parent)
            .replace("kind: HTTPRoute", "kind: GRPCRoute")
            .replace("name: r,", "name: g,")
    };
    let http = route("shop", parent);
    let snapshot = shop_with(&[&http, &grpc("shop")]);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/g"]);
    let finding = snapshot.finding(Code::Conflict);
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.message.contains("GRPCRoute"), "{}", finding.message);
    let snapshot = shop_with(&[&http, &grpc("bank")]);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r", "bank/g"]);
}

#[test]
fn headless_and_external_name_services_take_no_route() {
    for spec in [
        "clusterIP: None",
        "type: ExternalName, externalName: a.example",
    ] {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: bare, namespace: shop, labels: {{istio.io/use-waypoint: none}}}}\nspec: {{{spec}, ports: [{{port: 80}}]}}"
        );
        let parent = "{group: \"\", kind: Service, name: bare}";
        let snapshot = shop_with(&[&service, &route("shop", parent)]);
        assert!(snapshot.routes("shop/bare", 80).is_empty());
        assert_eq!(
            snapshot.said(),
            ["error not-attached HTTPRoute/shop/r spec.parentRefs[0].name"]
        );
    }
}

#[test]
fn a_route_on_a_service_that_is_not_served_is_not_enforced() {
    let yaml = documents(&[GATEWAY, WEB, API, &route("shop", TO_WEB)]);
    let snapshot = resolved(&yaml);
    assert!(snapshot.routes("shop/web", 80).is_empty());
    assert_eq!(
        snapshot.said(),
        ["warning not-enforced HTTPRoute/shop/r spec.parentRefs[0].name"]
    );
}

#[test]
fn rules_of_a_route_that_is_not_served_are_checked_all_the_same() {
    let retrying = route("shop", TO_WEB).replace("rules: [{", "rules: [{retry: {attempts: -1}, ");
    let snapshot = resolved(&documents(&[GATEWAY, WEB, API, &retrying]));
    assert!(
        snapshot
            .said()
            .contains(&"error bad-value HTTPRoute/shop/r spec.rules[0].retry.attempts".to_owned())
    );
}

#[test]
fn a_route_of_another_waypoint_is_that_ones_to_judge() {
    let other = GATEWAY
        .replace("name: waypoint", "name: other")
        .replace("cairn-waypoint", "some-class");
    let web = WEB.replace(
        "namespace: shop}",
        "namespace: shop, labels: {istio.io/use-waypoint: other}}",
    );
    let retrying = route("shop", TO_WEB).replace("rules: [{", "rules: [{retry: {attempts: -1}, ");
    let snapshot = resolved(&documents(&[GATEWAY, &other, &web, &retrying]));
    assert_eq!(
        snapshot.said(),
        ["info not-enforced HTTPRoute/shop/r spec.parentRefs[0].name"]
    );
}

#[test]
fn parents_of_other_kinds_are_told_apart() {
    for (parent, expected) in [
        (
            "{name: waypoint}",
            "warning not-attached HTTPRoute/shop/r spec.parentRefs[0]",
        ),
        (
            "{name: ingress}",
            "info not-for-waypoint HTTPRoute/shop/r spec.parentRefs[0]",
        ),
        // An absent group is the Gateway API's, in which there is no Service.
        (
            "{kind: Service, name: web}",
            "error not-attached HTTPRoute/shop/r spec.parentRefs[0]",
        ),
    ] {
        let snapshot = shop_with(&[&route("shop", parent)]);
        assert_eq!(snapshot.said(), [expected]);
        assert!(snapshot.routes("shop/web", 80).is_empty());
    }
}

#[test]
fn hostnames_mean_nothing_for_a_service() {
    let named = route("shop", TO_WEB).replace("spec:", "spec:\n  hostnames: [a.example]");
    let snapshot = shop_with(&[&named]);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
    assert_eq!(
        snapshot.said(),
        ["warning unsupported HTTPRoute/shop/r spec.hostnames"]
    );
}

#[test]
fn absent_rules_are_one_rule_that_has_no_backend() {
    let yaml = route("shop", TO_WEB);
    let (without, _) = yaml.split_once("  rules:").unwrap();
    let snapshot = shop_with(&[without]);
    let rule = &snapshot.service("shop/web").ports[0].routes[0].rules[0];
    assert!(matches!(&rule.matches[0].path, PathMatch::Prefix(p) if p.is_empty()));
    assert!(rule.backends.is_empty() && rule.broken.is_none());
    assert_eq!(
        snapshot.said(),
        ["warning missing-field HTTPRoute/shop/r spec.rules[0].backendRefs"]
    );
}

#[test]
fn the_age_of_a_route_is_its_creation() {
    let dated = route("shop", TO_WEB).replace(
        "namespace: shop}",
        "namespace: shop, creationTimestamp: \"1970-01-01T00:01:00Z\"}",
    );
    let created = |yaml: &str| shop_with(&[yaml]).service("shop/web").ports[0].routes[0].created_s;
    assert_eq!(created(&dated), Some(60));
    assert_eq!(created(&route("shop", TO_WEB)), None);
}

fn with_broken_route(targets: Option<Vec<TargetRef>>) -> Snapshot {
    let mut resources = load(&shop(&[]));
    let route = broken(Kind::HTTPRoute, "shop/r", targets);
    resources
        .http_routes
        .insert(key("shop/r"), Loaded::Broken(route));
    resolve(&resources, &Options::default())
}

#[test]
fn a_route_that_can_not_be_read_answers_500_on_the_services_it_names() {
    let snapshot = with_broken_route(Some(vec![target("", "Service", "web")]));
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
    assert!(snapshot.routes("shop/api", 80).is_empty());
    let route = &snapshot.service("shop/web").ports[0].routes[0];
    assert!(route.broken);
    assert_eq!(route.rules[0].broken.as_deref(), Some("line 3 is nonsense"));
    assert!(matches!(&route.rules[0].matches[0].path, PathMatch::Prefix(p) if p.is_empty()));
    let effect = snapshot
        .finding(Code::Unreadable)
        .effect
        .as_deref()
        .unwrap();
    assert!(effect.contains("answered 500"), "{effect}");
}

#[test]
fn a_route_whose_parents_can_not_be_read_either_is_on_every_service_of_its_namespace() {
    let snapshot = with_broken_route(None);
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
    assert_eq!(snapshot.routes("shop/web", 8080), ["shop/r"]);
    assert_eq!(snapshot.routes("shop/api", 80), ["shop/r"]);
}

#[test]
fn a_broken_route_that_names_a_port_or_another_kind_stays_there() {
    let mut port = target("", "Service", "web");
    port.port = Some(8080);
    let mut section = target("", "Service", "web");
    section.section_name = Some("http-admin".into());
    for parent in [port, section] {
        let snapshot = with_broken_route(Some(vec![parent]));
        assert!(snapshot.routes("shop/web", 80).is_empty());
        assert_eq!(snapshot.routes("shop/web", 8080), ["shop/r"]);
    }
    for kind in ["Gateway", "Service"] {
        let parent = target("gateway.networking.k8s.io", kind, "web");
        let snapshot = with_broken_route(Some(vec![parent]));
        assert!(snapshot.routes("shop/web", 80).is_empty());
    }
}

#[test]
fn a_route_that_kept_its_last_good_version_applies_as_it_was() {
    let mut resources = load(&shop(&[&route("shop", TO_WEB)]));
    let kept = match resources.http_routes.remove(&key("shop/r")) {
        Some(Loaded::Good(object)) => Loaded::KeptLastGood(object),
        other => panic!("{other:?}"),
    };
    resources.http_routes.insert(key("shop/r"), kept);
    let snapshot = resolve(&resources, &Options::default());
    assert_eq!(snapshot.routes("shop/web", 80), ["shop/r"]);
    assert!(!snapshot.service("shop/web").ports[0].routes[0].broken);
}

#[test]
fn a_route_on_a_service_that_can_not_be_read_says_so() {
    let mut resources = load(&shop(&[&route("shop", TO_WEB)]));
    break_object(&mut resources.services, Kind::Service, "shop/web");
    let snapshot = resolve(&resources, &Options::default());
    let finding = snapshot.finding(Code::ParentNotFound);
    assert!(finding.message.contains("can not be read"));
}
