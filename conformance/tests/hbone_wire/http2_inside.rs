//! HTTP/2 with prior knowledge inside a tunnel, to an HTTP/1.1 endpoint (issue 2 item 5). Endpoints
//! that speak HTTP/2 themselves are `grpc`'s.

use std::time::Duration;

use bytes::Bytes;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::hbone::Stream;
use cairn_conformance::process::until;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};

use crate::frames::{Answered, Frames};
use crate::mesh::{Mesh, RAW, WEB};

/// An HTTP/2 client over a stream.
pub async fn http2(stream: Stream) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    send
}

/// Reads a body to its end, and the trailers.
pub async fn read_body(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}

/// Sends one request by hand in a stream of its own and says how it was answered.
async fn by_hand(mesh: &Mesh, fields: &[(&str, &str)]) -> Answered {
    let mut frames = Frames::open(mesh.stream(RAW).await).await;
    frames.headers(1, crate::frames::END_STREAM, fields).await;
    frames.answer(1).await
}

#[tokio::test]
async fn one_stream_carries_100_requests_at_once() {
    let mesh = Mesh::start().await;
    let client = http2(mesh.stream(WEB).await).await;
    let mut answers = Vec::new();
    for at in 0..100 {
        let request = Request::get(format!("http://web.shop/wait/200?{at}"));
        let mut client = client.clone().ready().await.expect("room");
        let request = request.body(()).expect("a request");
        answers.push(client.send_request(request, true).expect("sent").0);
    }
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let (body, _) = read_body(&mut answer.into_body()).await.expect("a body");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(&format!("/wait/200?{at}\"")), "{body}");
    }
}

#[tokio::test]
async fn an_http_port_is_spoken_to_in_http_1_1_with_one_host() {
    let mesh = Mesh::start().await;
    let mut connection = Connection::http2_over(mesh.stream(RAW).await).await;
    assert_eq!(
        connection.get("/path?q").await.expect("an answer").status(),
        200
    );
    let request = mesh.raw.last();
    assert!(
        request.starts_with("GET /path?q HTTP/1.1\r\n"),
        "{request:?}"
    );
    let lower = request.to_ascii_lowercase();
    assert_eq!(lower.matches("\r\nhost:").count(), 1, "{request:?}");
    assert!(lower.contains("\r\nhost: web.shop\r\n"), "{request:?}");
}

#[tokio::test]
async fn cookies_in_fields_of_their_own_reach_an_http_1_1_endpoint_as_one() {
    let mesh = Mesh::start().await;
    let both = "[{to: [{operation: {paths: [/*]}}], when: [{key: \"request.headers[cookie]\", \
                values: [\"a=1; b=2\"]}]}]";
    mesh.allow_only("raw", both).await;
    let crumbs = [&BASE[..], &[("cookie", "a=1"), ("cookie", "b=2")]].concat();
    assert_eq!(by_hand(&mesh, &crumbs).await, Answered::Status(200));
    let lower = mesh.raw.last().to_ascii_lowercase();
    assert!(lower.contains("\r\ncookie: a=1; b=2\r\n"), "{lower:?}");
    assert_eq!(lower.matches("\r\ncookie:").count(), 1, "{lower:?}");
}

#[tokio::test]
async fn a_request_that_the_client_resets_ends_the_connection_to_an_http_1_1_endpoint() {
    let mesh = Mesh::start().await;
    let client = http2(mesh.stream(WEB).await).await;
    let mut client = client.ready().await.expect("room");
    let request = Request::post("http://web.shop/wait/60000").body(());
    let (_answer, mut body) = client
        .send_request(request.expect("a request"), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"half"), false)
        .expect("data");
    until("the endpoint is connected to", async || {
        mesh.web.connections() == 1
    })
    .await;
    body.send_reset(Reason::CANCEL);
    until("the connection to the endpoint has ended", async || {
        let cairn = mesh.cairn();
        cairn.metric("cairn_upstream_streams", &[]).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_denied_request_leaves_the_connection_usable() {
    let mesh = Mesh::start().await;
    mesh.allow_only("web", "[{to: [{operation: {paths: [/allowed]}}]}]")
        .await;
    let mut connection = Connection::http2_over(mesh.stream(WEB).await).await;
    for _ in 0..50 {
        let denied = connection.get("/denied").await.expect("an answer");
        assert_eq!(denied.status(), 403);
        assert_eq!(client::text(&denied), "RBAC: access denied");
        let allowed = connection.get("/allowed").await.expect("an answer");
        assert_eq!(allowed.status(), 200);
    }
}

#[tokio::test]
async fn headers_over_60_kib_are_refused_and_the_connection_goes_on() {
    let mesh = Mesh::start().await;
    let client = http2(mesh.stream(WEB).await).await;
    let big = |bytes: usize| {
        // Each below what one header may have; together too much.
        let mut request = Request::get("http://web.shop/");
        for at in 0..bytes / 1024 {
            request = request.header(format!("x-big-{at}"), "x".repeat(1024 - 50));
        }
        request.body(()).expect("a request")
    };
    let mut client = client.ready().await.expect("room");
    let refused = client
        .send_request(big(70 * 1024), true)
        .expect("sent")
        .0
        .await;
    match refused {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert_eq!(mesh.web.requests(), 0);
    let mut client = client.ready().await.expect("room");
    let fine = client
        .send_request(big(20 * 1024), true)
        .expect("sent")
        .0
        .await;
    assert_eq!(fine.expect("an answer").status(), 200);
}

/// A request in order.
const BASE: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "raw.shop"),
];

type Fields = Vec<(&'static str, &'static str)>;

fn malformed_headers() -> Vec<(&'static str, Fields)> {
    let base = BASE;
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    vec![
        ("another Host", with(&[("host", "other")])),
        (
            "two Hosts",
            with(&[("host", "raw.shop"), ("host", "raw.shop")]),
        ),
        ("a header of one hop", with(&[("connection", "close")])),
        (
            "Transfer-Encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("Upgrade", with(&[("upgrade", "websocket")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("capitals", with(&[("X-Capitals", "a")])),
        ("a name with a space", with(&[("x a", "b")])),
        (
            "a line feed in a value",
            with(&[("x-a", "b\r\nhost: other")]),
        ),
        ("a NUL in a value", with(&[("x-a", "b\0")])),
    ]
}

fn malformed_requests() -> Vec<(&'static str, Fields)> {
    let base = BASE;
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    vec![
        ("two methods", with(&[(":method", "POST")])),
        ("an unknown pseudo-header", with(&[(":user", "me")])),
        ("no method", base[1..].to_vec()),
        ("no path", [&base[..2], &base[3..]].concat()),
        ("no authority", base[..3].to_vec()),
        ("a length without a body", with(&[("content-length", "5")])),
        (
            "a length that is no number",
            with(&[("content-length", "+0")]),
        ),
        (
            "a user part",
            [&base[..3], &[(":authority", "me@raw.shop")]].concat(),
        ),
        (
            "CONNECT",
            vec![(":method", "CONNECT"), (":authority", "10.96.1.1:80")],
        ),
        (
            "extended CONNECT",
            [
                &[(":method", "CONNECT"), (":protocol", "websocket")],
                &base[1..],
            ]
            .concat(),
        ),
        (
            "a path with a line feed",
            [&base[..2], &[(":path", "/a HTTP/1.1\r\nx: y")], &base[3..]].concat(),
        ),
        (
            "a path with a space",
            [&base[..2], &[(":path", "/a b")], &base[3..]].concat(),
        ),
        (
            "a path that is none",
            [&base[..2], &[(":path", "a")], &base[3..]].concat(),
        ),
        (
            "an escaped slash",
            [&base[..2], &[(":path", "/a%2fb")], &base[3..]].concat(),
        ),
        (
            "a method with a line feed",
            [&[(":method", "GET / HTTP/1.1\r\n")], &base[1..]].concat(),
        ),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_and_nothing_is_forwarded() {
    let mesh = Mesh::start().await;
    let mut wrong = Vec::new();
    for (what, fields) in &[malformed_headers(), malformed_requests()].concat() {
        let answered = tokio::time::timeout(Duration::from_secs(5), by_hand(&mesh, fields)).await;
        let refused = match answered {
            Ok(Answered::Status(status)) => (400..500).contains(&status),
            Ok(Answered::Reset(_) | Answered::GoAway(_)) => true,
            Ok(Answered::Closed) | Err(_) => false,
        };
        if !refused {
            wrong.push(format!("{what}: {answered:?}"));
        }
    }
    let seen = mesh.raw.seen();
    assert!(wrong.is_empty(), "{}\n{seen}", wrong.join("\n"));
    assert_eq!(seen, "");
    assert_eq!(
        by_hand(&mesh, &BASE).await,
        Answered::Status(200),
        "the base"
    );
}

#[tokio::test]
async fn a_reader_that_stalls_stops_its_own_request_and_no_other() {
    let mesh = Mesh::start().await;
    let client = http2(mesh.stream(WEB).await).await;
    let get = |path: &str| {
        let request = Request::get(format!("http://web.shop{path}"));
        request.body(()).expect("a request")
    };
    let mut client = client.ready().await.expect("room");
    let (stalled, _) = client
        .send_request(get("/bytes/3000000"), true)
        .expect("sent");
    // The client's own window is 64 KiB a stream, and nobody reads this one.
    let mut stalled = stalled.await.expect("an answer").into_body();
    let first = stalled.data().await.expect("data").expect("data");
    stalled
        .flow_control()
        .release_capacity(first.len())
        .expect("a window");
    for _ in 0..5 {
        let mut another = http2_again(&client).await;
        let (answer, _) = another
            .send_request(get("/status/204"), true)
            .expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 204);
    }
    let (rest, _) = read_body(&mut stalled).await.expect("the rest");
    assert_eq!(first.len() + rest.len(), 3_000_000);
}

async fn http2_again(client: &SendRequest<Bytes>) -> SendRequest<Bytes> {
    client.clone().ready().await.expect("room")
}
