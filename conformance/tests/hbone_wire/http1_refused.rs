//! HTTP/1.1 inside a tunnel that is refused: a clear answer, the connection closed, nothing forwarded
//! (issue 2 item 5; 2.7).

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, RAW, answers, read_all, read_to_end, read_until, status_word};

/// Longer than a refusal takes on a busy machine.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(5);

/// Sends each message, which must be answered with the status and the connection closed, and
/// nothing of it may reach the endpoint.
async fn all_refused(table: &[(&str, &str, String)]) {
    let mesh = Mesh::start().await;
    let mut wrong = Vec::new();
    for (what, status, message) in table {
        // What follows a refused message must not be read as a request.
        let bytes = format!("{message}GET /second HTTP/1.1\r\nhost: raw.shop\r\n\r\n");
        let mut stream = mesh.stream(RAW).await;
        stream.write_all(bytes.as_bytes()).await.expect("a write");
        let answer = read_to_end(&mut stream, REFUSAL_DEADLINE).await;
        let refused = answer.as_ref().is_ok_and(|answer| {
            let said = answer.to_ascii_lowercase();
            let once = answers(answer) == 1 && status_word(answer) == *status;
            // Not the engine's.
            let ours = !said.contains("\r\nserver:");
            once && ours && said.contains("\r\nconnection: close\r\n")
        });
        if !refused {
            wrong.push(format!("{what}: not {status}, but {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: raw.shop\r\n{lines}\r\n\r\n")
}

#[tokio::test]
async fn a_host_that_is_missing_or_ambiguous_is_a_400() {
    let get = |lines| get(lines);
    let line = |line: &str, host: &str| format!("GET {line} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    all_refused(&[
        ("no Host", "400", get("")),
        ("an empty Host", "400", get("host:\r\n")),
        ("two Hosts", "400", get("host: raw.shop\r\nhost: other\r\n")),
        (
            "the same Host twice",
            "400",
            get("host: raw.shop\r\nhost: raw.shop\r\n"),
        ),
        ("two in one", "400", get("host: raw.shop, other\r\n")),
        ("a user part", "400", get("host: me@raw.shop\r\n")),
        ("a path", "400", get("host: raw.shop/path\r\n")),
        ("a space", "400", get("host: raw .shop\r\n")),
        (
            "a port that is no number",
            "400",
            get("host: raw.shop:http\r\n"),
        ),
        ("a port too many", "400", get("host: raw.shop:80:80\r\n")),
        ("a tab", "400", get("host: raw\t.shop\r\n")),
        (
            "absolute form against Host",
            "400",
            line("http://other/", "raw.shop"),
        ),
        (
            "absolute form with a user",
            "400",
            line("http://me@raw.shop/", "raw.shop"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_malformed_head_is_a_400() {
    let with = |line: &str| get(&format!("host: raw.shop\r\n{line}\r\n"));
    let first = |line: &str| format!("{line}\r\nhost: raw.shop\r\n\r\n");
    all_refused(&[
        ("a space before the colon", "400", with("x-a : b")),
        ("a tab before the colon", "400", with("x-a\t: b")),
        (
            "a space before the name",
            "400",
            get(" x-a: b\r\nhost: raw.shop\r\n"),
        ),
        ("a folded header", "400", with("x-a: b\r\n c")),
        ("a folded header by tab", "400", with("x-a: b\r\n\tc")),
        ("a line without colon", "400", with("x-a")),
        ("no name", "400", with(": b")),
        ("a name with a control", "400", with("x-\u{1}a: b")),
        ("a NUL in a value", "400", with("x-a: b\u{0}c")),
        ("a bare CR in a value", "400", with("x-a: b\rc")),
        ("no version", "400", first("GET /")),
        ("an unknown version", "400", first("GET / HTTP/3.0")),
        ("version 1.2", "400", first("GET / HTTP/1.2")),
        ("a version in small letters", "400", first("GET / http/1.1")),
        ("no target", "400", first("GET HTTP/1.1")),
        ("a method with a bracket", "400", first("G(T / HTTP/1.1")),
        ("not HTTP", "400", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned()),
        (
            "a TLS hello",
            "400",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n".to_owned(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_content_length_that_is_not_one_plain_number_is_a_400() {
    let rows = [
        ("two lengths", "5\r\ncontent-length: 6"),
        ("the same one twice", "5\r\ncontent-length: 5"),
        ("two in one", "5, 6"),
        ("two in one that are the same", "5, 5"),
        ("a sign", "+5"),
        ("a negative one", "-5"),
        ("hexadecimal", "0x5"),
        ("no number", "five"),
        ("an empty one", ""),
        ("beyond 64 bits", "18446744073709551621"),
    ];
    let message = |value| post(&format!("content-length: {value}")) + "hello";
    all_refused(&rows.map(|(what, value)| (what, "400", message(value)))).await;
}

#[tokio::test]
async fn a_transfer_encoding_other_than_one_chunked_or_beside_a_length_is_a_400() {
    let rows = [
        ("a length after it", "chunked\r\ncontent-length: 5"),
        ("a length of 0 after it", "chunked\r\nContent-Length: 0"),
        ("not chunked at last", "chunked, gzip"),
        ("gzip alone", "gzip"),
        ("identity", "identity"),
        ("nearly chunked", "xchunked"),
        ("chunked with a control", "\u{b}chunked"),
        ("gzip, then chunked", "gzip, chunked"),
        (
            "identity, then chunked",
            "identity\r\ntransfer-encoding: chunked",
        ),
        ("chunked twice", "chunked\r\ntransfer-encoding: chunked"),
        (
            "chunked, then identity",
            "chunked\r\ntransfer-encoding: identity",
        ),
        ("an empty one", ""),
    ];
    let message = |value| post(&format!("transfer-encoding: {value}")) + "0\r\n\r\n";
    all_refused(&rows.map(|(what, value)| (what, "400", message(value)))).await;
    let length_first = "content-length: 5\r\ntransfer-encoding: chunked";
    let message = post(length_first) + "0\r\n\r\n";
    all_refused(&[("a length before it", "400", message)]).await;
}

#[tokio::test]
async fn what_is_no_business_of_a_waypoint_is_refused() {
    let connect = "CONNECT 10.96.1.1:80 HTTP/1.1\r\nhost: 10.96.1.1:80\r\n\r\n";
    let upgrade = |to: &str| {
        get(&format!(
            "host: raw.shop\r\nconnection: upgrade\r\nupgrade: {to}\r\n"
        ))
    };
    all_refused(&[
        (
            "HTTP/1.0",
            "426",
            "GET / HTTP/1.0\r\nhost: raw.shop\r\n\r\n".to_owned(),
        ),
        ("HTTP/0.9", "400", "GET /\r\n\r\n".to_owned()),
        ("CONNECT inside", "405", connect.to_owned()),
        ("an unknown upgrade", "403", upgrade("foo")),
        ("an upgrade to TLS", "403", upgrade("TLS/1.0")),
        ("two upgrades", "403", upgrade("websocket, foo")),
    ])
    .await;
}

#[tokio::test]
async fn a_header_block_over_60_kib_is_a_431() {
    let big = |bytes: usize| {
        get(&format!(
            "host: raw.shop\r\nx-big: {}\r\n",
            "x".repeat(bytes)
        ))
    };
    let many = "x-a: b\r\n".repeat(257);
    all_refused(&[
        ("61 KiB", "431", big(61 * 1024)),
        (
            "a byte more than 60 KiB",
            "431",
            big(60 * 1024 + 1 - big(0).len()),
        ),
        ("a megabyte", "431", big(1024 * 1024)),
        (
            "many headers",
            "431",
            get(&format!("host: raw.shop\r\n{many}")),
        ),
        (
            "a long target",
            "431",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(61 * 1024)),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_header_block_of_60_kib_passes() {
    let mesh = Mesh::start().await;
    let empty = get("host: raw.shop\r\nconnection: close\r\nx-big: \r\n").len();
    let value = "x".repeat(60 * 1024 - empty);
    let request = get(&format!(
        "host: raw.shop\r\nconnection: close\r\nx-big: {value}\r\n"
    ));
    assert_eq!(request.len(), 60 * 1024);
    assert_eq!(status_word(&mesh.exchange(RAW, request).await), "200");
    assert!(mesh.raw.seen().contains(&value));
}

#[tokio::test]
async fn a_body_behind_a_large_header_does_not_count_as_header() {
    let mesh = Mesh::start().await;
    let value = "x".repeat(50 * 1024);
    let body = "z".repeat(300_000);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\nx-big: {value}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = mesh.exchange(RAW, request).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
}

/// Sends the begin of a header and nothing more.
async fn is_timed_out(mesh: &Mesh, sent: &str, answers_before: usize) {
    let mut stream = mesh.stream(RAW).await;
    stream.write_all(sent.as_bytes()).await.expect("a write");
    let began = Instant::now();
    let read = read_all(&mut stream).await;
    let took = began.elapsed();
    assert_eq!(answers(&read), answers_before + 1, "{sent:?}: {read:?}");
    let last = read.rfind("HTTP/1.1 408").is_some();
    assert!(last, "{sent:?}: {read:?}");
    let bounds = Duration::from_secs(9)..Duration::from_secs(15);
    assert!(bounds.contains(&took), "{sent:?}: {took:?}");
}

#[tokio::test]
async fn a_header_begun_behind_another_request_and_half_a_preface_are_timed_too() {
    let mesh = Mesh::start().await;
    let first = "GET /first HTTP/1.1\r\nhost: raw.shop\r\n\r\n";
    let chunked = "POST /first HTTP/1.1\r\nhost: raw.shop\r\ntransfer-encoding: chunked\r\n\r\n\
                   1\r\nx\r\n0\r\n\r\n";
    let behind = [first, chunked].map(|request| format!("{request}GET /o"));
    tokio::join!(
        is_timed_out(&mesh, "PRI * HT", 0),
        is_timed_out(&mesh, &behind[0], 1),
        is_timed_out(&mesh, &behind[1], 1),
        stays_open(&mesh, first),
        stays_open(&mesh, chunked),
        stays_open(
            &mesh,
            "POST / HTTP/1.1\r\nhost: raw.shop\r\ncontent-length: 3\r\n\r\nabc"
        ),
    );
}

/// Waits longer than a header may take between two requests.
async fn stays_open(mesh: &Mesh, request: &str) {
    let mut stream = mesh.stream(RAW).await;
    for wait in [12, 0] {
        stream.write_all(request.as_bytes()).await.expect("a write");
        let answer = read_until(&mut stream, "ok").await;
        assert_eq!(status_word(&answer), "200", "{request:?}: {answer:?}");
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}

#[tokio::test]
async fn a_header_that_takes_longer_than_10_s_is_a_408() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(RAW).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("a write");
    let (mut read, mut write) = tokio::io::split(stream);
    // A byte now and then must not buy more time.
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let began = Instant::now();
    let answer = read_all(&mut read).await;
    trickle.abort();
    assert_eq!(status_word(&answer), "408", "{answer:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9), "{took:?}: too early");
    assert_eq!(mesh.raw.requests(), 0);
}

#[tokio::test]
async fn the_header_limits_count_each_request_of_a_connection_anew() {
    let mesh = Mesh::start().await;
    mesh.allow_only("raw", "[{to: [{operation: {paths: [/allowed]}}]}]")
        .await;
    let mut stream = mesh.stream(RAW).await;
    let value = "x".repeat(20 * 1024);
    let began = Instant::now();
    // Denied requests without a body are answered without another read of the stream.
    while began.elapsed() < Duration::from_secs(12) {
        let request = format!("GET /denied HTTP/1.1\r\nhost: raw.shop\r\nx-big: {value}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a write");
        let answer = read_until(&mut stream, "RBAC: access denied").await;
        assert_eq!(status_word(&answer), "403", "{answer:?}");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
