//! What one request carries through the engine's hooks: the one runtime it sees, what was decided,
//! and what telemetry will be told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::{RetryPolicy, RuleTraffic};
use cairn_filters::chain::ResponseChanges;
use cairn_filters::external::HeaderMutation;
use cairn_filters::outcome::Outcome;
use cairn_routing::{ActiveRequest, Cluster, InFlight, Permit, Place, RuleRef};

use super::balance::HashKey;
use super::body::KeptBody;
use super::connector::HttpVersion;
use super::deadline::{Armed, RequestTime};
use super::grpc_messages::Messages;
use super::mirror::Mirroring;
use super::persistence::Sticky;
use crate::drain::Held;
use crate::recheck::{Registered, UpgradeRequest};
use crate::runtime::Runtime;
use crate::telemetry;
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
    /// The place of the present attempt under its destination's limit.
    pub permit: Option<Permit>,
    /// The place of a retry.
    pub retry_permit: Option<Permit>,
    /// The request, counted in its destination's retry budget.
    pub in_flight: Option<InFlight>,
    /// Its copies, while their bodies are being sent.
    pub mirroring: Option<Mirroring>,
    /// When it must be over.
    pub time: RequestTime,
    /// The deadline in the stream of the present attempt.
    pub armed: Option<Armed>,
    /// How long the next attempt waits.
    pub back_off: Duration,
    /// The client says that this is a retry of its own.
    pub stacked: bool,
    /// What ended the request early, when that is known better than the engine's error tells.
    pub outcome: Option<Outcome>,
    /// When the present attempt sent its header.
    pub sent: Option<Instant>,
    /// Trailers came after the request's body; see `attempt::after_request_trailers`.
    pub request_trailers: bool,
    /// Messages of a gRPC call, sent and received.
    pub messages: (Messages, Messages),
    /// The endpoint's response has been passed on to its end.
    pub response_ended: bool,
    /// What was read of the body before the request was decided and is in no buffer of the engine.
    pub body_read: Option<KeptBody>,
    /// Keeps a drain waiting.
    pub held: Option<Held>,
    /// Of an upgraded connection: its place among what policy may close.
    pub open: Option<Registered>,
}

impl RequestContext {
    /// Tells telemetry why policy closed it, if it did.
    pub fn note_closure(&mut self) {
        let closure = self.open.as_ref().and_then(Registered::why);
        if let (Some(exchange), Some(closure)) = (&mut self.exchange, closure) {
            exchange.closed_by(closure);
        }
    }
}

impl Drop for RequestContext {
    /// An upgraded connection that was cut did not get as far as the hook that tells of it.
    fn drop(&mut self) {
        self.note_closure();
        if let Some(exchange) = self.exchange.take() {
            telemetry::finish(exchange);
        }
    }
}

/// Where a request goes and what is done to its response.
pub struct Plan {
    /// The cluster of the chosen backend.
    pub cluster: Arc<Cluster>,
    /// Where copies go; taken when it is sent.
    pub mirrors: Vec<Arc<Cluster>>,
    /// The rule that sent it there. `None`: no route is attached.
    pub rule: Option<RuleRef>,
    /// What it is balanced by.
    pub key: HashKey,
    /// The host inside of a wildcard that it goes to.
    pub host: Option<Arc<str>>,
    /// Its session. `None`: neither rule nor destination has any.
    pub sticky: Option<Sticky>,
    /// HTTP version towards it.
    pub version: HttpVersion,
    /// Changes of the response header.
    pub response_changes: ResponseChanges,
    /// What authorization services add to it.
    pub external_headers: Vec<HeaderMutation>,
    /// Under the limits of TrafficPolicies on requests at once.
    pub _places: Vec<Place>,
    /// The request as policy saw it, if it asks for an upgrade.
    pub upgrade: Option<Box<UpgradeRequest>>,
}

impl Plan {
    /// What the rule says about time and failure.
    pub fn traffic(&self) -> Option<&RuleTraffic> {
        Some(&self.rule.as_ref()?.rule()?.traffic)
    }

    /// When to try again: as its rule says, else the mesh.
    pub fn retry<'p>(&'p self, runtime: &'p Runtime) -> &'p RetryPolicy {
        let own = self.traffic().and_then(|traffic| traffic.retry.as_ref());
        own.unwrap_or(&runtime.snapshot.mesh.retry)
    }
}
