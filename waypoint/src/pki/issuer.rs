//! An issuer of JSON Web Tokens for trying things out: one key, made anew each time and never
//! written. The data path verifies tokens with none of this.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

/// An issuer.
pub struct Issuer {
    key: EncodingKey,
    jwks: String,
}

impl Issuer {
    /// An issuer with a key of its own.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // An uncompressed point: 4, then both coordinates.
        let point = key.public_key_raw().get(1..).context("a public key")?;
        let (x, y) = point.split_at_checked(32).context("a public key")?;
        let part = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let public = json!({"kty": "EC", "crv": "P-256", "x": part(x), "y": part(y)});
        Ok(Self {
            jwks: json!({ "keys": [public] }).to_string(),
            key: EncodingKey::from_ec_der(key.serialized_der()),
        })
    }

    /// The public key, as issuers publish theirs: JSON in one line.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// When it can not be signed.
    pub fn token(&self, claims: &Value) -> anyhow::Result<String> {
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &self.key);
        token.context("sign a token")
    }
}
