//! Retries of routes (specs/gateway-api.md 1.4, "Retries"; issue 3 item 5), over real sockets.

use std::time::{Duration, Instant};

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http::Method;

const ROUTES: &str = http_route!(
    "web",
    "  - matches: [{headers: [{name: rule, value: plain}]}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{headers: [{name: rule, value: hasty}]}]
    retry: {attempts: 3, codes: [500, 503], backoff: 200ms}
    timeouts: {request: 500ms}
    backendRefs: [{name: web, port: 80}]
  - matches: [{headers: [{name: rule, value: patient}]}]
    retry: {attempts: 2}
    timeouts: {backendRequest: 300ms}
    backendRefs: [{name: web, port: 80}]
  - retry: {attempts: 3, codes: [500, 503]}
    backendRefs: [{name: web, port: 80}]
"
);

async fn lab() -> (Lab, Client, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.write("routes", ROUTES);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client, app)
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> Answer {
    client::send(client.to("web", 80), method, path, headers, body).await
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(client, Method::GET, path, headers, b"").await
}

#[tokio::test]
async fn a_listed_status_is_retried_as_often_as_the_rule_says() {
    let (lab, client, app) = lab().await;
    let answer = get(&client, "/first/3/status/503/a", &[]).await;
    assert_eq!(answer.status(), 200);
    let echo = client::echo(&answer);
    assert_eq!(echo.header("x-envoy-attempt-count").as_deref(), Some("4"));
    assert_eq!(app.requests(), 4);

    // One failure more than there are retries: the last answer, as the endpoint gave it.
    let answer = get(&client, "/first/4/status/500/b", &[]).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(app.requests(), 8);
    let line = lab
        .cairn()
        .logged("the failed one", |l| l["response_code"] == 500)
        .await;
    assert_eq!(line["attempts"], 4);
    assert_eq!(line["response_flags"], "URX");
    assert_eq!(line["retry_denied"], "exhausted");

    // Neither a status that is not listed nor a rule without retries.
    assert_eq!(
        get(&client, "/first/1/status/502/c", &[]).await.status(),
        502
    );
    let plain = get(&client, "/first/1/status/503/d", &[("rule", "plain")]).await;
    assert_eq!(plain.status(), 503);
    let cairn = lab.cairn();
    cairn
        .metric_reaches("cairn_retries_total", &["cause=\"status\""], 6.0)
        .await;
    cairn
        .metric_reaches("cairn_retries_denied_total", &["reason=\"exhausted\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_body_is_sent_again_as_long_as_it_is_kept() {
    let (lab, client, _app) = lab().await;
    const SMALL: &[u8] = &[b'x'; 60_000];
    const LARGE: &[u8] = &[b'x'; 70_000];
    let post = |path, body| send(&client, Method::POST, path, &[], body);
    // The rule lists the status, so that a POST is repeated as well.
    let answer = post("/first/2/status/503/a", SMALL).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(client::echo(&answer).body_bytes, SMALL.len());
    let answer = post("/first/1/status/503/b", LARGE).await;
    assert_eq!(answer.status(), 503);
    let line = lab
        .cairn()
        .logged("the large one", |l| l["retry_denied"] == "body")
        .await;
    assert_eq!(line["attempts"], 1);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_retried_if_that_is_harmless() {
    let (_lab, client, app) = lab().await;
    let patient = [("rule", "patient")];
    let began = Instant::now();
    let answer = get(&client, "/first/1/wait/3000/a", &patient).await;
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(app.requests(), 2);
    // The endpoint may still be at work on it: not for a POST.
    let answer = send(
        &client,
        Method::POST,
        "/first/1/wait/3000/b",
        &patient,
        b"x",
    )
    .await;
    assert_eq!(answer.status(), 504);
    assert_eq!(app.requests(), 3);
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_made() {
    let (lab, client, app) = lab().await;
    // Back-off is 200 ms at least, the request may take 500 ms: two retries at most.
    let began = Instant::now();
    let answer = get(&client, "/status/503", &[("rule", "hasty")]).await;
    assert_eq!(answer.status(), 503);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!((2..=3).contains(&app.requests()), "{}", app.requests());
    let line = lab
        .cairn()
        .logged("the late one", |l| l["retry_denied"] == "deadline")
        .await;
    assert_eq!(line["response_code"], 503);
}

#[tokio::test]
async fn retry_after_is_waited_for_or_left_to_the_client() {
    let (_lab, client, _app) = lab().await;
    let began = Instant::now();
    let answer = get(&client, "/first/1/asks/1/a", &[]).await;
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let answer = get(&client, "/first/1/asks/600/b", &[]).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "600");
}

/// A client that retries by itself is not helped by retries of its retries.
#[tokio::test]
async fn the_retry_of_a_client_is_not_multiplied() {
    let (_lab, client, app) = lab().await;
    let headers = [("x-envoy-attempt-count", "2")];
    let answer = get(&client, "/first/3/status/503", &headers).await;
    assert_eq!((answer.status().as_u16(), app.requests()), (503, 1));
}

#[tokio::test]
async fn another_endpoint_is_asked_first() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let bad = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("bad", at));
    let good = lab.pod("web", "web-b", Reach::Plain, |at| App::http("good", at));
    lab.write("routes", ROUTES);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    // Each endpoint fails every path once: whoever is asked first, the other one is asked next, and
    // then both have failed.
    for n in 0..10 {
        let answer = get(&client, &format!("/first/1/status/503/{n}"), &[]).await;
        let echo = client::echo(&answer);
        assert_eq!(echo.header("x-envoy-attempt-count").as_deref(), Some("3"));
        assert_eq!((bad.requests() + good.requests()), 3 * (n + 1));
    }
}

/// All fail at once: without a budget each of 40 requests would be sent four times.
#[tokio::test]
async fn a_destination_that_fails_is_not_buried_under_retries() {
    let (lab, client, app) = lab().await;
    let requests = (0..40).map(|_| get(&client, "/status/503", &[]));
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer.status(), 503);
    }
    // Leave is given to a fifth of those in flight at once, and to three at least. Each of those may
    // be tried thrice; as some end others get theirs, so that the sum is no exact number.
    assert!(app.requests() < 2 * 40, "{}", app.requests());
    let denied = lab
        .cairn()
        .logged("one over the budget", |l| l["retry_denied"] == "budget")
        .await;
    assert_eq!(denied["response_flags"], "UO");
}
