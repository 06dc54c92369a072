//! Floods of HTTP/2 frames (specs/policies.md 5: rapid reset, CONTINUATION, SETTINGS, PING, empty DATA, HPACK,
//! windows of zero), in a tunnel's own connection and in one inside it: the memory they cost is bounded, and
//! other clients are answered meanwhile.

use std::time::{Duration, Instant};

use cairn_conformance::client::Connection;
use cairn_conformance::memory::Memory;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    header_block,
};
use crate::mesh::{MAIL, Mesh, RAW, WEB};

/// What two floods may cost in memory, built for tests: the windows of their tunnels, 16 MiB of unread
/// bytes each, and as much again to read them with. A kilobyte kept of each frame would be seen.
const GROWTH_BYTES_MAX: f64 = 64e6;

/// How long another client may have to wait on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest time of one flood: a server that stops reading stops its client.
const FLOOD_TIMEOUT: Duration = Duration::from_secs(20);

/// The header of a request, or of a CONNECT.
type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: Fields<'_> = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "raw.shop"),
];
const CONNECT: Fields<'_> = &[(":method", "CONNECT"), (":authority", MAIL)];

/// Runs a flood in a tunnel's own connection, then in one inside a tunnel.
async fn both<A>(flood: A)
where
    A: AsyncFn(&mut dyn Sends, Fields<'_>),
{
    let mesh = Mesh::start().await;
    // What the first request and tunnel cost is not the flood's.
    asked(&mesh).await;
    let before = own_bytes(&mesh);
    let tls = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let mut outer = Frames::open(tls.expect("a handshake")).await;
    let mut inner = Frames::open(mesh.stream(RAW).await).await;
    let floods = async {
        flood(&mut outer, CONNECT).await;
        flood(&mut inner, GET).await;
    };
    // Cut off is fine: then the server no longer reads.
    let _ = tokio::time::timeout(FLOOD_TIMEOUT, floods).await;
    // Still connected, with whatever the server keeps.
    let began = Instant::now();
    asked(&mesh).await;
    assert!(began.elapsed() < ANSWER_MAX, "{:?}", began.elapsed());
    let grown = own_bytes(&mesh) - before;
    println!("grown by {:.1} MB", grown / 1e6);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    drop((outer, inner));
    mesh.no_stream_is_left().await;
}

/// Sending frames, on whatever stream.
trait Sends {
    fn put<'f>(
        &'f mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &'f [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'f>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sends for Frames<S> {
    fn put<'f>(
        &'f mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &'f [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'f>> {
        Box::pin(self.send(kind, flags, stream, payload))
    }
}

/// One request of another client.
async fn asked(mesh: &Mesh) {
    let stream = mesh.stream(WEB).await;
    let mut connection = Connection::http1_over(stream).await;
    let answer = connection.get("/status/204").await.expect("an answer");
    assert_eq!(answer.status(), 204);
}

fn own_bytes(mesh: &Mesh) -> f64 {
    Memory::of(mesh.cairn().process.id()).own_bytes()
}

#[tokio::test]
async fn streams_that_are_reset_at_once_are_bounded() {
    both(async |to, fields| {
        let block = header_block(fields);
        for at in 0..20_000 {
            let stream = 2 * at + 1;
            to.put(HEADERS, END_HEADERS, stream, &block).await;
            to.put(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn header_blocks_without_an_end_are_bounded() {
    both(async |to, fields| {
        to.put(HEADERS, 0, 1, &header_block(fields)).await;
        for _ in 0..50_000 {
            to.put(CONTINUATION, 0, 1, &[]).await;
        }
    })
    .await;
    both(async |to, fields| {
        to.put(HEADERS, 0, 1, &header_block(fields)).await;
        let line = header_block(&[("x", &"a".repeat(8_000))]);
        for _ in 0..10_000 {
            to.put(CONTINUATION, 0, 1, &line).await;
        }
    })
    .await;
}

#[tokio::test]
async fn settings_and_pings_that_nobody_reads_the_answers_of_are_bounded() {
    both(async |to, _| {
        // SETTINGS_MAX_FRAME_SIZE, to and fro.
        for at in 0..50_000_u32 {
            let value = 16_384 + at % 2;
            let payload = [&[0, 5][..], &value.to_be_bytes()].concat();
            to.put(SETTINGS, 0, 0, &payload).await;
        }
    })
    .await;
    both(async |to, _| {
        for at in 0..50_000_u64 {
            to.put(PING, 0, 0, &at.to_be_bytes()).await;
        }
        // Nobody asked.
        for at in 0..50_000_u64 {
            to.put(PING, ACK, 0, &at.to_be_bytes()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn data_without_bytes_is_bounded() {
    both(async |to, fields| {
        let fields = [fields, &[("content-length", "5")]].concat();
        let fields = match fields[0].1 {
            "CONNECT" => &fields[..2],
            _ => &fields[..],
        };
        to.put(HEADERS, END_HEADERS, 1, &header_block(fields)).await;
        for _ in 0..100_000 {
            to.put(DATA, 0, 1, &[]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_small_block_that_stands_for_a_large_header_is_bounded() {
    both(async |to, fields| {
        // RFC 7541 6.2.1: a literal that is kept as entry 62; then 6.1, entry 62 again and again: one byte
        // for 4,000.
        let value = "a".repeat(3_900);
        let mut kept = header_block(&[("cookie", &value)]);
        kept[0] = 0x40;
        for at in 0..200 {
            let mut block = header_block(fields);
            if at == 0 {
                block.extend(&kept);
            }
            block.extend([0xbe; 10_000]);
            to.put(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block)
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn crumbs_of_cookies_are_bounded() {
    both(async |to, fields| {
        // CVE-2026-47774: each counts 32 bytes beside its own, and is joined to one field.
        let crumbs: Vec<(&str, &str)> = vec![("cookie", "a=b"); 1_400];
        let block = header_block(&[fields, &crumbs].concat());
        for at in 0..500 {
            to.put(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block)
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn answers_that_the_client_has_no_room_for_are_bounded() {
    let mesh = Mesh::start().await;
    asked(&mesh).await;
    let before = own_bytes(&mesh);
    let mut frames = Frames::open(mesh.stream(WEB).await).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    for at in 0..100 {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/bytes/10000000"),
            (":authority", "web.shop"),
        ];
        frames.headers(2 * at + 1, END_STREAM, &fields).await;
    }
    cairn_conformance::process::until("the endpoint has them all", async || {
        mesh.web.requests() >= 101
    })
    .await;
    asked(&mesh).await;
    let grown = own_bytes(&mesh) - before;
    println!("grown by {:.1} MB for 1,000 MB", grown / 1e6);
    // 100 requests with buffers of 64 KiB at each of their stations.
    assert!(grown < 100e6, "{grown} bytes");
    drop(frames);
    mesh.no_stream_is_left().await;
}
