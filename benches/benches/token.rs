//! Time to tell who a request is from: by a token that is known, by one that is not, and without any.

#![allow(clippy::unwrap_used)] // a panic is a benchmark that measures nothing

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cairn_authz::jwt::{Authenticator, KeySets, Memory, Request};
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{JwtRule, KeySource, RequestAuthentication, TokenHeader};
use divan::{Bencher, black_box};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, EncodingKey};

const NOW_S: i64 = 1_800_000_000;
const RSA: &str = include_str!("../../conformance/golden/keys/rsa.pem");
const JWKS: &str = include_str!("../../conformance/golden/keys/jwks.json");

fn main() {
    divan::main();
}

/// One issuer, as most meshes have.
fn authenticator() -> Authenticator {
    Authenticator::compile(&[Arc::new(RequestAuthentication {
        origin: Origin {
            kind: Kind::RequestAuthentication,
            key: ObjectKey::new("bench", "issuer"),
        },
        rules: vec![JwtRule {
            issuer: "https://issuer.example".into(),
            audiences: vec!["bench".into()],
            keys: KeySource::Inline(JWKS.into()),
            from_headers: vec![TokenHeader {
                name: AUTHORIZATION,
                prefix: Some("Bearer ".into()),
                scheme: true,
            }],
            from_params: vec!["access_token".into()],
            from_cookies: vec![],
            forward_original_token: false,
            output_payload: None,
            output_claims: vec![],
            space_delimited_claims: vec![],
            timeout_ms: 5_000,
            broken: None,
        }],
        dry_run: false,
        broken: None,
    })])
}

/// RS256 with a key of 2,048 bits and the claims that an OpenID provider writes, about 900 bytes.
fn headers() -> HeaderMap {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "sub": "6f1d0b57-7c8d-4c2e-9c9e-3b1f5a0a9f10",
        "aud": ["bench", "account"], "azp": "frontend", "exp": NOW_S + 300, "iat": NOW_S,
        "scope": "openid profile email", "name": "A User", "email": "user@example.com",
        "realm_access": {"roles": ["staff", "offline_access", "uma_authorization"]},
    });
    let header = serde_json::json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"});
    let message = format!("{}.{}", part(header), part(claims));
    let pem: String = RSA
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let key = EncodingKey::from_rsa_der(&STANDARD.decode(pem).unwrap());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::RS256).unwrap();
    let value = format!("Bearer {message}.{signature}");
    HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
}

fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        method: &Method::GET,
        headers,
        query: Some("page=2"),
    }
}

#[divan::bench]
fn known_token(bencher: Bencher<'_, '_>) {
    let (authenticator, headers, keys) = (authenticator(), headers(), KeySets::default());
    let (request, mut memory) = (request(&headers), Memory::new());
    let mut ask = || {
        let request = black_box(&request);
        authenticator.authenticate(request, &keys, &mut memory, NOW_S)
    };
    assert!(ask().unwrap().token().is_some());
    bencher.bench_local(|| ask().is_ok());
}

#[divan::bench]
fn new_token(bencher: Bencher<'_, '_>) {
    let (authenticator, headers, keys) = (authenticator(), headers(), KeySets::default());
    let request = request(&headers);
    bencher.bench_local(|| {
        let memory = &mut Memory::new();
        let request = black_box(&request);
        authenticator
            .authenticate(request, &keys, memory, NOW_S)
            .is_ok()
    });
}

#[divan::bench]
fn no_token(bencher: Bencher<'_, '_>) {
    let (authenticator, headers, keys) = (authenticator(), HeaderMap::new(), KeySets::default());
    let (request, mut memory) = (request(&headers), Memory::new());
    bencher.bench_local(|| {
        let request = black_box(&request);
        authenticator
            .authenticate(request, &keys, &mut memory, NOW_S)
            .is_ok()
    });
}
