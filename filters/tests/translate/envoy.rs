//! CiliumEnvoyConfigs at random, of one listener with routes, most of which Istio can say, too.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::matches::{Match, Path, matched, object};
use crate::requests::weighted;

const TYPES: &str = "type.googleapis.com/envoy.config";

/// One or two CiliumEnvoyConfigs. `sayable`: how much of it the others can say.
pub fn envoy_configs(sayable: f64) -> impl Strategy<Value = Vec<Value>> {
    let one = move |name: &'static str| {
        (
            select(vec![
                json!([["orders", [8080]]]),
                json!([["orders", null]]),
                json!([["api", [80]]]),
                json!([["api", [9090]]]),
                json!([["api", null]]),
                json!([["orders", null], ["api", [80]]]),
                json!([["orders", [8080]], ["api", null]]),
            ]),
            vec(route(), 1..4),
            prop::bool::weighted(1.0 - sayable),
        )
            .prop_map(move |(services, routes, odd)| config(name, &services, &routes, odd))
    };
    (one("b"), weighted(0.4, one("a")))
        .prop_map(|(first, second)| [Some(first), second].into_iter().flatten().collect())
}

/// `services`: names of Services, each with its ports, or null for all.
fn config(name: &str, services: &Value, routes: &[Value], odd: bool) -> Value {
    let taken = services.as_array().unwrap().iter().map(|taken| {
        object(vec![
            ("name", Some(taken[0].clone())),
            ("namespace", Some(json!("shop"))),
            ("listener", Some(json!("l"))),
            ("ports", taken[1].as_array().map(|ports| json!(ports))),
        ])
    });
    let taken: Vec<Value> = taken.collect();
    let manager = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let listener = json!({
        "@type": format!("{TYPES}.listener.v3.Listener"),
        "name": "l",
        "filterChains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typedConfig": {
                "@type": format!("type.googleapis.com/envoy.{manager}"),
                "statPrefix": "l",
                "rds": {"routeConfigName": "r"},
                "upgradeConfigs": [{"upgradeType": "websocket"}],
                "httpFilters": [{
                    "name": "envoy.filters.http.router",
                    "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    });
    let everyone = json!([{"name": "all", "domains": ["*"], "routes": routes}]);
    let some = json!([
        {"name": "some", "domains": ["orders"], "routes": routes},
        {"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "directResponse": {"status": 404}},
        ]},
    ]);
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEnvoyConfig",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "services": taken,
            "backendServices": [
                {"name": "api", "namespace": "shop", "number": ["80", "9090"]},
                {"name": "orders", "namespace": "shop", "number": ["8080"]},
            ],
            "resources": [listener, {
                "@type": format!("{TYPES}.route.v3.RouteConfiguration"),
                "name": "r",
                "virtualHosts": if odd { some } else { everyone },
            }],
        },
    })
}

fn route() -> impl Strategy<Value = Value> {
    (matched(), action(), changes(0.3, &["x-new", "x-a"])).prop_map(|(wanted, action, changes)| {
        let mut route = action;
        let map = route.as_object_mut().unwrap();
        map.insert("match".into(), of_match(&wanted));
        if let Some(Value::Object(changes)) = changes {
            map.extend(changes);
        }
        route
    })
}

fn of_match(wanted: &Match) -> Value {
    let (field, value, ignore_case) = match wanted.path {
        Path::Any => ("prefix", json!("/"), false),
        Path::Exact(text) => ("path", json!(text), false),
        Path::Begins(text, ignore_case) => ("prefix", json!(text), ignore_case),
        Path::Segments(text) => ("pathSeparatedPrefix", json!(text), false),
        Path::Regex(text) => ("safeRegex", json!({"regex": text}), false),
    };
    let named = wanted.headers.iter();
    let mut headers: Vec<Value> = named.map(|(name, text)| text.of_envoy(name)).collect();
    headers.extend(wanted.host.map(|host| host.of_envoy(":authority")));
    let absent = wanted.absent.iter();
    headers.extend(
        absent.map(|name| json!({"name": name, "presentMatch": true, "invertMatch": true})),
    );
    let query = wanted.query.iter();
    let query: Vec<Value> = query.map(|(name, text)| text.of_envoy(name)).collect();
    object(vec![
        (field, Some(value.clone())),
        (
            "caseSensitive",
            (ignore_case || value == "/x.y" && field == "path").then_some(json!(false)),
        ),
        ("headers", (!headers.is_empty()).then(|| json!(headers))),
        ("queryParameters", (!query.is_empty()).then(|| json!(query))),
    ])
}

fn action() -> impl Strategy<Value = Value> {
    let name = || select(vec!["shop/orders:8080", "shop/api:80", "shop/api:9090"]);
    let share = (
        name(),
        select(vec![0, 1, 10, 90]),
        changes(0.2, &["x-b", "x-c"]),
    )
        .prop_map(|(name, weight, changes)| {
            let mut share = json!({"name": name, "weight": weight});
            if let Some(Value::Object(changes)) = changes {
                share.as_object_mut().unwrap().extend(changes);
            }
            share
        });
    let to = prop_oneof![
        name().prop_map(|name| json!({"cluster": name})),
        vec(share, 1..4).prop_map(|clusters| json!({"weightedClusters": {"clusters": clusters}})),
    ];
    let change = prop_oneof![
        Just(json!({"prefixRewrite": "/new"})),
        Just(json!({"prefixRewrite": "/"})),
        Just(json!({"hostRewriteLiteral": "other.example"})),
        Just(json!({"regexRewrite": {"pattern": {"regex": "^/a(.*)$"}, "substitution": "/z\\1"}})),
    ];
    let mirror = (name(), select(vec!["HUNDRED", "TEN_THOUSAND", "MILLION"]));
    let mirror = mirror.prop_map(|(name, parts)| {
        json!({"requestMirrorPolicies": [{
            "cluster": name,
            "runtimeFraction": {"defaultValue": {"numerator": 10, "denominator": parts}},
        }]})
    });
    let parts = (
        to,
        weighted(0.3, change),
        weighted(0.2, mirror),
        weighted(0.4, timing()),
    );
    let route = parts.prop_map(|(to, change, mirror, timing)| {
        let mut route = to;
        let map = route.as_object_mut().unwrap();
        for part in [change, mirror, timing].into_iter().flatten() {
            map.extend(part.as_object().unwrap().clone());
        }
        json!({"route": route})
    });
    prop_oneof![
        5 => route,
        1 => select(redirects()).prop_map(|redirect| json!({"redirect": redirect})),
        1 => select(vec![
            json!({"status": 503}),
            json!({"status": 200, "body": {"inlineString": "closed"}}),
        ]).prop_map(|answer| json!({"directResponse": answer})),
    ]
}

fn redirects() -> Vec<Value> {
    vec![
        json!({"pathRedirect": "/new"}),
        json!({"hostRedirect": "other.example", "responseCode": "FOUND"}),
        json!({"schemeRedirect": "https", "responseCode": "PERMANENT_REDIRECT"}),
        json!({"httpsRedirect": true, "portRedirect": 8443}),
        json!({"prefixRewrite": "/p", "responseCode": "SEE_OTHER"}),
    ]
}

fn changes(often: f64, names: &[&'static str; 2]) -> impl Strategy<Value = Option<Value>> + use<> {
    let [first, second] = *names;
    let add = move |action: &str| {
        json!([
            {"header": {"key": second, "value": "2"}, "appendAction": action},
            {"header": {"key": first, "value": "1"}, "appendAction": action},
        ])
    };
    let change = select(vec![
        json!({"requestHeadersToAdd": add("OVERWRITE_IF_EXISTS_OR_ADD")}),
        json!({"requestHeadersToAdd": add("APPEND_IF_EXISTS_OR_ADD")}),
        json!({"responseHeadersToAdd": add("APPEND_IF_EXISTS_OR_ADD")}),
        json!({"requestHeadersToRemove": [second, first]}),
        json!({"responseHeadersToRemove": [first]}),
    ]);
    weighted(often, change)
}

fn timing() -> impl Strategy<Value = Value> {
    let statuses = select(vec![
        json!({"retryOn": "5xx", "numRetries": 2}),
        json!({"retryOn": "gateway-error,reset"}),
        json!({"retryOn": "retriable-status-codes", "retriableStatusCodes": [503, 429]}),
        json!({"retryOn": "connect-failure", "perTryTimeout": "0.250s"}),
        json!({"retryOn": "5xx", "retryBackOff": {"baseInterval": "0.040s", "maxInterval": "0.400s"}}),
        json!({"retryOn": "5xx", "retryBackOff": {"baseInterval": "0.040s", "maxInterval": "1s"}}),
    ]);
    let timeout = weighted(0.7, select(vec!["0s", "2s", "150s", "0.5s"]));
    (timeout, weighted(0.5, statuses)).prop_map(|(timeout, retry)| {
        object(vec![
            ("timeout", timeout.map(|timeout| json!(timeout))),
            ("retryPolicy", retry),
        ])
    })
}
