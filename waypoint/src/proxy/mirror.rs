//! Copies of requests for other destinations (RequestMirror, specs/gateway-api.md 1.4): sent once, to one
//! endpoint, and forgotten. The request itself waits for nothing here and fails by nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use cairn_config_schema::snapshot::AppProtocol;
use cairn_routing::{Choice, Cluster};
use pingora_core::protocols::http::custom::client::Session as _;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::sync::mpsc;

use super::connector::{HttpVersion, Shared};
use super::context::RequestContext;
use super::headers;
use crate::clock::now_ms;
use crate::limits::{MIRROR_QUEUE_PIECES, MIRROR_TIMEOUT, MIRRORS_PER_WORKER_MAX};
use crate::runtime::Runtime;
use crate::telemetry::counters;
use crate::telemetry::exchange::StreamOrigin;

/// Copies in flight of one worker.
pub type InFlight = Arc<AtomicUsize>;

/// The copies of one request whose body is still being sent.
#[derive(Debug)]
pub struct Mirroring {
    bodies: Vec<mpsc::Sender<Piece>>,
    /// The attempt whose body is copied; a further one begins from the start.
    attempt: u32,
}

/// A piece of a body.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// Without it the body broke off.
    End,
}

/// One copy.
struct Copy {
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    version: HttpVersion,
    request: RequestHeader,
    body: Option<mpsc::Receiver<Piece>>,
    connect_timeout: Duration,
    origin: Option<Arc<StreamOrigin>>,
}

/// Begins the copies of a request when it is sent for the first time.
pub(super) fn begin(
    shared: &Arc<Shared>,
    session: &mut Session,
    request: &RequestHeader,
    ctx: &mut RequestContext,
) {
    let (Some(plan), Some(runtime)) = (&mut ctx.plan, &ctx.runtime) else {
        return;
    };
    // An upgrade is a conversation, which nobody can have with a copy.
    let clusters = std::mem::take(&mut plan.mirrors);
    if clusters.is_empty() || session.is_upgrade_req() {
        return;
    }
    let body_is_empty = session.is_body_empty();
    let mut bodies = Vec::new();
    for cluster in clusters {
        // Nothing is sent where the request itself would not be.
        let origin = ctx.exchange.as_ref().map(|e| &*e.origin);
        if cluster.settings().refused.is_some() || under_network_policy(runtime, &cluster, origin) {
            counters::MIRRORED.inc("policy");
            continue;
        }
        let (sender, receiver) = mpsc::channel(MIRROR_QUEUE_PIECES);
        let copy = Copy {
            shared: shared.clone(),
            version: version(runtime, &cluster, plan.version),
            cluster,
            request: request.clone(),
            body: (!body_is_empty).then_some(receiver),
            connect_timeout: Duration::from_millis(runtime.snapshot.mesh.connect_timeout_ms),
            origin: ctx.exchange.as_ref().map(|e| e.origin.clone()),
        };
        if spawn(copy) && !body_is_empty {
            bodies.push(sender);
        }
    }
    let attempt = ctx.exchange.as_ref().map_or(1, |e| e.attempts);
    ctx.mirroring = (!bodies.is_empty()).then_some(Mirroring { bodies, attempt });
}

/// Whether workloads of the cluster, or the client, have policies of Cilium or Calico. Those were asked
/// about the backends of the request, not about this one, and may deny it.
fn under_network_policy(
    runtime: &Runtime,
    cluster: &Cluster,
    origin: Option<&StreamOrigin>,
) -> bool {
    let network = &runtime.snapshot.network;
    let subjects = network.clusters.get(cluster.key());
    let of_client = origin.map(|origin| &origin.peer).is_none_or(|peer| {
        let namespace = peer.identity.namespace();
        network.egress.may_be_for(peer.address.ip(), namespace)
    });
    let of_cluster = subjects.is_some_and(|s| s.iter().any(|subject| subject.is_enforced()));
    of_cluster || (of_client && !network.egress.is_empty())
}

fn version(runtime: &Runtime, cluster: &Cluster, of_request: HttpVersion) -> HttpVersion {
    match runtime.protocol(cluster.key()) {
        AppProtocol::Http2 | AppProtocol::Grpc => HttpVersion::Http2,
        AppProtocol::Http => HttpVersion::Http1,
        AppProtocol::Sniff | AppProtocol::Tcp => of_request,
    }
}

/// A piece of the request's body is on its way to the endpoint.
pub(super) fn copy_body(body: Option<&Bytes>, end: bool, ctx: &mut RequestContext) {
    let attempts = ctx.exchange.as_ref().map_or(1, |e| e.attempts);
    let Some(mirroring) = &mut ctx.mirroring else {
        return;
    };
    if mirroring.attempt != attempts {
        ctx.mirroring = None;
        return;
    }
    let end = end || body.is_none();
    mirroring.bodies.retain(|sender| {
        let data = body.filter(|data| !data.is_empty());
        let data = data.map(|data| Piece::Data(data.clone()));
        let pieces = data.into_iter().chain(end.then_some(Piece::End));
        let keeps_up = pieces.map(|piece| sender.try_send(piece)).all(|sent| {
            // One that has ended by itself is counted where it ended.
            matches!(sent, Ok(()) | Err(mpsc::error::TrySendError::Closed(_)))
        });
        if !keeps_up {
            counters::MIRRORED.inc("too_slow");
        }
        keeps_up
    });
    if end {
        ctx.mirroring = None;
    }
}

/// Sends a copy in a task of its own. False: there are too many.
fn spawn(copy: Copy) -> bool {
    let in_flight = copy.shared.mirrors().clone();
    if in_flight.fetch_add(1, Relaxed) >= MIRRORS_PER_WORKER_MAX {
        in_flight.fetch_sub(1, Relaxed);
        counters::MIRRORED.inc("too_many");
        return false;
    }
    tokio::spawn(async move {
        let sent = tokio::time::timeout(MIRROR_TIMEOUT, copy.send()).await;
        in_flight.fetch_sub(1, Relaxed);
        counters::MIRRORED.inc(match sent {
            Ok(Ok(())) => "answered",
            Ok(Err(_)) => "failed",
            Err(_) => "timeout",
        });
    });
    true
}

impl Copy {
    async fn send(self) -> Result<()> {
        let choice = Choice::new(fastrand::u64(..), &[], now_ms());
        let live = self
            .cluster
            .pick(&choice)
            .ok_or_else(|| Error::explain(ErrorType::ConnectError, "the mirror has no endpoint"))?;
        let _active = live.begin();
        let egress = self.origin.as_ref().and_then(|origin| origin.egress());
        let destination = self.shared.dialer().destination(&live.endpoint, egress);
        let limit = self.connect_timeout;
        match self.version {
            HttpVersion::Http1 => {
                let stream = self.shared.stream_to(&destination, limit).await?;
                over_http1(HttpSession::new(Box::new(stream)), self.request, self.body).await
            }
            HttpVersion::Http2 => {
                let session = self.shared.session_to(destination, limit).await?;
                over_http2(session, self.request, self.body).await
            }
        }
    }
}

async fn over_http1(
    mut session: HttpSession,
    mut request: RequestHeader,
    body: Option<mpsc::Receiver<Piece>>,
) -> Result<()> {
    headers::for_http1(&mut request, body.is_some())?;
    session.write_request_header(Box::new(request)).await?;
    if let Some(mut body) = body {
        while let Some(data) = next(&mut body).await? {
            session.write_body(&data).await?;
        }
        session.finish_body().await?;
    }
    session.read_response().await?;
    while session.read_body_bytes().await?.is_some() {}
    Ok(())
}

async fn over_http2(
    mut session: super::session::Http2Upstream,
    mut request: RequestHeader,
    body: Option<mpsc::Receiver<Piece>>,
) -> Result<()> {
    headers::for_http2(&mut request)?;
    session
        .write_request_header(Box::new(request), body.is_none())
        .await?;
    if let Some(mut body) = body {
        while let Some(data) = next(&mut body).await? {
            session.write_request_body(data, false).await?;
        }
        session.finish_request_body().await?;
    }
    session.read_response_header().await?;
    while session.read_response_body().await?.is_some() {}
    Ok(())
}

/// The next piece of a body; `None` at its end.
async fn next(body: &mut mpsc::Receiver<Piece>) -> Result<Option<Bytes>> {
    match body.recv().await {
        Some(Piece::Data(data)) => Ok(Some(data)),
        Some(Piece::End) => Ok(None),
        None => Error::e_explain(ErrorType::ReadError, "the mirrored body broke off"),
    }
}
