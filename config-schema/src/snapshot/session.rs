//! Session persistence: requests of one session go to one endpoint (GEP-1619, specs/gateway-api.md 3). What
//! the user wrote, resolved; tokens are read and made in `cairn-routing`.

use std::sync::Arc;

use http::header::HeaderName;
use serde::Serialize;

use super::route::as_display;

/// How requests of one session are known, and how long a session lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionPersistence {
    /// What carries the token.
    pub carrier: SessionCarrier,
    /// After so many seconds a session is over. `None`: it lasts as long as its endpoint.
    pub absolute_timeout_s: Option<u64>,
    /// After so many seconds without a request a session is over.
    pub idle_timeout_s: Option<u64>,
}

/// What carries the token of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionCarrier {
    /// A cookie, for the whole host.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// The client keeps it until the session is over (`lifetimeType: Permanent`), not only
        /// until its own session ends.
        permanent: bool,
    },
    /// A header, of responses first and then of requests.
    Header(#[serde(serialize_with = "as_display")] HeaderName),
}
