//! DestinationRules over real sockets: balancing, ejection, limits (specs/policies.md 2.7,
//! specs/istio-waypoint.md 4.7; issue 3 items 4 and 6).

use std::collections::HashMap;

use bytes::Bytes;
use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\nspec: {{host: web, trafficPolicy: {{{policy}}}}}"
    )
}

/// A waypoint before three pods of `web`, one of them perhaps another than the others.
async fn lab(policy: &str, third: impl FnOnce(std::net::SocketAddr) -> App) -> (Lab, Client, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    for pod in ["web-a", "web-b"] {
        // Dropped with the laboratory's thread: an application lives as long as the process here.
        std::mem::forget(lab.pod("web", pod, Reach::Hbone, |at| App::http(pod, at)));
    }
    let third = lab.pod("web", "web-c", Reach::Hbone, third);
    lab.write("rule", &rule(policy));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client, third)
}

fn good(at: std::net::SocketAddr) -> App {
    App::http("web-c", at)
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http::Request::builder()
        .uri(path)
        .header("host", "web.shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let mut connection = Connection::http1(client.to("web", 80)).await;
    connection.send(request).await.expect("an answer")
}

/// How often each pod answered so many requests.
async fn spread(
    client: &Client,
    requests: usize,
    headers: &[(&str, &str)],
) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        let answer = get(client, "/", headers).await;
        assert_eq!(answer.status(), 200);
        *counts.entry(client::echo(&answer).app).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn round_robin_goes_round() {
    let (_lab, client, _third) = lab("loadBalancer: {simple: ROUND_ROBIN}", good).await;
    let counts = spread(&client, 12, &[]).await;
    let four = |pod: &str| (pod.to_owned(), 4);
    assert_eq!(counts, HashMap::from(["web-a", "web-b", "web-c"].map(four)));
}

#[tokio::test]
async fn a_header_keeps_its_requests_together() {
    let hash = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}";
    let (_lab, client, _third) = lab(hash, good).await;
    let mut pods = std::collections::HashSet::new();
    for user in 0..12 {
        let user = user.to_string();
        let counts = spread(&client, 3, &[("x-user", &user)]).await;
        assert_eq!(counts.len(), 1, "user {user} went to {counts:?}");
        pods.extend(counts.into_keys());
    }
    assert!(pods.len() > 1, "all users are at {pods:?}");
}

#[tokio::test]
async fn a_cookie_is_made_once_and_leads_back() {
    let hash = "loadBalancer: {consistentHash: {httpCookie: {name: who, path: /, ttl: 60s}}}";
    let (_lab, client, _third) = lab(hash, good).await;
    for _ in 0..4 {
        let first = get(&client, "/", &[]).await;
        let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=60; Path=/; HttpOnly");
        let again = get(&client, "/", &[("cookie", pair)]).await;
        assert!(!again.headers().contains_key("set-cookie"));
        assert_eq!(client::echo(&again).app, client::echo(&first).app);
    }
}

const EJECT: &str = "outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 50}, loadBalancer: {simple: ROUND_ROBIN}";

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    let failing = App::http_failing;
    let (lab, client, third) = lab(EJECT, failing).await;
    let cairn = lab.cairn();
    let (mut bad, mut asked) = (0, 0);
    while bad < 3 {
        bad += usize::from(get(&client, "/", &[]).await.status() == 503);
        asked += 1;
        assert!(asked <= 9, "every third request goes to it");
    }
    // Those after the third bad answer in a row go to the others.
    let seen = third.requests();
    let counts = spread(&client, 12, &[]).await;
    assert_eq!((counts.len(), third.requests()), (2, seen));
    let destination = "destination=\"shop/web:80\"";
    let ejected = cairn
        .metric("cairn_endpoints_ejected", &[destination])
        .await;
    assert_eq!(ejected, 1.0);
    let labels = [destination, "cause=\"consecutive_5xx\""];
    let total = cairn.metric("cairn_endpoint_ejections_total", &labels);
    assert_eq!(total.await, 1.0);
    let dump = cairn.config_dump().await;
    let endpoints = dump["clusters"][0]["endpoints"].as_array().unwrap();
    let out: Vec<_> = endpoints
        .iter()
        .filter(|e| e["ejected"].is_object())
        .collect();
    assert_eq!(out.len(), 1, "{dump:#}");
    assert_eq!(out[0]["pod"], "shop/web-c");
    cairn
        .metric_falls_to("cairn_endpoints_ejected", &[destination], 0.0)
        .await;
    let bad = async { while get(&client, "/", &[]).await.status() != 503 {} };
    bad.await;
    assert!(third.requests() > seen, "it is asked again");
}

/// Nobody listens there: the client notices nothing, for another endpoint is tried, and after the
/// third failed connection it is not tried any more.
#[tokio::test]
async fn a_dead_endpoint_is_ejected_without_the_client_noticing() {
    let (lab, client, mut third) = lab(EJECT, good).await;
    third.kill();
    let cairn = lab.cairn();
    let labels = ["destination=\"shop/web:80\"", "cause=\"consecutive_5xx\""];
    let mut asked = 0;
    while cairn
        .metric("cairn_endpoint_ejections_total", &labels)
        .await
        < 1.0
    {
        assert_eq!(get(&client, "/", &[]).await.status(), 200);
        asked += 1;
        assert!(asked < 60, "never ejected");
    }
}

#[tokio::test]
async fn more_requests_than_allowed_are_shed_at_once() {
    let (lab, client, _third) = lab("connectionPool: {http: {http2MaxRequests: 1}}", good).await;
    let slow = get(&client, "/wait/1500", &[]);
    let others = async {
        let cairn = lab.cairn();
        let labels = ["destination=\"shop/web:80\"", "limit=\"requests\""];
        cairn
            .metric_reaches("cairn_destination_limit_taken", &labels, 1.0)
            .await;
        let shed = get(&client, "/shed", &[]).await;
        assert_eq!(shed.status(), 503);
        assert_eq!(shed.headers()["x-envoy-overloaded"], "true");
        let line = cairn.logged("the shed one", |l| l["path"] == "/shed").await;
        assert_eq!(line["response_flags"], "UO");
        assert_eq!(line["attempts"], 0);
        let overflows = cairn.metric("cairn_destination_limit_overflows_total", &labels);
        assert_eq!(overflows.await, 1.0);
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow.status(), 200);
    assert_eq!(
        get(&client, "/", &[]).await.status(),
        200,
        "there is room again"
    );
}

#[tokio::test]
async fn more_tcp_streams_than_allowed_are_refused() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("tcp", 9000)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, App::server_first);
    lab.write("rule", &rule("connectionPool: {tcp: {maxConnections: 1}}"));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut first = TcpStream::connect(client.to("web", 9000)).await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'2');
    let mut second = TcpStream::connect(client.to("web", 9000)).await.unwrap();
    let mut nothing = Vec::new();
    let _ = second.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty(), "{nothing:?}");
    let refused = |l: &serde_json::Value| l["response_flags"] == "UO";
    lab.cairn().logged("the refused stream", refused).await;
    drop(first);
    let labels = ["destination=\"shop/web:9000\"", "limit=\"connections\""];
    let cairn = lab.cairn();
    cairn
        .metric_falls_to("cairn_destination_limit_taken", &labels, 0.0)
        .await;
    let mut third = TcpStream::connect(client.to("web", 9000)).await.unwrap();
    assert_eq!(third.read_u8().await.unwrap(), b'2');
}

/// Plain text where TLS was asked for must not be.
#[tokio::test]
async fn nothing_is_sent_in_plain_text_where_tls_is_asked_for_and_can_not_be_had() {
    let (lab, client, third) = lab("tls: {mode: SIMPLE, credentialName: web}", good).await;
    assert_eq!(get(&client, "/tls", &[]).await.status(), 503);
    let line = lab
        .cairn()
        .logged("the refused one", |l| l["path"] == "/tls")
        .await;
    assert_eq!(line["response_flags"], "NC");
    let reason = "tls.credentialName needs the Kubernetes API, which is not read yet";
    assert_eq!(line["reason"], reason);
    assert_eq!(third.requests(), 0);
}
