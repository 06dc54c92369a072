//! JSON Web Tokens: nobody gets in who was not signed for, wherever the token stands and however it
//! looks.

use std::sync::OnceLock;

use cairn_authz::jwt::{Authenticator, KEYS_PER_SET_MAX, KeySet, KeySets, Memory, Request};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::store::{SourceFile, Store};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue, Method};

/// Two issuers with the same keys, tokens in a header, a parameter and a cookie.
const CONFIGURATION: &str = include_str!("token.yaml");

/// Header and payload of tokens that were signed with these keys, one a line.
const SIGNED: &str = include_str!("token.signed");

/// When the tokens are valid.
const NOW_S: i64 = 1_800_000_000;

/// The bytes as a token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    static COMPILED: OnceLock<Authenticator> = OnceLock::new();
    let authenticator = COMPILED.get_or_init(authenticator);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {text}")) {
        headers.insert(AUTHORIZATION, value);
    }
    is_signed(authenticator, &headers, None, text);
    let query = format!("a=b&access_token={text}");
    is_signed(authenticator, &HeaderMap::new(), Some(&query), text);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("a=b; session={text}")) {
        headers.insert(COOKIE, value);
    }
    is_signed(authenticator, &headers, None, text);
}

fn is_signed(authenticator: &Authenticator, headers: &HeaderMap, query: Option<&str>, text: &str) {
    let request = Request {
        method: &Method::GET,
        headers,
        query,
    };
    let mut memory = Memory::new();
    let keys = KeySets::default();
    let login = authenticator.authenticate(&request, &keys, &mut memory, NOW_S);
    if let Ok(login) = &login
        && login.token().is_some()
    {
        // A parameter is decoded, and a header trimmed, before it is a token.
        let known = SIGNED.lines().any(|message| text.contains(message));
        let decoded = query.is_some() && text.contains(['%', '+']);
        assert!(known || decoded, "{text:?} got in as {:?}", login.token());
    }
    let again = authenticator.authenticate(&request, &keys, &mut memory, NOW_S);
    let who = |login: &Result<_, _>| format!("{login:?}");
    assert_eq!(who(&login), who(&again), "remembered differently");
}

fn authenticator() -> Authenticator {
    let file = SourceFile {
        path: "token.yaml".into(),
        content: Ok(CONFIGURATION.as_bytes().into()),
    };
    let update = Store::default().update(&[file]);
    let snapshot = resolve(&update.resources, &Options::default());
    let authentications = &snapshot.authentications.waypoint;
    assert!(!authentications.is_empty(), "{:?}", update.diagnostics);
    Authenticator::compile(authentications)
}

/// The bytes as a JSON Web Key Set.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(set) = KeySet::parse(text) {
        assert!(
            !set.keys().is_empty(),
            "a set without keys verifies nothing"
        );
        assert!(set.keys().len() <= KEYS_PER_SET_MAX, "{}", set.keys().len());
        for key in set.keys() {
            assert!(!key.algorithms.is_empty(), "a key that verifies nothing");
            let secret = |a: &_| format!("{a:?}").starts_with("HS");
            assert!(!key.algorithms.iter().any(secret), "a secret as a key");
        }
    }
}
