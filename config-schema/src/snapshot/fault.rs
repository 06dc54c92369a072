//! Failures that a route makes on purpose, so that people see how clients bear them (specs/policies.md
//! 2.6). Injects nothing.

use http::StatusCode;
use serde::Serialize;

use super::route::as_display;

/// Shares are counted in these: a ten-thousandth of a percent, as in Envoy.
pub const SHARE_PARTS: u32 = 1_000_000;

/// `fault` of a VirtualService's rule: both are decided for themselves; a request may get either, or the
/// delay and then the abort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Held back before it is sent on.
    pub delay: Option<Delay>,
    /// Answered here, and not sent on.
    pub abort: Option<Abort>,
}

/// A delay of a share of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// Of [`SHARE_PARTS`] requests, so many.
    pub share: u32,
    /// How long, in milliseconds.
    pub delay_ms: u64,
}

/// An answer to a share of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Abort {
    /// Of [`SHARE_PARTS`] requests, so many.
    pub share: u32,
    /// What they get.
    pub answer: AbortAnswer,
}

/// What an aborted request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AbortAnswer {
    /// This status; as gRPC, the status that it stands for.
    Http(#[serde(serialize_with = "as_display")] StatusCode),
    /// This gRPC status; to others than gRPC, the HTTP status that stands for it.
    Grpc(u8),
}
