//! What the requests of one tunnelled stream share, and how telemetry is told of those that never
//! became a request.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use cairn_filters::outcome::Outcome;

use super::unread::Unread;
use crate::limits::CLOSING_TIMEOUT;
use crate::listener::admit::Asked;
use crate::recheck::{Closing, Kept, Registered, UpgradeRequest};
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
    /// Whether HTTP has handed the stream over.
    upgraded: AtomicBool,
    /// Says when what was upgraded is to be closed.
    closing: Arc<Closing>,
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
            upgraded: AtomicBool::new(false),
            closing: Arc::default(),
        }
    }

    /// HTTP hands the stream over to another protocol. From now on policy may close it.
    pub(super) fn upgraded(&self, request: Box<UpgradeRequest>, judged: u64) -> Registered {
        self.upgraded.store(true, Ordering::Relaxed);
        let closing = self.closing.clone();
        let kept = Kept::Upgraded(self.origin.clone(), self.asked.clone(), request);
        self.worker.keep_judging(kept, judged, closing)
    }

    /// What to wait for on a stream that was upgraded.
    pub(super) fn closing(&self) -> Option<&Closing> {
        let upgraded = self.upgraded.load(Ordering::Relaxed);
        upgraded.then_some(&*self.closing)
    }

    /// Ends when policy closed the stream and the engine did not bring it to an end in time: its
    /// endpoint takes no bytes. The stream itself wakes the task when it is to be closed.
    pub(super) async fn overdue(&self) {
        poll_fn(|_| match self.closing().and_then(Closing::why) {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
        tokio::time::sleep(CLOSING_TIMEOUT).await;
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
        let namespace = self.origin.peer.identity.namespace();
        let target = runtime.find(&self.asked, namespace).ok();
        let settings = target.as_ref().map(|target| &target.telemetry);
        let settings = settings.unwrap_or_else(|| runtime.telemetry.of_service(None));
        exchange.settings = settings.unusual();
        exchange.service = target.and_then(|target| target.service.clone());
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
