//! States of a cluster, and what the controller has to write about them.

use super::*;
use crate::controller::gateways::tests::{class, gateway, objects};
use cairn_config_schema::status::CONTROLLER;

fn typed(api: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(api);
    object
}

fn cluster(more: &[Value]) -> Vec<Value> {
    let gateway_api = "gateway.networking.k8s.io/v1";
    let mut all = vec![
        typed(gateway_api, class("mine", CONTROLLER)),
        typed(gateway_api, class("theirs", "other.example/x")),
        typed(gateway_api, gateway("waypoint", "mine", json!({}))),
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
            "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"name": "http", "port": 80}]},
            "status": {"loadBalancer": {}}}),
        json!({"apiVersion": gateway_api, "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "shop", "generation": 3, "resourceVersion": "8"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}}),
    ];
    all.extend_from_slice(more);
    all
}

fn reader() -> Reader {
    Reader::new(Options::default(), "default".to_owned())
}

/// Writes every status as the API server would keep it, and says which were written.
fn write(all: &mut [Value], world: &World) -> Vec<String> {
    let mut written = Vec::new();
    for path in &world.outdated {
        let (object, patch) = world
            .patch(path, "2026-11-22T04:00:00Z", &Programmed::default())
            .unwrap();
        let same = |one: &&mut Value| {
            one["kind"] == object["kind"] && one["metadata"]["name"] == object["metadata"]["name"]
        };
        let one = all.iter_mut().find(same).unwrap();
        let status = patch["status"].as_object().unwrap().clone();
        if !one["status"].is_object() {
            one["status"] = json!({});
        }
        one["status"].as_object_mut().unwrap().extend(status);
        written.push(path.trim_start_matches("kubernetes:").to_owned());
    }
    written
}

#[test]
fn what_is_written_once_is_not_written_again() {
    let mut all = cluster(&[]);
    let mut reader = reader();
    let world = reader.read(Arc::new(objects(&all)));
    let written = write(&mut all, &world);
    assert_eq!(
        written,
        ["GatewayClass/mine", "HTTPRoute/shop/r", "Service/shop/web"]
    );
    for _ in 0..3 {
        let world = reader.read(Arc::new(objects(&all)));
        assert_eq!(world.outdated, [], "nothing has changed");
    }
    // The others' class is as it was.
    assert!(all[1].get("status").is_none());
}

/// Without an address istiod leads nobody to a waypoint.
#[test]
fn a_service_is_bound_once_its_waypoint_has_an_address() {
    let mut all = cluster(&[]);
    let mut reader = reader();
    let bound = |all: &[Value]| all[4]["status"]["conditions"][0].clone();
    let world = reader.read(Arc::new(objects(&all)));
    write(&mut all, &world);
    let waits = bound(&all);
    assert_eq!(
        (&waits["type"], &waits["status"]),
        (&json!(BOUND), &json!("False"))
    );
    assert_eq!(waits["reason"], "AddressNotAssigned");
    let message = waits["message"].as_str().unwrap();
    assert!(
        message.contains("waypoint shop/waypoint has no address"),
        "{message}"
    );
    // What else is said of the Gateway changes nothing.
    all[2]["status"] =
        json!({"conditions": [{"type": "Programmed", "status": "False"}], "addresses": []});
    assert_eq!(reader.read(Arc::new(objects(&all))).outdated, []);
    all[2]["status"]["addresses"] =
        json!([{"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}]);
    let world = reader.read(Arc::new(objects(&all)));
    assert_eq!(write(&mut all, &world), ["Service/shop/web"]);
    let bound = bound(&all);
    assert_eq!(
        (&bound["status"], &bound["reason"]),
        (&json!("True"), &json!("WaypointAccepted"))
    );
    assert_eq!(reader.read(Arc::new(objects(&all))).outdated, []);
}

#[test]
fn a_service_that_opts_out_loses_its_condition_and_a_route_its_entry() {
    let mut all = cluster(&[]);
    let mut reader = reader();
    let world = reader.read(Arc::new(objects(&all)));
    write(&mut all, &world);
    assert_eq!(all[4]["status"]["conditions"][0]["type"], BOUND);
    all[4]["metadata"]["labels"] = json!({"istio.io/use-waypoint": "none"});
    let world = reader.read(Arc::new(objects(&all)));
    let written = write(&mut all, &world);
    assert_eq!(written, ["HTTPRoute/shop/r", "Service/shop/web"]);
    assert_eq!(
        all[4]["status"],
        json!({"loadBalancer": {}, "conditions": []})
    );
    assert_eq!(all[5]["status"]["parents"], json!([]));
}

#[test]
fn a_service_that_asks_for_a_gateway_that_is_not_there_is_told_so() {
    let lost = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "lost", "namespace": "shop", "labels": {"istio.io/use-waypoint": "gone"}},
        "spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"], "ports": [{"name": "http", "port": 80}]}});
    let all = cluster(&[lost]);
    let world = reader().read(Arc::new(objects(&all)));
    let (_, patch) = world
        .patch("kubernetes:Service/shop/lost", "T", &Programmed::default())
        .unwrap();
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("WaypointIsNotReady"))
    );
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.contains("there is no Gateway shop/gone"),
        "{message}"
    );
}

/// A pod of another namespace, or without our label, changes nothing for the Gateway.
#[test]
fn a_gateway_is_looked_at_again_when_something_of_it_changes() {
    let pod = |namespace: &str, ready: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace,
            "labels": {"gateway.istio.io/managed": MANAGED_BY}}, "status": {"phase": ready}})
    };
    let key = ObjectKey::new("shop", "waypoint");
    let print = |more: &[Value]| {
        reader()
            .read(Arc::new(objects(&cluster(more))))
            .fingerprint(&key)
    };
    assert_eq!(print(&[]), print(&[pod("other", "Running")]));
    assert_ne!(
        print(&[pod("shop", "Pending")]),
        print(&[pod("shop", "Running")])
    );
}

/// The queue tries it again, later and later; another state of the cluster is no reason to try at once.
#[test]
fn a_status_that_can_not_be_written_is_told_again_only_when_something_of_it_changes() {
    let mut all = cluster(&[]);
    let mut reader = reader();
    let told = |reader: &mut Reader, all: &[Value]| -> Vec<String> {
        let outdated = reader.read(Arc::new(objects(all))).outdated;
        outdated.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(&mut reader, &all).len(), 3);
    assert_eq!(told(&mut reader, &all), [""; 0]);
    all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}}));
    assert_eq!(told(&mut reader, &all), [""; 0]);
    // The object, and what is to be said of it.
    all[5]["metadata"]["resourceVersion"] = json!("9");
    assert_eq!(told(&mut reader, &all), ["kubernetes:HTTPRoute/shop/r"]);
    all[4]["spec"]["ports"][0]["port"] = json!(81);
    let again = told(&mut reader, &all);
    assert!(
        again.contains(&"kubernetes:HTTPRoute/shop/r".to_owned()),
        "{again:?}"
    );
}

/// Each revision has a controller, and a policy for the class is for the Gateways of both.
#[test]
fn controllers_of_two_revisions_say_the_same_of_a_policy_for_both() {
    let api = "gateway.networking.k8s.io/v1";
    let canary = typed(
        api,
        gateway("canary", "mine", json!({"istio.io/rev": "canary"})),
    );
    let policy = json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "istio-system", "generation": 2, "resourceVersion": "9"},
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "mine"}]}});
    let all = cluster(&[canary, policy]);
    let path = "kubernetes:AuthorizationPolicy/istio-system/p";
    let said = |revision: &str| {
        let mut reader = Reader::new(Options::default(), revision.to_owned());
        let world = reader.read(Arc::new(objects(&all)));
        let (_, patch) = world.patch(path, "T", &Programmed::default()).unwrap();
        patch["status"]["conditions"].clone()
    };
    assert_eq!(said("default"), said("canary"));
    // One that has no Gateway says it, too.
    assert_eq!(said("default"), said("stable"));
    let message = said("default")[0]["message"].to_string();
    for name in ["shop/canary", "shop/waypoint"] {
        assert!(message.contains(name), "{message}");
    }
}

/// Programmed by what the replicas say, and beside what the resolver says.
#[test]
fn a_route_is_programmed_where_it_is_accepted_once_the_replicas_say_so() {
    use crate::controller::acknowledged::Answer;
    let all = cluster(&[]);
    let world = reader().read(Arc::new(objects(&all)));
    let key = ObjectKey::new("shop", "waypoint");
    let path = "kubernetes:HTTPRoute/shop/r";
    let applies = world.appliers.of_gateway(&key).unwrap();
    assert_eq!(applies[path].generation, 3);
    let programmed = Programmed::default();
    let conditions = |programmed: &Programmed| -> Vec<String> {
        let (_, patch) = world.patch(path, "T", programmed).unwrap();
        let conditions = patch["status"]["parents"][0]["conditions"]
            .as_array()
            .unwrap();
        let told = conditions.iter().map(|c| {
            let text = |field: &str| c[field].as_str().unwrap().to_owned();
            format!("{} {}", text("type"), text("status"))
        });
        told.collect()
    };
    assert_eq!(
        conditions(&programmed),
        ["Accepted True", "ResolvedRefs True"]
    );
    let answer = Answer {
        gateway: Some(key.to_string()),
        objects: [("HTTPRoute/shop/r".to_owned(), 3)].into_iter().collect(),
        ..Answer::default()
    };
    let answers = [("waypoint-1".to_owned(), Ok(answer))];
    let again = programmed.take(&key, applies, &answers, tokio::time::Instant::now());
    assert_eq!(again, None);
    assert_eq!(programmed.take_due(), [path]);
    assert_eq!(
        conditions(&programmed),
        [
            "Accepted True",
            "ResolvedRefs True",
            "cairn.dev/Programmed True"
        ]
    );
    // Written once, it is not written again; nor by a controller that knows nothing yet.
    let (object, patch) = world.patch(path, "T", &programmed).unwrap();
    let mut all = all;
    let route = all
        .iter_mut()
        .find(|o| o["kind"] == object["kind"])
        .unwrap();
    route["status"] = patch["status"].clone();
    let mut reader = reader();
    let world = reader.read(Arc::new(objects(&all)));
    assert_eq!(world.patch(path, "T2", &programmed), None);
    assert_eq!(world.patch(path, "T2", &Programmed::default()), None);
}

/// What one controller said before the other had a Gateway is nobody's to say any more.
#[test]
fn what_was_said_of_replicas_is_withdrawn_when_two_controllers_have_gateways() {
    let stale = json!([{"type": "cairn.dev/Programmed", "status": "False", "reason": "Pending",
        "message": "", "observedGeneration": 2, "lastTransitionTime": "T"}]);
    let policy = json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop", "generation": 2, "resourceVersion": "9"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
        "status": {"conditions": stale}});
    let canary = typed(
        "gateway.networking.k8s.io/v1",
        gateway("canary", "mine", json!({"istio.io/rev": "canary"})),
    );
    let path = "kubernetes:AuthorizationPolicy/shop/p";
    let told = |world: &World| {
        let patch = world.patch(path, "T", &Programmed::default());
        let (_, patch) = patch.unwrap();
        patch["status"]["conditions"]
            .to_string()
            .contains(PROGRAMMED)
    };
    let mut before = reader();
    let alone = before.read(Arc::new(objects(&cluster(std::slice::from_ref(&policy)))));
    assert!(told(&alone), "the only one keeps it until it knows better");
    let both = cluster(&[policy.clone(), canary]);
    let divided = before.read(Arc::new(objects(&both)));
    assert!(divided.outdated.iter().any(|due| **due == *path));
    assert!(!told(&divided));
    let other = |revision: &str| Reader::new(Options::default(), revision.to_owned());
    assert!(!told(&other("canary").read(Arc::new(objects(&both)))));
    // Who has no Gateway does not see whether the others are two.
    assert!(told(&other("third").read(Arc::new(objects(&both)))));
}

/// What is known of the replicas is told again when the other revision's Gateway is gone: nothing else would be a reason.
#[test]
fn what_was_withdrawn_comes_back_when_one_controller_has_all_gateways_again() {
    let policy = json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop", "generation": 2, "resourceVersion": "9"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}});
    let canary = typed(
        "gateway.networking.k8s.io/v1",
        gateway("canary", "mine", json!({"istio.io/rev": "canary"})),
    );
    let key = ObjectKey::new("shop", "waypoint");
    let answer = crate::controller::acknowledged::Answer {
        gateway: Some(key.to_string()),
        objects: [("AuthorizationPolicy/shop/p".to_owned(), 2)].into(),
        ..Default::default()
    };
    let answers = [("a".to_owned(), Ok(answer))];
    let programmed = Programmed::default();
    let now = tokio::time::Instant::now();
    let path = "kubernetes:AuthorizationPolicy/shop/p";
    let mut reader = reader();
    let mut policy = policy;
    // With the other Gateway or without; afterwards the condition is there or not.
    for (is_divided, expected) in [(false, true), (true, false), (false, true), (false, true)] {
        let mut all = cluster(std::slice::from_ref(&policy));
        all.extend(is_divided.then(|| canary.clone()));
        let world = reader.read(Arc::new(objects(&all)));
        programmed.take(
            &key,
            world.appliers.of_gateway(&key).unwrap(),
            &answers,
            now,
        );
        let mut due = programmed.take_due();
        due.extend(world.outdated.iter().map(|path| path.to_string()));
        if due.iter().any(|due| due == path)
            && let Some((_, patch)) = world.patch(path, "T", &programmed)
        {
            policy["status"] = patch["status"].clone();
        }
        let conditions = policy["status"]["conditions"].to_string();
        assert_eq!(conditions.contains(PROGRAMMED), expected, "{conditions}");
    }
}

/// Nothing is known of pods that somebody else runs (specs/istio-waypoint.md 1.2).
#[test]
fn of_a_gateway_with_addresses_nothing_is_said_to_be_programmed() {
    let mut all = cluster(&[]);
    all[2]["spec"]["addresses"] = json!([{"type": "IPAddress", "value": "10.9.9.9"}]);
    let world = reader().read(Arc::new(objects(&all)));
    assert_eq!(
        world
            .appliers
            .of_gateway(&ObjectKey::new("shop", "waypoint")),
        None
    );
}

/// One condition is for all revisions' Gateways, and each controller asks its own pods alone.
#[test]
fn a_policy_is_programmed_unless_another_revision_has_gateways() {
    let api = "gateway.networking.k8s.io/v1";
    let policy = json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop", "generation": 2, "resourceVersion": "9"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}});
    let canary = typed(
        api,
        gateway("canary", "mine", json!({"istio.io/rev": "canary"})),
    );
    let path = "kubernetes:AuthorizationPolicy/shop/p";
    for (more, expected) in [(vec![policy.clone()], 2), (vec![policy, canary], 1)] {
        let world = reader().read(Arc::new(objects(&cluster(&more))));
        let key = ObjectKey::new("shop", "waypoint");
        let answer = crate::controller::acknowledged::Answer {
            gateway: Some(key.to_string()),
            objects: [("AuthorizationPolicy/shop/p".to_owned(), 2)]
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let programmed = Programmed::default();
        let applies = world.appliers.of_gateway(&key).unwrap();
        let now = tokio::time::Instant::now();
        programmed.take(&key, applies, &[("a".to_owned(), Ok(answer))], now);
        let (_, patch) = world.patch(path, "T", &programmed).unwrap();
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), expected, "{conditions:?}");
    }
}
