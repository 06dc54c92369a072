//! TCP services (2.4, 2.5): policy and the endpoint decide before the 200, then bytes pass as over a
//! TCP connection.

use std::time::{Duration, Instant};

use cairn_conformance::app::{BANNER, read_exactly};
use cairn_conformance::lab::Reach;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::mesh::{GUESS, MAIL, Mesh, QUIET, WEB, read_all, status_of};

const NOBODY: &str = "[{from: [{source: {principals: [cluster.local/ns/other/sa/other]}}]}]";

/// Puts the test itself behind the service `quiet`: a stream of the client and its other end.
async fn both_ends(mesh: &mut Mesh) -> (cairn_conformance::hbone::Stream, TcpStream) {
    let address = mesh.lab.free_address();
    let listener = TcpListener::bind(address).await.expect("a listener");
    let before = mesh.cairn().metric("cairn_snapshot_version", &[]).await;
    mesh.lab.remove_pod("quiet-a");
    mesh.lab
        .pod_at("quiet", "quiet-test", Reach::Plain, address);
    mesh.cairn()
        .metric_reaches("cairn_snapshot_version", &[], before + 1.0)
        .await;
    cairn_conformance::process::until("the endpoint is in force", async || {
        let dump = mesh.cairn().config_dump().await.to_string();
        dump.contains(&address.to_string())
    })
    .await;
    // Cairn connects before it answers 200, so nobody waits for the other here.
    let stream = mesh.stream(QUIET).await;
    let (endpoint, _) = listener.accept().await.expect("a connection");
    (stream, endpoint)
}

#[tokio::test]
async fn a_denied_peer_is_a_401_and_no_endpoint_hears_of_it() {
    let mesh = Mesh::start().await;
    mesh.allow_only("mail", NOBODY).await;
    let mut tunnel = mesh.tunnel().await;
    let status = status_of(tunnel.open(MAIL).await);
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(mesh.mail.connections(), 0);
    assert_eq!(mesh.refused("policy_denied").await, 1.0);
    assert!(tunnel.open(WEB).await.is_ok(), "the tunnel is fine");
}

#[tokio::test]
async fn a_denied_peer_on_an_undeclared_port_gets_no_byte() {
    let mesh = Mesh::start().await;
    mesh.allow_only("guess", NOBODY).await;
    // It is known to be TCP only after the 200 (2.4); a clean end would be taken for an empty answer.
    let mut stream = mesh.stream(GUESS).await;
    stream.write_all(b"\x16\x03\x01").await.expect("a write");
    let mut heard = Vec::new();
    let error = stream.read_to_end(&mut heard).await.expect_err("a reset");
    assert!(error.to_string().contains("reset"), "{error}");
    assert_eq!(heard, b"");
    assert_eq!(mesh.refused("policy_denied").await, 1.0);
}

#[tokio::test]
async fn no_endpoint_is_a_503() {
    let mut mesh = Mesh::start().await;
    let before = mesh.cairn().metric("cairn_snapshot_version", &[]).await;
    mesh.lab.remove_pod("mail-a");
    mesh.cairn()
        .metric_reaches("cairn_snapshot_version", &[], before + 1.0)
        .await;
    let status = mesh.connect_status(MAIL).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(mesh.refused("no_endpoint").await, 1.0);
}

#[tokio::test]
async fn an_endpoint_that_does_not_listen_is_a_503() {
    let mut mesh = Mesh::start().await;
    mesh.mail.kill();
    let status = mesh.connect_status(MAIL).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_megabyte_passes_both_ways() {
    let mesh = Mesh::start().await;
    let sent: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(mesh.stream(QUIET).await);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&copy).await.expect("a write");
        write.shutdown().await.expect("an end");
    });
    let mut echoed = Vec::new();
    read.read_to_end(&mut echoed).await.expect("an end");
    writer.await.expect("a writer");
    assert!(echoed == sent, "{} bytes, not what was sent", echoed.len());
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn the_client_may_end_first_and_still_read() {
    let mut mesh = Mesh::start().await;
    let (mut client, mut endpoint) = both_ends(&mut mesh).await;
    client.write_all(b"question").await.expect("a write");
    client.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut endpoint).await, "question");
    endpoint.write_all(b"answer").await.expect("a write");
    drop(endpoint);
    assert_eq!(read_all(&mut client).await, "answer");
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn the_endpoint_may_end_first_and_still_read() {
    let mut mesh = Mesh::start().await;
    let (mut client, mut endpoint) = both_ends(&mut mesh).await;
    endpoint.write_all(b"answer").await.expect("a write");
    endpoint.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut client).await, "answer");
    client.write_all(b"late question").await.expect("a write");
    client.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut endpoint).await, "late question");
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn a_stream_that_the_client_resets_does_not_look_like_a_proper_end() {
    let mut mesh = Mesh::start().await;
    let (mut client, mut endpoint) = both_ends(&mut mesh).await;
    client.write_all(b"half of a").await.expect("a write");
    assert_eq!(read_exactly(&mut endpoint, 9).await, b"half of a");
    drop(client);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), endpoint.read_to_end(&mut rest));
    let ended = ended.await.expect("the endpoint is left waiting");
    assert!(ended.is_err(), "a truncated stream looks complete");
    assert_eq!(rest, b"");
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn a_connection_that_the_endpoint_resets_does_not_look_like_a_proper_end() {
    let mut mesh = Mesh::start().await;
    let (mut client, mut endpoint) = both_ends(&mut mesh).await;
    endpoint
        .write_all(b"the first half")
        .await
        .expect("a write");
    // Linger 0 makes the close a reset, as a killed process's is.
    endpoint.set_zero_linger().expect("an option");
    drop(endpoint);
    let mut heard = Vec::new();
    let ended = client.read_to_end(&mut heard).await;
    assert!(ended.is_err(), "a truncated stream looks complete");
    // RFC 9113 8.5: CONNECT_ERROR. What came before the reset is delivered as over TCP.
    let error = ended.expect_err("a reset").to_string();
    assert!(
        error.contains("CONNECT") || error.contains("connect"),
        "{error}"
    );
    assert!(b"the first half".starts_with(&heard));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once_on_a_declared_port() {
    let mesh = Mesh::start().await;
    let mut quickest = Duration::MAX;
    // A busy machine may delay one of them for as long as a sniff takes.
    for _ in 0..3 {
        let mut stream = mesh.stream(MAIL).await;
        let began = Instant::now();
        assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
        quickest = quickest.min(began.elapsed());
        stream.write_all(b"hello").await.expect("a write");
        assert_eq!(read_exactly(&mut stream, 5).await, b"hello");
    }
    let sniff = Duration::from_millis(1000);
    assert!(quickest < sniff, "{quickest:?}: sniffed");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_the_sniff_deadline_on_an_undeclared_port() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(GUESS).await;
    let banner = read_exactly(&mut stream, BANNER.len());
    let banner = tokio::time::timeout(Duration::from_secs(10), banner).await;
    assert_eq!(banner.expect("2.5: not for ever"), BANNER);
    stream.write_all(b"hello").await.expect("a write");
    assert_eq!(read_exactly(&mut stream, 5).await, b"hello");
}

#[tokio::test]
async fn bytes_that_were_sniffed_reach_the_endpoint_whole_and_once() {
    let mesh = Mesh::start().await;
    for sent in [
        "\u{16}\u{3}\u{1}",
        "EHLO mail\r\n",
        "GE",
        "PRI * HTTP/2.",
        "A",
    ] {
        let mut stream = mesh.stream(GUESS).await;
        stream.write_all(sent.as_bytes()).await.expect("a write");
        stream.shutdown().await.expect("an end");
        let heard = read_all(&mut stream).await;
        let expected = String::from_utf8_lossy(BANNER).into_owned() + sent;
        assert_eq!(heard, expected, "{sent:?}");
    }
}
