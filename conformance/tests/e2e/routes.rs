//! Routes over real sockets: matched, weighted, redirected, rewritten, failing as they should.

use std::collections::BTreeMap;

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};

const ROUTES: &str = http_route!(
    "web",
    "  - matches: [{path: {value: /v1}}]
    backendRefs: [{name: v1, port: 80}]
  - matches: [{headers: [{name: version, value: two}]}]
    backendRefs: [{name: v2, port: 80}]
  - matches: [{path: {value: /canary}}]
    backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}]
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example, statusCode: 301}}]
  - matches: [{path: {value: /old}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-added, value: \"1\"}], remove: [x-secret]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: changed}], remove: [server]}}
    backendRefs: [{name: v1, port: 80}]
  - matches: [{path: {value: /nowhere}}]
    backendRefs: [{name: no-such-service, port: 80}]
  - matches: [{path: {value: /empty}}]
    backendRefs: [{name: empty, port: 80}]
  - matches: [{path: {value: /mirrored}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}]
    backendRefs: [{name: v1, port: 80}]
"
);

async fn lab() -> (Lab, [App; 2]) {
    let mut lab = Lab::new();
    for service in ["web", "v1", "v2", "empty"] {
        lab.service(service, &[Port::new("http", 80)]);
    }
    let v1 = lab.pod("v1", "v1-a", Reach::Hbone, |at| App::http("v1", at));
    let v2 = lab.pod("v2", "v2-a", Reach::Plain, |at| App::http("v2", at));
    lab.write("routes", ROUTES);
    lab.start().await;
    (lab, [v1, v2])
}

#[tokio::test]
async fn requests_are_routed_redirected_and_rewritten() {
    let (lab, _apps) = lab().await;
    let client = lab.client("shop/viewer").await;
    let to = client.to("web", 80);

    assert_eq!(client::echo(&client::get(to, "/v1/x").await).app, "v1");
    assert_eq!(client::get(to, "/v1x").await.status(), 404);
    assert_eq!(client::get(to, "/nowhere").await.status(), 500);
    assert_eq!(client::get(to, "/empty").await.status(), 503);

    let moved = client::get(to, "/moved/x?q=1").await;
    assert_eq!(moved.status(), 301);
    assert_eq!(
        moved.headers()["location"],
        "http://new.example/moved/x?q=1"
    );

    let request = http::Request::get("/old/a?q=1")
        .header("host", "web.shop")
        .header("x-secret", "1")
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = Connection::http1(to).await.send(request).await.unwrap();
    let echo = client::echo(&answer);
    assert_eq!(echo.path, "/new/a?q=1");
    assert_eq!(echo.header("host").as_deref(), Some("inner.example"));
    assert_eq!(echo.header("x-added").as_deref(), Some("1"));
    assert_eq!(echo.header("x-secret"), None);
    assert_eq!(answer.headers()["x-answer"], "changed");
    assert!(!answer.headers().contains_key("server"));

    let request = http::Request::get("/")
        .header("host", "web.shop")
        .header("version", "two")
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = Connection::http1(to).await.send(request).await.unwrap();
    assert_eq!(client::echo(&answer).app, "v2", "a plain TCP endpoint");
}

#[tokio::test]
async fn a_split_is_kept_on_one_connection() {
    let (lab, _apps) = lab().await;
    let client = lab.client("shop/viewer").await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..1000 {
        let answer = connection.get("/canary").await.unwrap();
        *counts.entry(client::echo(&answer).app).or_default() += 1;
    }
    // Five standard deviations around 100 of 1000.
    let second = counts.get("v2").copied().unwrap_or_default();
    assert!((52..=148).contains(&second), "{counts:?}");
}

#[tokio::test]
async fn what_the_application_hears() {
    let (lab, _apps) = lab().await;
    let client = lab.client("shop/viewer").await;
    let request = http::Request::get("/v1")
        .header("host", "web.shop")
        .header(
            "x-forwarded-client-cert",
            "By=me;URI=spiffe://cluster.local/ns/a/sa/admin",
        )
        .header("x-envoy-expected-rq-timeout-ms", "5")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-kept", "1")
        .body(http_body_util::Full::default())
        .unwrap();
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let echo = client::echo(&connection.send(request).await.unwrap());
    assert_eq!(echo.header("x-forwarded-client-cert"), None);
    assert_eq!(echo.header("x-envoy-expected-rq-timeout-ms"), None);
    assert_eq!(echo.header("x-hop"), None);
    assert_eq!(echo.header("x-kept").as_deref(), Some("1"));
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("http"));
    assert!(echo.header("x-request-id").is_some());
    assert_eq!(echo.header("host").as_deref(), Some("web.shop"));
}
