//! gRPC inside a tunnel (issue 2 item 5): trailers, messages both ways, resets, to an endpoint that
//! speaks HTTP/2.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_conformance::client::Connection;
use cairn_conformance::golden::tokens::{jwks, token};
use cairn_conformance::lab::{Port, Reach};
use cairn_conformance::process::until;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::endpoint::Endpoint;
use crate::http2_inside::{http2, read_body};
use crate::mesh::{Mesh, WEB};

/// `rpc`: gRPC, its endpoint is the test itself.
const RPC: &str = "10.96.1.6:50051";

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
async fn request_trailers_stop_no_other_request_of_their_worker() {
    let mut mesh = Mesh::start_with(&["--workers", "1"], Endpoint::answering_ok).await;
    let mut calls = serve_rpc(&mut mesh).await;
    // One to an HTTP/2 endpoint that does not answer yet, one to an HTTP/1.1 endpoint that waits.
    let mut rpc = http2(mesh.stream(RPC).await).await;
    let (_open, mut body) = rpc.send_request(call(), false).expect("sent");
    body.send_trailers(HeaderMap::new()).expect("trailers");
    let (_request, _respond) = calls.recv().await.expect("a call");
    let mut web = http2(mesh.stream(WEB).await).await;
    let request = Request::post("http://web.shop/wait/1000").body(());
    let (waiting, mut body) = web
        .send_request(request.expect("a request"), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"ask"), false)
        .expect("data");
    body.send_trailers(HeaderMap::new()).expect("trailers");

    let began = Instant::now();
    let mut other = Connection::http1_over(mesh.stream(WEB).await).await;
    for _ in 0..20 {
        let answer = other.get("/").await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let answer = waiting.await.expect("an answer");
    let (body, _) = read_body(&mut answer.into_body()).await.expect("a body");
    assert!(String::from_utf8_lossy(&body).contains("\"body_bytes\":3"));
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

/// Lets nobody in without a token, and says which tokens are good.
const TOKENS: &str = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
    metadata: {name: rpc, namespace: shop}\nspec:\n  \
    targetRefs: [{group: \"\", kind: Service, name: rpc}]\n  \
    jwtRules: [{issuer: https://issuer.example, jwks: 'KEYS'}]\n";

#[tokio::test]
async fn a_call_with_a_refused_token_is_answered_unauthenticated_in_trailers_only() {
    let mut mesh = Mesh::start().await;
    let mut calls = serve_rpc(&mut mesh).await;
    let tokens = TOKENS.replace("KEYS", &jwks().replace('\n', ""));
    mesh.configure("rpc-tokens", &tokens).await;
    let client = http2(mesh.stream(RPC).await).await;
    for (name, why) in [
        ("expired", "Jwt is expired"),
        ("stranger", "Jwt verification fails"),
        ("no-issuer", "Jwt issuer is not configured"),
    ] {
        let mut client = client.clone().ready().await.expect("room");
        let mut call = call();
        let bearer = format!("Bearer {}", token(name));
        let bearer = bearer.parse().expect("a header value");
        call.headers_mut().insert("authorization", bearer);
        let (answer, _) = client.send_request(call, true).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name}: as gRPC wants it");
        assert_eq!(answer.headers()["grpc-status"], "16", "{name}");
        assert_eq!(answer.headers()["grpc-message"], why, "{name}");
        assert_eq!(
            answer.headers()["content-type"],
            "application/grpc",
            "{name}"
        );
        assert!(
            answer.body().is_end_stream(),
            "{name}: END_STREAM on the header"
        );
    }
    assert!(calls.try_recv().is_err(), "nobody was called");
    // The same call with a good token, over the same stream, is made.
    let mut client = client.ready().await.expect("room");
    let mut call = call();
    let bearer = format!("Bearer {}", token("alice")).parse();
    let bearer = bearer.expect("a header value");
    call.headers_mut().insert("authorization", bearer);
    let (answer, _) = client.send_request(call, true).expect("sent");
    let (_, mut respond) = calls.recv().await.expect("a call");
    respond
        .send_response(Response::new(()), true)
        .expect("sent");
    assert_eq!(answer.await.expect("an answer").status(), 200);
}
