//! The table of connections against a naive search. Weights are `split`'s.

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some(end) => HostPattern::EndsWith(end.into()),
        None => HostPattern::Exact(text.into()),
    }
}

fn tls(names: &[&str]) -> StreamMatch {
    StreamMatch {
        server_names: Some(ServerNames::Of(names.iter().map(|n| pattern(n)).collect())),
        ..StreamMatch::default()
    }
}

fn route(kind: Kind, key: &str, age_s: i64, rules: Vec<Vec<StreamMatch>>) -> Arc<StreamRoute> {
    let (namespace, name) = key.split_once('/').unwrap();
    let rules = rules.into_iter().map(|matches| StreamRule {
        name: None,
        matches,
        backends: Vec::new(),
        broken: None,
    });
    Arc::new(StreamRoute {
        origin: Origin {
            kind,
            key: ObjectKey::new(namespace, name),
        },
        created_s: Some(age_s),
        rules: rules.collect(),
        broken: false,
    })
}

fn found(routes: &StreamRoutes, caller: &str, name: &ServerName) -> String {
    let parts = StreamParts {
        caller_namespace: Some(caller),
        caller_labels: None,
        destination: IpAddr::from([10, 96, 0, 1]),
        server_name: name,
    };
    match routes.find(&parts) {
        FoundStream::Default => "default".into(),
        FoundStream::NoMatch => "none".into(),
        FoundStream::Rule(rule) => format!("{}#{}", rule.route.origin.key, rule.rule),
    }
}

fn named(name: &str) -> ServerName {
    ServerName::Named(name.into())
}

#[test]
fn the_most_specific_name_of_tls_routes_goes_first() {
    let routes = StreamRoutes::compile(
        "shop",
        &[
            route(
                Kind::TLSRoute,
                "shop/suffix",
                1,
                vec![vec![tls(&["*.example"])]],
            ),
            route(
                Kind::TLSRoute,
                "shop/longer",
                2,
                vec![vec![tls(&["*.a.example"])]],
            ),
            route(
                Kind::TLSRoute,
                "shop/exact",
                3,
                vec![vec![tls(&["x.a.example"]), tls(&["*.example"])]],
            ),
        ],
    );
    assert!(routes.ask_for_server_name(Some("office")));
    for (name, expected) in [
        (named("x.a.example"), "shop/exact#0"),
        (named("y.a.example"), "shop/longer#0"),
        // Two suffixes as long: the older one.
        (named("b.example"), "shop/suffix#0"),
        (named("example"), "none"),
        (ServerName::Absent, "none"),
        (ServerName::NotTls, "none"),
    ] {
        assert_eq!(found(&routes, "office", &name), expected, "{name:?}");
    }
}

#[test]
fn tls_without_a_name_takes_a_route_for_any_tls() {
    let any = StreamMatch {
        server_names: Some(ServerNames::Any),
        ..StreamMatch::default()
    };
    let all = [route(Kind::TLSRoute, "shop/all", 1, vec![vec![any]])];
    let routes = StreamRoutes::compile("shop", &all);
    assert_eq!(found(&routes, "x", &ServerName::Absent), "shop/all#0");
    assert_eq!(found(&routes, "x", &named("a.example")), "shop/all#0");
    assert_eq!(found(&routes, "x", &ServerName::NotTls), "none");
}

#[test]
fn a_virtual_service_goes_by_its_order_and_leaves_the_rest_to_the_service() {
    let rules = vec![
        vec![tls(&["*.example"])],
        vec![tls(&["a.example"])],
        vec![StreamMatch {
            caller_namespace: Some("office".into()),
            ..StreamMatch::default()
        }],
    ];
    let routes = [route(Kind::VirtualService, "shop/v", 1, rules)];
    let routes = StreamRoutes::compile("shop", &routes);
    assert_eq!(found(&routes, "x", &named("a.example")), "shop/v#0");
    assert_eq!(found(&routes, "office", &named("b.test")), "shop/v#2");
    assert_eq!(found(&routes, "x", &named("b.test")), "default");
}

#[test]
fn callers_get_the_routes_of_their_namespace_alone() {
    let any = || vec![vec![StreamMatch::default()]];
    let routes = StreamRoutes::compile(
        "shop",
        &[
            route(Kind::TCPRoute, "shop/own", 1, any()),
            route(
                Kind::TLSRoute,
                "bank/theirs",
                1,
                vec![vec![tls(&["a.example"])]],
            ),
        ],
    );
    assert_eq!(found(&routes, "office", &ServerName::Unread), "shop/own#0");
    assert_eq!(found(&routes, "bank", &ServerName::NotTls), "none");
    assert!(routes.ask_for_server_name(Some("bank")));
    assert!(!routes.ask_for_server_name(Some("office")));
}

#[test]
fn no_route_is_the_service_itself() {
    let routes = StreamRoutes::compile("shop", &[]);
    assert_eq!(found(&routes, "x", &ServerName::Unread), "default");
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "example"]), 1..4)
        .prop_map(|labels| labels.join("."))
}

fn written() -> impl Strategy<Value = String> {
    (any::<bool>(), name()).prop_map(|(star, name)| if star { format!("*.{name}") } else { name })
}

/// What a reader of the specification would do: of all names that hold, the exact one, then the longest;
/// then the older route.
fn naive(routes: &[(String, i64)], name: &str) -> Option<usize> {
    let holds = |pattern: &str| match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end) && name.len() > end.len(),
        None => name == pattern,
    };
    let mut best: Option<usize> = None;
    for (at, (pattern, age)) in routes.iter().enumerate().filter(|(_, (p, _))| holds(p)) {
        let better = best.is_none_or(|other| {
            let (other, other_age) = &routes[other];
            let exact = |p: &str| !p.starts_with('*');
            match (exact(pattern), exact(other)) {
                (true, false) => true,
                (false, true) => false,
                _ if pattern.len() != other.len() => pattern.len() > other.len(),
                _ => age < other_age,
            }
        });
        if better {
            best = Some(at);
        }
    }
    best
}

proptest! {
    #[test]
    fn it_finds_what_a_naive_search_finds(
        patterns in prop::collection::vec(written(), 1..8),
        asked in name(),
    ) {
        let aged: Vec<(String, i64)> = patterns.into_iter().zip(1..).collect();
        let routes: Vec<_> = (aged.iter().enumerate())
            .map(|(at, (pattern, age))| {
                let matches = vec![vec![tls(&[pattern.as_str()])]];
                route(Kind::TLSRoute, &format!("shop/r{at}"), *age, matches)
            })
            .collect();
        let table = StreamRoutes::compile("shop", &routes);
        let expected = match naive(&aged, &asked) {
            Some(at) => format!("shop/r{at}#0"),
            None => "none".into(),
        };
        prop_assert_eq!(found(&table, "x", &named(&asked)), expected);
    }
}
