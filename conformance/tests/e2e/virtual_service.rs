//! VirtualServices over real sockets: subsets, weights, order, rewrites (specs/policies.md 2.6,
//! specs/istio-waypoint.md 4.5; issue 3 item 2).

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http_body_util::Full;

const SUBSETS: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets:
  - {name: v1, labels: {pod: web-a}}
  - {name: v2, labels: {pod: web-b}}
";

const ROUTES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /canary}}]
    route:
    - {destination: {host: web, subset: v1}, weight: 90}
    - {destination: {host: web.shop.svc.cluster.local, subset: v2}, weight: 10}
  - match: [{uri: {prefix: /api/v1/}}]
    rewrite: {uri: /, authority: inner.example}
    headers: {request: {set: {x-rule: \"1\"}, remove: [x-secret]}, response: {set: {x-answer: changed}}}
    route: [{destination: {host: web, subset: v2}, headers: {request: {add: {x-rule: \"2\"}}}}]
  - match: [{uri: {prefix: /api}}]
    redirect: {uri: /moved, authority: new.example}
  - match: [{uri: {exact: /lost}}]
    route: [{destination: {host: web, subset: v3}}]
";

async fn lab() -> (Lab, Client, [App; 2]) {
    lab_with(ROUTES).await
}

async fn lab_with(routes: &str) -> (Lab, Client, [App; 2]) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let v1 = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("v1", at));
    let v2 = lab.pod("web", "web-b", Reach::Hbone, |at| App::http("v2", at));
    lab.write("subsets", SUBSETS);
    lab.write("routes", routes);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client, [v1, v2])
}

#[tokio::test]
async fn a_canary_of_two_subsets_gets_its_tenth() {
    let (_lab, client, _apps) = lab().await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10_000 {
        let answer = connection.get("/canary").await.unwrap();
        assert_eq!(answer.status(), 200);
        *counts.entry(client::echo(&answer).app).or_default() += 1;
    }
    // Four standard deviations (30 each) around 1,000 of 10,000: fails once in 16,000 runs.
    let second = counts.get("v2").copied().unwrap_or_default();
    assert!((880..=1_120).contains(&second), "{counts:?}");
    assert_eq!(counts.values().sum::<u32>(), 10_000, "{counts:?}");
}

#[tokio::test]
async fn rules_are_asked_in_the_order_written_and_change_the_request() {
    let (_lab, client, _apps) = lab().await;
    let to = client.to("web", 80);
    let request = http::Request::get("/api/v1/users?q=1")
        .header("host", "web.shop")
        .header("x-secret", "1")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = Connection::http1(to).await.send(request).await.unwrap();
    let echo = client::echo(&answer);
    assert_eq!(
        (echo.app.as_str(), echo.path.as_str()),
        ("v2", "/users?q=1")
    );
    assert_eq!(echo.header("host").as_deref(), Some("inner.example"));
    assert_eq!(echo.header("x-secret"), None);
    assert_eq!(echo.header("x-rule").as_deref(), Some("1,2"));
    assert_eq!(answer.headers()["x-answer"], "changed");

    let moved = client::get(to, "/api/v2").await;
    assert_eq!(moved.status(), 301);
    assert_eq!(moved.headers()["location"], "http://new.example/moved");
    assert_eq!(client::get(to, "/other").await.status(), 404);
    assert_eq!(client::get(to, "/lost").await.status(), 503);
}

const FAULTS: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /some}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 30}}}
    route: [{destination: {host: web, subset: v1}}]
  - match: [{uri: {prefix: /late}}]
    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}
    timeout: 200ms
    route: [{destination: {host: web, subset: v2}}]
";

#[tokio::test]
async fn a_share_is_aborted_here_and_no_endpoint_hears_of_it() {
    let (lab, client, [v1, _v2]) = lab_with(FAULTS).await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let mut aborted = 0_u64;
    for _ in 0..1_000 {
        let answer = connection.get("/some").await.unwrap();
        match answer.status().as_u16() {
            200 => {}
            418 => {
                assert_eq!(client::text(&answer), "fault filter abort");
                aborted += 1;
            }
            other => panic!("{other}"),
        }
    }
    // Four standard deviations (14.5 each) around 300 of 1,000.
    assert!((242..=358).contains(&aborted), "{aborted}");
    assert_eq!(v1.requests(), 1_000 - aborted);
    let line = lab
        .cairn()
        .logged("an abort", |line| line["response_code"] == 418)
        .await;
    assert_eq!(line["response_flags"], "FI");
    assert_eq!(line["response_code_details"], "fault_filter_abort");
    let counted = lab
        .cairn()
        .metric("cairn_faults_injected_total", &["abort"])
        .await;
    assert_eq!(counted, aborted as f64);
}

#[tokio::test]
async fn a_delay_holds_a_request_back_before_its_timeout_begins() {
    let (lab, client, _apps) = lab_with(FAULTS).await;
    let begun = std::time::Instant::now();
    let answer = client::get(client.to("web", 80), "/late").await;
    assert_eq!(answer.status(), 200);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    let line = lab
        .cairn()
        .logged("the delay", |line| line["path"] == "/late")
        .await;
    assert_eq!(line["response_flags"], "DI");
}
