//! Marks by which a client might pass for somebody else, beside those of `headers` and `connect`: PROXY
//! headers, and headers that other proxies believe (specs/policies.md 5).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mesh::{DEADLINE, Mesh, QUIET, RAW, read_all, status_word};

/// PROXY protocol, version 1.
const PROXY_V1: &[u8] = b"PROXY TCP4 10.0.0.1 10.96.1.2 4000 80\r\n";

/// Version 2: the signature, PROXY over TCP/IPv4, 12 bytes of addresses and ports.
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\x60\x01\x02\x0f\xa0\0\x50";

#[tokio::test]
async fn a_proxy_header_is_no_request_and_says_nothing_of_anybody() {
    let mesh = Mesh::start().await;
    let by_address = "[{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]";
    mesh.allow_only("raw", by_address).await;
    for proxy in [PROXY_V1, PROXY_V2] {
        let request = b"GET / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\n\r\n";
        let answer = mesh.exchange(RAW, [proxy, request].concat()).await;
        assert_eq!(status_word(&answer), "400", "{answer:?}");
    }
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_header_before_tls_is_no_handshake() {
    let mesh = Mesh::start().await;
    for proxy in [PROXY_V1, PROXY_V2] {
        let mut stream = TcpStream::connect(mesh.cairn().hbone).await.expect("TCP");
        stream.write_all(proxy).await.expect("a write");
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut heard)).await;
        ended.expect("still open").ok();
        // At most a TLS alert: never anything that a client could use.
        assert!(heard.is_empty() || heard[0] == 21, "{heard:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_in_a_tcp_stream_is_bytes_for_the_endpoint() {
    let mesh = Mesh::start().await;
    let by_address = "[{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]";
    mesh.allow_only("quiet", by_address).await;
    let mut stream = mesh.stream(QUIET).await;
    stream.write_all(PROXY_V1).await.expect("a write");
    stream.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut stream).await.as_bytes(), PROXY_V1);
}

#[tokio::test]
async fn no_header_that_other_proxies_believe_makes_a_client_somebody_else() {
    let mesh = Mesh::start().await;
    let admin = "cluster.local/ns/shop/sa/admin";
    let rules = format!(
        "[{{from: [{{source: {{principals: [{admin}]}}}}]}}, \
          {{from: [{{source: {{ipBlocks: [10.0.0.1]}}}}]}}, \
          {{from: [{{source: {{requestPrincipals: ['*']}}}}]}}]"
    );
    mesh.allow_only("raw", &rules).await;
    for header in [
        format!("x-forwarded-client-cert: URI=spiffe://{admin}"),
        format!("x_forwarded_client_cert: URI=spiffe://{admin}"),
        format!("X-Forwarded-Client-Cert: By=spiffe://x;URI=spiffe://{admin}"),
        "x-forwarded-for: 10.0.0.1".to_owned(),
        "forwarded: for=10.0.0.1".to_owned(),
        "x-real-ip: 10.0.0.1".to_owned(),
        "true-client-ip: 10.0.0.1".to_owned(),
        "x-envoy-external-address: 10.0.0.1".to_owned(),
        "x-envoy-internal: true".to_owned(),
        "x-envoy-original-dst-host: 10.0.0.1:80".to_owned(),
        "x-envoy-peer-metadata: abc".to_owned(),
        "x-istio-attributes: abc".to_owned(),
        "baggage: k8s.namespace.name=shop,k8s.deployment.name=admin".to_owned(),
        format!("source-principal: {admin}"),
        "x-jwt-payload: eyJpc3MiOiJhIiwic3ViIjoiYiJ9".to_owned(),
        "authorization: Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJhIiwic3ViIjoiYiJ9.".to_owned(),
    ] {
        let request =
            format!("GET / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\n{header}\r\n\r\n");
        let answer = mesh.exchange(RAW, request).await;
        assert_eq!(status_word(&answer), "403", "{header}: {answer:?}");
    }
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}
