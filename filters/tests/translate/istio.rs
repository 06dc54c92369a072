//! VirtualServices at random, most of which Cilium's Envoy and the Gateway API can say, too.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::matches::{Match, Path, matched, object};
use crate::requests::weighted;

/// Up to three VirtualServices, perhaps of one Service. `sayable`: how much of it the others can say.
pub fn virtual_services(sayable: f64) -> impl Strategy<Value = Vec<Value>> {
    let one = move |name: &'static str| {
        (
            select(vec![
                json!(["orders"]),
                json!(["api"]),
                json!(["orders"]),
                json!(["api", "orders"]),
                json!(["*.shop.svc.cluster.local", "api"]),
            ]),
            vec(rule(sayable), 1..4),
            weighted(0.3, 0..3_u8),
        )
            .prop_map(move |(hosts, http, year)| {
                let created = year.map(|year| json!(format!("202{year}-01-01T00:00:00Z")));
                json!({
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": object(vec![
                        ("name", Some(json!(name))),
                        ("namespace", Some(json!("shop"))),
                        ("creationTimestamp", created),
                    ]),
                    "spec": {"hosts": hosts, "http": http},
                })
            })
    };
    (one("b"), weighted(0.3, one("a")), weighted(0.1, one("c")))
        .prop_map(|(first, second, third)| [Some(first), second, third])
        .prop_map(|all| all.into_iter().flatten().collect())
}

fn rule(sayable: f64) -> impl Strategy<Value = Value> {
    let odd = 1.0 - sayable;
    (
        vec(one_match(odd), 0..3),
        action(),
        headers(0.3),
        weighted(0.3, timing()),
        weighted(odd / 2.0, select(vec!["fault", "corsPolicy"])),
    )
        .prop_map(|(matches, action, headers, timing, odd)| {
            let mut rule = action;
            let is_route = rule.get("route").is_some();
            let map = rule.as_object_mut().unwrap();
            if !matches.is_empty() {
                map.insert("match".into(), json!(matches));
            }
            map.extend(headers.map(|headers| ("headers".to_owned(), headers)));
            if let (true, Some(Value::Object(timing))) = (is_route, timing) {
                map.extend(timing);
            }
            match odd {
                Some("fault") => {
                    let abort = json!({"abort": {"httpStatus": 503, "percentage": {"value": 50}}});
                    map.insert("fault".into(), abort);
                }
                Some(cors) => {
                    let origins = json!({"allowOrigins": [{"exact": "https://a"}]});
                    map.insert(cors.into(), origins);
                }
                None => {}
            }
            rule
        })
}

fn one_match(odd: f64) -> impl Strategy<Value = Value> {
    (
        matched(),
        weighted(0.1, select(vec![80, 9090, 8080])),
        weighted(odd, select(vec!["GET", "POST"])),
        weighted(odd / 2.0, Just("other")),
    )
        .prop_map(|(wanted, port, method, namespace)| {
            let path = path(&wanted);
            let named = |list: &[(&str, crate::matches::Text)]| {
                let pairs = list.iter();
                let pairs = pairs.map(|(name, text)| ((*name).to_owned(), text.of_istio()));
                let pairs: serde_json::Map<_, _> = pairs.collect();
                (!pairs.is_empty()).then_some(Value::Object(pairs))
            };
            let mut written = object(vec![
                ("uri", path),
                (
                    "ignoreUriCase",
                    ignores_case(&wanted.path).then_some(json!(true)),
                ),
                ("headers", named(&wanted.headers)),
                ("queryParams", named(&wanted.query)),
                ("authority", wanted.host.map(|host| host.of_istio())),
                (
                    "withoutHeaders",
                    wanted.absent.map(|name| json!({name: {}})),
                ),
                ("port", port.map(|port| json!(port))),
                ("method", method.map(|method| json!({"exact": method}))),
                (
                    "sourceNamespace",
                    namespace.map(|namespace| json!(namespace)),
                ),
            ]);
            if written == json!({}) {
                written = json!({"uri": {"prefix": "/"}});
            }
            written
        })
}

fn path(wanted: &Match) -> Option<Value> {
    Some(match wanted.path {
        Path::Any => return None,
        Path::Exact(text) => json!({"exact": text}),
        Path::Begins(text, _) | Path::Segments(text) => json!({"prefix": text}),
        Path::Regex(text) => json!({"regex": text}),
    })
}

fn ignores_case(path: &Path) -> bool {
    matches!(path, Path::Begins(_, true) | Path::Exact("/x.y"))
}

fn destination() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"host": "orders", "port": {"number": 8080}}),
        json!({"host": "api", "port": {"number": 80}}),
        json!({"host": "api.shop.svc.cluster.local", "port": {"number": 9090}}),
        json!({"host": "orders"}),
    ])
}

fn action() -> impl Strategy<Value = Value> {
    let share = (destination(), select(vec![0, 1, 10, 90]), headers(0.2)).prop_map(
        |(destination, weight, headers)| {
            object(vec![
                ("destination", Some(destination)),
                ("weight", Some(json!(weight))),
                ("headers", headers),
            ])
        },
    );
    let rewrite = prop_oneof![
        Just(json!({"uri": "/new"})),
        Just(json!({"uri": "/"})),
        Just(json!({"authority": "other.example"})),
        Just(json!({"uri": "/n/", "authority": "other.example:81"})),
        Just(json!({"uriRegexRewrite": {"match": "^/a(.*)$", "rewrite": "/z\\1"}})),
        Just(json!({})),
    ];
    let mirror = (destination(), select(vec![0.5, 10.0, 33.3, 100.0]));
    let mirror =
        mirror.prop_map(|(to, share)| json!({"destination": to, "percentage": {"value": share}}));
    let route = (
        vec(share, 1..4),
        weighted(0.3, rewrite),
        weighted(0.2, vec(mirror, 1..3)),
    )
        .prop_map(|(route, rewrite, mirrors)| {
            object(vec![
                ("route", Some(json!(route))),
                ("rewrite", rewrite),
                ("mirrors", mirrors.map(|mirrors| json!(mirrors))),
            ])
        });
    prop_oneof![
        5 => route,
        1 => select(redirects()).prop_map(|redirect| json!({"redirect": redirect})),
        1 => select(vec![
            json!({"status": 503}),
            json!({"status": 200, "body": {"string": "closed"}}),
        ]).prop_map(|answer| json!({"directResponse": answer})),
    ]
}

fn redirects() -> Vec<Value> {
    vec![
        json!({"uri": "/new"}),
        json!({"authority": "other.example", "redirectCode": 302}),
        json!({"scheme": "https", "redirectCode": 308}),
        json!({"authority": "other.example:81", "uri": "/new", "redirectCode": 307}),
        json!({"prefixRewrite": "/p", "redirectCode": 303}),
        json!({"port": 8443, "scheme": "https"}),
        json!({"authority": "other.example", "derivePort": "FROM_REQUEST_PORT"}),
    ]
}

fn headers(often: f64) -> impl Strategy<Value = Option<Value>> {
    let change = || {
        select(vec![
            json!({"set": {"x-new": "1", "x-a": "2"}}),
            json!({"add": {"x-user": "more"}}),
            json!({"remove": ["x-old", "x-canary"]}),
            json!({"set": {"host": "set.example"}, "remove": ["x-user"]}),
            json!({}),
        ])
    };
    let both = (weighted(0.7, change()), weighted(0.4, change()));
    let both = both
        .prop_map(|(request, response)| object(vec![("request", request), ("response", response)]));
    weighted(often, both)
}

fn timing() -> impl Strategy<Value = Value> {
    let on = select(vec![
        "5xx",
        "gateway-error",
        "503,5xx",
        "reset",
        "connect-failure,retriable-4xx,429",
        "",
    ]);
    let retries = (
        0..4_u8,
        on,
        weighted(0.4, select(vec!["250ms", "1s"])),
        weighted(0.2, Just("40ms")),
    );
    let retries = retries.prop_map(|(attempts, on, each, base)| {
        object(vec![
            ("attempts", Some(json!(attempts))),
            ("retryOn", (!on.is_empty()).then(|| json!(on))),
            ("perTryTimeout", each.map(|each| json!(each))),
            ("backoff", base.map(|base| json!(base))),
        ])
    });
    let timeout = weighted(0.7, select(vec!["0s", "2s", "1m40.5s", "150s", "500ms"]));
    (timeout, weighted(0.5, retries)).prop_map(|(timeout, retries)| {
        object(vec![
            ("timeout", timeout.map(|timeout| json!(timeout))),
            ("retries", retries),
        ])
    })
}
