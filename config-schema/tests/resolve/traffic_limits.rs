//! TrafficPolicies that can not be read: what they were for is not let through without its limits
//! (issue 3, item 7). What good ones limit is shown by the golden cases.

use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{LimitTarget, Snapshot};

use super::support::{broken, key, load, shop, target};
use cairn_config_schema::resources::{Loaded, TargetRef};

fn route(kind: &str, place: &str) -> String {
    let (namespace, name) = place.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{parentRefs: [{{group: \"\", kind: Service, name: web}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}"
    )
}

/// Routes of `shop` and another namespace, and a policy of `shop` that can not be read.
fn with_broken(targets: Option<Vec<TargetRef>>) -> Snapshot {
    let routes = [
        route("HTTPRoute", "shop/pages"),
        route("HTTPRoute", "bank/pages"),
        route("GRPCRoute", "shop/calls"),
    ];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let mut resources = load(&shop(&routes));
    let policy = broken(Kind::TrafficPolicy, "shop/limits", targets);
    let policies = &mut resources.traffic_policies;
    policies.insert(key("shop/limits"), Loaded::Broken(policy));
    resolve(&resources, &Options::default())
}

fn closed(snapshot: &Snapshot) -> Vec<String> {
    let broken = snapshot.limits.iter().filter(|l| l.broken.is_some());
    let targets = broken.flat_map(|limits| &limits.targets);
    let routes = targets.filter_map(|target| match target {
        LimitTarget::Route(route) => Some(route.to_string()),
        _ => None,
    });
    routes.collect()
}

#[test]
fn an_unreadable_policy_closes_the_routes_it_names() {
    let named = target("gateway.networking.k8s.io", "HTTPRoute", "pages");
    let snapshot = with_broken(Some(vec![named]));
    assert_eq!(closed(&snapshot), ["HTTPRoute/shop/pages"]);
}

#[test]
fn one_whose_targets_are_not_known_closes_every_route_of_its_namespace() {
    let snapshot = with_broken(None);
    assert_eq!(
        closed(&snapshot),
        ["HTTPRoute/shop/pages", "GRPCRoute/shop/calls"]
    );
}
