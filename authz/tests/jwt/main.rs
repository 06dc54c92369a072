//! Tokens by the thousand: what `Authenticator` says of made-up tokens and rules, beside a naive
//! reading of specs/istio-waypoint.md 4.9 that knows how each token was made and verifies nothing.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod budget;
mod pairs;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cairn_authz::jwt::{Authenticator, KeySets, Memory, Request, Status};
use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    JwtRule, KeySource, RemoteKeys, RequestAuthentication, TokenHeader,
};
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

const NOW_S: i64 = 1_800_000_000;
const ED25519: &str = include_str!("../../../conformance/golden/keys/ed25519.pem");
const P256: &str = include_str!("../../../conformance/golden/keys/p256.pem");
const JWKS: &str = include_str!("../../../conformance/golden/keys/jwks.json");

/// How a token is made.
#[derive(Clone, Debug)]
struct Made {
    alg: &'static str,
    /// The key that signs; empty for none.
    signer: &'static str,
    kid: Option<&'static str>,
    issuer: &'static str,
    audience: Option<Value>,
    not_before_s: Option<i64>,
    expires_s: Option<i64>,
    place: &'static str,
    /// A byte of the payload is changed after signing.
    tampered: bool,
}

/// A rule, as far as it differs from others.
#[derive(Clone, Debug)]
struct Written {
    issuer: &'static str,
    audience: Option<&'static str>,
    keys: Vec<&'static str>,
    places: Vec<&'static str>,
    broken: bool,
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|l| !l.starts_with("---")).collect();
    STANDARD.decode(body).unwrap()
}

fn sign(made: &Made) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut header = json!({"alg": made.alg});
    if let Some(kid) = made.kid {
        header["kid"] = json!(kid);
    }
    let mut claims = json!({"iss": made.issuer, "sub": "user"});
    for (name, value) in [("nbf", made.not_before_s), ("exp", made.expires_s)] {
        if let Some(value) = value {
            claims[name] = json!(value);
        }
    }
    if let Some(audience) = &made.audience {
        claims["aud"] = audience.clone();
    }
    let message = format!("{}.{}", part(header.clone()), part(claims.clone()));
    let (algorithm, key) = match made.signer {
        "ed25519" => (Algorithm::EdDSA, EncodingKey::from_ed_der(&der(ED25519))),
        "p256" => (Algorithm::ES256, EncodingKey::from_ec_der(&der(P256))),
        "hmac" => (Algorithm::HS256, EncodingKey::from_secret(JWKS.as_bytes())),
        _ => return format!("{message}."),
    };
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    if made.tampered {
        claims["sub"] = json!("admin");
        return format!("{}.{}.{signature}", part(header), part(claims));
    }
    format!("{message}.{signature}")
}

/// "checks: signature, `iss` exact, `aud` ∩ `audiences` if listed, `exp`, `nbf` (60 s skew)", by a rule
/// that looks at the place; the key and its algorithm are known because the token was made here.
fn is_valid(made: &Made, rule: &Written) -> bool {
    let audiences = match &made.audience {
        Some(Value::Array(many)) => many.clone(),
        Some(one) => vec![one.clone()],
        None => vec![],
    };
    let own_algorithm = match made.signer {
        "ed25519" => "EdDSA",
        "p256" => "ES256",
        _ => return false,
    };
    rule.places.contains(&made.place)
        && !rule.broken
        && rule.issuer == made.issuer
        && rule
            .audience
            .is_none_or(|wanted| audiences.iter().any(|a| a == wanted))
        && made.not_before_s.is_none_or(|from| from - 60 <= NOW_S)
        && made.expires_s.is_none_or(|until| until + 60 >= NOW_S)
        && made.alg == own_algorithm
        && rule.keys.contains(&made.signer)
        && made.kid.is_none_or(|kid| kid == made.signer)
        && !made.tampered
}

fn compiled(rules: &[Written]) -> Authenticator {
    compile(rules.iter().map(rule).collect())
}

fn compile(rules: Vec<JwtRule>) -> Authenticator {
    Authenticator::compile(&[Arc::new(RequestAuthentication {
        origin: Origin {
            kind: Kind::RequestAuthentication,
            key: ObjectKey::new("shop", "a"),
        },
        rules,
        dry_run: false,
        broken: None,
    })])
}

fn rule(written: &Written) -> JwtRule {
    let all: Value = serde_json::from_str(JWKS).unwrap();
    let keys = all["keys"].as_array().unwrap().iter();
    let keys: Vec<_> = keys
        .filter(|key| written.keys.contains(&key["kid"].as_str().unwrap()))
        .collect();
    let header = |name: &HeaderName, prefix: Option<&str>| TokenHeader {
        name: name.clone(),
        prefix: prefix.map(Arc::from),
        scheme: prefix.is_some(),
    };
    JwtRule {
        issuer: written.issuer.into(),
        audiences: written.audience.into_iter().map(Arc::from).collect(),
        keys: KeySource::Inline(json!({ "keys": keys }).to_string().into()),
        from_headers: (written.places.iter())
            .filter_map(|place| match *place {
                "authorization" => Some(header(&AUTHORIZATION, Some("Bearer "))),
                "x-jwt" => Some(header(&HeaderName::from_static("x-jwt"), None)),
                _ => None,
            })
            .collect(),
        from_params: (written.places.iter())
            .filter(|place| **place == "token")
            .map(|place| Arc::from(*place))
            .collect(),
        from_cookies: vec![],
        forward_original_token: false,
        output_payload: None,
        output_claims: vec![],
        space_delimited_claims: vec![],
        timeout_ms: 5_000,
        broken: written.broken.then(|| "broken".into()),
    }
}

fn ask(
    authenticator: &Authenticator,
    (made, token): (&Made, &str),
    memory: &mut Memory,
    now_s: i64,
) -> Result<Option<String>, String> {
    let mut headers = HeaderMap::new();
    let mut query = None;
    match made.place {
        "authorization" => {
            let value = format!("Bearer {token}").parse().unwrap();
            headers.insert(AUTHORIZATION, value);
        }
        "x-jwt" => {
            headers.insert("x-jwt", token.parse().unwrap());
        }
        _ => query = Some(format!("token={token}")),
    }
    let request = Request {
        method: &Method::GET,
        headers: &headers,
        query: query.as_deref(),
    };
    let login = authenticator.authenticate(&request, &KeySets::default(), memory, now_s);
    let login = login.map_err(|failure| failure.reason)?;
    Ok(login.token().and_then(cairn_authz::Token::principal))
}

const PLACES: &[&str] = &["authorization", "x-jwt", "token"];

fn made() -> impl Strategy<Value = Made> {
    let time = || {
        let near = prop_oneof![
            Just(-61),
            Just(-60),
            Just(0),
            Just(60),
            Just(61),
            Just(9_999)
        ];
        proptest::option::of(near.prop_map(|off: i64| NOW_S + off))
    };
    let signed = prop_oneof![
        6 => select(vec![("EdDSA", "ed25519"), ("ES256", "p256")]),
        1 => select(vec![("none", ""), ("EdDSA", ""), ("HS256", "hmac"), ("EdDSA", "p256"), ("ES256", "ed25519")]),
    ];
    let kid = proptest::option::of(select(vec!["ed25519", "p256", "other"]));
    let audience = select(vec![
        None,
        Some(json!("x")),
        Some(json!(["y", "x"])),
        Some(json!([])),
    ]);
    let who = (select(vec!["a", "b", "c"]), audience, select(PLACES));
    (signed, kid, who, time(), time(), prop::bool::weighted(0.1)).prop_map(
        |((alg, signer), kid, (issuer, audience, place), not_before_s, expires_s, tampered)| Made {
            alg,
            signer,
            kid,
            issuer,
            audience,
            not_before_s,
            expires_s,
            place,
            tampered,
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Written>> {
    let rule = (
        select(vec!["a", "b"]),
        select(vec![None, None, Some("x"), Some("z")]),
        proptest::sample::subsequence(vec!["ed25519", "p256"], 1..=2),
        proptest::sample::subsequence(PLACES.to_vec(), 1..=3),
        prop::bool::weighted(0.1),
    );
    let rule = rule.prop_map(|(issuer, audience, keys, places, broken)| Written {
        issuer,
        audience,
        keys,
        places,
        broken,
    });
    vec(rule, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in place of a token: no panic, and nobody is let in by it.
    #[test]
    fn rubbish_is_refused(token in "[ -~]{0,60}|[A-Za-z0-9_-]{0,20}(\\.[A-Za-z0-9_=-]{0,20}){0,4}") {
        let rule = Written {
            issuer: "a",
            audience: None,
            keys: vec!["ed25519", "p256"],
            places: vec!["x-jwt"],
            broken: false,
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-jwt", token.parse().unwrap());
        let request = Request { method: &Method::GET, headers: &headers, query: None };
        let keys = KeySets::default();
        let login = compiled(&[rule]).authenticate(&request, &keys, &mut Memory::new(), NOW_S);
        prop_assert!(login.is_err());
    }
}

#[test]
fn memory_is_bounded() {
    let rule = Written {
        issuer: "a",
        audience: None,
        keys: vec!["ed25519"],
        places: vec!["x-jwt"],
        broken: false,
    };
    let (authenticator, mut memory) = (compiled(&[rule]), Memory::new());
    for n in 0..9_000 {
        let made = Made {
            alg: "EdDSA",
            signer: "ed25519",
            kid: None,
            issuer: "a",
            audience: None,
            not_before_s: None,
            expires_s: Some(NOW_S + n),
            place: "x-jwt",
            tampered: false,
        };
        let token = sign(&made);
        assert!(ask(&authenticator, (&made, &token), &mut memory, NOW_S).is_ok());
        assert!(memory.len() <= 8_192);
    }
    assert!(memory.len() >= 4_096);
}

#[test]
fn a_missing_key_is_asked_for_whatever_other_rules_say() {
    let made = Made {
        alg: "EdDSA",
        signer: "ed25519",
        kid: None,
        issuer: "a",
        audience: Some(json!("x")),
        not_before_s: None,
        expires_s: None,
        place: "x-jwt",
        tampered: false,
    };
    let written = Written {
        issuer: "a",
        audience: None,
        keys: vec!["ed25519"],
        places: vec!["x-jwt"],
        broken: false,
    };
    let source = RemoteKeys {
        url: "https://idp.example/keys".into(),
        discovery: false,
    };
    let remote = JwtRule {
        keys: KeySource::Remote(source.clone()),
        ..rule(&written)
    };
    let others = rule(&Written {
        audience: Some("z"),
        ..written
    });
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-jwt"),
        sign(&made).parse().unwrap(),
    )]);
    let request = Request {
        method: &Method::GET,
        headers: &headers,
        query: None,
    };
    let (keys, mut memory) = (KeySets::default(), Memory::new());
    for rules in [
        vec![remote.clone(), others.clone()],
        vec![others.clone(), remote],
    ] {
        let login = compile(rules).authenticate(&request, &keys, &mut memory, NOW_S);
        let failure = login.unwrap_err();
        assert_eq!(
            (failure.status, failure.refresh),
            (Status::NoKeys, Some(source.clone()))
        );
    }
    let login = compile(vec![others]).authenticate(&request, &keys, &mut memory, NOW_S);
    let failure = login.unwrap_err();
    assert_eq!(
        (failure.status, failure.refresh),
        (Status::WrongAudience, None)
    );
}

/// Nothing is fetched for keys that stand in the object, and nothing is said of it.
#[test]
fn keys_in_the_object_that_are_none_match_nothing() {
    let written = Written {
        issuer: "a",
        audience: None,
        keys: vec![],
        places: vec!["x-jwt"],
        broken: false,
    };
    let made = Made {
        alg: "EdDSA",
        signer: "ed25519",
        kid: None,
        issuer: "a",
        audience: None,
        not_before_s: None,
        expires_s: None,
        place: "x-jwt",
        tampered: false,
    };
    let asked = (&made, &*sign(&made));
    let reason = ask(&compiled(&[written]), asked, &mut Memory::new(), NOW_S).unwrap_err();
    assert!(reason.starts_with(Status::NoSuchKey.message()), "{reason}");
}
