//! Time to find a route among 5,000 on one port, by the kind of match it takes; and among 10 to 10,000.

#![allow(clippy::unwrap_used)] // a panic is a benchmark that measures nothing

use std::sync::Arc;

use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, ClusterKey, HeaderMatch, HttpMatch, HttpRoute, HttpRule, PathMatch,
    Pattern, TextMatch,
};
use cairn_routing::{Found, RequestParts, RouteTable};
use divan::{Bencher, black_box};
use http::header::HeaderName;
use http::{HeaderMap, Method};

fn main() {
    divan::main();
}

/// Routes of the largest configuration the project sets itself (DESIGN section 7).
const ROUTES: usize = 5_000;

fn route(n: usize, path: PathMatch, version_header: bool) -> Arc<HttpRoute> {
    let headers = version_header.then(|| HeaderMatch {
        name: HeaderName::from_static("x-version"),
        value: TextMatch::Exact("2".into()),
    });
    Arc::new(HttpRoute {
        origin: Origin {
            kind: Kind::HTTPRoute,
            key: ObjectKey::new("bench", format!("route-{n}")),
        },
        created_s: Some(n as i64),
        rules: vec![HttpRule {
            name: None,
            matches: vec![HttpMatch {
                path,
                method: None,
                headers: headers.into_iter().collect(),
                query: Vec::new(),
                more: None,
            }],
            filters: Vec::new(),
            backends: vec![Backend {
                weight: 1,
                target: BackendTarget::Cluster(ClusterKey::new(ObjectKey::new("bench", "app"), 80)),
                filters: Vec::new(),
            }],
            traffic: Default::default(),
            broken: None,
        }],
        broken: false,
    })
}

/// 5,000 routes over 500 prefixes: a fifth exact, the rest prefixes, a tenth of them by header.
fn table() -> RouteTable {
    table_of(ROUTES)
}

fn table_of(count: usize) -> RouteTable {
    let routes: Vec<_> = (0..count)
        .map(|n| {
            let path = match n % 5 {
                0 => PathMatch::Exact(format!("/team-{}/exact-{n}", n % 500).into()),
                _ => PathMatch::Prefix(format!("/team-{}/part-{n}", n % 500).into()),
            };
            route(n, path, n % 10 == 9)
        })
        .collect();
    RouteTable::compile(&routes)
}

fn find(bencher: Bencher<'_, '_>, table: &RouteTable, path: &str, expect_rule: bool) {
    let headers = HeaderMap::from_iter([
        (http::header::HOST, http::HeaderValue::from_static("app")),
        (http::header::ACCEPT, http::HeaderValue::from_static("*/*")),
        (
            HeaderName::from_static("x-version"),
            http::HeaderValue::from_static("2"),
        ),
    ]);
    let request = RequestParts {
        method: &Method::GET,
        authority: "app",
        path,
        query: None,
        caller_namespace: None,
        caller_labels: None,
        headers: &headers,
        claims: None,
    };
    let found_rule = matches!(table.find(&request), Found::Rule(_));
    assert_eq!(
        found_rule, expect_rule,
        "the case measures something else than it says"
    );
    bencher.bench_local(|| table.find(black_box(&request)));
}

#[divan::bench]
fn exact(bencher: Bencher<'_, '_>) {
    find(bencher, &table(), "/team-0/exact-2500", true);
}

#[divan::bench]
fn prefix(bencher: Bencher<'_, '_>) {
    find(bencher, &table(), "/team-1/part-2501/orders/42", true);
}

#[divan::bench]
fn prefix_and_header(bencher: Bencher<'_, '_>) {
    find(bencher, &table(), "/team-9/part-2509/orders/42", true);
}

#[divan::bench]
fn no_match(bencher: Bencher<'_, '_>) {
    find(bencher, &table(), "/team-1/nothing/orders/42", false);
}

/// The same kinds of match among fewer and more routes of one service (issue 3, Benchmarks): the cost of a match
/// is to grow at most logarithmically.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

#[divan::bench(args = SIZES)]
fn exact_among(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &table_of(count), "/team-5/exact-5", true);
}

#[divan::bench(args = SIZES)]
fn prefix_among(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &table_of(count), "/team-6/part-6/orders/42", true);
}

#[divan::bench(args = SIZES)]
fn prefix_and_header_among(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &table_of(count), "/team-9/part-9/orders/42", true);
}

#[divan::bench(args = SIZES)]
fn no_match_among(bencher: Bencher<'_, '_>, count: usize) {
    find(
        bencher,
        &table_of(count),
        "/team-6/nothing/orders/42",
        false,
    );
}

/// Expressions can not be indexed; this is what each costs.
#[divan::bench(args = [1, 10, 100])]
fn regular_expressions(bencher: Bencher<'_, '_>, count: usize) {
    let routes: Vec<_> = (0..count)
        .map(|n| {
            let pattern = Pattern::compile(&format!("/team-{n}/part-[0-9]+/.*")).unwrap();
            route(n, PathMatch::Regex(pattern), false)
        })
        .collect();
    let last = format!("/team-{}/part-7/orders", count - 1);
    find(bencher, &RouteTable::compile(&routes), &last, true);
}

/// What a reload pays for one port.
#[divan::bench(sample_count = 20)]
fn compile(bencher: Bencher<'_, '_>) {
    let routes: Vec<_> = (0..ROUTES)
        .map(|n| route(n, PathMatch::Prefix(format!("/team-{n}").into()), false))
        .collect();
    bencher.bench_local(|| RouteTable::compile(black_box(&routes)));
}
