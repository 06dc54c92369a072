//! What the properties once found, each by itself.

use cairn_config_schema::translate::Target;
use serde_json::{Value, json};

use crate::world::{Request, World, consumer};

fn virtual_service(name: &str, created: &str, http: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
        "spec": {"hosts": ["orders"], "http": http},
    })
}

fn get(target: &str) -> Request {
    Request {
        port: 2,
        from: "shop",
        method: "GET",
        target: target.to_owned(),
        host: "orders",
        headers: Vec::new(),
    }
}

/// Two VirtualServices of one host are asked one after the other; the rules of two HTTPRoutes are mixed, and the most
/// specific one is asked first.
#[test]
fn virtual_services_of_one_host_are_no_http_routes() {
    let all = json!([{"route": [{"destination": {"host": "orders"}}]}]);
    let some = json!([{
        "match": [{"uri": {"exact": "/a"}}],
        "route": [{"destination": {"host": "api", "port": {"number": 80}}}],
    }]);
    let world = World::with(&[
        virtual_service("older", "2020-01-01T00:00:00Z", &all),
        virtual_service("newer", "2024-01-01T00:00:00Z", &some),
    ]);
    assert!(world.outcome(&get("/a")).contains("shop/orders:8080"));
    let there = world.translate(Target::Gateway);
    assert!(there.objects.is_empty(), "{there:#?}");
    let told = there
        .parts
        .iter()
        .any(|part| part.why.contains("another object"));
    assert!(told, "{there:#?}");
}

/// The words for statuses, times of more than 99,999 ms and changes that change nothing are the same in all three.
#[test]
fn what_can_be_said_in_two_ways_is_not_lost() {
    let rule = |timing: Value| {
        let mut rule = json!({
            "headers": {"request": {}},
            "route": [{"destination": {"host": "api", "port": {"number": 80}}}],
        });
        let timing = timing.as_object().unwrap().clone();
        rule.as_object_mut().unwrap().extend(timing);
        virtual_service("v", "2020-01-01T00:00:00Z", &json!([rule]))
    };
    let slow = json!({"timeout": "150s"});
    let again = json!({"retries": {"attempts": 2, "retryOn": "gateway-error,retriable-4xx"}});
    for (timing, target) in [(slow, Target::Gateway), (again, Target::Cilium)] {
        let before = World::with(&[rule(timing)]);
        let there = before.translate(target);
        assert!(there.is_whole(), "{there:#?}");
        let after = before.after(&there).unwrap();
        assert_eq!(before.outcome(&get("/a")), after.outcome(&get("/a")));
    }
}

/// It does what happens without a route, but for `OPTIONS *`, and is written all the same.
#[test]
fn a_route_to_its_own_port_is_written() {
    let plain = json!([{"route": [{"destination": {"host": "orders"}}]}]);
    let before = World::with(&[virtual_service("v", "2020-01-01T00:00:00Z", &plain)]);
    for target in [Target::Cilium, Target::Gateway] {
        let there = before.translate(target);
        assert!(there.is_whole() && there.objects.len() == 1, "{there:#?}");
        let after = before.after(&there).unwrap();
        assert_eq!(before.outcome(&get("/a")), after.outcome(&get("/a")));
    }
}

/// The API server gives an HTTPRoute without rules one for everything, where Istio answers 404.
#[test]
fn a_port_for_which_no_rule_is_has_no_http_route() {
    let elsewhere = json!([{
        "match": [{"port": 9090}],
        "route": [{"destination": {"host": "orders"}}],
    }]);
    let world = World::with(&[virtual_service("v", "2020-01-01T00:00:00Z", &elsewhere)]);
    assert_eq!(world.outcome(&get("/a")), "NotFound");
    let there = world.translate(Target::Gateway);
    assert!(there.objects.is_empty(), "{there:#?}");
    let there = world.translate(Target::Cilium);
    let after = world.after(&there).unwrap();
    assert_eq!(after.outcome(&get("/a")), "NotFound");
}

/// The API server takes no HTTPRoute with more than 16 rules.
#[test]
fn an_http_route_that_no_api_server_takes_is_not_written() {
    let rules = |count: usize| {
        let rules = (0..count).map(|index| {
            json!({
                // The longest first: the order is that of an HTTPRoute.
                "match": [{"headers": {"x-user": {"exact": "a"}}, "uri": {"exact": format!("/{}", "a".repeat(count - index))}}],
                "route": [{"destination": {"host": "api", "port": {"number": 80}}}],
            })
        });
        virtual_service("v", "2020-01-01T00:00:00Z", &rules.collect())
    };
    let written = |count| World::with(&[rules(count)]).translate(Target::Gateway);
    assert!(written(16).is_whole(), "{:#?}", written(16));
    let refused = written(17);
    assert!(refused.objects.is_empty());
    assert!(
        refused.parts[0].why.contains("16 rules at most"),
        "{refused:#?}"
    );
}

/// Two CiliumEnvoyConfigs, each for a port of one Service, become two VirtualServices of one host: neither says where
/// the other's port leads.
#[test]
fn routes_of_two_ports_do_not_hide_each_other() {
    let to_orders =
        json!([{"route": [{"destination": {"host": "orders", "port": {"number": 8080}}}]}]);
    let mut both = virtual_service("v", "2020-01-01T00:00:00Z", &to_orders);
    both["spec"]["hosts"] = json!(["api"]);
    let before = World::with(&[both]);
    let at_cilium = before.translate(Target::Cilium);
    assert_eq!(at_cilium.objects.len(), 2, "{at_cilium:#?}");
    let after = before.after(&at_cilium).unwrap();
    let back = after.translate(Target::Istio);
    let again = after.after(&back).unwrap();
    for port in [0, 1] {
        let request = Request { port, ..get("/a") };
        assert!(
            again.outcome(&request).contains("shop/orders:8080"),
            "{back:#?}"
        );
        assert_eq!(before.outcome(&request), again.outcome(&request));
    }
}

/// Routes of a consumer are for callers of its namespace; the others go where they went (specs/gateway-api.md 1.4).
#[test]
fn a_port_that_a_consumer_has_routes_for_is_left_alone() {
    let route = json!([{"route": [{"destination": {"host": "orders", "port": {"number": 8080}}}]}]);
    let mut of_api = virtual_service("v", "2020-01-01T00:00:00Z", &route);
    of_api["spec"]["hosts"] = json!(["api"]);
    let mut at_cilium = World::with(&[of_api]).translate(Target::Cilium).objects;
    at_cilium.retain(|config| config["metadata"]["name"] == "v-api-80");
    let before = World::with(&[at_cilium.remove(0), consumer()]);
    let there = before.translate(Target::Istio);
    assert!(there.is_whole() && there.objects.len() == 1, "{there:#?}");
    let after = before.after(&there).unwrap();
    for (port, from) in [(0, "shop"), (0, "other"), (1, "shop"), (1, "other")] {
        let request = Request {
            port,
            from,
            ..get("/a")
        };
        let old = before.outcome(&request);
        assert_eq!(old, after.outcome(&request), "{port} {from}");
        assert_ne!(old, "NotFound", "{port} {from}");
    }
}
