//! VirtualServices and CiliumEnvoyConfigs to each other, and to HTTPRoutes.

use cairn_config_schema::translate::{Outcome, Target};
use serde_json::{Value, json};

use crate::support::{Written, written, written_wider};

/// A VirtualService for `orders` with these rules, and these other fields.
fn virtual_service(http: &str, more: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: canary, namespace: shop}}, \
         spec: {{hosts: [orders], http: [{http}]{more}}}}}"
    )
}

const CANARY: &str = "{route: [{destination: {host: orders, port: {number: 8080}}, weight: 90}, \
                      {destination: {host: api, port: {number: 80}}, weight: 10, headers: {request: {set: {x-canary: '1'}}}}]}";

fn to_cilium(http: &str) -> Written {
    written(Target::Cilium, &[&virtual_service(http, "")])
}

fn text(objects: &[Value]) -> String {
    let documents = objects.iter().map(Value::to_string);
    documents.collect::<Vec<String>>().join("\n---\n")
}

#[test]
fn a_canary_keeps_its_weights_there_and_back() {
    let there = to_cilium(&format!(
        "{{match: [{{uri: {{prefix: /old/}}, headers: {{x-user: {{regex: 'a.*'}}}}}}], redirect: {{uri: /new/, redirectCode: 308}}}}, {CANARY}"
    ));
    there.is_whole();
    let config = there.only("CiliumEnvoyConfig");
    let service = &config["spec"]["services"][0];
    assert_eq!(
        service,
        &json!({"name": "orders", "namespace": "shop", "listener": "canary-orders-8080", "ports": [8080]})
    );
    let routes = &config["spec"]["resources"][1]["virtualHosts"][0]["routes"];
    let clusters = &routes[1]["route"]["weightedClusters"]["clusters"];
    assert_eq!(
        clusters[0],
        json!({"name": "shop/orders:8080", "weight": 90})
    );
    assert_eq!(clusters[1]["name"], "shop/api:80");

    let back = written(Target::Istio, &[&text(&there.0.objects)]);
    back.is_whole();
    let http = &back.only("VirtualService")["spec"]["http"];
    assert_eq!(
        http[0]["redirect"],
        json!({"uri": "/new/", "redirectCode": 308})
    );
    assert_eq!(http[1]["route"][0]["weight"], 90);
    assert_eq!(
        http[1]["route"][1]["headers"],
        json!({"request": {"set": {"x-canary": "1"}}})
    );
}

#[test]
fn timeouts_and_retries_are_kept() {
    let there = to_cilium(
        "{timeout: 2s, retries: {attempts: 3, perTryTimeout: 500ms, retryOn: '5xx,reset'}, \
         route: [{destination: {host: orders}}]}",
    );
    there.is_whole();
    let config = there.only("CiliumEnvoyConfig");
    let route = &config["spec"]["resources"][1]["virtualHosts"][0]["routes"][0]["route"];
    assert_eq!(route["timeout"], "2s");
    assert_eq!(route["retryPolicy"]["numRetries"], 3);
    let back = written(Target::Istio, &[&text(&there.0.objects)]);
    back.is_whole();
    assert_eq!(
        back.only("VirtualService")["spec"]["http"][0]["timeout"],
        "2000ms"
    );
}

#[test]
fn an_answer_of_its_own_is_kept() {
    let there = to_cilium("{directResponse: {status: 503, body: {string: closed}}}");
    there.is_whole();
    let back = written(Target::Istio, &[&text(&there.0.objects)]);
    back.is_whole();
    let http = &back.only("VirtualService")["spec"]["http"];
    assert_eq!(
        http[0]["directResponse"],
        json!({"status": 503, "body": {"string": "closed"}})
    );
}

/// One CiliumEnvoyConfig for a port of a Service that has two: the other goes where it went.
#[test]
fn routes_of_one_port_leave_the_other_alone() {
    let route = "{route: [{destination: {host: api, port: {number: 80}}, weight: 1}, {destination: {host: orders, port: {number: 8080}}, weight: 1}]}";
    let both = virtual_service(route, "").replace("hosts: [orders]", "hosts: [api]");
    let there = written(Target::Cilium, &[&both]);
    there.is_whole();
    assert_eq!(there.all("CiliumEnvoyConfig").len(), 2);
    let one = there.named("canary-api-80").to_string();
    let back = written(Target::Istio, &[&one]);
    back.is_whole();
    let http = back.only("VirtualService")["spec"]["http"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(
        http[0]["match"],
        json!([{"port": 80, "uri": {"prefix": "/"}}])
    );
    assert_eq!(http[1]["match"], json!([{"port": 9090}]));
}

#[test]
fn what_is_not_routes_of_the_mesh_is_refused() {
    for (more, words) in [
        (
            ", gateways: [mesh, shop/edge]",
            "gateways other than the mesh",
        ),
        (", tcp: [{route: [{destination: {host: orders}}]}]", "`tcp`"),
        (
            ", tls: [{match: [{sniHosts: [a.example]}], route: [{destination: {host: orders}}]}]",
            "`tls`",
        ),
        (", exportTo: ['.']", "exportTo"),
    ] {
        let text = virtual_service(CANARY, more);
        written(Target::Cilium, &[&text]).is_refused(&[words]);
    }
    let hosts = virtual_service(CANARY, "").replace("[orders]", "[orders, elsewhere.example]");
    written(Target::Cilium, &[&hosts]).is_refused(&["every Service it names"]);
    let delegate = virtual_service("{match: [{uri: {prefix: /a}}], delegate: {name: d}}", "");
    written(Target::Cilium, &[&delegate]).is_refused(&["delegates"]);
}

#[test]
fn what_the_other_side_can_not_say_is_refused_with_the_whole_object() {
    let route = "route: [{destination: {host: orders}}]";
    for (rule, words) in [
        (
            format!("{{match: [{{sourceLabels: {{app: web}}}}], {route}}}"),
            "conditions on the caller",
        ),
        (
            format!("{{match: [{{sourceNamespace: other}}], {route}}}"),
            "conditions on the caller",
        ),
        (
            format!("{{match: [{{method: {{exact: GET}}}}], {route}}}"),
            "method",
        ),
        (
            format!("{{fault: {{abort: {{httpStatus: 500, percentage: {{value: 1}}}}}}, {route}}}"),
            "faults",
        ),
        (
            format!("{{corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}]}}, {route}}}"),
            "CORS",
        ),
    ] {
        to_cilium(&format!("{rule}, {CANARY}")).is_refused(&[words]);
    }
    // A subset is endpoints with labels, which Cilium has no word for.
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d, namespace: shop}, \
                spec: {host: orders, subsets: [{name: v1, labels: {version: v1}}]}}";
    let subset = virtual_service("{route: [{destination: {host: orders, subset: v1}}]}", "");
    written(Target::Cilium, &[&subset, rule]).is_refused(&["subset v1"]);
}

#[test]
fn settings_of_clusters_are_not_lost_in_silence() {
    let config = to_cilium(CANARY).only("CiliumEnvoyConfig").clone();
    let mut with = config.clone();
    let cluster = json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "shop/api:80", "lbPolicy": "RANDOM"});
    with["spec"]["resources"]
        .as_array_mut()
        .unwrap()
        .push(cluster);
    written(Target::Istio, &[&with.to_string()]).is_refused(&["type Cluster"]);
    written(Target::Istio, &[&config.to_string()]).is_whole();
}

/// Rules of an HTTPRoute are asked by what is most specific: only what is written in that order is written.
#[test]
fn an_http_route_is_written_where_the_order_is_the_same() {
    let by_header = "{match: [{headers: {x-canary: {exact: '1'}}}], route: [{destination: {host: api, port: {number: 80}}}]}";
    let rest = "{route: [{destination: {host: orders, port: {number: 8080}}}]}";
    let found = written(
        Target::Gateway,
        &[&virtual_service(&format!("{by_header}, {rest}"), "")],
    );
    found.is_whole();
    let route = found.only("HTTPRoute");
    assert_eq!(
        route["spec"]["parentRefs"],
        json!([{"group": "", "kind": "Service", "name": "orders", "port": 8080}])
    );
    assert_eq!(
        route["spec"]["rules"][0]["matches"][0]["headers"][0]["value"],
        "1"
    );
    let other_way = virtual_service(&format!("{rest}, {by_header}"), "");
    written(Target::Gateway, &[&other_way]).is_refused(&["most specific"]);
    let prefix = "{match: [{uri: {prefix: /a}}], route: [{destination: {host: orders}}]}";
    written(Target::Gateway, &[&virtual_service(prefix, "")]).is_refused(&["whole segments"]);
}

/// What is said of it would be lost or be more than it was, though the routes of the Services that are there are the same.
#[test]
fn what_only_seems_to_be_the_same_is_refused() {
    // Services that are made later.
    for hosts in [
        "['*.shop.svc.cluster.local']",
        "[orders, '*.example.com']",
        "['*']",
    ] {
        let hosts = virtual_service(CANARY, "").replace("[orders]", hosts);
        written(Target::Cilium, &[&hosts]).is_refused(&["begins with `*`"]);
    }
    let rule = |retries: &str| {
        format!("{{retries: {{attempts: 2{retries}}}, route: [{{destination: {{host: orders}}}}]}}")
    };
    to_cilium(&rule(", retryOn: reset")).is_whole();
    to_cilium(&rule(", retryOn: '5xx,reset-before-request'")).is_whole();
    let before = ", retryOn: 'connect-failure,reset-before-request'";
    to_cilium(&rule(before)).is_refused(&["reset-before-request"]);
    // The waypoint warns of it and does something else.
    to_cilium(&rule(", retryOn: unavailable")).is_refused(&["does not do what is written"]);

    let config = to_cilium(CANARY).only("CiliumEnvoyConfig").clone();
    let mut silent = config.clone();
    silent["spec"]["resources"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    written(Target::Istio, &[&silent.to_string()]).is_refused(&["without a Listener"]);
    let text = config.to_string();
    let retries = text.replace(
        "\"timeout\":",
        "\"retryPolicy\":{\"retryOn\":\"reset-before-request\"},\"timeout\":",
    );
    assert_ne!(text, retries);
    written(Target::Istio, &[&retries]).is_refused(&["reset-before-request"]);
}

/// Envoy answers requests for WebSockets itself unless its listener names them; the others know no such thing.
#[test]
fn websockets_that_envoy_refuses_are_let_through_only_if_that_is_asked_for() {
    let config = to_cilium(CANARY).only("CiliumEnvoyConfig").clone();
    let with = |upgrades: Value| {
        let mut config = config.clone();
        let filter = &mut config["spec"]["resources"][0]["filterChains"][0]["filters"][0];
        filter["typedConfig"]["upgradeConfigs"] = upgrades;
        config.to_string()
    };
    let named = with(json!([{"upgrade_type": "websocket"}]));
    let without = with(json!([]));
    for target in [Target::Istio, Target::Gateway] {
        written(target, &[&named]).is_whole();
        let refused = written(target, &[&without]);
        refused.is_refused(&["would allow more"]);
        let of_listener = refused
            .0
            .parts
            .iter()
            .find(|part| part.outcome == Outcome::Wider && part.path == "spec.resources[0]");
        let of_listener = of_listener.unwrap_or_else(|| panic!("{:#?}", refused.0));
        assert!(of_listener.why.contains("WebSockets"), "{of_listener:?}");
        assert!(of_listener.location.is_some(), "{of_listener:?}");

        let wider = written_wider(target, &[&without]);
        assert_eq!(wider.0.objects, written(target, &[&named]).0.objects);
        let outcomes: Vec<Outcome> = wider.0.parts.iter().map(|part| part.outcome).collect();
        assert_eq!(outcomes, [Outcome::Wider], "{:#?}", wider.0);
    }
}

/// Through a Listener that no service names comes nothing.
#[test]
fn only_listeners_that_services_name_are_asked_for_websockets() {
    let config = to_cilium(CANARY).only("CiliumEnvoyConfig").clone();
    let with = |named: Option<&str>, first_takes: bool| {
        let mut config = config.clone();
        let resources = config["spec"]["resources"].as_array_mut().unwrap();
        let mut other = resources[0].clone();
        other["name"] = json!("other");
        let upgrades = |listener: &mut Value, upgrades: Value| {
            let filter = &mut listener["filterChains"][0]["filters"][0];
            filter["typedConfig"]["upgradeConfigs"] = upgrades;
        };
        let (takes, refuses) = (json!([{"upgradeType": "websocket"}]), json!([]));
        let (first, last) = match first_takes {
            true => (takes, refuses),
            false => (refuses, takes),
        };
        upgrades(&mut resources[0], first);
        upgrades(&mut other, last);
        resources.push(other);
        for service in config["spec"]["services"].as_array_mut().unwrap() {
            service["listener"] = json!(named);
        }
        config.to_string()
    };
    for (named, first_takes) in [(None, true), (Some("other"), false)] {
        written(Target::Istio, &[&with(named, first_takes)]).is_whole();
    }
    for (named, first_takes) in [(None, false), (Some("other"), true)] {
        let refused = written(Target::Istio, &[&with(named, first_takes)]);
        refused.is_refused(&["would allow more"]);
    }
}

/// Both have a word for it; RE2 has no expression that folds the case of ASCII alone.
#[test]
fn a_path_in_any_case_is_no_expression() {
    let there = to_cilium(
        "{match: [{uri: {exact: /Fo.o}, ignoreUriCase: true}], route: [{destination: {host: orders}}]}",
    );
    there.is_whole();
    let config = there.only("CiliumEnvoyConfig");
    let routes = &config["spec"]["resources"][1]["virtualHosts"][0]["routes"];
    let expected = json!({"path": "/Fo.o", "caseSensitive": false});
    assert_eq!(routes[0]["match"], expected);
    let manager = &config["spec"]["resources"][0]["filterChains"][0]["filters"][0]["typedConfig"];
    assert_eq!(
        manager["upgradeConfigs"],
        json!([{"upgradeType": "websocket"}])
    );
    let back = written(Target::Istio, &[&text(&there.0.objects)]);
    back.is_whole();
    let matched = &back.only("VirtualService")["spec"]["http"][0]["match"][0];
    assert_eq!(matched["uri"], json!({"exact": "/Fo.o"}));
    assert_eq!(matched["ignoreUriCase"], true);
    let own = "{match: [{uri: {regex: '(?i-u:/a|/b)'}}], route: [{destination: {host: orders}}]}";
    to_cilium(own).is_refused(&["none of RE2"]);
}

/// The schema of HTTPRoutes has limits that the waypoint does not need.
#[test]
fn an_http_route_has_no_more_than_the_api_server_takes() {
    let route = "route: [{destination: {host: orders, port: {number: 8080}}}]";
    let many = |of: &dyn Fn(usize) -> String| (0..17).map(of).collect::<Vec<_>>().join(", ");
    let headers = many(&|at| format!("x-{at}: {{exact: a}}"));
    let set = many(&|at| format!("x-{at}: a"));
    for (rule, words) in [
        (
            format!("match: [{{headers: {{{headers}}}}}]"),
            "16 headers in a match",
        ),
        (
            format!("match: [{{queryParams: {{{headers}}}}}]"),
            "16 parameters in a match",
        ),
        (
            format!("headers: {{request: {{set: {{{set}}}}}}}"),
            "16 headers in one list",
        ),
        (
            "match: [{uri: {exact: '/v1/{id}'}}]".to_owned(),
            "takes no path",
        ),
        (
            format!("match: [{{uri: {{exact: /{}}}}}]", "a".repeat(1024)),
            "takes no path",
        ),
        (
            "headers: {request: {set: {x-a: ''}}}".to_owned(),
            "1 to 4096 bytes",
        ),
    ] {
        let rule = virtual_service(&format!("{{{rule}, {route}}}"), "");
        written(Target::Gateway, &[&rule]).is_refused(&[words]);
    }
}
