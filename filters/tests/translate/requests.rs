//! Requests at random, of the words that routes ask for.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::{PORTS, Request};

/// Something that is there so often, and hardly ever for 0.
pub fn weighted<S: Strategy>(often: f64, value: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::weighted(often.clamp(0.0001, 0.9999), value)
}

/// `OPTIONS *` is not among them: it is no path that begins with `/`, which the report says.
pub fn request() -> impl Strategy<Value = Request> {
    let paths = vec![
        "/", "/a", "/A", "/a/", "/ab", "/a/b", "/a/b/c", "/b", "/b/a", "/ba", "/x.y", "/X.y",
        "/xzy", "/c/d/", "/c",
    ];
    let queries = vec!["v=1", "v=2&w=1", "w=1", "v=", "w=1&v=1"];
    let header = (
        select(vec!["x-user", "x-canary", "x-old", "x-new"]),
        select(vec!["a", "ab", "b", "1", ""]),
    );
    (
        0..PORTS.len(),
        select(vec!["shop", "shop", "other"]),
        select(vec!["GET", "POST"]),
        (select(paths), weighted(0.4, select(queries))),
        select(vec!["orders", "api.shop", "API.shop", "api.shop:80"]),
        vec(header, 0..3),
    )
        .prop_map(|(port, from, method, (path, query), host, headers)| {
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            Request {
                port,
                from,
                method,
                target: format!("{path}{query}"),
                host,
                headers,
            }
        })
}
