//! Request authentication (specs/istio-waypoint.md 4.9): finds tokens in a request, verifies them,
//! and says who the request is from and what changes in it. Pure: keys and time come in. Fetching
//! keys is the waypoint's, changing headers is `cairn-filters`'.
//!
//! No token passes; a token that is not valid is refused, wherever else another one is. Of several
//! valid tokens the first by issuer, then by place, says who the request is from: the same answer as
//! if only that one had been sent, so nobody gains by sending two.

mod authenticate;
mod inline;
mod keys;
mod locate;
mod memory;
mod renew;
mod status;
mod unique;
mod verify;

pub use authenticate::{Authenticator, Failure, Login, Request};
pub use inline::InlineKeys;
pub use keys::{Key, KeySet, KeySetError, KeySets};
pub use locate::{Found, Place, without_cookies, without_params};
pub use memory::Memory;
pub use status::Status;

/// A token longer than this, in bytes, is refused: the whole header block may have 60 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How far our clock and the issuer's may differ, in seconds (specs/istio-waypoint.md 4.9).
pub const CLOCK_SKEW_S: i64 = 60;

/// Signatures checked for one request: several tokens, issuers and keys multiply. Two tokens that name no
/// key, against sets as large as are tried, fit. Beyond, the request is refused.
pub const SIGNATURES_PER_REQUEST_MAX: usize = 2 * KEYS_TRIED_MAX;

/// Tokens looked at in one request; more are refused. Each may cost a signature.
pub const TOKENS_PER_REQUEST_MAX: usize = 4;

/// Keys of one set that are kept. Providers publish two to ten.
pub const KEYS_PER_SET_MAX: usize = 100;

/// Keys a token is tried with that names none.
pub const KEYS_TRIED_MAX: usize = 16;
