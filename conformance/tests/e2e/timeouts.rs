//! Timeouts of routes and of gRPC clients (specs/gateway-api.md 1.4, "Timeouts"), over real sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http_body_util::Full;

const ROUTES: &str = concat!(
    http_route!(
        "web",
        "  - matches: [{headers: [{name: limit, value: request}]}]
    timeouts: {request: 300ms}
    backendRefs: [{name: web, port: 80}]
  - matches: [{headers: [{name: limit, value: attempt}]}]
    timeouts: {backendRequest: 300ms, request: 1m}
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]
"
    ),
    "---\n",
    http_route!(
        "rpc",
        "  - matches: [{headers: [{name: limit, value: request}]}]
    timeouts: {request: 300ms}
    backendRefs: [{name: rpc, port: 80}]
  - backendRefs: [{name: rpc, port: 80}]
"
    )
);

async fn lab() -> (Lab, Client, [App; 2]) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("rpc", &[Port::new("grpc", 80)]);
    let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    let rpc = lab.pod("rpc", "rpc-a", Reach::Hbone, |at| App::http("rpc", at));
    lab.write("routes", ROUTES);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client, [web, rpc])
}

fn request(path: &str, headers: &[(&str, &str)]) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::get(path).header("host", "web.shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

/// Asks for something that takes two seconds, and says how long the answer took.
async fn ask(connection: &mut Connection, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let began = Instant::now();
    let uri = match connection {
        Connection::Http1(_) => "/wait/2000",
        Connection::Http2(_) => "http://web.shop/wait/2000",
    };
    let answer = connection.send(request(uri, headers)).await;
    (answer.expect("an answer"), began.elapsed())
}

#[tokio::test]
async fn a_request_and_an_attempt_end_at_their_timeout() {
    let (lab, client, _apps) = lab().await;
    for (limit, details) in [
        ("request", "response_timeout"),
        ("attempt", "upstream_per_try_timeout"),
    ] {
        let mut connection = Connection::http1(client.to("web", 80)).await;
        let (answer, took) = ask(&mut connection, &[("limit", limit)]).await;
        assert_eq!(answer.status(), 504, "{limit}");
        assert_eq!(client::text(&answer), "upstream request timeout");
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert!(took < Duration::from_millis(1_900), "{took:?}");
        assert_eq!(answer.headers()["connection"], "close");
        let mut connection = Connection::http1(client.to("web", 80)).await;
        let (answer, _) = ask(&mut connection, &[]).await;
        assert_eq!(answer.status(), 200, "without a limit");
        let line = lab
            .cairn()
            .logged(limit, |l| l["response_code_details"] == details)
            .await;
        assert_eq!(line["response_flags"], "UT");
        assert_eq!(line["response_code"], 504);
        assert_eq!(line["attempts"], 1);
    }
}

#[tokio::test]
async fn a_timeout_that_is_kept_leaves_the_stream_for_the_next_request() {
    let (_lab, client, [web, _]) = lab().await;
    let mut connection = Connection::http1(client.to("web", 80)).await;
    // A deadline that stayed in the stream would end one of the later requests, or the stream.
    for _ in 0..3 {
        let request = request("/wait/50", &[("limit", "request")]);
        assert_eq!(connection.send(request).await.unwrap().status(), 200);
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(connection.get("/").await.unwrap().status(), 200);
    assert_eq!(web.connections(), 1, "one connection to the application");
}

/// Half an answer is no answer: the client must not take it for a whole one.
#[tokio::test]
async fn a_body_that_stalls_breaks_off_at_the_timeout() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, App::http_stalling);
    lab.write("routes", ROUTES.split("---").next().unwrap());
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let began = Instant::now();
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let answer = connection.send(request("/", &[("limit", "request")])).await;
    assert!(answer.is_err(), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let line = lab
        .cairn()
        .logged("the half", |l| l["response_code"] == 200)
        .await;
    assert_eq!(line["response_flags"], "UT");
}

#[tokio::test]
async fn grpc_is_told_by_status_whose_patience_ended() {
    let (lab, client, _apps) = lab().await;
    let grpc = ("content-type", "application/grpc");
    for (headers, status) in [
        // The route's: UNAVAILABLE. The client's own: DEADLINE_EXCEEDED.
        (&[grpc, ("limit", "request")][..], "14"),
        (&[grpc, ("grpc-timeout", "300m")], "4"),
        (&[grpc, ("limit", "request"), ("grpc-timeout", "5S")], "14"),
        (&[grpc, ("limit", "request"), ("grpc-timeout", "100m")], "4"),
    ] {
        let mut connection = Connection::http2(client.to("rpc", 80)).await;
        let (answer, took) = ask(&mut connection, headers).await;
        assert_eq!(answer.status(), 200, "{headers:?}");
        assert_eq!(answer.headers()["grpc-status"], status, "{headers:?}");
        assert!(took < Duration::from_millis(1_900), "{took:?}");
    }
    let line = lab
        .cairn()
        .logged("the client's", |l| l["response_flags"] == "UT")
        .await;
    assert_eq!(line["response_code_details"], "response_timeout");
}

#[tokio::test]
async fn an_endpoint_hears_how_long_a_grpc_client_still_waits() {
    let (_lab, client, _apps) = lab().await;
    let mut connection = Connection::http2(client.to("rpc", 80)).await;
    let headers = [
        ("content-type", "application/grpc"),
        ("grpc-timeout", "10S"),
    ];
    let request = request("http://web.shop/", &headers);
    let echo = client::echo(&connection.send(request).await.unwrap());
    let left = echo.header("grpc-timeout").expect("a timeout");
    let micros: u64 = left
        .strip_suffix('u')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{left}"));
    assert!((1..10_000_000).contains(&micros), "{left}");
}
