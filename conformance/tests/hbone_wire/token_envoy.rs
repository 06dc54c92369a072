//! Tokens beside real Envoy (jwt_authn): the same status and the same words, but where docs/status.md says
//! otherwise.

use std::collections::BTreeMap;

use cairn_conformance::client::{self, Connection};
use cairn_conformance::envoy::TokenGate;
use cairn_conformance::golden::tokens::{jwks, token};
use http::Request;
use http_body_util::Full;

use crate::mesh::{Mesh, WEB};

/// Tokens of golden/tokens.yaml, and text that is none.
const TOKENS: &[&str] = &[
    "alice",
    "bob",
    "no-subject",
    "for-ever",
    "rs384",
    "rs512",
    "ps256",
    "ps384",
    "ps512",
    "es256",
    "es384",
    "eddsa",
    "expired",
    "too-early",
    "other-audience",
    "no-audience",
    "stranger",
    "unknown-kid",
    "no-issuer",
    "eve",
    "kid-case",
    "kid-path",
    "own-key",
    "nested",
    "list-issuer",
    "issuer-suffix",
    "not a token",
    "numeric-subject",
];

/// Refused by both, in other words: Envoy's library does not know the algorithm, or the type of a claim, by
/// itself.
const OTHER_WORDS: &[&str] = &[
    "confused",
    "confused-family",
    "lower-alg",
    "none",
    "none-upper",
    "unsigned",
    "text-expiry",
];

/// Envoy ignores `crit`, which must be understood (RFC 7515 4.1.11).
const REFUSED_BY_CAIRN: &[&str] = &["critical"];

fn header(name: &str) -> String {
    match name {
        "not a token" => "Bearer not.a-token".to_owned(),
        name => format!("Bearer {}", token(name)),
    }
}

async fn ask(connection: &mut Connection, name: &str) -> (u16, String) {
    let request = Request::get("/x")
        .header("host", "web.shop")
        .header("authorization", header(name))
        .body(Full::default())
        .expect("a request");
    let answer = connection.send(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let text = match status {
        200 => String::new(),
        _ => client::text(&answer),
    };
    (status, text)
}

#[tokio::test]
async fn a_token_is_answered_as_envoy_answers_it() {
    let mesh = Mesh::start().await;
    mesh.configure(
        "web",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: web, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
             jwtRules: [{{issuer: https://issuer.example, audiences: [shop], jwks: '{}'}}]\n",
            jwks().replace('\n', "")
        ),
    )
    .await;
    let gate = TokenGate {
        issuer: "https://issuer.example",
        audience: "shop",
        jwks: &jwks(),
    };
    let (_envoy, address) = gate.start(mesh.source, mesh.lab.folder()).await;
    let mut wrong = BTreeMap::new();
    for name in TOKENS.iter().chain(OTHER_WORDS).chain(REFUSED_BY_CAIRN) {
        let mut envoy = Connection::http1(address).await;
        let mut cairn = Connection::http1_over(mesh.stream(WEB).await).await;
        let (envoy, cairn) = (ask(&mut envoy, name).await, ask(&mut cairn, name).await);
        let as_expected = if REFUSED_BY_CAIRN.contains(name) {
            (envoy.0, cairn.0) == (200, 401)
        } else if OTHER_WORDS.contains(name) {
            envoy.0 == cairn.0 && cairn.0 == 401
        } else {
            envoy == cairn
        };
        if !as_expected {
            wrong.insert(name, format!("Envoy {envoy:?}, Cairn {cairn:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
