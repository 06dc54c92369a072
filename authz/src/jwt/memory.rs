//! Verified tokens, remembered, so that a token that comes again costs a hash and no signature.
//! Bounded; one for each worker; nothing that was refused is remembered.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::authenticate::Verified;

/// Tokens of one generation. Two generations are kept: 8,192 tokens a worker.
const TOKENS_MAX: usize = 4_096;

/// Bytes of tokens of one generation: what they decode to is a small multiple of that.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The digest of rules and token.
pub(super) type Digest = [u8; 32];

/// Remembered tokens. When the younger generation is full the older is dropped; a token that is asked
/// for moves to the younger.
#[derive(Debug, Default)]
pub struct Memory {
    young: Generation,
    old: Generation,
    signatures: u64,
}

#[derive(Debug, Default)]
struct Generation {
    tokens: HashMap<Digest, Arc<Verified>, BuildHasherDefault<FirstBytes>>,
    bytes: usize,
}

impl Memory {
    /// Remembers none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Signatures that had to be checked so far.
    pub fn signatures(&self) -> u64 {
        self.signatures
    }

    pub(super) fn note_signatures(&mut self, checked: u64) {
        self.signatures = self.signatures.saturating_add(checked);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.young.tokens.len() + self.old.tokens.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&mut self, digest: &Digest) -> Option<Arc<Verified>> {
        if let Some(verified) = self.young.tokens.get(digest) {
            return Some(verified.clone());
        }
        let verified = self.old.tokens.remove(digest)?;
        self.put(*digest, verified.clone());
        Some(verified)
    }

    pub(super) fn put(&mut self, digest: Digest, verified: Arc<Verified>) {
        let bytes = verified.token_bytes;
        let young = &mut self.young;
        if young.tokens.len() >= TOKENS_MAX || young.bytes.saturating_add(bytes) > BYTES_MAX {
            self.old = std::mem::take(young);
        }
        self.young.bytes = self.young.bytes.saturating_add(bytes);
        self.young.tokens.insert(digest, verified);
    }

    /// Forgets one that is no longer valid.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.young.tokens.remove(digest);
        self.old.tokens.remove(digest);
    }
}

/// A digest is its own hash: its first bytes are as good as any.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    // The length of the array, which says nothing.
    fn write_usize(&mut self, _: usize) {}
}
