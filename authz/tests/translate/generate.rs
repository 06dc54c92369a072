//! AuthorizationPolicies, CiliumNetworkPolicies and requests at random, from few words, so that they often meet.
//! Most of a policy can be said in both languages; some of it can not.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::mesh::{CLIENTS, PORTS, Ready, Request, Shape};

/// Something that is there so often, and hardly ever for 0.
fn weighted<S: Strategy>(often: f64, value: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::weighted(often.clamp(0.0001, 0.9999), value)
}

pub fn request() -> impl Strategy<Value = Request> {
    let paths = vec![
        "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/b", "/B", "/x.y", "/xzy", "/a*", "*",
    ];
    let queries = vec!["", "q=1", "q=/b", "/c"];
    let hosts = vec!["api.shop", "API.shop", "api.shop:80", "apixshop", "orders"];
    let headers = vec(
        (
            select(vec!["x-role", "x-other", "cookie"]),
            select(vec!["a", "b", "a,b", "*"]),
        ),
        0..3,
    );
    (
        (
            select(CLIENTS.to_vec()),
            0..PORTS.len(),
            (prop::bool::weighted(0.15), prop::bool::weighted(0.1)),
        ),
        select(vec!["GET", "POST", "get", "GETS"]),
        (select(paths), weighted(0.4, select(queries))),
        select(hosts),
        headers,
    )
        .prop_map(
            |((client, port, (tcp, direct)), method, (path, query), host, headers)| Request {
                client,
                port,
                method,
                path,
                query,
                host,
                headers,
                tcp,
                direct,
            },
        )
}

/// A mesh of which something is not ready, more often than not.
pub fn shape() -> impl Strategy<Value = Shape> {
    let ready = || {
        prop_oneof![
            6 => Just(Ready::Yes),
            1 => Just(Ready::No),
            1 => Just(Ready::Nowhere),
        ]
    };
    let rarely = prop::bool::weighted(0.15);
    (ready(), ready(), rarely, any::<bool>()).prop_map(|(api, orders, without_metrics, both)| {
        Shape {
            api,
            orders,
            without_metrics,
            both,
        }
    })
}

/// A field that is often absent.
fn field(
    name: &'static str,
    often: f64,
    values: &[&'static str],
) -> impl Strategy<Value = Option<(String, Value)>> + use<> {
    let some = subsequence(values.to_vec(), 1..=2);
    weighted(
        often,
        some.prop_map(move |values| (name.to_owned(), json!(values))),
    )
}

fn object(fields: Vec<Option<(String, Value)>>) -> Value {
    Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>())
}

fn source(sayable: f64) -> impl Strategy<Value = Value> {
    let principals = [
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/other/sa/web",
        "cluster.local/ns/shop/sa/job",
        "*/ns/other/sa/job",
        "cluster.local/ns/shop/*",
        "*",
    ];
    let odd = 1.0 - sayable;
    (
        field("principals", 0.7, &principals),
        field("namespaces", 0.4, &["shop", "other"]),
        field("serviceAccounts", 0.2, &["shop/web", "other/job"]),
        field(
            "notPrincipals",
            odd,
            &["cluster.local/ns/shop/sa/web", "*/sa/job"],
        ),
        field("ipBlocks", odd / 2.0, &["10.0.2.0/24", "10.0.2.1/32"]),
    )
        .prop_map(|(a, b, c, d, e)| object(vec![a, b, c, d, e]))
        .prop_filter("a source has a field", |source| *source != json!({}))
        .prop_map(|source| json!({"source": source}))
}

fn operation(sayable: f64) -> impl Strategy<Value = Value> {
    let paths = [
        "/a", "/a/*", "/a*", "*/b", "/x.y", "/a/{*}", "/a/{**}", "/{*}/b", "*",
    ];
    let odd = 1.0 - sayable;
    (
        field("methods", 0.5, &["GET", "POST"]),
        field("paths", 0.6, &paths),
        field("hosts", 0.2, &["api.shop", "api.*", "*.shop", "*"]),
        field("ports", 0.4, &["80", "9090", "8080"]),
        field("notPaths", odd, &["/a", "/b"]),
        field("notPorts", 0.1, &["80", "8080"]),
    )
        .prop_map(|(a, b, c, d, e, f)| object(vec![a, b, c, d, e, f]))
        .prop_filter("an operation has a field", |operation| {
            *operation != json!({})
        })
        .prop_map(|operation| json!({"operation": operation}))
}

fn condition(sayable: f64) -> impl Strategy<Value = Value> {
    let odd = ((1.0 - sayable) * 100.0) as u32;
    let key = prop_oneof![
        60 => Just(("request.headers[x-role]", vec!["a", "b", "*"])),
        20 => Just(("source.namespace", vec!["shop", "other"])),
        20 => Just(("destination.port", vec!["80", "8080"])),
        odd + 1 => Just(("request.headers[x-role]", vec!["a*", "*b"])),
        odd + 1 => Just(("request.headers[cookie]", vec!["a", "b"])),
    ];
    key.prop_flat_map(|(key, values)| {
        subsequence(values, 1..=2).prop_map(move |values| json!({"key": key, "values": values}))
    })
}

fn istio_rule(sayable: f64) -> impl Strategy<Value = Value> {
    (
        weighted(0.8, vec(source(sayable), 1..3)),
        weighted(0.8, vec(operation(sayable), 1..3)),
        weighted(0.25, vec(condition(sayable), 1..3)),
    )
        .prop_map(|(from, to, when)| {
            let named =
                |name: &str, list: Option<Vec<Value>>| list.map(|l| (name.to_owned(), json!(l)));
            object(vec![
                named("from", from),
                named("to", to),
                named("when", when),
            ])
        })
}

/// AuthorizationPolicies for the Services; of those that deny most deny connections.
pub fn istio_policies(sayable: f64) -> impl Strategy<Value = Vec<Value>> {
    let service = |name: &str| json!({"group": "", "kind": "Service", "name": name});
    let targets = select(vec![
        vec![service("api")],
        vec![service("api")],
        vec![service("orders")],
        vec![service("api"), service("orders")],
        vec![json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"})],
    ]);
    let allow = vec(istio_rule(sayable), 0..4).prop_map(|rules| ("ALLOW", rules));
    let of_connections = (
        vec(source(1.0), 1..2),
        weighted(0.4, Just(json!([{"operation": {"ports": ["80"]}}]))),
    );
    let of_connections = of_connections.prop_map(|(from, to)| {
        object(vec![
            Some(("from".to_owned(), json!(from))),
            to.map(|to| ("to".to_owned(), to)),
        ])
    });
    let deny = vec(of_connections, 1..3).prop_map(|rules| ("DENY", rules));
    let odd = vec(istio_rule(sayable), 1..2).prop_map(|rules| ("DENY", rules));
    let often = ((1.0 - sayable) * 10.0) as u32;
    let said = prop_oneof![8 => allow.boxed(), 1 => deny.boxed(), often + 1 => odd.boxed()];
    vec((targets, said), 1..4).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let policies = numbered.map(|(number, (targets, (action, rules)))| {
            let mut spec = json!({"targetRefs": targets, "action": action});
            if !rules.is_empty() {
                spec["rules"] = json!(rules);
            }
            json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": {"name": format!("p{number}"), "namespace": "shop"},
                "spec": spec,
            })
        });
        policies.collect()
    })
}

fn labels(namespace: &str, account: Option<&str>) -> Value {
    let mut labels = Map::new();
    labels.insert("k8s:io.kubernetes.pod.namespace".into(), json!(namespace));
    if let Some(account) = account {
        labels.insert(
            "k8s:io.cilium.k8s.policy.serviceaccount".into(),
            json!(account),
        );
    }
    json!({"matchLabels": labels})
}

fn peers(sayable: f64) -> impl Strategy<Value = Value> {
    let account = select(vec![
        labels("shop", Some("web")),
        labels("shop", Some("job")),
        labels("other", Some("web")),
        labels("other", None),
        json!({}),
    ]);
    let labelled = select(vec![
        json!({"matchLabels": {"app": "web"}}),
        json!({"matchLabels": {"app": "batch"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
    ]);
    let odd = ((1.0 - sayable) * 10.0) as u32;
    prop_oneof![
        8 => vec(account, 1..3).prop_map(|list| json!({"fromEndpoints": list})),
        1 => select(vec!["all", "cluster", "none"]).prop_map(|entity| json!({"fromEntities": [entity]})),
        odd + 1 => vec(labelled, 1..2).prop_map(|list| json!({"fromEndpoints": list})),
        odd + 1 => select(vec![
            json!({"fromEntities": ["world"]}),
            json!({"fromCIDR": ["10.0.0.0/8"]}),
            json!({"fromEndpoints": []}),
            json!({}),
        ]),
    ]
}

fn http_rule(sayable: f64) -> impl Strategy<Value = Value> {
    let paths = if sayable > 0.9 {
        vec![
            "/a/.*",
            r"/a(\?.*)?",
            "/a.*",
            r"/x\.y(\?.*)?",
            "^/a.*$",
            r"/a/[^/?]+(\?.*)?",
        ]
    } else {
        vec![
            "/a",
            "/a/.*",
            "/a|/b",
            "/x.y",
            r"/a\*",
            "(?i)/b",
            ".*b",
            "/a/[^/]+",
            "/a(/|$)(.*)",
            "/[ab]",
        ]
    };
    let one = |name: &'static str, often: f64, values: Vec<&'static str>| {
        weighted(
            often,
            select(values).prop_map(move |value| (name.to_owned(), json!(value))),
        )
    };
    let headers = vec![
        "X-Role: a",
        "X-Role",
        "x-other a,b",
        "cookie: a",
        "X-Role: *",
    ];
    (
        one("method", 0.6, vec!["GET", "GET|POST", "(GET|POST)", "P.*"]),
        one("path", 0.7, paths),
        one(
            "host",
            1.0 - sayable,
            vec![r"api\.shop", r"(?i)api\.shop", "api.shop", ".*"],
        ),
        weighted(
            0.2,
            subsequence(headers, 1..=2).prop_map(|h| ("headers".to_owned(), json!(h))),
        ),
        weighted(
            (1.0 - sayable) / 4.0,
            Just((
                "headerMatches".to_owned(),
                json!([{"name": "x-role", "value": "a"}]),
            )),
        ),
    )
        .prop_map(|(a, b, c, d, e)| object(vec![a, b, c, d, e]))
}

fn to_ports(sayable: f64) -> impl Strategy<Value = Value> {
    let ports = subsequence(vec!["8080", "9090"], 1..=2);
    let protocol =
        prop_oneof![40 => Just("TCP"), (((1.0 - sayable) * 10.0) as u32 + 1) => Just("UDP")];
    (
        ports,
        weighted(0.7, vec(http_rule(sayable), 1..4)),
        protocol,
    )
        .prop_map(|(ports, http, protocol)| {
            let protocol = if http.is_some() { "TCP" } else { protocol };
            let ports: Vec<Value> = ports
                .into_iter()
                .map(|port| json!({"port": port, "protocol": protocol}))
                .collect();
            let mut written = json!({"ports": ports});
            if let Some(http) = http {
                written["rules"] = json!({"http": http});
            }
            written
        })
}

/// CiliumNetworkPolicies for the pods behind the Services.
pub fn cilium_policies(sayable: f64) -> impl Strategy<Value = Vec<Value>> {
    let item = (
        peers(sayable),
        weighted(0.9, vec(to_ports(sayable), 1..3)),
        weighted(
            (1.0 - sayable) / 3.0,
            select(vec!["required", "disabled", "test-always-fail"]),
        ),
    );
    let item = item.prop_map(|(mut item, ports, mode)| {
        if let Some(ports) = ports {
            item["toPorts"] = json!(ports);
        }
        if let Some(mode) = mode {
            item["authentication"] = json!({"mode": mode});
        }
        item
    });
    let selector = select(vec![
        json!({"matchLabels": {"app": "api"}}),
        json!({"matchLabels": {"app": "api"}}),
        json!({"matchLabels": {"app": "orders"}}),
        json!({"matchLabels": {"tier": "back"}}),
    ]);
    let odd = (1.0 - sayable) / 5.0;
    let one = (
        selector,
        vec(item, 1..4),
        weighted(
            odd,
            Just(json!([{"fromEndpoints": [labels("shop", Some("web"))]}])),
        ),
        weighted(odd, Just(json!([{"toEntities": ["cluster"]}]))),
        weighted(odd, any::<bool>()),
    );
    vec(one, 1..4).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let policies = numbered.map(|(number, (selector, ingress, deny, egress, default))| {
            let mut spec = json!({"endpointSelector": selector, "ingress": ingress});
            if let Some(deny) = deny {
                spec["ingressDeny"] = deny;
            }
            if let Some(egress) = egress {
                spec["egress"] = egress;
            }
            match default {
                Some(true) => spec["enableDefaultDeny"] = json!({"egress": true}),
                Some(false) => spec["enableDefaultDeny"] = json!({"ingress": false}),
                None => {}
            }
            json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": format!("p{number}"), "namespace": "shop"},
                "spec": spec,
            })
        });
        policies.collect()
    })
}
