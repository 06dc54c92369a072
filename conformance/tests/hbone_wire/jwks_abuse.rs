//! Servers of keys that mean no good (specs/policies.md 5, GHSA-fgw5-hp8f-xfhc, CVE-2026-31837): wherever they
//! lead and whatever they send, the fetch fails within its limits, and tokens are refused.

use std::time::Duration;

use cairn_conformance::golden::tokens::{jwks, token};
use cairn_conformance::memory::Memory;
use cairn_conformance::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::endpoint::Endpoint;
use crate::mesh::{Mesh, RAW, status_word};

/// A path, what is sent to whoever asks for it, and what is said of that.
type Abuse = (&'static str, fn() -> Vec<u8>, &'static str);

const ANSWERS: &[Abuse] = &[
    (
        "/metadata",
        || moved("http://169.254.169.254/latest/meta-data/"),
        "a metadata address",
    ),
    (
        "/mapped",
        || moved("http://[::ffff:169.254.169.254]/"),
        "a metadata address",
    ),
    (
        "/alibaba",
        || moved("http://100.100.100.200/"),
        "a metadata address",
    ),
    (
        "/file",
        || moved("file:///etc/passwd"),
        "redirects to nowhere",
    ),
    ("/loop", || moved("/loop"), "redirects too often"),
    ("/huge", || body("", &vec![b' '; 2 << 20]), "larger than"),
    (
        "/endless",
        || b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[".to_vec(),
        "longer than",
    ),
    ("/silent", Vec::new, "longer than"),
    (
        "/packed",
        || body("content-encoding: gzip\r\n", &gzip()),
        "ends early",
    ),
    (
        "/deep",
        || body("", "[".repeat(100_000).as_bytes()),
        "no JSON Web Key Set",
    ),
    (
        "/secret",
        || body("", br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        "no key that can be used",
    ),
    ("/none", || body("", br#"{"keys":[]}"#), "no key"),
    (
        "/status",
        || b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "answered 503",
    ),
    (
        "/header",
        || [b"HTTP/1.1 200 OK\r\nx: ", &[b'a'; 2 << 20][..]].concat(),
        "no answer",
    ),
];

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn body(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A gzip stream whose deflate data is one stored block: not text, and nothing unpacks it.
fn gzip() -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 4, 0, 0xfb, 0xff];
    packed.extend(b"keys\xff\xff");
    packed
}

async fn serve(mut client: TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path == "/good" {
        let _ = client.write_all(&body("", jwks().as_bytes())).await;
        return;
    }
    let answer = ANSWERS.iter().find(|(at, ..)| *at == path);
    let Some((_, answer, _)) = answer else { return };
    let _ = client.write_all(&answer()).await;
    if matches!(path, "/silent" | "/endless") {
        // Open for as long as the other end has patience.
        let _ = client.read(&mut [0; 1]).await;
    }
}

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a server");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client));
        }
    });
    format!("http://{address}")
}

/// One rule for each path, each with an issuer of its own.
fn authentication(server: &str) -> String {
    let mut yaml = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                    metadata: {name: raw, namespace: shop}\nspec:\n  \
                    targetRefs: [{group: \"\", kind: Service, name: raw}]\n  jwtRules:\n"
        .to_owned();
    let paths = ANSWERS.iter().map(|(path, ..)| *path);
    for path in paths.chain(["/good"]) {
        let issuer = match path {
            "/good" => "https://issuer.example".to_owned(),
            path => format!("https://issuer.example{path}"),
        };
        yaml += &format!("  - {{issuer: '{issuer}', jwksUri: '{server}{path}', timeout: 2s}}\n");
    }
    yaml
}

#[tokio::test]
async fn a_server_of_keys_leads_nowhere_and_fills_no_memory() {
    let server = server().await;
    let mesh = Mesh::start_with(&["--jwks-allow-local"], Endpoint::answering_ok).await;
    let cairn = mesh.cairn();
    let before = Memory::of(cairn.process.id()).own_bytes();
    mesh.configure("raw", &authentication(&server)).await;
    let mut states = Vec::new();
    until("every fetch has ended", async || {
        let dump = cairn.config_dump().await;
        states = dump["keys"].as_array().cloned().unwrap_or_default();
        let ended = |state: &&serde_json::Value| !state["error"].is_null() || state["keys"] != 0;
        states.iter().filter(ended).count() == ANSWERS.len() + 1
    })
    .await;
    for (path, _, words) in ANSWERS {
        let source = format!("{server}{path}");
        let state = states.iter().find(|state| state["source"] == *source);
        let state = state.unwrap_or_else(|| panic!("{source} is not in the dump"));
        let error = state["error"].as_str().unwrap_or_default();
        assert!(error.contains(words), "{path}: {state}");
        assert_eq!(
            state["keys"], 0,
            "{path}: no key is better than a known one"
        );
    }
    let grown = Memory::of(cairn.process.id()).own_bytes() - before;
    assert!(grown < 24e6, "{grown} bytes");
    // The good one beside them is not held up.
    let request = format!(
        "GET / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        token("alice")
    );
    let answer = mesh.exchange(RAW, request).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
}

#[tokio::test]
async fn a_waypoint_whose_keys_never_come_is_ready_and_refuses_tokens() {
    let mesh = Mesh::start_with(&["--jwks-allow-local"], Endpoint::answering_ok).await;
    let silent = format!("{}/silent", server().await);
    let rule = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: raw, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: raw}}]\n  \
         jwtRules: [{{issuer: https://issuer.example, jwksUri: '{silent}', timeout: 30s}}]\n"
    );
    mesh.configure("raw", &rule).await;
    assert!(
        mesh.cairn().is_ready().await,
        "one issuer must not stop all services"
    );
    let request = |header: &str| {
        format!("GET / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\n{header}\r\n")
    };
    let bearer = format!("authorization: Bearer {}\r\n", token("alice"));
    let began = std::time::Instant::now();
    let answer = mesh.exchange(RAW, request(&bearer)).await;
    assert_eq!(status_word(&answer), "401", "{answer:?}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waits for no fetch"
    );
    let answer = mesh.exchange(RAW, request("")).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
}
