//! Tokens of golden cases and wire tests: `{jwt:NAME}` stands for the token that `golden/tokens.yaml`
//! describes under that name, signed with a key of `golden/keys/`. These keys are for tests only.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Deserialize;
use serde_json::Value;

/// When golden cases are judged: any time at which `tokens.yaml` means what it says.
pub const NOW_S: i64 = 1_800_000_000;

/// How a token is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the key's file; `none` for no signature, `secret` for the public RSA key as a secret.
    pub key: String,
    /// Header.
    pub header: Value,
    /// Claims.
    pub claims: Value,
}

/// A text with the tokens it names.
pub fn put_into(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{jwt:") {
        let (name, after) = after.split_once('}').expect("{jwt:NAME}");
        out.push_str(before);
        out.push_str(&token(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A token of `tokens.yaml`.
pub fn token(name: &str) -> String {
    static RECIPES: OnceLock<BTreeMap<String, Recipe>> = OnceLock::new();
    let recipes = RECIPES.get_or_init(|| {
        let text = std::fs::read_to_string(super::root().join("tokens.yaml")).expect("tokens.yaml");
        serde_saphyr::from_str(&text).expect("tokens.yaml")
    });
    let recipe = recipes.get(name);
    sign(recipe.unwrap_or_else(|| panic!("no token {name}")))
}

/// Makes a token.
pub fn sign(recipe: &Recipe) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&recipe.header), part(&recipe.claims));
    let algorithm = recipe.header["alg"].as_str().and_then(|a| a.parse().ok());
    let signature = match (recipe.key.as_str(), algorithm) {
        ("none", _) | (_, None) => String::new(),
        (name, Some(algorithm)) => {
            let key = key(name, algorithm);
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature")
        }
    };
    format!("{message}.{signature}")
}

fn key(name: &str, algorithm: Algorithm) -> EncodingKey {
    let file = |name: &str| {
        let path = super::root().join("keys").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    // The confusion of old: a public key, which everybody knows, as the secret of an HMAC.
    if name == "secret" {
        return EncodingKey::from_secret(file("jwks.json").as_bytes());
    }
    let pem = file(&format!("{name}.pem"));
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let der = STANDARD.decode(body).expect("a key");
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
        _ => EncodingKey::from_rsa_der(&der),
    }
}

/// The public halves of the keys, as issuers publish them.
pub fn jwks() -> String {
    std::fs::read_to_string(super::root().join("keys/jwks.json")).expect("jwks.json")
}
