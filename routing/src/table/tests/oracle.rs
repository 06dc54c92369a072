//! The table against an oracle that sorts every match and tries them one by one.

use proptest::prelude::*;

use super::*;

/// Everything in one list, sorted by the words of the specification, tried one by one.
fn oracle(
    routes: &[Arc<HttpRoute>],
    request: &RequestParts<'_>,
) -> Option<(Arc<str>, usize, usize)> {
    let mut all = Vec::new();
    for route in routes {
        for (rule, r) in route.rules.iter().enumerate() {
            for (matched, m) in r.matches.iter().enumerate() {
                all.push((route, rule, matched, m));
            }
        }
    }
    let kind = |m: &HttpMatch| match &m.path {
        PathMatch::Exact(_) => 0,
        PathMatch::Prefix(_) => 1,
        PathMatch::Regex(_) | PathMatch::Begins { .. } => 2,
    };
    let prefix_len = |m: &HttpMatch| match &m.path {
        PathMatch::Prefix(p) => p.len(),
        _ => 0,
    };
    all.sort_by(|(route_a, rule_a, at_a, a), (route_b, rule_b, at_b, b)| {
        let age = |r: &HttpRoute| (r.created_s.is_none(), r.created_s);
        let name = |r: &HttpRoute| r.origin.key.to_string();
        (route_a.broken.cmp(&route_b.broken))
            .then(kind(a).cmp(&kind(b)))
            .then(prefix_len(b).cmp(&prefix_len(a)))
            .then(b.method.is_some().cmp(&a.method.is_some()))
            .then(b.headers.len().cmp(&a.headers.len()))
            .then(b.query.len().cmp(&a.query.len()))
            .then(age(route_a).cmp(&age(route_b)))
            .then(name(route_a).cmp(&name(route_b)))
            .then(rule_a.cmp(rule_b))
            .then(at_a.cmp(at_b))
    });
    let holds = |m: &HttpMatch| {
        let path = match &m.path {
            PathMatch::Exact(p) => **p == *request.path,
            PathMatch::Prefix(p) => {
                request.path == &**p || request.path.starts_with(&format!("{p}/"))
            }
            PathMatch::Regex(p) => p.matches(request.path),
            PathMatch::Begins { .. } => unreachable!("of VirtualServices"),
        };
        let text = |wanted: &TextMatch, value: &str| matches!(wanted, TextMatch::Exact(t) if **t == *value);
        let header = |h: &HeaderMatch| {
            let value = request.headers.get(&h.name);
            value.is_some_and(|v| text(&h.value, v.to_str().unwrap()))
        };
        let query = |q: &QueryMatch| {
            let pairs = request.query.unwrap_or_default().split('&');
            let mut pairs = pairs.filter_map(|p| p.split_once('='));
            let first = pairs.find(|(name, _)| *name == &*q.name);
            first.is_some_and(|(_, value)| text(&q.value, value))
        };
        path && m
            .method
            .as_ref()
            .is_none_or(|wanted| wanted == request.method)
            && m.headers.iter().all(header)
            && m.query.iter().all(query)
    };
    all.into_iter()
        .find(|(_, _, _, m)| holds(m))
        .map(|(route, rule, at, _)| (route.origin.key.name.clone(), rule, at))
}

fn any_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["", "a", "b", "aa"]);
    prop::collection::vec(segment, 1..4).prop_map(|s| format!("/{}", s.join("/")))
}

fn any_match() -> impl Strategy<Value = HttpMatch> {
    let sources = prop::sample::select(vec!["/a.*", "/[ab]/.*", "/(a|aa)", ".*"]);
    let path = prop_oneof![
        any_path().prop_map(|p| exact(&p)),
        any_path().prop_map(|p| prefix(&p)),
        any_path().prop_map(|p| prefix(&p)),
        sources.prop_map(regex),
    ];
    let method = prop::sample::select(vec![None, None, Some(Method::GET), Some(Method::POST)]);
    let pairs = || prop::collection::btree_map("[pq]", "[12]", 0..2);
    (path, method, pairs(), pairs()).prop_map(|(mut m, method, headers, query)| {
        m.method = method;
        for (name, value) in headers {
            m = with_header(m, if name == "p" { "p" } else { "q" }, &value);
        }
        for (name, value) in query {
            m = with_query(m, &name, &value);
        }
        m
    })
}

fn any_routes() -> impl Strategy<Value = Vec<Arc<HttpRoute>>> {
    let rule = prop::collection::vec(any_match(), 1..3);
    let rules = prop::collection::vec(rule, 0..4);
    let age = prop::option::of(1..3i64);
    let routes = prop::collection::vec((age, rules, prop::bool::weighted(0.1)), 1..8);
    routes.prop_map(|routes| {
        let named = |(at, (age, rules, broken)): (usize, _)| {
            let namespace = if at % 2 == 0 { "n" } else { "n-1" };
            let route = route(&format!("{namespace}/r{at}"), age, rules);
            Arc::new(HttpRoute { broken, ..route })
        };
        routes.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_table_finds_what_the_oracle_finds(
        routes in any_routes(),
        path in any_path(),
        post in any::<bool>(),
        headers in prop::collection::btree_map("[pq]", "[12]", 0..3),
        query in prop::collection::vec("[pq]=[12]", 0..4),
    ) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect();
        let query = query.join("&");
        let request = RequestParts {
            method: if post { &Method::POST } else { &Method::GET },
            authority: "service.example",
            path: &path,
            query: (!query.is_empty()).then_some(&query),
            caller_namespace: None,
            caller_labels: None,
            headers: &headers,
            claims: None,
        };
        let found = match RouteTable::compile(&routes).find(&request) {
            Found::Rule(r) => Some((r.route.origin.key.name.clone(), r.rule, r.matched)),
            Found::NoMatch => None,
            Found::Default => panic!("routes are attached"),
        };
        prop_assert_eq!(found, oracle(&routes, &request));
    }
}
