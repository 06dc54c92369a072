//! Keys that verify tokens: fetched from where RequestAuthentications say, kept fresh, and handed to
//! the request path as one immutable set of sets. Verifies no token.
//!
//! There is never a default key: a source that could not be fetched has none, and its tokens are
//! refused. The last good keys stay for [`crate::limits::JWKS_AGE_MAX`].

mod fetch;
mod follow;
mod state;

pub use fetch::{FetchError, Fetcher};
pub use follow::start;
pub use state::{Jwks, SourceState};
