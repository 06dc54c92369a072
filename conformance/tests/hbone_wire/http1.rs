//! HTTP/1.1 inside a tunnel that works: keep-alive, pipelining, bodies of every framing, slow readers.

use std::net::SocketAddr;
use std::time::Duration;

use cairn_conformance::app::read_exactly;
use cairn_conformance::client;
use cairn_conformance::hbone::Stream;
use cairn_conformance::memory::Memory;
use cairn_conformance::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::endpoint::Endpoint;
use crate::mesh::{Mesh, RAW, WEB, read_all, read_to_end, read_until, status_word};

/// A mesh whose endpoint of [`RAW`] answers by path.
async fn scripted(answer: fn(&str) -> Vec<u8>) -> Mesh {
    Mesh::start_with(&[], |at: SocketAddr| Endpoint::answering(at, 0, answer)).await
}

fn request(line: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: raw.shop\r\n\r\n").into_bytes()
}

async fn send(stream: &mut Stream, line: &str) {
    stream.write_all(&request(line)).await.expect("a write");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(WEB).await;
    let all: String = ["/wait/300?first", "/second", "/third"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: web.shop\r\n\r\n"))
        .concat();
    stream.write_all(all.as_bytes()).await.expect("a write");
    for path in ["/wait/300?first", "/second", "/third"] {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(status_word(&head), "200");
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).expect("a length");
        let length = length.split("\r\n").next().expect("a line").parse();
        let body = read_exactly(&mut stream, length.expect("a number")).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(&format!("\"path\":\"{path}\"")), "{body}");
    }
}

#[tokio::test]
async fn a_connection_stays_open_until_the_client_or_connection_close_ends_it() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(RAW).await;
    for at in 0..20 {
        send(&mut stream, &format!("GET /{at}")).await;
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert_eq!(status_word(&answer), "200");
    }
    let last = b"GET /last HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\n\r\n";
    stream.write_all(last).await.expect("a write");
    assert!(read_all(&mut stream).await.ends_with("\r\n\r\nok"));
    assert_eq!(mesh.raw.requests(), 21);
    assert_eq!(mesh.raw.connections().len(), 1, "one connection is reused");
}

#[tokio::test]
async fn a_body_that_waits_for_100_continue_passes() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(WEB).await;
    let head = b"POST / HTTP/1.1\r\nhost: web.shop\r\ncontent-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.expect("a write");
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status_word(&interim), "100", "{interim:?}");
    stream.write_all(b"hello").await.expect("a write");
    let answer = read_all(&mut stream).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
    assert!(answer.contains("\"body_bytes\":5"), "{answer:?}");
}

#[tokio::test]
async fn answers_without_body_leave_the_connection_in_step() {
    let mesh = scripted(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let head = match path {
            "/204" => "204 No Content\r\n\r\n",
            "/304" => "304 Not Modified\r\netag: \"x\"\r\ncontent-length: 7\r\n\r\n",
            "/head" => "200 OK\r\ncontent-length: 7\r\n\r\n",
            "/hint" => "103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            _ => "200 OK\r\ncontent-length: 2\r\n\r\nok",
        };
        format!("HTTP/1.1 {head}").into_bytes()
    })
    .await;
    let mut stream = mesh.stream(RAW).await;
    for (line, statuses) in [
        ("GET /204", &["204"][..]),
        ("GET /304", &["304"]),
        ("HEAD /head", &["200"]),
        ("GET /hint", &["103", "204"]),
    ] {
        send(&mut stream, line).await;
        for status in statuses {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert_eq!(status_word(&head), *status, "{line}: {head:?}");
        }
        send(&mut stream, "GET /next").await;
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert_eq!(status_word(&answer), "200", "after {line}: {answer:?}");
    }
}

#[tokio::test]
async fn chunks_pass_both_ways() {
    let mesh = scripted(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let mut stream = mesh.stream(RAW).await;
    let head = b"POST / HTTP/1.1\r\nhost: raw.shop\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.expect("a write");
    for chunk in [
        "4\r\nfour\r\n",
        "a;ignored=\"x\"\r\n0123456789\r\n",
        "0\r\n\r\n",
    ] {
        stream.write_all(chunk.as_bytes()).await.expect("a write");
    }
    let answer = read_until(&mut stream, "0\r\n\r\n").await;
    assert_eq!(status_word(&answer), "200");
    for part in ["hello ", "world"] {
        assert!(answer.contains(part), "{answer:?}");
    }
    let seen = mesh.raw.seen();
    assert!(
        seen.contains("four") && seen.contains("0123456789"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_complete() {
    let mesh = Mesh::start_with(&[], |at| {
        Endpoint::answering_and_closing(at, |request| {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer: &[u8] = match path {
                "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
                "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
                "/between" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                "/head" => b"HTTP/1.1 200 OK\r\ncontent-le",
                _ => b"",
            };
            answer.to_vec()
        })
    })
    .await;
    for path in ["/length", "/chunked", "/between"] {
        let mut stream = mesh.stream(RAW).await;
        send(&mut stream, &format!("GET {path}")).await;
        let answer = read_to_end(&mut stream, Duration::from_secs(10)).await;
        // Either the stream is reset, or its framing shows that something is missing.
        if let Ok(answer) = answer {
            assert_eq!(status_word(&answer), "200", "{path}: {answer:?}");
            let complete = answer.ends_with("0\r\n\r\n") || answer.ends_with("halfhalfha");
            let framed = answer.to_ascii_lowercase();
            let framed = framed.contains("chunked") || framed.contains("content-length: 10");
            assert!(framed && !complete, "{path}: {answer:?}");
        }
    }
    for path in ["/head", "/nothing"] {
        let mut stream = mesh.stream(RAW).await;
        send(&mut stream, &format!("GET {path}")).await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(status_word(&answer), "503", "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_websocket_passes_and_an_offer_of_h2c_is_ignored() {
    let mesh = Mesh::start().await;
    let offer = "GET /h2c HTTP/1.1\r\nhost: web.shop\r\nconnection: upgrade, http2-settings, close\r\n\
                 upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = mesh.exchange(WEB, offer).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
    let said = answer.to_ascii_lowercase();
    assert!(
        !said.contains("http2-settings"),
        "not forwarded: {answer:?}"
    );
    assert!(!said.contains("h2c\"]"), "not forwarded: {answer:?}");

    let mut stream = mesh.stream(WEB).await;
    let upgrade =
        b"GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade).await.expect("a write");
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status_word(&answer), "101", "{answer:?}");
    // RFC 6455 5.7: a masked "Hello", and its unmasked echo.
    let masked = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    stream.write_all(&masked).await.expect("a write");
    assert_eq!(read_exactly(&mut stream, 7).await, b"\x81\x05Hello");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_endpoint() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let mut stream = tunnel.open(WEB).await.expect("a stream");
    let request = b"GET /wait/60000 HTTP/1.1\r\nhost: web.shop\r\n\r\n";
    stream.write_all(request).await.expect("a write");
    until("the request is at the endpoint", async || {
        mesh.web.requests() == 1
    })
    .await;
    drop(stream);
    mesh.no_stream_is_left().await;
    until("the connection to the endpoint has ended", async || {
        let cairn = mesh.cairn();
        cairn.metric("cairn_upstream_streams", &[]).await == 0.0
    })
    .await;
    assert!(tunnel.open(WEB).await.is_ok(), "the tunnel is fine");
}

#[tokio::test]
async fn a_large_body_and_a_slow_reader_cost_little_memory() {
    const BODY_BYTES: usize = 64 * 1024 * 1024;
    let mesh = Mesh::start().await;
    // What the allocator and the pools need at all is there before the measurement.
    let mut warm = client::Connection::http1_over(mesh.stream(WEB).await).await;
    warm.get("/bytes/1000000").await.expect("an answer");
    let before = own_bytes(&mesh);

    let mut stream = mesh.stream(WEB).await;
    let request =
        format!("GET /bytes/{BODY_BYTES} HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a write");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status_word(&head), "200");
    let mut read = 0;
    let mut peak = before;
    let mut chunk = vec![0; 1024 * 1024];
    loop {
        // Slow: Cairn gets all the time it wants to read ahead.
        tokio::time::sleep(Duration::from_millis(5)).await;
        match stream.read(&mut chunk).await.expect("bytes") {
            0 => break,
            n => read += n,
        }
        peak = peak.max(own_bytes(&mesh));
    }
    assert_eq!(read, BODY_BYTES);
    let grown = peak - before;
    assert!(grown < 50e6, "{grown} bytes");
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(WEB).await;
    let bytes = 16 * 1024 * 1024;
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: web.shop\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a write");
    stream.write_all(&vec![b'x'; bytes]).await.expect("a write");
    let answer = read_all(&mut stream).await;
    let expected = format!("\"body_bytes\":{bytes}");
    assert!(answer.contains(&expected), "{answer}");
}

fn own_bytes(mesh: &Mesh) -> f64 {
    Memory::of(mesh.cairn().process.id()).own_bytes()
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_502_and_ends_the_connection_to_the_endpoint() {
    let switched = |_: &str| {
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\nnot HTTP"
            .to_vec()
    };
    let mesh = scripted(switched).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: \
                   AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n";
    // Neither unasked nor to something else than what was asked for.
    for (count, more) in ["", "connection: upgrade, x\r\n", upgrade]
        .iter()
        .enumerate()
    {
        let mut stream = mesh.stream(RAW).await;
        let request = format!("GET /{count} HTTP/1.1\r\nhost: raw.shop\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.expect("a write");
        let answer = read_until(&mut stream, "upstream protocol error").await;
        assert_eq!(status_word(&answer), "502", "{more}: {answer:?}");
        assert!(!answer.contains("not HTTP"), "{more}: {answer:?}");
        let path = format!("/{count}");
        let line = mesh
            .cairn()
            .logged("the 101", |line| line["path"] == path.as_str());
        let line = line.await;
        assert_eq!(line["response_code"], 502, "{line}");
        assert_eq!(line["response_flags"], "UPE", "{line}");
        assert!(
            line["reason"].as_str().is_some_and(|r| r.contains("101")),
            "{line}"
        );
        assert_eq!(
            mesh.raw.connections().len(),
            count + 1,
            "the connection was used again"
        );
    }
    until("the connections to the endpoint are closed", async || {
        mesh.cairn().metric("cairn_upstream_streams", &[]).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_101_of_http_1_0_is_a_502() {
    let switched = |_: &str| {
        b"HTTP/1.0 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw"
            .to_vec()
    };
    let mesh = scripted(switched).await;
    let request = "GET /old HTTP/1.1\r\nhost: raw.shop\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\n\r\n";
    let mut stream = mesh.stream(RAW).await;
    stream.write_all(request.as_bytes()).await.expect("a write");
    let answer = read_until(&mut stream, "upstream protocol error").await;
    assert_eq!(status_word(&answer), "502", "{answer:?}");
    let line = mesh
        .cairn()
        .logged("the 101", |line| line["path"] == "/old");
    assert_eq!(line.await["response_flags"], "UPE");
}
