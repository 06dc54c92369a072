//! What is noted of a sampled request while it runs: its attempts and events. An unsampled one has none of
//! this. How it becomes spans is in `telemetry/otlp`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::Endpoint;
use http::HeaderValue;

use super::context::SpanId;
use super::settings::Tracing;
use crate::limits::SPAN_EVENTS_MAX;

/// A request that becomes spans.
#[derive(Debug)]
pub struct Recording {
    /// What the configuration says of it, and who gets it.
    pub tracing: Arc<Tracing>,
    /// The span of the hop before.
    pub parent: Option<SpanId>,
    /// `tracestate` of the hop before.
    pub state: Option<HeaderValue>,
    /// Values of the configured tags that depend on the request, in their order.
    pub tags: Vec<Option<HeaderValue>>,
    /// In order.
    pub attempts: Vec<Attempt>,
    /// In order.
    pub events: Vec<Event>,
    /// Events beyond the limit.
    pub events_dropped: u32,
}

/// One attempt at an endpoint.
#[derive(Debug)]
pub struct Attempt {
    /// Its span, which the endpoint is told of.
    pub span: SpanId,
    /// Where it went.
    pub endpoint: Endpoint,
    /// What it asked for, without the query; `None` until it was sent.
    pub url: Option<Box<str>>,
    /// When it began: the endpoint was picked.
    pub began: Instant,
    /// When its connection was there; of TCP streams alone, for an attempt of HTTP may find a kept one.
    pub connected: Option<Instant>,
    /// When it was over; `None` while it runs.
    pub ended: Option<Instant>,
    /// What the endpoint answered.
    pub status: Option<u16>,
    /// gRPC status of the answer.
    pub grpc_status: Option<u32>,
    /// Why it failed, as a word.
    pub error: Option<&'static str>,
    /// Why it failed, in words.
    pub reason: Option<Box<str>>,
}

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// Kinds of events.
#[derive(Debug)]
pub enum What {
    /// Policy decided; the exchange has the verdict.
    Verdict,
    /// Another attempt follows.
    Retry {
        /// As in the metrics.
        cause: &'static str,
        /// It begins so much later.
        wait: Duration,
    },
    /// The endpoint was ejected for what this request saw.
    Ejected {
        /// Which one.
        endpoint: SocketAddr,
        /// As in the log.
        cause: &'static str,
        /// For so long, in milliseconds.
        for_ms: u64,
    },
}

impl Recording {
    pub(super) fn event(&mut self, what: What) {
        if self.events.len() >= SPAN_EVENTS_MAX {
            self.events_dropped += 1;
            return;
        }
        let at = Instant::now();
        self.events.push(Event { at, what });
    }

    /// Of the verdicts only the one that comes now counts.
    pub(super) fn decided_anew(&mut self) {
        let is_other = |event: &Event| !matches!(event.what, What::Verdict);
        self.events.retain(is_other);
        self.event(What::Verdict);
    }

    /// The attempt that runs.
    pub(super) fn running(&mut self) -> Option<&mut Attempt> {
        let last = self.attempts.last_mut();
        last.filter(|attempt| attempt.ended.is_none())
    }

    pub(super) fn begin_attempt(&mut self, span: SpanId, endpoint: &Endpoint) {
        self.attempts.push(Attempt {
            span,
            endpoint: endpoint.clone(),
            url: None,
            began: Instant::now(),
            connected: None,
            ended: None,
            status: None,
            grpc_status: None,
            error: None,
            reason: None,
        });
    }
}

impl Attempt {
    /// It failed.
    pub fn fail(&mut self, error: &'static str, reason: &str) {
        self.error = Some(error);
        self.reason = Some(reason.into());
    }

    /// The endpoint answered.
    pub fn answered(&mut self, status: u16, grpc_status: Option<u32>) {
        self.status = Some(status);
        self.grpc_status = grpc_status;
    }
}
