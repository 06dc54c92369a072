//! HTTP/2 with prior knowledge inside a tunnel (issue 2 item 5): to an HTTP/1.1 endpoint, and to one
//! that speaks HTTP/2 itself.

use std::time::Duration;

use bytes::Bytes;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::hbone::Stream;
use cairn_conformance::lab::{Port, Reach};
use cairn_conformance::process::until;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::frames::{Answered, Frames};
use crate::mesh::{Mesh, RAW, WEB};

/// `rpc`: gRPC, its endpoint is the test itself.
const RPC: &str = "10.96.1.6:50051";

/// An HTTP/2 client over a stream.
async fn http2(stream: Stream) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    send
}

/// What the endpoint of [`RPC`] is handed.
type Call = (Request<RecvStream>, h2::server::SendResponse<Bytes>);

/// Adds the service [`RPC`]; its calls come out of the channel.
async fn serve_rpc(mesh: &mut Mesh) -> mpsc::Receiver<Call> {
    mesh.lab.service("rpc", &[Port::new("grpc", 50051)]);
    let address = mesh.lab.free_address();
    mesh.lab.pod_at("rpc", "rpc-a", Reach::Plain, address);
    let listener = TcpListener::bind(address).await.expect("a listener");
    let (sender, calls) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok(call)) = connection.accept().await {
                    let _ = sender.send(call).await;
                }
            });
        }
    });
    until("the service is in force", async || {
        let dump = mesh.cairn().config_dump().await.to_string();
        dump.contains(&address.to_string())
    })
    .await;
    calls
}

fn call() -> Request<()> {
    Request::post("http://rpc.shop/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// Reads a body to its end, and the trailers.
async fn read_body(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
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
    assert_eq!(
        lower.matches("\r\nhost: raw.shop\r\n").count()
            + lower.matches("\r\nhost: web.shop\r\n").count(),
        1
    );
}

#[tokio::test]
async fn response_trailers_pass_and_request_trailers_hold_nothing_up() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    let client = http2(mesh.stream(RPC).await).await;
    let mut client = client.ready().await.expect("room");
    let (answer, mut body) = client.send_request(call(), false).expect("sent");
    body.send_data(Bytes::from_static(b"ask"), false)
        .expect("data");
    let trailers = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "1".parse().unwrap())]);
    body.send_trailers(trailers).expect("trailers");

    let (request, mut respond) = calls.recv().await.expect("a call");
    assert_eq!(request.headers()["te"], "trailers");
    let (asked, trailers) = read_body(&mut request.into_body()).await.expect("a body");
    assert_eq!(asked, b"ask");
    // The engine reads no request trailers (docs/status.md); gRPC sends none.
    assert!(trailers.is_none());
    let mut send = respond
        .send_response(Response::new(()), false)
        .expect("sent");
    send.send_data(Bytes::from_static(b"answer"), false)
        .expect("data");
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    send.send_trailers(trailers).expect("trailers");

    let answer = answer.await.expect("an answer");
    let (said, trailers) = read_body(&mut answer.into_body()).await.expect("a body");
    assert_eq!(said, b"answer");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
}

#[tokio::test]
async fn messages_of_a_call_pass_as_they_come() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    let client = http2(mesh.stream(RPC).await).await;
    let mut client = client.ready().await.expect("room");
    let (answer, mut body) = client.send_request(call(), false).expect("sent");
    let (request, mut respond) = calls.recv().await.expect("a call");
    let mut asked = request.into_body();
    let mut send = respond
        .send_response(Response::new(()), false)
        .expect("sent");
    let mut answer = answer.await.expect("the head comes first").into_body();
    for _ in 0..5 {
        body.send_data(Bytes::from_static(b"ping"), false)
            .expect("data");
        assert_eq!(asked.data().await.expect("data").expect("data"), "ping");
        send.send_data(Bytes::from_static(b"pong"), false)
            .expect("data");
        assert_eq!(answer.data().await.expect("data").expect("data"), "pong");
    }
}

#[tokio::test]
async fn a_call_that_the_client_resets_is_reset_at_the_endpoint() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    let client = http2(mesh.stream(RPC).await).await;
    let mut client = client.ready().await.expect("room");
    let (_answer, mut body) = client.send_request(call(), false).expect("sent");
    let (request, mut respond) = calls.recv().await.expect("a call");
    body.send_reset(Reason::CANCEL);
    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx));
    let reset = tokio::time::timeout(Duration::from_secs(10), reset).await;
    reset
        .expect("the endpoint goes on for nobody")
        .expect("a reset");
    drop(request);
    // The connection to the endpoint and the client's are both fine.
    let mut client = client.ready().await.expect("room");
    let (answer, _) = client.send_request(call(), true).expect("sent");
    let (_, mut respond) = calls.recv().await.expect("a call");
    respond
        .send_response(Response::new(()), true)
        .expect("sent");
    assert_eq!(answer.await.expect("an answer").status(), 200);
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
async fn an_endpoint_that_resets_a_call_resets_it_for_the_client() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    let client = http2(mesh.stream(RPC).await).await;
    let mut client = client.ready().await.expect("room");
    let (answer, _) = client.send_request(call(), true).expect("sent");
    let (_, mut respond) = calls.recv().await.expect("a call");
    let mut send = respond
        .send_response(Response::new(()), false)
        .expect("sent");
    send.send_data(Bytes::from_static(b"half"), false)
        .expect("data");
    let mut answer = answer.await.expect("an answer").into_body();
    assert_eq!(answer.data().await.expect("data").expect("data"), "half");
    send.send_reset(Reason::INTERNAL_ERROR);
    let rest = read_body(&mut answer).await;
    assert!(rest.is_err(), "half an answer looks complete: {rest:?}");
}

#[tokio::test]
async fn a_denied_call_is_answered_with_trailers_only() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    mesh.allow_only("rpc", "[{to: [{operation: {paths: [/pkg.Other/*]}}]}]")
        .await;
    let client = http2(mesh.stream(RPC).await).await;
    let mut client = client.ready().await.expect("room");
    let (answer, _) = client.send_request(call(), true).expect("sent");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200, "as gRPC wants it");
    assert_eq!(answer.headers()["grpc-status"], "7");
    assert_eq!(answer.headers()["grpc-message"], "RBAC: access denied");
    assert!(answer.body().is_end_stream(), "END_STREAM on the header");
    assert!(calls.try_recv().is_err(), "nobody was called");
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

#[tokio::test]
async fn malformed_requests_are_refused_and_nothing_is_forwarded() {
    let mesh = Mesh::start().await;
    let base = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "raw.shop"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    let table = [
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
    ];
    let mut wrong = Vec::new();
    for (what, fields) in &table {
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
        by_hand(&mesh, &base).await,
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
