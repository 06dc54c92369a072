//! Bytes that two parsers could cut differently: whatever Cairn answers, the endpoint never sees a
//! request that Cairn's policy did not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{Mesh, RAW, answers};

/// Hidden in the body of each message; as a request of its own it would be a bypass.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nhost: raw.shop\r\n\r\n";

/// Sends the bytes, then the end of the stream, and reads whatever comes back.
async fn send(mesh: &Mesh, bytes: &str) -> String {
    let mut stream = mesh.stream(RAW).await;
    stream.write_all(bytes.as_bytes()).await.expect("a write");
    stream.shutdown().await.expect("an end");
    let mut answer = Vec::new();
    // A reset is an answer too.
    let read = stream.read_to_end(&mut answer);
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(in_time.is_ok(), "still open after {text:?}");
    text
}

#[tokio::test]
async fn bad_chunks_end_the_connection_and_what_follows_is_no_request() {
    let mesh = Mesh::start().await;
    mesh.allow_only("raw", "[{to: [{operation: {paths: [/outer]}}]}]")
        .await;
    let chunked = "POST /outer HTTP/1.1\r\nhost: raw.shop\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, body) in [
        ("no number", "zz\r\n"),
        ("an empty size", "\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("negative", "-1\r\nhello\r\n0\r\n\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("beyond 64 bits", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("wraps to 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("more data than the size", "3\r\nhello\r\n0\r\n\r\n"),
        ("no CRLF after the data", "5\r\nhello0\r\n\r\n"),
        ("bare LF", "5\nhello\n0\n\n"),
        ("bare CR", "5\rhello\r0\r\r"),
        ("an extension with LF", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ] {
        let before = mesh.raw.requests();
        let answer = send(&mesh, &format!("{chunked}{body}{HIDDEN}")).await;
        let count = answers(&answer);
        assert!(count <= 1, "{what}: {answer:?}");
        assert!(!answer.contains("HTTP/1.1 2"), "{what}: {answer:?}");
        assert_eq!(mesh.raw.requests(), before, "{what}: reached the endpoint");
    }
    let seen = mesh.raw.seen();
    assert!(!seen.contains("/smuggled"), "{seen:?}");
}

#[tokio::test]
async fn a_hidden_request_in_a_proper_body_stays_a_body() {
    let mesh = Mesh::start().await;
    mesh.allow_only("raw", "[{to: [{operation: {paths: [/outer]}}]}]")
        .await;
    let length = HIDDEN.len();
    for head in [
        format!(
            "GET /outer HTTP/1.1\r\nhost: raw.shop\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /outer HTTP/1.1\r\nhost: raw.shop\r\ncontent-length: {length}\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /outer HTTP/1.1\r\nhost: raw.shop\r\ntransfer-encoding: chunked\r\n\r\n{length:x};ext=\"a\"\r\n{HIDDEN}\r\n0\r\nx-trailer: y\r\n\r\n"
        ),
        format!(
            "HEAD /outer HTTP/1.1\r\nhost: raw.shop\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "OPTIONS /outer HTTP/1.1\r\nhost: raw.shop\r\nContent-Length : 0\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"
        ),
    ] {
        let before = mesh.raw.requests();
        let answer = send(&mesh, &head).await;
        assert!(answers(&answer) <= 1, "{head:?}: {answer:?}");
        assert!(mesh.raw.requests() <= before + 1, "{head:?}");
    }
    for connection in mesh.raw.connections() {
        let requests = connection.matches(" HTTP/1.1\r\n").count();
        let hidden = connection.matches("/smuggled HTTP/1.1\r\n").count();
        // Only ever as the body of a request that was allowed.
        assert!(requests - hidden >= hidden, "{connection:?}");
    }
}

#[tokio::test]
async fn a_body_that_a_denied_request_leaves_unread_is_no_request() {
    let mesh = Mesh::start().await;
    mesh.allow_only("raw", "[{to: [{operation: {paths: [/smuggled]}}]}]")
        .await;
    for framing in ["content-length: 44", "transfer-encoding: chunked"] {
        let head = format!("POST /denied HTTP/1.1\r\nhost: raw.shop\r\n{framing}\r\n\r\n");
        let answer = send(&mesh, &format!("{head}{HIDDEN}")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{framing}: {answer:?}");
        assert_eq!(answers(&answer), 1, "{answer:?}");
    }
    assert_eq!(mesh.raw.seen(), "");
}

#[tokio::test]
async fn bare_line_feeds_do_not_make_another_request() {
    let mesh = Mesh::start().await;
    mesh.allow_only("raw", "[{to: [{operation: {paths: [/outer]}}]}]")
        .await;
    for head in [
        "GET /outer HTTP/1.1\nhost: raw.shop\n\n",
        "GET /outer HTTP/1.1\r\nhost: raw.shop\nx-a: b\r\n\r\n",
        "\r\n\r\nGET /outer HTTP/1.1\r\nhost: raw.shop\r\n\r\n",
        "GET /outer HTTP/1.1\r\nhost: raw.shop\r\nx-a: b\r\r\n\r\n",
        "GET /outer HTTP/1.1\r\nhost: raw.shop\r\nx-a: b\n\nGET /smuggled HTTP/1.1\r\nhost: raw.shop\r\n\r\n",
    ] {
        send(&mesh, head).await;
    }
    let seen = mesh.raw.seen();
    assert!(!seen.contains("/smuggled"), "{seen:?}");
    assert!(!seen.replace("\r\n", "").contains(['\r', '\n']), "{seen:?}");
}
