//! What the requests of one tunnelled stream share, and how telemetry is told of those that never
//! became a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_filters::outcome::Outcome;

use super::unread::Unread;
use crate::listener::admit::Asked;
use crate::telemetry::exchange::{Exchange, HttpExchange, StreamOrigin};
use crate::telemetry::{self, counters};
use crate::worker::Worker;

/// What requests of one tunnelled stream share.
pub struct StreamContext {
    /// Where it comes from.
    pub origin: Arc<StreamOrigin>,
    /// What its CONNECT asked for; each request looks it up again.
    pub asked: Asked,
    worker: Arc<Worker>,
    http2: bool,
    /// Whether the header of the present request has been read: the guard rests until the next.
    header_read: AtomicBool,
    /// Whether the present request says how long its body is.
    stated_length: AtomicBool,
    /// Requests before the present one.
    requests: AtomicU64,
}

impl StreamContext {
    /// The context of a stream whose first request is still to come.
    pub fn new(worker: Arc<Worker>, origin: Arc<StreamOrigin>, asked: Asked, http2: bool) -> Self {
        Self {
            origin,
            asked,
            worker,
            http2,
            header_read: AtomicBool::new(false),
            stated_length: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        }
    }

    /// Whether HTTP/2 is spoken in it.
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// The header of the present request has been read. `stated_length`: whether its body ends by
    /// Content-Length, and not with an empty line as everything else in HTTP/1.1 does.
    pub fn header_read(&self, stated_length: bool) {
        self.stated_length.store(stated_length, Ordering::Relaxed);
        self.header_read.store(true, Ordering::Relaxed);
    }

    /// The next request of an HTTP/1.1 connection begins.
    pub fn next_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.header_read.store(false, Ordering::Relaxed);
    }

    /// Requests of an HTTP/1.1 connection before the present one.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether the request before ended by its Content-Length. Asked while the next one's header is
    /// awaited.
    pub(super) fn stated_length(&self) -> bool {
        self.stated_length.load(Ordering::Relaxed)
    }

    /// Whether the engine is still reading the header of the present request of HTTP/1.1.
    pub(super) fn awaits_header(&self) -> bool {
        !self.http2 && !self.header_read.load(Ordering::Relaxed)
    }

    /// Tells of a request that never became one. `header_bytes`: what came of its header.
    pub(super) fn tell(&self, unread: Unread, header_bytes: usize) {
        if let Some(reason) = unread.outcome.refusal() {
            counters::REQUEST_REFUSED.inc(reason);
        }
        let runtime = self.worker.runtime.load();
        let row = unread.outcome.row();
        let mut exchange = Exchange::begin(self.origin.clone());
        exchange.snapshot = runtime.snapshot.version;
        exchange.source = runtime.source(&self.origin);
        exchange.service = runtime
            .find(&self.asked)
            .ok()
            .and_then(|t| t.service.clone());
        exchange.flags = row.flag;
        exchange.details = row.details.into();
        exchange.reason = Some(unread.reason.into_owned());
        let answered = unread.outcome != Outcome::ClientGone;
        if answered && !self.http2 {
            exchange.bytes_sent = row.body.len() as u64;
        }
        exchange.http = Some(HttpExchange {
            method: unread.method,
            path: unread.path,
            authority: unread.authority,
            protocol: if self.http2 { "HTTP/2" } else { "HTTP/1.1" },
            status: answered.then_some(row.status),
            request_header_bytes: header_bytes as u64,
            ..HttpExchange::default()
        });
        telemetry::finish(exchange);
    }
}
