//! A change of policy reaches what is open (issue 4, item 7): streams and upgraded connections that it
//! denies are reset, others and requests in flight go on.

use std::io;
use std::time::Duration;

use cairn_conformance::app::{BANNER, read_exactly};
use cairn_conformance::golden::tokens::{jwks, token};
use cairn_conformance::hbone::{Stream, Tls, Tunnel};
use cairn_conformance::lab::Reach;
use cairn_conformance::process::until;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::mesh::{DEADLINE, GUESS, Mesh, QUIET, RAW, WEB, read_all, read_until, status_word};

const VIEWER_ONLY: &str = "[{from: [{source: {principals: [cluster.local/ns/shop/sa/viewer]}}]}]";
const NOBODY: &str = "[{from: [{source: {principals: [cluster.local/ns/other/sa/other]}}]}]";

/// RFC 6455 5.7: a masked "Hello", which the application echoes unmasked.
const MASKED_HELLO: &[u8] = &[
    0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
];
const HELLO: &[u8] = b"\x81\x05Hello";

async fn tunnel_of(mesh: &Mesh, workload: &str) -> Tunnel {
    let tls = Tls::of(&mesh.lab.identities.folder_of(workload));
    mesh.tunnel_with(&tls).await.expect("a tunnel")
}

/// Says something and hears it again.
async fn echoes(stream: &mut Stream, text: &[u8]) -> bool {
    let echo = async {
        stream.write_all(text).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        io::Result::Ok(heard)
    };
    echo.await.is_ok_and(|heard| heard == text)
}

/// Waits for the end of a stream, which must be a reset: an end would be taken for a whole answer.
async fn is_reset(stream: &mut Stream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    let error = ended.expect("still open").expect_err("a clean end");
    assert!(error.to_string().contains("reset"), "{error}");
}

/// Opens a WebSocket and says hello.
async fn websocket(tunnel: &mut Tunnel, more_headers: &str) -> Stream {
    let mut stream = tunnel.open(WEB).await.expect("a 200");
    let upgrade = format!(
        "GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         {more_headers}\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.expect("a write");
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status_word(&answer), "101", "{answer:?}");
    hello(&mut stream).await;
    stream
}

async fn hello(stream: &mut Stream) {
    stream.write_all(MASKED_HELLO).await.expect("a write");
    assert_eq!(read_exactly(stream, HELLO.len()).await, HELLO);
}

async fn closed(mesh: &Mesh, kind: &str) -> f64 {
    let label = format!("kind=\"{kind}\"");
    let cairn = mesh.cairn();
    cairn
        .metric("cairn_closed_by_policy_total", &[&label])
        .await
}

/// The access log line of what was closed.
async fn told(mesh: &Mesh) -> Value {
    let closed = |line: &Value| {
        let reason = line["reason"].as_str().unwrap_or_default();
        reason.starts_with("closed after a change of policy: ")
    };
    mesh.cairn().logged("what was closed", closed).await
}

#[tokio::test]
async fn a_tcp_stream_that_new_policy_denies_is_reset_and_others_go_on() {
    let mesh = Mesh::start().await;
    let mut allowed = mesh.stream(QUIET).await;
    let mut tunnel = tunnel_of(&mesh, "shop/thief").await;
    let mut denied = tunnel.open(QUIET).await.expect("a 200");
    assert!(echoes(&mut allowed, b"one").await && echoes(&mut denied, b"two").await);

    mesh.allow_only("quiet", VIEWER_ONLY).await;
    is_reset(&mut denied).await;
    assert!(echoes(&mut allowed, b"three").await, "it is still allowed");
    assert!(tunnel.open(WEB).await.is_ok(), "the tunnel is fine");
    assert_eq!(closed(&mesh, "tcp").await, 1.0);

    let line = told(&mesh).await;
    assert_eq!(line["verdict"], "deny", "{line}");
    assert_eq!(
        line["source_principal"], "spiffe://cluster.local/ns/shop/sa/thief",
        "{line}"
    );
    assert_eq!(line["bytes_received"], 3, "{line}");
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("AuthorizationPolicy/shop/only-quiet rule 0"),
        "{line}"
    );
    assert!(line["snapshot"].as_u64() > Some(1), "{line}");
}

#[tokio::test]
async fn a_stream_found_to_be_tcp_is_judged_again_too() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(GUESS).await;
    stream.write_all(b"\x16\x03\x01").await.expect("a write");
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    assert_eq!(read_exactly(&mut stream, 3).await, b"\x16\x03\x01");
    mesh.allow_only("guess", NOBODY).await;
    is_reset(&mut stream).await;
}

#[tokio::test]
async fn policy_that_changes_during_the_sniff_is_what_decides() {
    let mesh = Mesh::start().await;
    // Nothing is sent: the sniff waits, and has looked up the service already.
    let mut stream = mesh.stream(GUESS).await;
    mesh.allow_only("guess", NOBODY).await;
    stream.write_all(b"\x16\x03\x01").await.expect("a write");
    is_reset(&mut stream).await;
}

#[tokio::test]
async fn a_tcp_stream_of_a_service_that_is_gone_is_reset() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(QUIET).await;
    assert!(echoes(&mut stream, b"one").await);
    mesh.lab.remove("service-quiet");
    is_reset(&mut stream).await;
    let line = told(&mesh).await;
    assert_eq!(line["verdict"], Value::Null, "{line}");
}

#[tokio::test]
async fn a_websocket_that_new_policy_denies_is_reset() {
    let mesh = Mesh::start().await;
    let mut allowed = websocket(&mut mesh.tunnel().await, "x-team: blue\r\n").await;
    let mut denied = websocket(&mut mesh.tunnel().await, "x-team: red\r\n").await;
    // Judged by the request that asked for it, headers included.
    let blue = "[{to: [{operation: {methods: [GET], paths: [/chat]}}], \
                when: [{key: 'request.headers[x-team]', values: [blue]}]}]";
    mesh.allow_only("web", blue).await;
    is_reset(&mut denied).await;
    hello(&mut allowed).await;
    assert_eq!(closed(&mesh, "upgraded").await, 1.0);

    let line = told(&mesh).await;
    assert_eq!(line["path"], "/chat", "{line}");
    assert_eq!(line["response_code"], 101, "{line}");
    assert_eq!(line["verdict"], "deny", "{line}");
    until("the denied one's stream is over", async || {
        let cairn = mesh.cairn();
        cairn.metric("cairn_downstream_streams", &[]).await == 1.0
    })
    .await;
}

/// By its headers as they were judged, not as its route has changed them for the application.
#[tokio::test]
async fn a_websocket_is_judged_again_by_the_headers_that_it_was_judged_by() {
    let mesh = Mesh::start().await;
    let changing = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                    metadata: {name: web, namespace: shop}\nspec:\n  \
                    parentRefs: [{group: \"\", kind: Service, name: web}]\n  \
                    rules:\n  - filters: [{type: RequestHeaderModifier, \
                    requestHeaderModifier: {set: [{name: x-team, value: green}]}}]\n    \
                    backendRefs: [{name: web, port: 80}]\n";
    mesh.configure("route", changing).await;
    let mut blue = websocket(&mut mesh.tunnel().await, "x-team: blue\r\n").await;
    let mut red = websocket(&mut mesh.tunnel().await, "x-team: red\r\n").await;
    let only_blue = "[{when: [{key: 'request.headers[x-team]', values: [blue]}]}]";
    mesh.allow_only("web", only_blue).await;
    is_reset(&mut red).await;
    hello(&mut blue).await;
    assert_eq!(closed(&mesh, "upgraded").await, 1.0);
}

/// Who may not come in may not stay: the same token would be answered 401 now.
#[tokio::test]
async fn a_websocket_whose_token_is_for_no_audience_any_more_is_reset() {
    let mesh = Mesh::start().await;
    let trusting = |audiences: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: web, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
             jwtRules: [{{issuer: https://issuer.example, audiences: [{audiences}], jwks: '{}'}}]\n",
            jwks().replace('\n', "")
        )
    };
    mesh.configure("tokens", &trusting("shop, other")).await;
    let bearer = |name| format!("authorization: Bearer {}\r\n", token(name));
    let mut for_both = websocket(&mut mesh.tunnel().await, &bearer("alice")).await;
    let mut for_shop = websocket(&mut mesh.tunnel().await, &bearer("bob")).await;
    let mut without = websocket(&mut mesh.tunnel().await, "").await;
    mesh.configure("tokens", &trusting("other")).await;
    is_reset(&mut for_shop).await;
    hello(&mut for_both).await;
    hello(&mut without).await;
    assert_eq!(closed(&mesh, "upgraded").await, 1.0);
    let line = told(&mesh).await;
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("Audiences in Jwt are not allowed"),
        "{line}"
    );
}

#[tokio::test]
async fn a_websocket_goes_on_when_a_route_leads_elsewhere() {
    let mesh = Mesh::start().await;
    let mut open = websocket(&mut mesh.tunnel().await, "").await;
    let elsewhere = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                     metadata: {name: web, namespace: shop}\nspec:\n  \
                     parentRefs: [{group: \"\", kind: Service, name: web}]\n  \
                     rules: [{matches: [{path: {value: /other}}]}]\n";
    mesh.configure("route", elsewhere).await;
    let ask = "GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n";
    until("the route is in force", async || {
        status_word(&mesh.exchange(WEB, ask).await) == "404"
    })
    .await;
    hello(&mut open).await;
    assert_eq!(closed(&mesh, "upgraded").await, 0.0);
}

/// The same as with a CUSTOM policy: nobody stays whom an authorization service was never asked about.
#[tokio::test]
async fn a_websocket_whose_route_has_come_to_ask_somebody_is_reset() {
    let mesh = Mesh::start().await;
    let mut open = websocket(&mut mesh.tunnel().await, "").await;
    let asking = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                  metadata: {name: web, namespace: shop}\nspec:\n  \
                  parentRefs: [{group: \"\", kind: Service, name: web}]\n  \
                  rules:\n  - filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, \
                  backendRef: {name: raw, port: 80}}}]\n    \
                  backendRefs: [{name: web, port: 80}]\n";
    mesh.configure("route", asking).await;
    is_reset(&mut open).await;
    let line = told(&mesh).await;
    let reason = line["reason"].as_str().unwrap_or_default();
    let asked = "its route asks ExternalAuth shop/raw:80 now, which was not asked";
    assert!(reason.contains(asked), "{line}");
    // A new one is asked about, by an upgrade request that the service answers 200.
    websocket(&mut mesh.tunnel().await, "").await;
    assert_eq!(closed(&mesh, "upgraded").await, 1.0);
}

#[tokio::test]
async fn a_request_in_flight_finishes_under_its_snapshot() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(WEB).await;
    let slow = b"GET /wait/3000 HTTP/1.1\r\nhost: web.shop\r\n\r\n";
    stream.write_all(slow).await.expect("a write");
    until("the request is at the endpoint", async || {
        mesh.web.requests() == 1
    })
    .await;
    mesh.allow_only("web", NOBODY).await;
    let answer = read_until(&mut stream, "}").await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
    // The next one on the same connection meets the new policy.
    let next = b"GET / HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n";
    stream.write_all(next).await.expect("a write");
    let answer = read_all(&mut stream).await;
    assert_eq!(status_word(&answer), "403", "{answer:?}");
}

#[tokio::test]
async fn a_denied_websocket_ends_even_if_its_endpoint_takes_no_bytes() {
    let mut mesh = Mesh::start().await;
    let address = mesh.lab.free_address();
    let listener = TcpListener::bind(address).await.expect("a listener");
    mesh.lab.remove_pod("raw-a");
    mesh.lab.pod_at("raw", "raw-test", Reach::Plain, address);
    until("the endpoint is in force", async || {
        let dump = mesh.cairn().config_dump().await.to_string();
        dump.contains(&address.to_string())
    })
    .await;
    let mut stream = mesh.stream(RAW).await;
    let upgrade = b"GET /chat HTTP/1.1\r\nhost: raw.shop\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade).await.expect("a write");
    let (mut endpoint, _) = listener.accept().await.expect("a connection");
    read_until(&mut endpoint, "\r\n\r\n").await;
    let agreed =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    endpoint.write_all(agreed).await.expect("a write");
    assert_eq!(
        status_word(&read_until(&mut stream, "\r\n\r\n").await),
        "101"
    );
    // Until every buffer on the way is full, and nothing moves.
    let full = async {
        let bytes = vec![0; 256 * 1024];
        while stream.write_all(&bytes).await.is_ok() {}
    };
    let stuck = tokio::time::timeout(Duration::from_secs(3), full).await;
    assert!(stuck.is_err(), "it goes on");
    mesh.allow_only("raw", NOBODY).await;
    is_reset(&mut stream).await;
    assert_eq!(told(&mesh).await["path"], "/chat");
    mesh.no_stream_is_left().await;
}
