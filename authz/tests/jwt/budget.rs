//! How many signatures one request may cost: tokens, rules of one issuer and keys without a name
//! multiply.

use cairn_authz::jwt::{KEYS_TRIED_MAX, KeySets, Memory, Request, SIGNATURES_PER_REQUEST_MAX};
use cairn_config_schema::snapshot::{JwtRule, KeySource};
use http::{HeaderMap, HeaderName, Method};

use super::{Made, NOW_S, Written, compile, rule, sign};

const KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"rTYKiJMuPkibqh1KiK19AzDSffkBOLdR2V5Voyide70"}"#;

/// Signatures that were checked for a token signed by nobody, against so many rules of its issuer.
fn spent(rules: usize) -> u64 {
    let made = Made {
        alg: "EdDSA",
        signer: "ed25519",
        kid: None,
        issuer: "a",
        audience: None,
        not_before_s: None,
        expires_s: None,
        place: "x-jwt",
        tampered: true,
    };
    let written = Written {
        issuer: "a",
        audience: None,
        keys: vec![],
        places: vec!["x-jwt"],
        broken: false,
    };
    let keys = vec![KEY; KEYS_TRIED_MAX].join(",");
    let one = JwtRule {
        keys: KeySource::Inline(format!("{{\"keys\":[{keys}]}}").into()),
        ..rule(&written)
    };
    let name = HeaderName::from_static("x-jwt");
    let headers = HeaderMap::from_iter([(name, sign(&made).parse().unwrap())]);
    let request = Request {
        method: &Method::GET,
        headers: &headers,
        query: None,
    };
    let mut memory = Memory::new();
    let authenticator = compile(vec![one; rules]);
    let login = authenticator.authenticate(&request, &KeySets::default(), &mut memory, NOW_S);
    assert!(login.is_err(), "{login:?}");
    memory.signatures()
}

#[test]
fn signatures_of_one_request_are_bounded() {
    assert_eq!(spent(1), KEYS_TRIED_MAX as u64);
    assert_eq!(spent(20), SIGNATURES_PER_REQUEST_MAX as u64);
}
