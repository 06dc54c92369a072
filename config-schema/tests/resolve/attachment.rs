//! Who serves a service or a pod (specs/istio-waypoint.md 1.2, 1.3).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{Binding, Snapshot};

use super::support::{Ask, GATEWAY, break_object, documents, key, load, resolved};

fn gateway(metadata: &str, allowed: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: waypoint, namespace: shop{metadata}}}\nspec:\n  gatewayClassName: cairn-waypoint\n  listeners: [{{name: mesh, port: 15008, protocol: HBONE{allowed}}}]"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}")
}

fn service(namespace: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}"
    )
}

fn pod(labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: shop, labels: {{{labels}}}}}\nspec: {{serviceAccountName: web}}\nstatus: {{podIPs: [{{ip: 10.1.0.1}}]}}"
    )
}

/// The binding of the service `web` in `in_namespace`.
fn bound(
    gateway: &str,
    in_namespace: &str,
    on_namespace: &str,
    on_service: &str,
) -> (Binding, Snapshot) {
    let snapshot = resolved(&documents(&[
        gateway,
        &namespace(in_namespace, on_namespace),
        &service(in_namespace, on_service),
    ]));
    let binding = snapshot
        .service(&format!("{in_namespace}/web"))
        .binding
        .clone();
    (binding, snapshot)
}

fn refused(binding: &Binding) -> bool {
    matches!(binding, Binding::Refused(_))
}

const USE: &str = "istio.io/use-waypoint: waypoint";

#[test]
fn a_label_on_the_namespace_or_on_the_service_binds() {
    assert_eq!(bound(GATEWAY, "shop", "", USE).0, Binding::Served);
    assert_eq!(bound(GATEWAY, "shop", USE, "").0, Binding::Served);
    assert_eq!(bound(GATEWAY, "shop", "", "").0, Binding::Unbound);
}

#[test]
fn the_services_own_label_comes_first() {
    let (binding, _) = bound(GATEWAY, "shop", USE, "istio.io/use-waypoint: none");
    assert_eq!(binding, Binding::Unbound);
    let (binding, _) = bound(GATEWAY, "shop", "istio.io/use-waypoint: none", USE);
    assert_eq!(binding, Binding::Served);
}

#[test]
fn a_service_that_names_a_missing_gateway_does_not_fall_back_to_the_namespace() {
    let (binding, snapshot) = bound(GATEWAY, "shop", USE, "istio.io/use-waypoint: typo");
    assert_eq!(binding, Binding::Other(key("shop/typo")));
    assert_eq!(
        snapshot.said(),
        ["warning not-attached Service/shop/web metadata.labels[istio.io/use-waypoint]"]
    );
}

#[test]
fn another_existing_gateway_serves_it_without_a_word() {
    let other = gateway("", "").replace("name: waypoint", "name: other");
    let other = other.replace("cairn-waypoint", "some-class");
    let yaml = documents(&[
        GATEWAY,
        &other,
        &service("shop", "istio.io/use-waypoint: other"),
    ]);
    let snapshot = resolved(&yaml);
    let binding = &snapshot.service("shop/web").binding;
    assert_eq!(*binding, Binding::Other(key("shop/other")));
    assert!(snapshot.said().is_empty());
}

const USE_FROM_AFAR: &str =
    "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: shop";

#[test]
fn other_namespaces_need_the_listeners_leave() {
    let from = |allowed: &str, labels: &str| {
        let gateway = gateway("", &format!(", allowedRoutes: {{namespaces: {allowed}}}"));
        bound(&gateway, "bank", &format!("{USE_FROM_AFAR}{labels}"), "")
    };
    let (binding, snapshot) = from("{from: Same}", "");
    assert!(refused(&binding));
    assert_eq!(
        snapshot.said(),
        ["error attachment-denied Namespace/bank metadata.labels[istio.io/use-waypoint]"]
    );
    assert!(refused(&bound(GATEWAY, "bank", USE_FROM_AFAR, "").0));
    assert_eq!(from("{from: All}", "").0, Binding::Served);

    let team = "{from: Selector, selector: {matchLabels: {team: a}}}";
    assert_eq!(from(team, ", team: a").0, Binding::Served);
    assert!(refused(&from(team, ", team: b").0));
    assert!(refused(&from("{from: Selector}", ", team: a").0));
}

#[test]
fn selectors_have_the_operators_of_kubernetes() {
    for (expression, admitted) in [
        ("{key: team, operator: In, values: [a, b]}", true),
        ("{key: team, operator: In, values: [c]}", false),
        ("{key: team, operator: NotIn, values: [c]}", true),
        ("{key: team, operator: NotIn, values: [a]}", false),
        ("{key: other, operator: NotIn, values: [a]}", true),
        ("{key: team, operator: Exists}", true),
        ("{key: other, operator: Exists}", false),
        ("{key: other, operator: DoesNotExist}", true),
        ("{key: team, operator: DoesNotExist}", false),
        ("{key: team, operator: Typo, values: [a]}", false),
        (
            "{key: kubernetes.io/metadata.name, operator: In, values: [bank]}",
            true,
        ),
    ] {
        let allowed = format!(
            ", allowedRoutes: {{namespaces: {{from: Selector, selector: {{matchExpressions: [{expression}]}}}}}}"
        );
        let labels = format!("{USE_FROM_AFAR}, team: a");
        let (binding, _) = bound(&gateway("", &allowed), "bank", &labels, "");
        assert_eq!(binding == Binding::Served, admitted, "{expression}");
    }
}

#[test]
fn a_waypoint_for_workloads_refuses_services() {
    let gateway = gateway(", labels: {istio.io/waypoint-for: workload}", "");
    let (binding, snapshot) = bound(&gateway, "shop", "", USE);
    assert!(refused(&binding));
    assert_eq!(
        snapshot.said(),
        ["error unsupported-traffic-type Service/shop/web metadata.labels[istio.io/use-waypoint]"]
    );
}

#[test]
fn a_pod_is_bound_by_a_waypoint_for_workloads() {
    let serving = |traffic: &str, on_namespace: &str, on_pod: &str| {
        let metadata = format!(", labels: {{istio.io/waypoint-for: {traffic}}}");
        let snapshot = resolved(&documents(&[
            &gateway(&metadata, ""),
            &namespace("shop", on_namespace),
            &pod(on_pod),
        ]));
        let workload = snapshot.workloads.values().next().unwrap();
        (workload.binding.clone(), snapshot.said())
    };
    assert_eq!(serving("all", USE, "").0, Binding::Served);
    assert_eq!(serving("workload", "", USE).0, Binding::Served);
    // Its own label on a service waypoint is a mistake, the namespace's is simply not for pods.
    let (binding, said) = serving("service", "", USE);
    assert!(refused(&binding));
    assert_eq!(
        said,
        ["error unsupported-traffic-type Pod/shop/web-1 metadata.labels[istio.io/use-waypoint]"]
    );
    assert_eq!(serving("service", USE, ""), (Binding::Unbound, vec![]));
}

#[test]
fn gateways_and_the_waypoint_itself_are_never_bound() {
    for label in [
        "gateway.istio.io/managed: istio.io-mesh-controller",
        "gateway.networking.k8s.io/gateway-name: waypoint",
    ] {
        assert_eq!(bound(GATEWAY, "shop", USE, label).0, Binding::Unbound);
    }
}

#[test]
fn an_empty_label_binds_to_nothing_and_is_an_error() {
    let (binding, snapshot) = bound(GATEWAY, "shop", USE, "istio.io/use-waypoint: \"\"");
    assert!(refused(&binding));
    assert_eq!(
        snapshot.said(),
        ["error bad-value Service/shop/web metadata.labels[istio.io/use-waypoint]"]
    );
}

#[test]
fn a_waypoint_namespace_without_a_waypoint_means_nothing() {
    let lone = "istio.io/use-waypoint-namespace: elsewhere";
    let (binding, snapshot) = bound(GATEWAY, "shop", USE, lone);
    assert_eq!(binding, Binding::Served);
    assert_eq!(
        snapshot.said(),
        ["warning bad-value Service/shop/web metadata.labels[istio.io/use-waypoint-namespace]"]
    );
}

#[test]
fn a_namespace_that_can_not_be_read_binds_nothing_by_itself() {
    let bound = |on_service: &str| {
        let mut resources = load(&documents(&[GATEWAY, &service("shop", on_service)]));
        break_object(&mut resources.namespaces, Kind::Namespace, "shop");
        let snapshot = resolve(&resources, &Options::default());
        (snapshot.service("shop/web").binding.clone(), snapshot)
    };
    let (binding, snapshot) = bound("");
    assert!(refused(&binding));
    assert!(snapshot.finding(Code::Unreadable).effect.is_some());
    assert_eq!(bound(USE).0, Binding::Served);
}

#[test]
fn a_namespace_that_can_not_be_read_is_admitted_by_no_selector() {
    let allowed = ", allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: blocked, operator: DoesNotExist}]}}}";
    let yaml = documents(&[&gateway("", allowed), &service("bank", USE_FROM_AFAR)]);
    let mut resources = load(&yaml);
    let without = resolve(&resources, &Options::default());
    assert_eq!(without.service("bank/web").binding, Binding::Served);
    break_object(&mut resources.namespaces, Kind::Namespace, "bank");
    let with = resolve(&resources, &Options::default());
    assert!(refused(&with.service("bank/web").binding));
}
