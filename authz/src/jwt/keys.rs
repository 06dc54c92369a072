//! JSON Web Key Sets (RFC 7517): public keys that verify tokens. Fetches nothing.
//!
//! Which algorithm a key verifies is told by the key, never by the token: an EC or Ed25519 key has
//! exactly one, an RSA key the one it names, or those of RSA if it names none. Shared secrets (`oct`)
//! verify nothing, so that no public key can be taken for one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use cairn_config_schema::snapshot::RemoteKeys;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::KEYS_PER_SET_MAX;

/// Fetched key sets that are in force. A source that is not here has no keys: its tokens are refused.
#[derive(Clone, Debug, Default)]
pub struct KeySets {
    /// By where they come from.
    pub by_source: BTreeMap<RemoteKeys, Arc<KeySet>>,
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys that were left out, and why.
    pub left_out: Vec<String>,
    /// A digest of the text, by which a set is told from the next.
    pub id: [u8; 32],
}

/// One public key.
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// What it verifies.
    pub algorithms: &'static [Algorithm],
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.id, self.algorithms)
    }
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// No JSON, or not of that form.
    #[error("it is no JSON Web Key Set: {0}")]
    Form(String),
    /// Nothing in it verifies anything.
    #[error("it has no key that can be used: {0}")]
    NoKeys(String),
}

impl KeySet {
    /// Reads a set. Keys that can not be used are left out, as RFC 7517 5 asks.
    ///
    /// # Errors
    /// When the text is no key set or no key in it can be used.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let parsed: Value =
            serde_json::from_str(text).map_err(|e| KeySetError::Form(e.to_string()))?;
        let Some(listed) = parsed.get("keys").and_then(Value::as_array) else {
            return Err(KeySetError::Form("there is no list `keys`".to_owned()));
        };
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for (index, listed) in listed.iter().enumerate() {
            let read = match listed.as_object() {
                Some(_) if index >= KEYS_PER_SET_MAX => {
                    left_out.push(format!("all keys after the first {KEYS_PER_SET_MAX}"));
                    break;
                }
                Some(members) => read_key(members),
                None => Err("not an object".to_owned()),
            };
            match read {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(format!("key {index}: {why}")),
            }
        }
        if keys.is_empty() {
            let why = match left_out.as_slice() {
                [] => "the list is empty".to_owned(),
                some => some.join("; "),
            };
            return Err(KeySetError::NoKeys(why));
        }
        let mut id = [0; 32];
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        id.iter_mut()
            .zip(hash.as_ref())
            .for_each(|(to, from)| *to = *from);
        Ok(Self { keys, left_out, id })
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Keys that may have made a signature: of this name, or without one, and of this algorithm.
    pub(super) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            let named = match (&key.id, id) {
                (Some(own), Some(asked)) => own == asked,
                _ => true,
            };
            named && key.algorithms.contains(&algorithm)
        })
    }
}

impl Key {
    /// Whether the signature over the message is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm)
                .unwrap_or(false)
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

fn read_key(members: &Map<String, Value>) -> Result<Key, String> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let required = |name: &str| text(name).ok_or_else(|| format!("it has no `{name}`"));
    if text("use").is_some_and(|usage| usage != "sig") {
        return Err("it is not for signatures (`use`)".to_owned());
    }
    if let Some(operations) = members.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|o| o == "verify")
    {
        return Err("it is not for verifying (`key_ops`)".to_owned());
    }
    let id = match members.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err("its `kid` is not a string".to_owned()),
    };
    let (of_kind, key): (&'static [Algorithm], _) = match required("kty")? {
        "RSA" => {
            let (n, e) = (required("n")?, required("e")?);
            (&RSA, DecodingKey::from_rsa_components(n, e))
        }
        "EC" => {
            let of_curve: &[Algorithm] = match required("crv")? {
                "P-256" => &[Algorithm::ES256],
                "P-384" => &[Algorithm::ES384],
                other => return Err(format!("curve {other} is not supported")),
            };
            let (x, y) = (required("x")?, required("y")?);
            (of_curve, DecodingKey::from_ec_components(x, y))
        }
        "OKP" => {
            match required("crv")? {
                "Ed25519" => {}
                other => return Err(format!("curve {other} is not supported")),
            }
            let key = DecodingKey::from_ed_components(required("x")?);
            (&[Algorithm::EdDSA], key)
        }
        other => return Err(format!("keys of kind {other} are not supported")),
    };
    let key = key.map_err(|e| e.to_string())?;
    let algorithms = match members.get("alg") {
        None => of_kind,
        Some(named) => {
            let named: Option<Algorithm> = named.as_str().and_then(|name| name.parse().ok());
            let at = of_kind.iter().position(|known| Some(*known) == named);
            match at.and_then(|at| of_kind.get(at..=at)) {
                Some(one) => one,
                None => return Err("its `alg` is not one of its kind".to_owned()),
            }
        }
    };
    Ok(Key {
        id,
        algorithms,
        key,
    })
}
