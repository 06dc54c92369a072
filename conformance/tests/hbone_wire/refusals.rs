//! A reason for every refusal: whatever is wrong with a request, Cairn answers it itself, counts it and
//! writes a line of the access log that says why. What is refused is the business of `http1_refused`.

use cairn_conformance::client::Connection;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::frames::{Answered, END_STREAM, Frames};
use crate::mesh::{Mesh, RAW, WEB, read_all, status_word};

/// What everybody is told of one refused request.
struct Told {
    message: String,
    status: u16,
    flags: &'static str,
    details: &'static str,
    /// A part of the reason.
    reason: &'static str,
    /// The label of the counter.
    counted: &'static str,
}

fn told(
    message: impl Into<String>,
    status: u16,
    (flags, details): (&'static str, &'static str),
    reason: &'static str,
    counted: &'static str,
) -> Told {
    Told {
        message: message.into(),
        status,
        flags,
        details,
        reason,
        counted,
    }
}

const CODEC: (&str, &str) = ("DPE", "http.codec_error");
const AUTHORITY: (&str, &str) = ("-", "http.invalid_authority");
const TOO_LARGE: (&str, &str) = ("-", "request_headers_too_large");

/// Requests that the engine would have answered by itself.
fn table() -> Vec<Told> {
    let head = |lines: &str| format!("GET /path HTTP/1.1\r\nhost: raw.shop\r\n{lines}\r\n\r\n");
    vec![
        told(
            head("host: other"),
            400,
            AUTHORITY,
            "more than one Host",
            "bad_authority",
        ),
        told(
            "GET http://other/ HTTP/1.1\r\nhost: raw.shop\r\n\r\n",
            400,
            AUTHORITY,
            "differ",
            "bad_authority",
        ),
        told(
            "GET /path\r\n\r\n",
            400,
            CODEC,
            "request line",
            "bad_request",
        ),
        told(
            "\u{16}\u{3}\u{1}\r\n\r\n",
            400,
            CODEC,
            "request line is malformed",
            "bad_request",
        ),
        told(head("x-a : b"), 400, CODEC, "header name", "bad_request"),
        told(
            head("content-length: five"),
            400,
            CODEC,
            "Content-Length",
            "bad_request",
        ),
        told(
            head("transfer-encoding: gzip"),
            400,
            CODEC,
            "Transfer-Encoding",
            "bad_request",
        ),
        told(
            head(&format!("{}x-a: b", "x-a: b\r\n".repeat(260))),
            431,
            TOO_LARGE,
            "more than 256 header lines",
            "header_too_large",
        ),
        told(
            "CONNECT raw.shop:80 HTTP/1.1\r\nhost: raw.shop:80\r\n\r\n",
            405,
            ("-", "connect_not_allowed"),
            "CONNECT inside a tunnel",
            "connect",
        ),
    ]
}

async fn refusals(mesh: &Mesh, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    let cairn = mesh.cairn();
    cairn.metric("cairn_request_refused_total", &[&label]).await
}

/// The one line of the access log that no earlier call has seen.
async fn next_line(mesh: &Mesh, seen: &mut usize) -> Value {
    *seen += 1;
    let n = *seen;
    cairn_conformance::process::until("one more line of the access log", async || {
        mesh.cairn().access_log().len() >= n
    })
    .await;
    mesh.cairn().access_log()[n - 1].clone()
}

#[tokio::test]
async fn what_the_engine_can_not_take_is_answered_counted_and_logged_with_its_reason() {
    let mesh = Mesh::start().await;
    let mut lines = 0;
    for row in table() {
        let what = &row.message[..row.message.len().min(60)];
        let requests = [
            format!("response_code=\"{}\"", row.status),
            format!("response_flags=\"{}\"", row.flags),
            "destination_service_name=\"raw\"".to_owned(),
        ];
        let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
        let cairn = mesh.cairn();
        let before = cairn.metric("istio_requests_total", &requests).await;
        let counted = refusals(&mesh, row.counted).await;

        let answer = mesh.exchange(RAW, &row.message).await;
        assert_eq!(
            status_word(&answer),
            row.status.to_string(),
            "{what}: {answer:?}"
        );
        let lower = answer.to_ascii_lowercase();
        assert!(!lower.contains("\r\nserver:"), "{what}: {answer:?}");
        assert!(
            lower.contains("\r\nconnection: close\r\n"),
            "{what}: {answer:?}"
        );

        let line = next_line(&mesh, &mut lines).await;
        assert_eq!(line["response_code"], row.status, "{what}: {line}");
        assert_eq!(line["response_flags"], row.flags, "{what}: {line}");
        assert_eq!(line["response_code_details"], row.details, "{what}: {line}");
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(row.reason), "{what}: {line}");
        let requests_now = cairn.metric("istio_requests_total", &requests).await;
        assert_eq!(requests_now, before + 1.0, "{what}");
        assert_eq!(refusals(&mesh, row.counted).await, counted + 1.0, "{what}");
    }
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pipelined_request_that_can_not_be_read_is_told_of_too() {
    let mesh = Mesh::start().await;
    let good = "GET /good HTTP/1.1\r\nhost: raw.shop\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nhost: raw.shop\r\nhost: other\r\n\r\n";
    let answer = mesh.exchange(RAW, format!("{good}{bad}")).await;
    assert_eq!(status_word(&answer), "200");
    assert!(answer.contains("\r\n\r\nokHTTP/1.1 400 "), "{answer:?}");
    let (cairn, refused) = (mesh.cairn(), |line: &Value| line["response_code"] == 400);
    let line = cairn.logged("the second request", refused).await;
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("Host"), "{line}");
    assert_eq!(mesh.raw.requests(), 1);
}

#[tokio::test]
async fn a_request_that_ends_within_its_header_is_a_400_with_a_reason() {
    let mesh = Mesh::start().await;
    let mut stream = mesh.stream(RAW).await;
    let begin = b"GET /half HTTP/1.1\r\nhost: raw.shop\r\n";
    stream.write_all(begin).await.expect("a write");
    stream.shutdown().await.expect("an end");
    assert_eq!(status_word(&read_all(&mut stream).await), "400");
    let half = |line: &Value| line["path"] == "/half";
    let line = mesh.cairn().logged("the half request", half).await;
    assert_eq!(line["reason"], "the request ended before its header did");
    assert_eq!(line["response_code"], 400);
}

#[tokio::test]
async fn a_client_that_breaks_off_within_a_header_is_told_of() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let mut stream = tunnel.open(RAW).await.expect("a 200");
    let begin = b"GET /half HTTP/1.1\r\nhost: raw.shop\r\n";
    stream.write_all(begin).await.expect("a write");
    // Answered after the bytes before it have been read.
    let other = tunnel.open(WEB).await.expect("a 200");
    let answer = Connection::http1_over(other).await.get("/").await;
    assert_eq!(answer.expect("an answer").status(), 200);
    // Dropped without an end, the stream is reset.
    drop(stream);
    let gone = |line: &Value| line["response_flags"] == "DC";
    let line = mesh.cairn().logged("the client that went", gone).await;
    assert_eq!(line["response_code"], 0, "{line}");
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("within the header"), "{line}");
}

#[tokio::test]
async fn what_is_refused_in_http_2_is_told_of_as_well() {
    let mesh = Mesh::start().await;
    let get = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/")];
        fields.extend(more);
        fields
    };
    let connect = vec![(":method", "CONNECT"), (":authority", "raw.shop:80")];
    let mut lines = 0;
    for (fields, status, reason, counted) in [
        (get(&[]), 400, "Host is missing", "bad_authority"),
        (
            get(&[(":authority", "raw.shop"), ("host", "other")]),
            400,
            "differs from :authority",
            "bad_authority",
        ),
        (connect, 405, "CONNECT inside a tunnel", "connect"),
    ] {
        let before = refusals(&mesh, counted).await;
        let mut frames = Frames::open(mesh.stream(RAW).await).await;
        frames.headers(1, END_STREAM, &fields).await;
        let answered = frames.answer(1).await;
        assert!(
            matches!(answered, Answered::Status(s) if s == status),
            "{answered:?}"
        );
        let line = next_line(&mesh, &mut lines).await;
        assert_eq!(line["response_code"], status, "{line}");
        assert_eq!(line["protocol"], "HTTP/2", "{line}");
        assert!(
            line["reason"].as_str().is_some_and(|r| r.contains(reason)),
            "{line}"
        );
        assert_eq!(refusals(&mesh, counted).await, before + 1.0);
    }
    assert_eq!(mesh.raw.connections(), Vec::<String>::new());
}
