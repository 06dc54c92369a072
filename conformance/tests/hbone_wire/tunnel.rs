//! HTTP/2 of a tunnel (2.2): SETTINGS, PING, many streams, streams that do not disturb each other.

use std::time::Duration;

use cairn_conformance::app::{BANNER, read_exactly};
use cairn_conformance::client::Connection;
use tokio::io::AsyncWriteExt;

use crate::endpoint::Endpoint;
use crate::frames::{ACK, Answered, DATA, END_STREAM, Frames, PING, SETTINGS, WINDOW_UPDATE, word};
use crate::mesh::{MAIL, Mesh, RAW, WEB, read_until, status_word};

/// A connection whose frames the test writes.
async fn frames(mesh: &Mesh) -> Frames<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> {
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    Frames::open(stream.expect("a handshake")).await
}

#[tokio::test]
async fn settings_and_windows_are_those_of_ztunnels_own_server() {
    let mesh = Mesh::start().await;
    let mut frames = frames(&mesh).await;
    let settings = frames.next_of(SETTINGS).await.payload;
    let setting = |id: u16| {
        let mut pairs = settings.chunks(6);
        let pair = pairs.find(|pair| pair[..2] == id.to_be_bytes());
        pair.map(|pair| word(&pair[2..]))
    };
    let (streams, window, frame, header_list, connect_protocol) = (3, 4, 5, 6, 8);
    assert_eq!(setting(streams), Some(1000), "ztunnel needs 100");
    assert_eq!(setting(window), Some(4 * 1024 * 1024));
    assert_eq!(setting(frame), Some(1024 * 1024));
    assert_eq!(setting(header_list), Some(16 * 1024));
    assert_eq!(setting(connect_protocol).unwrap_or(0), 0);
    let update = frames.next_of(WINDOW_UPDATE).await;
    assert_eq!(update.stream, 0, "the connection's");
    assert_eq!(word(&update.payload) + 65_535, 16 * 1024 * 1024);
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_payload() {
    let mesh = Mesh::start().await;
    let mut frames = frames(&mesh).await;
    frames.send(PING, 0, 0, b"12345678").await;
    let pong = frames.next_of(PING).await;
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"12345678"[..]));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped() {
    let mesh = Mesh::start().await;
    let mut frames = frames(&mesh).await;
    // 10 s until the PING, 20 s for its answer, which never comes (2.2).
    let pinged = frames.next_of(PING).await;
    assert_eq!(pinged.flags, 0);
    let dropped = async { while frames.next().await.is_some() {} };
    let in_time = tokio::time::timeout(Duration::from_secs(40), dropped).await;
    assert!(in_time.is_ok(), "still open");
}

#[tokio::test]
async fn a_tunnel_carries_150_requests_at_once() {
    let hold = |at| {
        Endpoint::answering(at, 150, |_| {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
        })
    };
    let mesh = Mesh::start_with(&[], hold).await;
    let mut tunnel = mesh.tunnel().await;
    let mut streams = Vec::new();
    for _ in 0..150 {
        let mut stream = tunnel.open(RAW).await.expect("a stream");
        let request = b"GET / HTTP/1.1\r\nhost: raw.shop\r\n\r\n";
        stream.write_all(request).await.expect("a write");
        streams.push(stream);
    }
    // The endpoint answers nobody before all 150 have asked.
    for stream in &mut streams {
        let answer = read_until(stream, "\r\n\r\nok").await;
        assert_eq!(status_word(&answer), "200");
    }
}

#[tokio::test]
async fn a_tunnel_carries_1000_streams_at_once() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(tunnel.open(MAIL).await.expect("a stream"));
    }
    for (at, stream) in streams.iter_mut().enumerate() {
        assert_eq!(read_exactly(stream, BANNER.len()).await, BANNER);
        let message = format!("number {at}");
        stream.write_all(message.as_bytes()).await.expect("a write");
        let echoed = read_exactly(stream, message.len()).await;
        assert_eq!(echoed, message.as_bytes());
    }
    drop(streams);
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn a_reader_that_stalls_stops_its_own_stream_and_no_other() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let mut stalled = tunnel.open(WEB).await.expect("a stream");
    let request = b"GET /bytes/50000000 HTTP/1.1\r\nhost: web.shop\r\n\r\n";
    stalled.write_all(request).await.expect("a write");
    // Its window of 4 MiB fills. Others get through all the same, also with much.
    let stream = tunnel.open(WEB).await.expect("a stream");
    let mut connection = Connection::http1_over(stream).await;
    for _ in 0..10 {
        let answer = connection.get("/bytes/1000000").await.expect("an answer");
        assert_eq!(answer.body().len(), 1_000_000);
    }
    let head = read_until(&mut stalled, "\r\n\r\n").await;
    assert_eq!(status_word(&head), "200");
    assert_eq!(
        read_exactly(&mut stalled, 50_000_000).await.len(),
        50_000_000
    );
}

#[tokio::test]
async fn an_error_of_one_stream_leaves_the_others_alone() {
    let mesh = Mesh::start().await;
    let mut frames = frames(&mesh).await;
    let connect = [(":method", "CONNECT"), (":authority", MAIL)];
    frames.headers(1, 0, &connect).await;
    assert_eq!(frames.answer(1).await, Answered::Status(200));
    // RFC 9113 8.1.1: Content-Length that DATA contradicts is an error of the stream.
    let lying = [&connect[..], &[("content-length", "1")]].concat();
    frames.headers(3, 0, &lying).await;
    frames.send(DATA, END_STREAM, 3, b"four").await;
    frames.send(DATA, 0, 1, b"hello").await;
    let mut echoed = Vec::new();
    while echoed.len() < BANNER.len() + 5 {
        let data = frames.next_of(DATA).await;
        assert_eq!(data.stream, 1);
        echoed.extend(data.payload);
    }
    assert_eq!(echoed, [BANNER, b"hello"].concat());
}

#[tokio::test]
async fn garbage_in_place_of_http2_ends_the_connection_and_nothing_else() {
    let mesh = Mesh::start().await;
    let mut good = mesh.tunnel().await;
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let mut stream = stream.expect("a handshake");
    let request = b"GET / HTTP/1.1\r\nhost: web.shop\r\n\r\n";
    stream.write_all(request).await.expect("a write");
    let mut bytes = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes);
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert!(ended.is_ok(), "still open");
    assert!(!bytes.starts_with(b"HTTP/1.1"), "never HTTP/1.1");
    assert!(good.open(WEB).await.is_ok());
}

#[tokio::test]
async fn a_header_list_over_16_kib_never_becomes_a_stream() {
    let mesh = Mesh::start().await;
    let mut frames = frames(&mesh).await;
    let big = "x".repeat(15 * 1024);
    let headers = [
        (":method", "CONNECT"),
        (":authority", WEB),
        ("x-big", &big),
        ("x-bigger", &big[..2048]),
    ];
    frames.headers(1, 0, &headers).await;
    assert_eq!(frames.answer(1).await, Answered::Status(431));
    frames
        .headers(3, 0, &[(":method", "CONNECT"), (":authority", WEB)])
        .await;
    assert_eq!(frames.answer(3).await, Answered::Status(200), "the next");
}
