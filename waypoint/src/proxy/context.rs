//! What one request carries through the engine's hooks: the one runtime it sees, what was decided,
//! and what telemetry will be told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cairn_filters::chain::ResponseChanges;
use cairn_filters::external::HeaderMutation;
use cairn_filters::outcome::Outcome;
use cairn_routing::{ActiveRequest, Cluster};

use super::connector::HttpVersion;
use crate::drain::Held;
use crate::runtime::Runtime;
use crate::telemetry::exchange::Exchange;

/// The state of one request.
#[derive(Default)]
pub struct RequestContext {
    /// What telemetry is told; `None` until the request is known, and again once it was told.
    pub exchange: Option<Exchange>,
    /// The runtime that decides everything about this request.
    pub runtime: Option<Arc<Runtime>>,
    /// Where it goes; `None` when it is answered here.
    pub plan: Option<Plan>,
    /// Endpoints tried so far.
    pub tried: Vec<SocketAddr>,
    /// The endpoint being tried, counted as busy.
    pub active: Option<ActiveRequest>,
    /// What ended the request early, when that is known better than the engine's error tells.
    pub outcome: Option<Outcome>,
    /// When the present attempt sent its header.
    pub sent: Option<Instant>,
    /// Trailers came after the request's body; see `attempt::after_request_trailers`.
    pub request_trailers: bool,
    /// The endpoint's response has been passed on to its end.
    pub response_ended: bool,
    /// What was read of the body before the request was decided and is in no buffer of the engine.
    pub body_read: Option<Bytes>,
    /// Keeps a drain waiting.
    pub held: Option<Held>,
}

/// Where a request goes and what is done to its response.
pub struct Plan {
    /// The cluster of the chosen backend.
    pub cluster: Arc<Cluster>,
    /// HTTP version towards it.
    pub version: HttpVersion,
    /// Changes of the response header.
    pub response_changes: ResponseChanges,
    /// What authorization services add to it.
    pub external_headers: Vec<HeaderMutation>,
}
