//! TCP services: policy decides at the CONNECT, then bytes are passed on both ways until both ends are
//! done, nothing has moved for the idle timeout, or policy changes its mind (`recheck`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use cairn_filters::outcome::Outcome;
use cairn_routing::{ActiveRequest, AnswerKind, Limited, Permit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{balance, external};
use crate::client_stream::ClientStream;
use crate::drain::{Held, Kind};
use crate::limits::{CONNECT_ATTEMPTS_MAX, TCP_IDLE_TIMEOUT, TCP_REPORT_INTERVAL};
use crate::listener::admit::{Asked, Refusal};
use crate::recheck::{Kept, Registered, tcp_denial};
use crate::runtime::Target;
use crate::telemetry;
use crate::telemetry::exchange::{Exchange, StreamOrigin};
use crate::telemetry::tcp::TcpMeter;
use crate::tls::Alpn;
use crate::upstream::{Carrier, Reach};
use crate::worker::Worker;

/// Bytes read at once, each way.
const COPY_BUFFER_BYTES: usize = 64 * 1024;

/// A TCP stream whose endpoint is connected.
pub struct Opened {
    carrier: Carrier,
    exchange: Exchange,
    open: Registered,
    _active: ActiveRequest,
    _permit: Permit,
    _held: Held,
}

/// Asks policy and connects to an endpoint, the next one if the first does not answer. What was asked
/// for is looked up again: a sniff may have taken a while, and policy may have changed.
///
/// # Errors
/// [`Refusal::PolicyDenied`], [`Refusal::NoEndpoint`], or that it is no longer served here; telemetry
/// has been told.
pub async fn open(
    origin: &Arc<StreamOrigin>,
    asked: &Asked,
    worker: &Worker,
) -> Result<Opened, Refusal> {
    let held = worker.in_flight.hold(Kind::TcpStream);
    let runtime = worker.runtime.load_full();
    let mut exchange = Exchange::begin(origin.clone());
    exchange.snapshot = runtime.snapshot.version;
    exchange.source = runtime.source(origin);
    let target = match runtime.find(asked, origin.peer.identity.namespace()) {
        Ok(target) => target,
        Err(refusal) => {
            let row = Outcome::NotServed.row();
            (exchange.flags, exchange.details) = (row.flag, row.details.into());
            telemetry::finish(exchange);
            return Err(refusal);
        }
    };
    exchange.service.clone_from(&target.service);
    let (peer, by) = (Some(&origin.peer.identity), origin.attested_by());
    let (ip, to) = (origin.peer.address.ip(), origin.destination);
    let mut allowed_by = Vec::new();
    let verdict = match target.chain.consult_tcp(peer, by, ip, to) {
        Err(question) => question.denied(),
        Ok(questions) => {
            let asked = external::consult_tcp(worker, &mut exchange, &target, &runtime, questions);
            match asked.await {
                Ok(providers) => {
                    allowed_by = providers;
                    target.chain.decide_tcp_settled(peer, by, ip, to)
                }
                Err(refused) => {
                    let row = refused.outcome.row();
                    (exchange.flags, exchange.details) = (row.flag, row.details.into());
                    exchange.reason = Some(refused.reason);
                    exchange.verdict = Some(refused.verdict);
                    telemetry::finish(exchange);
                    return Err(Refusal::PolicyDenied);
                }
            }
        }
    };
    let allowed = verdict.allowed;
    if !allowed {
        let (reason, details) = tcp_denial(&target.chain, origin, &verdict);
        (exchange.reason, exchange.details) = (Some(reason), details.into());
    }
    exchange.verdict = Some(verdict);
    if !allowed {
        telemetry::finish(exchange);
        return Err(Refusal::PolicyDenied);
    }
    let limit = runtime.snapshot.mesh.connect_timeout_ms;
    match connect(&target, worker, limit, &mut exchange).await {
        Ok((carrier, active, permit)) => Ok(Opened {
            open: worker.keep_judging(
                Kept::Tcp(origin.clone(), asked.clone(), allowed_by),
                exchange.snapshot,
                Arc::default(),
            ),
            carrier,
            exchange,
            _active: active,
            _permit: permit,
            _held: held,
        }),
        Err(outcome) => {
            exchange.flags = outcome.row().flag;
            exchange.details = outcome.row().details.into();
            telemetry::finish(exchange);
            Err(Refusal::NoEndpoint)
        }
    }
}

async fn connect(
    target: &Target,
    worker: &Worker,
    mesh_timeout_ms: u64,
    exchange: &mut Exchange,
) -> Result<(Carrier, ActiveRequest, Permit), Outcome> {
    let connections = worker.engine().ok_or(Outcome::Internal)?.connections();
    let settings = target.cluster.settings();
    if let Some(reason) = &settings.refused {
        exchange.reason = Some(reason.to_string());
        return Err(Outcome::NotServed);
    }
    let permit = target.cluster.admit(Limited::Connections);
    let permit = permit.ok_or(Outcome::UpstreamOverflow)?;
    let limit = Duration::from_millis(settings.connect_timeout_ms.unwrap_or(mesh_timeout_ms));
    let egress = exchange.origin.egress().cloned();
    let hash = balance::address_key(&target.cluster, exchange.origin.peer.address.ip());
    let mut tried = Vec::new();
    let mut outcome = Outcome::NoEndpoint;
    while tried.len() < CONNECT_ATTEMPTS_MAX as usize {
        let Some(live) = balance::pick(&target.cluster, hash, None, &tried) else {
            exchange.reason = Some(balance::no_endpoint(&target.cluster));
            break;
        };
        tried.push(live.endpoint.address);
        exchange.attempts += 1;
        exchange.endpoint = Some(live.endpoint.clone());
        let dialer = connections.dialer();
        let reach = Reach {
            egress: egress.as_ref(),
            settings: &settings,
            alpn: Alpn::Unsaid,
            client: Some(exchange.origin.client_towards(live.endpoint.address)),
            host: None,
        };
        let destination = dialer.destination(&live.endpoint, &reach);
        match dialer.dial(&destination, limit).await {
            Ok(carrier) => {
                exchange.upstream_local = carrier.local_address();
                return Ok((carrier, live.begin(), permit));
            }
            Err(error) => {
                exchange.upstream_failure = Some(error.to_string().into());
                outcome = Outcome::ConnectFailed;
                balance::record_for(&target.cluster, &live, AnswerKind::LocalFailure);
            }
        }
    }
    Err(outcome)
}

/// A TCP stream that was accepted before policy was asked, because it was sniffed or steered here: a
/// denial resets it without a byte (specs/istio-waypoint.md 4.8), which nobody takes for an empty answer.
pub async fn serve_accepted(
    mut stream: ClientStream,
    origin: &Arc<StreamOrigin>,
    asked: &Asked,
    worker: &Worker,
) {
    match open(origin, asked, worker).await {
        Ok(opened) => opened.splice(stream).await,
        Err(refusal) => {
            worker.refused(refusal);
            stream.break_off().await;
        }
    }
}

impl Opened {
    /// Passes bytes both ways until both ends are done.
    pub async fn splice(mut self, client: ClientStream) {
        self.exchange.tcp = Some(TcpMeter::open(&self.exchange));
        let received = Arc::new(AtomicU64::new(0));
        let sent = Arc::new(AtomicU64::new(0));
        let mut client = Counted::new(client, received.clone());
        let mut endpoint = Counted::new(self.carrier, sent.clone());
        let ended = {
            let copy = tokio::io::copy_bidirectional_with_sizes(
                &mut client,
                &mut endpoint,
                COPY_BUFFER_BYTES,
                COPY_BUFFER_BYTES,
            );
            tokio::pin!(copy);
            tokio::select! {
                ended = watch(copy, &mut self.exchange, &received, &sent) => ended,
                _ = self.open.closed() => Ended::Denied,
            }
        };
        if let Ended::Broken | Ended::Denied = ended {
            // One side broke; the other must not take what it has for the whole.
            client.io.break_off().await;
            endpoint.io.break_off().await;
        }
        if let Some(closure) = self.open.why() {
            self.exchange.closed_by(closure);
        }
        self.exchange.bytes_received = received.load(Relaxed);
        self.exchange.bytes_sent = sent.load(Relaxed);
        self.exchange.flags = ended.flag();
        telemetry::finish(self.exchange);
    }
}

/// How a stream ended.
enum Ended {
    BothDone,
    Broken,
    Idle,
    /// Policy changed.
    Denied,
}

impl Ended {
    fn flag(&self) -> &'static str {
        match self {
            Self::BothDone | Self::Denied => "",
            Self::Broken => Outcome::UpstreamClosed.row().flag,
            Self::Idle => "SI",
        }
    }
}

/// Runs the copy, reports its bytes as it goes, and ends it when nothing moves.
async fn watch(
    mut copy: Pin<&mut impl Future<Output = io::Result<(u64, u64)>>>,
    exchange: &mut Exchange,
    received: &AtomicU64,
    sent: &AtomicU64,
) -> Ended {
    let mut report = tokio::time::interval(TCP_REPORT_INTERVAL);
    let mut last = (0, 0);
    let mut moved = Instant::now();
    loop {
        tokio::select! {
            ended = &mut copy => return match ended {
                Ok(_) => Ended::BothDone,
                Err(_) => Ended::Broken,
            },
            _ = report.tick() => {
                let now = (received.load(Relaxed), sent.load(Relaxed));
                if let Some(meter) = &mut exchange.tcp {
                    meter.report(now.0, now.1);
                }
                if now != last {
                    (last, moved) = (now, Instant::now());
                } else if moved.elapsed() > TCP_IDLE_TIMEOUT {
                    return Ended::Idle;
                }
            }
        }
    }
}

/// Counts what is read.
struct Counted<T> {
    io: T,
    bytes: Arc<AtomicU64>,
}

impl<T> Counted<T> {
    fn new(io: T, bytes: Arc<AtomicU64>) -> Self {
        Self { io, bytes }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.bytes
            .fetch_add((buf.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
