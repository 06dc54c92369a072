//! Load-balancing algorithms, one file each, over the endpoints of one priority. An enum, not a trait
//! object: the set is closed. Which priority, and whom to leave out, is decided in `tiers` and `pick`.

mod dice;
mod least_request;
mod maglev;
mod pick;
mod ring;
mod rotation;
mod shares;
mod tiers;
mod warmup;

use std::net::SocketAddr;

pub(crate) use dice::mix;
pub(crate) use pick::EndpointSet;

#[cfg(doc)]
use crate::endpoint::LiveEndpoint;

/// One request, as far as balancing looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Uniform.
    pub random: u64,
    /// Hash of the request's key ([`key_hash`]), when the cluster hashes and the request has a key.
    pub hash: Option<u64>,
    /// The endpoint that the request's session is at ([`LiveEndpoint::session_id`]): picked before
    /// any other unless it is ejected, tried, or gone.
    pub prefer: Option<u64>,
    /// Addresses that failed this request before.
    pub tried: &'a [SocketAddr],
    /// In milliseconds of the clock that the cluster is updated with.
    pub now_ms: u64,
}

impl<'a> Choice<'a> {
    /// A request without a key.
    pub fn new(random: u64, tried: &'a [SocketAddr], now_ms: u64) -> Self {
        Self {
            random,
            hash: None,
            prefer: None,
            tried,
            now_ms,
        }
    }
}

/// The hash of a request's key. The same in every replica and version, so that all of them send a key
/// to the same endpoint.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(key, 0)
}

#[cfg(test)]
mod tests;
