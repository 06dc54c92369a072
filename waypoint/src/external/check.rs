//! What an authorization service is told of a request or TCP stream. Who sends it, and how, is not known
//! here.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use cairn_config_schema::identity::Identity;
use http::{HeaderMap, Method};

use crate::telemetry::exchange::Peer;

/// What a service is told.
pub struct Check<'a> {
    /// The client.
    pub source: &'a Peer,
    /// Virtual IP or pod IP, and port.
    pub destination: SocketAddr,
    /// Who the request is for: the identity that all endpoints of the service share, else the
    /// waypoint's own.
    pub destination_identity: &'a Identity,
    /// Hostname of the service, empty for a pod's own address.
    pub destination_service: &'a str,
    /// When it came.
    pub started_at: SystemTime,
    /// The request. `None`: a TCP stream.
    pub request: Option<RequestInCheck<'a>>,
}

/// The HTTP part.
pub struct RequestInCheck<'a> {
    /// Method.
    pub method: &'a Method,
    /// Normalised path and query, tokens in them included.
    pub target: &'a str,
    /// Host or `:authority`.
    pub authority: &'a str,
    /// Headers, cleaned of those no client may set.
    pub headers: &'a HeaderMap,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The body, if the provider gets any of it.
    pub body: Option<&'a CheckedBody>,
}

/// As much of a body as was read before the request was decided.
#[derive(Clone, Debug, Default)]
pub struct CheckedBody {
    /// What was read.
    pub bytes: Bytes,
    /// Whether there is more.
    pub partial: bool,
}

impl CheckedBody {
    /// The first bytes, and whether they are not all.
    pub fn first(&self, max: usize) -> (Bytes, bool) {
        let cut = self.bytes.len() > max;
        let bytes = self.bytes.slice(..self.bytes.len().min(max));
        (bytes, cut || self.partial)
    }
}
