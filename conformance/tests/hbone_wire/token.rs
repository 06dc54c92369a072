//! JSON Web Tokens on the wire (specs/istio-waypoint.md 4.9): what a client is told, what the
//! endpoint gets, and keys that are fetched: late, rotated, lost. Which tokens are valid is golden
//! cases' business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_conformance::golden::tokens::{jwks, put_into, token};
use cairn_conformance::process::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::frames::{Answered, END_STREAM, Frames};
use crate::mesh::{Mesh, RAW, status_word};

/// A RequestAuthentication on the service `raw` with one rule.
fn authentication(rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: raw, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: raw}}]\n  \
         jwtRules:\n  - issuer: https://issuer.example\n    {rule}\n"
    )
}

fn inline() -> String {
    authentication(&format!("jwks: '{}'", jwks().replace('\n', "")))
}

fn get(target: &str, header: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: raw.shop\r\n{header}\r\nconnection: close\r\n\r\n")
}

fn bearer(name: &str) -> String {
    format!("authorization: Bearer {}", token(name))
}

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_its_token() {
    let mesh = Mesh::start().await;
    mesh.configure("raw", &inline()).await;
    let answer = mesh.exchange(RAW, get("/", &bearer("alice"))).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
    let sent = mesh.raw.last().to_ascii_lowercase();
    assert!(!sent.contains("authorization"), "{sent:?}");

    let answer = mesh.exchange(RAW, get("/a?b=c", &bearer("expired"))).await;
    let challenge = "www-authenticate: Bearer realm=\"http://raw.shop/a\", error=\"invalid_token\"";
    assert_eq!(status_word(&answer), "401", "{answer:?}");
    assert!(
        answer
            .to_ascii_lowercase()
            .contains(&challenge.to_ascii_lowercase()),
        "{answer:?}"
    );
    assert!(answer.ends_with("\r\n\r\nJwt is expired"), "{answer:?}");
    assert_eq!(mesh.raw.requests(), 1);
    let line = mesh
        .cairn()
        .logged("a refusal", |line| line["response_code"] == 401)
        .await;
    assert_eq!(
        line["response_code_details"],
        "jwt_authn_access_denied{Jwt_is_expired}"
    );
    assert!(
        line["reason"]
            .as_str()
            .unwrap()
            .contains("RequestAuthentication/shop/raw")
    );
}

#[tokio::test]
async fn a_token_in_the_query_is_neither_forwarded_nor_logged() {
    let mesh = Mesh::start().await;
    mesh.configure("raw", &inline()).await;
    for (name, status) in [("alice", "200"), ("expired", "401")] {
        let target = put_into(&format!("/q?a={name}&access_token={{jwt:{name}}}"));
        let answer = mesh.exchange(RAW, get(&target, "x: y")).await;
        assert_eq!(status_word(&answer), status, "{answer:?}");
        let path = format!("/q?a={name}");
        mesh.cairn()
            .logged("the request", |line| line["path"] == *path)
            .await;
    }
    assert!(mesh.raw.last().starts_with("GET /q?a=alice HTTP/1.1\r\n"));
    // Refused before anybody looks for tokens: by the engine, and by us.
    for (path, hosts) in [
        ("/two", "host: a\r\nhost: b\r\n"),
        ("/none", "connection: close\r\n"),
    ] {
        let target = put_into(&format!("{path}?access_token={{jwt:alice}}"));
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
        let answer = mesh.exchange(RAW, request).await;
        assert_eq!(status_word(&answer), "400", "{answer:?}");
        mesh.cairn()
            .logged("the refusal", |line| line["path"] == *path)
            .await;
    }
    let log = format!("{:?}", mesh.cairn().access_log());
    assert!(
        !log.contains(&token("alice")) && !log.contains("access_token"),
        "{log}"
    );
}

#[tokio::test]
async fn grpc_is_told_unauthenticated() {
    let mesh = Mesh::start().await;
    mesh.configure("raw", &inline()).await;
    let authorization = format!("Bearer {}", token("stranger"));
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/shop.Raw/Get"),
        (":authority", "raw.shop"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &*authorization),
    ];
    let mut frames = Frames::open(mesh.stream(RAW).await).await;
    frames.headers(1, END_STREAM, &fields).await;
    let answered = frames.answer(1).await;
    assert!(matches!(answered, Answered::Status(200)), "{answered:?}");
    let labels = ["grpc_response_status=\"16\""];
    mesh.cairn()
        .metric_reaches("istio_requests_total", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn headers_that_claims_write_can_not_be_written_by_clients() {
    let mesh = Mesh::start().await;
    let output =
        "forwardOriginalToken: true\n    outputClaimToHeaders: [{header: x-sub, claim: sub}]";
    let rule = format!("jwks: '{}'\n    {output}", jwks().replace('\n', ""));
    mesh.configure("raw", &authentication(&rule)).await;
    let forged = "x-sub: mallory\r\nX-Sub: mallory";
    mesh.exchange(RAW, get("/", forged)).await;
    assert!(
        !mesh.raw.last().contains("mallory"),
        "{:?}",
        mesh.raw.last()
    );
    let both = format!("{forged}\r\n{}", bearer("alice"));
    mesh.exchange(RAW, get("/", &both)).await;
    let sent = mesh.raw.last();
    assert!(
        sent.contains("alice") && !sent.contains("mallory"),
        "{sent:?}"
    );
    assert!(sent.contains(&token("alice")), "{sent:?}");
    // What `Connection` names is gone before tokens are looked for, and for the endpoint as well.
    let stranger = bearer("stranger");
    let nominated = format!(
        "GET / HTTP/1.1\r\nhost: raw.shop\r\nconnection: close, authorization\r\n{stranger}\r\n\r\n"
    );
    let answer = mesh.exchange(RAW, nominated).await;
    assert_eq!(status_word(&answer), "200", "{answer:?}");
    assert!(
        !mesh.raw.last().contains(&token("stranger")),
        "{:?}",
        mesh.raw.last()
    );
}

/// A server of keys on loopback: what it says, and how often it was asked.
struct Keys {
    url: String,
    body: watch::Sender<Option<String>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    async fn start(body: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (sender, says) = watch::channel(body);
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match client.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                let says = says.borrow().clone();
                let answer = match says {
                    Some(body) => format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                    None => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            url,
            body: sender,
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn status(mesh: &Mesh, name: &str) -> String {
    let answer = mesh.exchange(RAW, get("/", &bearer(name))).await;
    status_word(&answer).to_owned()
}

/// A mesh that has fetched its keys, and the server that it has them from.
async fn with_fetched_keys() -> (Keys, Mesh) {
    let keys = Keys::start(Some(jwks())).await;
    let mesh = Mesh::start_with(
        &["--jwks-allow-local"],
        crate::endpoint::Endpoint::answering_ok,
    )
    .await;
    mesh.configure("raw", &authentication(&format!("jwksUri: {}", keys.url)))
        .await;
    until("the keys are there", async || {
        status(&mesh, "alice").await == "200"
    })
    .await;
    (keys, mesh)
}

/// A set of keys under another name: what an issuer publishes before it signs with a new one.
fn renamed() -> String {
    jwks().replace("\"kid\": \"rsa\"", "\"kid\": \"other\"")
}

#[tokio::test]
async fn keys_are_fetched_and_fetched_again_for_a_key_that_is_not_known() {
    let (keys, mesh) = with_fetched_keys().await;
    assert_eq!(status(&mesh, "unknown-kid").await, "401");
    let cairn = mesh.cairn();
    assert_eq!(cairn.metric("cairn_jwks_keys", &[&keys.url]).await, 4.0);
    let dump = cairn.config_dump().await;
    assert_eq!(dump["keys"][0]["source"], keys.url, "{}", dump["keys"]);
    assert_eq!(dump["keys"][0]["keys"], 4);

    // However many ask for it, it is fetched once in ten seconds.
    keys.body.send_replace(Some(renamed()));
    let before = keys.asked();
    for _ in 0..20 {
        status(&mesh, "unknown-kid").await;
    }
    assert_eq!(keys.asked(), before, "ten seconds have not passed");
    until("the new key is known", async || {
        status(&mesh, "unknown-kid").await == "200"
    })
    .await;
    assert_eq!(keys.asked(), before + 1);
    // A key that was withdrawn verifies nothing any more, remembered or not.
    assert_eq!(status(&mesh, "alice").await, "401");
}

#[tokio::test]
async fn the_last_good_keys_outlive_their_server_and_a_new_process_has_none() {
    let (keys, mesh) = with_fetched_keys().await;
    keys.body.send_replace(None);
    status(&mesh, "unknown-kid").await;
    let failure = ["result=\"failure\""];
    until("a fetch has failed", async || {
        mesh.cairn()
            .metric("cairn_jwks_fetches_total", &failure)
            .await
            >= 1.0
    })
    .await;
    assert_eq!(status(&mesh, "alice").await, "200");
    let dump = mesh.cairn().config_dump().await;
    assert!(
        dump["keys"][0]["error"].as_str().unwrap().contains("500"),
        "{}",
        dump["keys"]
    );
}

#[tokio::test]
async fn without_keys_every_token_is_refused_and_loopback_is_never_asked() {
    let keys = Keys::start(Some(jwks())).await;
    let mesh = Mesh::start().await;
    mesh.configure("raw", &authentication(&format!("jwksUri: {}", keys.url)))
        .await;
    let failure = ["result=\"failure\""];
    until("a fetch has failed", async || {
        mesh.cairn()
            .metric("cairn_jwks_fetches_total", &failure)
            .await
            >= 1.0
    })
    .await;
    let answer = mesh.exchange(RAW, get("/", &bearer("alice"))).await;
    assert_eq!(status_word(&answer), "401", "{answer:?}");
    assert!(
        answer.ends_with("Jwks remote fetch is failed"),
        "{answer:?}"
    );
    assert_eq!(keys.asked(), 0);
    assert_eq!(
        status_word(&mesh.exchange(RAW, get("/", "x: y")).await),
        "200"
    );
    let dump = mesh.cairn().config_dump().await;
    let error = dump["keys"][0]["error"].as_str().unwrap();
    assert!(error.contains("loopback"), "{error}");
}
