//! Precedence by example.

mod oracle;

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{HeaderMatch, Pattern, QueryMatch, TextMatch};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;

fn exact(path: &str) -> HttpMatch {
    on(PathMatch::Exact(path.into()))
}

/// As in the snapshot: without a trailing slash.
fn prefix(path: &str) -> HttpMatch {
    on(PathMatch::Prefix(path.trim_end_matches('/').into()))
}

fn regex(source: &str) -> HttpMatch {
    on(PathMatch::Regex(Pattern::compile(source).unwrap()))
}

fn on(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
        more: None,
    }
}

fn with_header(mut m: HttpMatch, name: &'static str, value: &str) -> HttpMatch {
    m.headers.push(HeaderMatch {
        name: HeaderName::from_static(name),
        value: TextMatch::Exact(value.into()),
    });
    m
}

fn with_query(mut m: HttpMatch, name: &str, value: &str) -> HttpMatch {
    m.query.push(QueryMatch {
        name: name.into(),
        value: TextMatch::Exact(value.into()),
    });
    m
}

fn with_method(mut m: HttpMatch, method: Method) -> HttpMatch {
    m.method = Some(method);
    m
}

/// A route with one rule for each list of matches.
fn route(name: &str, created_s: Option<i64>, rules: Vec<Vec<HttpMatch>>) -> HttpRoute {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let rule = |matches| HttpRule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        traffic: Default::default(),
        broken: None,
    };
    HttpRoute {
        origin: Origin {
            kind: Kind::HTTPRoute,
            key: ObjectKey::new(namespace, name),
        },
        created_s,
        rules: rules.into_iter().map(rule).collect(),
        broken: false,
    }
}

fn table(routes: Vec<HttpRoute>) -> RouteTable {
    RouteTable::compile(&routes.into_iter().map(Arc::new).collect::<Vec<_>>())
}

/// `METHOD target`, with an `a: 1` header if `header` says so.
fn ask(
    table: &RouteTable,
    method: Method,
    target: &str,
    headers: &[(&'static str, &str)],
) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let headers: HeaderMap = headers
        .iter()
        .map(|(n, v)| {
            (
                HeaderName::from_static(n),
                HeaderValue::from_str(v).unwrap(),
            )
        })
        .collect();
    let found = table.find(&RequestParts {
        method: &method,
        authority: "service.example",
        path,
        query,
        caller_namespace: None,
        caller_labels: None,
        headers: &headers,
        claims: None,
    });
    match found {
        Found::Default => "default".to_owned(),
        Found::NoMatch => "none".to_owned(),
        Found::Rule(r) => format!("{} {}.{}", r.route.origin.key.name, r.rule, r.matched),
    }
}

fn get(table: &RouteTable, target: &str) -> String {
    ask(table, Method::GET, target, &[])
}

#[test]
fn without_routes_the_service_itself_is_meant() {
    assert_eq!(get(&table(vec![]), "/"), "default");
}

#[test]
fn with_a_route_nothing_falls_through_to_the_service() {
    let t = table(vec![route("a", None, vec![vec![prefix("/foo")]])]);
    assert_eq!(get(&t, "/foo"), "a 0.0");
    assert_eq!(get(&t, "/bar"), "none");
}

#[test]
fn a_route_without_rules_still_replaces_the_service() {
    assert_eq!(get(&table(vec![route("a", None, vec![])]), "/"), "none");
}

#[test]
fn prefixes_match_whole_segments_and_case() {
    let t = table(vec![route("a", None, vec![vec![prefix("/foo/")]])]);
    for yes in ["/foo", "/foo/", "/foo/bar", "/foo/bar/baz"] {
        assert_eq!(get(&t, yes), "a 0.0", "{yes}");
    }
    for no in ["/", "/fo", "/foobar", "/Foo", "/bar/foo", "*"] {
        assert_eq!(get(&t, no), "none", "{no}");
    }
}

#[test]
fn the_root_prefix_matches_every_path() {
    let t = table(vec![route("a", None, vec![vec![prefix("/")]])]);
    assert_eq!(get(&t, "/"), "a 0.0");
    assert_eq!(get(&t, "/any/thing"), "a 0.0");
}

#[test]
fn exact_before_longest_prefix_before_regex() {
    let t = table(vec![
        route("regex", Some(1), vec![vec![regex("/foo/.*")]]),
        route("short", Some(1), vec![vec![prefix("/")]]),
        route("long", Some(3), vec![vec![prefix("/foo")]]),
        route("exact", Some(4), vec![vec![exact("/foo/bar")]]),
    ]);
    assert_eq!(get(&t, "/foo/bar"), "exact 0.0");
    assert_eq!(get(&t, "/foo/baz"), "long 0.0");
    assert_eq!(get(&t, "/fool"), "short 0.0");
}

#[test]
fn a_regex_matches_the_whole_path_and_comes_last() {
    let t = table(vec![route("a", None, vec![vec![regex("/a|/b")]])]);
    assert_eq!(get(&t, "/a"), "a 0.0");
    assert_eq!(get(&t, "/b"), "a 0.0");
    assert_eq!(get(&t, "/ab"), "none");
    assert_eq!(get(&t, "/x/a"), "none");
}

#[test]
fn a_shorter_prefix_serves_what_the_longer_ones_conditions_exclude() {
    let t = table(vec![
        route(
            "post",
            None,
            vec![vec![with_method(prefix("/foo/bar"), Method::POST)]],
        ),
        route("any", None, vec![vec![prefix("/foo")]]),
    ]);
    assert_eq!(ask(&t, Method::POST, "/foo/bar", &[]), "post 0.0");
    assert_eq!(get(&t, "/foo/bar"), "any 0.0");
}

#[test]
fn method_before_headers_before_query() {
    let one = || prefix("/");
    let t = table(vec![
        route(
            "query",
            Some(1),
            vec![vec![with_query(with_query(one(), "q", "1"), "r", "1")]],
        ),
        route("header", Some(2), vec![vec![with_header(one(), "a", "1")]]),
        route(
            "headers",
            Some(3),
            vec![vec![with_header(with_header(one(), "a", "1"), "b", "1")]],
        ),
        route(
            "method",
            Some(4),
            vec![vec![with_method(one(), Method::PUT)]],
        ),
    ]);
    let both = [("a", "1"), ("b", "1")];
    assert_eq!(ask(&t, Method::PUT, "/?q=1&r=1", &both), "method 0.0");
    assert_eq!(ask(&t, Method::GET, "/?q=1&r=1", &both), "headers 0.0");
    assert_eq!(
        ask(&t, Method::GET, "/?q=1&r=1", &[("a", "1")]),
        "header 0.0"
    );
    assert_eq!(ask(&t, Method::GET, "/?q=1&r=1", &[]), "query 0.0");
}

#[test]
fn precedence_is_per_match_not_per_rule_or_route() {
    let t = table(vec![
        route(
            "a",
            Some(1),
            vec![vec![prefix("/"), exact("/x")], vec![prefix("/foo")]],
        ),
        route("b", Some(2), vec![vec![prefix("/foo/bar"), exact("/y")]]),
    ]);
    assert_eq!(get(&t, "/x"), "a 0.1");
    assert_eq!(get(&t, "/y"), "b 0.1");
    assert_eq!(get(&t, "/foo/bar"), "b 0.0");
    assert_eq!(get(&t, "/foo"), "a 1.0");
    assert_eq!(get(&t, "/z"), "a 0.0");
}

#[test]
fn ties_go_to_the_oldest_then_the_name_then_the_first_rule() {
    let same = || vec![vec![prefix("/")], vec![prefix("/")]];
    let first = |routes| get(&table(routes), "/");
    assert_eq!(
        first(vec![route("a", None, same()), route("b", Some(9), same())]),
        "b 0.0",
        "no timestamp counts as youngest"
    );
    assert_eq!(
        first(vec![
            route("b", Some(1), same()),
            route("a", Some(2), same())
        ]),
        "b 0.0"
    );
    assert_eq!(
        first(vec![
            route("ns/b", Some(1), same()),
            route("ns/a", Some(1), same())
        ]),
        "a 0.0"
    );
    assert_eq!(
        first(vec![
            route("n/y", Some(1), same()),
            route("n-1/z", Some(1), same())
        ]),
        "z 0.0",
        "'n-1/z' is before 'n/y' in alphabetical order"
    );
}

#[test]
fn a_broken_route_takes_only_what_no_other_matches() {
    let broken = HttpRoute {
        broken: true,
        ..route("broken", Some(1), vec![vec![prefix("/")]])
    };
    let t = table(vec![
        broken,
        route("good", Some(2), vec![vec![regex("/foo")]]),
    ]);
    assert_eq!(get(&t, "/foo"), "good 0.0");
    assert_eq!(get(&t, "/bar"), "broken 0.0");
}

#[test]
fn of_five_thousand_routes_a_request_tries_only_those_of_its_path() {
    let routes = (0..5_000)
        .map(|n| {
            let rules = vec![
                vec![exact(&format!("/exact/{n}"))],
                vec![prefix(&format!("/prefix/{n}/deep"))],
            ];
            route(&format!("r{n}"), Some(n), rules)
        })
        .collect();
    let t = table(routes);
    for n in 0..5_000 {
        assert_eq!(get(&t, &format!("/exact/{n}")), format!("r{n} 0.0"));
        assert_eq!(get(&t, &format!("/prefix/{n}/deep/x")), format!("r{n} 1.0"));
    }
    assert_eq!(get(&t, "/prefix/1"), "none");
    assert!(t.readable.exact.values().all(|ranks| ranks.len() == 1));
    assert!(t.readable.prefixes.iter().all(|node| node.ranks.len() <= 1));
}
