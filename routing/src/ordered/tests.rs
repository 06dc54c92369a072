//! First match wins (specs/policies.md 2.6), by example and against an oracle that tries every match.

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    HeaderMatch, HttpMatch, HttpRule, MoreConditions, Pattern, QueryMatch, TextMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;

fn begins(text: &str) -> HttpMatch {
    on(PathMatch::Begins {
        text: text.into(),
        ignore_case: false,
    })
}

fn begins_in_any_case(text: &str) -> HttpMatch {
    on(PathMatch::Begins {
        text: text.into(),
        ignore_case: true,
    })
}

fn exact(text: &str) -> HttpMatch {
    on(PathMatch::Exact(text.into()))
}

fn on(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        ..HttpMatch::default()
    }
}

fn more(matched: HttpMatch, more: MoreConditions) -> HttpMatch {
    HttpMatch {
        more: Some(Box::new(more)),
        ..matched
    }
}

fn without(matched: HttpMatch, name: &'static str, value: TextMatch) -> HttpMatch {
    let name = HeaderName::from_static(name);
    let conditions = MoreConditions {
        without_headers: vec![HeaderMatch { name, value }],
        ..MoreConditions::default()
    };
    more(matched, conditions)
}

fn route(name: &str, created_s: Option<i64>, rules: Vec<Vec<HttpMatch>>) -> Arc<HttpRoute> {
    let rule = |matches| HttpRule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        traffic: Default::default(),
        broken: None,
    };
    Arc::new(HttpRoute {
        origin: Origin {
            kind: Kind::VirtualService,
            key: ObjectKey::new("shop", name),
        },
        created_s,
        rules: rules.into_iter().map(rule).collect(),
        broken: false,
    })
}

fn compiled(routes: &[Arc<HttpRoute>]) -> Ordered {
    Ordered::compile(&routes.iter().collect::<Vec<_>>())
}

fn ask(routes: &[Arc<HttpRoute>], path: &str, headers: &HeaderMap) -> String {
    let request = RequestParts {
        method: &Method::GET,
        authority: "web.shop",
        path,
        query: Some("q=1&empty"),
        caller_namespace: Some("bank"),
        caller_labels: None,
        headers,
        claims: None,
    };
    compiled(routes)
        .find(&request)
        .map_or("none".to_owned(), |found| {
            format!(
                "{} {}.{}",
                found.route.origin.key.name, found.rule, found.matched
            )
        })
}

#[test]
fn the_first_rule_written_wins_however_specific_the_others_are() {
    let rules = vec![vec![begins("/a")], vec![exact("/a/b")], vec![begins("/")]];
    let routes = [route("web", None, rules)];
    let none = HeaderMap::new();
    assert_eq!(ask(&routes, "/a/b", &none), "web 0.0");
    assert_eq!(ask(&routes, "/b", &none), "web 2.0");
}

#[test]
fn an_exact_path_before_a_prefix_is_found_first() {
    let rules = vec![vec![exact("/a/b")], vec![begins("/a")]];
    let routes = [route("web", None, rules)];
    let none = HeaderMap::new();
    assert_eq!(ask(&routes, "/a/b", &none), "web 0.0");
    assert_eq!(ask(&routes, "/a/c", &none), "web 1.0");
    assert_eq!(ask(&routes, "/b", &none), "none");
}

#[test]
fn objects_follow_one_another_the_oldest_first() {
    let all = || vec![vec![begins("/")]];
    let routes = [
        route("young", Some(9), all()),
        route("ageless", None, all()),
        route("old", Some(3), all()),
    ];
    let none = HeaderMap::new();
    assert_eq!(ask(&routes, "/", &none), "old 0.0");
    assert_eq!(ask(&routes[..2], "/", &none), "young 0.0");
}

#[test]
fn a_prefix_is_of_the_text_and_not_of_segments() {
    let none = HeaderMap::new();
    let routes = [route("web", None, vec![vec![begins("/api/v")]])];
    assert_eq!(ask(&routes, "/api/v2/x", &none), "web 0.0");
    assert_eq!(ask(&routes, "/API/v2", &none), "none");
    let routes = [route("web", None, vec![vec![begins_in_any_case("/api/v")]])];
    assert_eq!(ask(&routes, "/API/V2", &none), "web 0.0");
    assert_eq!(ask(&routes, "/api", &none), "none");
}

#[test]
fn conditions_that_the_gateway_api_lacks() {
    let mut headers = HeaderMap::new();
    headers.insert("x-beta", HeaderValue::from_static("yes"));
    let none = HeaderMap::new();
    let found = |matched: HttpMatch, headers: &HeaderMap| {
        ask(&[route("web", None, vec![vec![matched]])], "/", headers) != "none"
    };
    // A header that is absent is not one whose value matches.
    let beta = |value| without(begins("/"), "x-beta", value);
    assert!(found(beta(TextMatch::Exact("yes".into())), &none));
    assert!(found(beta(TextMatch::Exact("no".into())), &headers));
    assert!(!found(beta(TextMatch::Prefix("y".into())), &headers));
    assert!(!found(beta(TextMatch::Present), &headers));
    for (caller, expected) in [("bank", true), ("shop", false)] {
        let conditions = MoreConditions {
            caller_namespace: Some(caller.into()),
            ..MoreConditions::default()
        };
        assert_eq!(found(more(begins("/"), conditions), &none), expected);
    }
    for (source, expected) in [("GE.", true), ("POST|GET", true), ("G", false)] {
        let conditions = MoreConditions {
            method: Some(TextMatch::Regex(Pattern::compile(source).unwrap())),
            ..MoreConditions::default()
        };
        assert_eq!(found(more(begins("/"), conditions), &none), expected);
    }
    for (name, value, expected) in [
        ("q", TextMatch::Present, true),
        ("q", TextMatch::Exact("".into()), false),
        ("empty", TextMatch::Exact("".into()), true),
        ("other", TextMatch::Present, false),
    ] {
        let mut matched = begins("/");
        let name = name.into();
        matched.query.push(QueryMatch { name, value });
        assert_eq!(found(matched, &none), expected);
    }
}

/// Every match in the order written, tried one by one, in the words of the specification.
fn oracle(routes: &[Arc<HttpRoute>], path: &str, beta: Option<&str>) -> String {
    let mut routes = routes.to_vec();
    routes.sort_by(|a, b| {
        let age = |r: &HttpRoute| (r.created_s.is_none(), r.created_s);
        let name = |r: &HttpRoute| r.origin.key.to_string();
        age(a).cmp(&age(b)).then(name(a).cmp(&name(b)))
    });
    for route in routes {
        for (rule, written) in route.rules.iter().enumerate() {
            for (at, matched) in written.matches.iter().enumerate() {
                let path_holds = match &matched.path {
                    PathMatch::Exact(text) => path == &**text,
                    PathMatch::Begins { text, ignore_case } if *ignore_case => {
                        path.to_lowercase().starts_with(&text.to_lowercase())
                    }
                    PathMatch::Begins { text, .. } => path.starts_with(&**text),
                    PathMatch::Regex(pattern) => pattern.matches(path),
                    PathMatch::Prefix(_) => unreachable!("of the Gateway API"),
                };
                let asks_without = matched.more.is_some();
                if path_holds && !(asks_without && beta == Some("yes")) {
                    return format!("{} {rule}.{at}", route.origin.key.name);
                }
            }
        }
    }
    "none".to_owned()
}

fn any_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["", "a", "b", "ab", "A"]);
    prop::collection::vec(segment, 1..4).prop_map(|s| format!("/{}", s.join("/")))
}

fn any_match() -> impl Strategy<Value = HttpMatch> {
    let sources = prop::sample::select(vec!["/a.*", "/[ab]/.*", "/(a|ab)"]);
    let path = prop_oneof![
        3 => any_path().prop_map(|p| exact(&p)),
        2 => any_path().prop_map(|p| begins(&p)),
        1 => any_path().prop_map(|p| begins_in_any_case(&p)),
        1 => sources.prop_map(|s| on(PathMatch::Regex(Pattern::compile(s).unwrap()))),
    ];
    (path, prop::bool::weighted(0.3)).prop_map(|(matched, not_beta)| match not_beta {
        true => without(matched, "x-beta", TextMatch::Exact("yes".into())),
        false => matched,
    })
}

fn any_routes() -> impl Strategy<Value = Vec<Arc<HttpRoute>>> {
    let rule = prop::collection::vec(any_match(), 0..3);
    let rules = prop::collection::vec(rule, 0..6);
    let routes = prop::collection::vec((prop::option::of(1..3i64), rules), 1..5);
    routes.prop_map(|routes| {
        let named = |(at, (age, rules)): (usize, _)| route(&format!("r{at}"), age, rules);
        routes.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_first_match_is_the_oracles(
        routes in any_routes(),
        path in any_path(),
        beta in prop::option::of(prop::sample::select(vec!["yes", "no"])),
    ) {
        let mut headers = HeaderMap::new();
        headers.extend(beta.map(|value| {
            (HeaderName::from_static("x-beta"), HeaderValue::from_static(value))
        }));
        prop_assert_eq!(ask(&routes, &path, &headers), oracle(&routes, &path, beta));
    }
}
