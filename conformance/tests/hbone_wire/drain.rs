//! SIGTERM (1.6, 2.2): GOAWAY without an error, what is in flight finishes.

use std::time::{Duration, Instant};

use cairn_conformance::app::{BANNER, read_exactly};
use cairn_conformance::process::until;
use tokio::io::AsyncWriteExt;

use crate::endpoint::Endpoint;
use crate::frames::{Answered, DATA, Frames, GOAWAY, word};
use crate::mesh::{MAIL, Mesh, RAW, WEB, read_all, read_until, status_word};

#[tokio::test]
async fn sigterm_says_goaway_without_an_error_and_a_request_in_flight_is_answered() {
    let mut mesh = Mesh::start().await;
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let mut frames = Frames::open(stream.expect("a handshake")).await;
    let connect = [(":method", "CONNECT"), (":authority", WEB)];
    frames.headers(1, 0, &connect).await;
    assert_eq!(frames.answer(1).await, Answered::Status(200));
    let request = b"GET /wait/1500 HTTP/1.1\r\nhost: web.shop\r\n\r\n";
    frames.send(DATA, 0, 1, request).await;
    until("the request is at the endpoint", async || {
        mesh.web.requests() == 1
    })
    .await;

    mesh.cairn().process.signal("TERM");
    let goaway = frames.next_of(GOAWAY).await.payload;
    let no_error = 0;
    assert_eq!(word(&goaway[4..]), no_error);
    let answer = frames.next_of(DATA).await;
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    assert_eq!((answer.stream, status_word(&text)), (1, "200"));
    let process = &mut mesh.lab.cairn_mut().process;
    let status = process.wait(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    assert!(process.stderr().contains("nothing was cut"));
}

#[tokio::test]
async fn a_stream_that_is_open_at_sigterm_goes_on_and_the_process_waits_for_it() {
    let mut mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let mut stream = tunnel.open(MAIL).await.expect("a stream");
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    mesh.cairn().process.signal("TERM");
    until("the tunnel takes no new stream", async || {
        tunnel.open(MAIL).await.is_err()
    })
    .await;
    assert!(!mesh.cairn().is_ready().await);
    stream.write_all(b"still here").await.expect("a write");
    assert_eq!(read_exactly(&mut stream, 10).await, b"still here");
    stream.shutdown().await.expect("an end");
    assert_eq!(read_all(&mut stream).await, "");
    let began = Instant::now();
    let process = &mut mesh.lab.cairn_mut().process;
    let status = process.wait(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "long before the deadline");
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_and_said() {
    let mut mesh = Mesh::start_with(&["--drain-seconds", "1"], Endpoint::answering_ok).await;
    let mut stream = mesh.stream(MAIL).await;
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    mesh.cairn().process.signal("TERM");
    let process = &mut mesh.lab.cairn_mut().process;
    process.wait(Duration::from_secs(20)).await;
    let log = process.stderr();
    assert!(log.contains("these were cut"), "{log}");
}

#[tokio::test]
async fn a_keep_alive_connection_is_told_to_close_while_draining() {
    let mut mesh = Mesh::start().await;
    let mut held = mesh.stream(MAIL).await;
    assert_eq!(read_exactly(&mut held, BANNER.len()).await, BANNER);
    let mut stream = mesh.stream(RAW).await;
    let request = b"GET / HTTP/1.1\r\nhost: raw.shop\r\n\r\n";
    stream.write_all(request).await.expect("a write");
    read_until(&mut stream, "\r\n\r\nok").await;
    mesh.cairn().process.signal("TERM");
    until("readiness is off", async || !mesh.cairn().is_ready().await).await;
    // The held stream keeps the process alive: a request that is on its way already is answered.
    if stream.write_all(request).await.is_ok() {
        let answer = read_all(&mut stream).await;
        let fine = answer.is_empty() || status_word(&answer) == "200";
        assert!(fine, "answered in full or not at all: {answer:?}");
    }
    drop((held, stream));
    let process = &mut mesh.lab.cairn_mut().process;
    assert!(process.wait(Duration::from_secs(20)).await.success());
}
