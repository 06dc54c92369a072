//! TCP services: policy decides at the CONNECT, then bytes are passed on both ways until both ends are
//! done, nothing has moved for the idle timeout, or policy changes its mind (`recheck`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use cairn_filters::outcome::Outcome;
use cairn_routing::{ActiveRequest, Permit, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tcp_open;
use crate::client_stream::ClientStream;
use crate::drain::{Held, Kind};
use crate::limits::{TCP_IDLE_TIMEOUT, TCP_REPORT_INTERVAL};
use crate::listener::admit::{Asked, Refusal};
use crate::listener::server_name;
use crate::recheck::Registered;
use crate::telemetry;
use crate::telemetry::exchange::{Exchange, StreamOrigin};
use crate::telemetry::tcp::TcpMeter;
use crate::upstream::Carrier;
use crate::worker::Worker;

/// Bytes read at once, each way.
const COPY_BUFFER_BYTES: usize = 64 * 1024;

/// A TCP stream whose endpoint is connected.
pub struct Opened {
    carrier: Carrier,
    exchange: Exchange,
    open: Registered,
    active: ActiveRequest,
    permit: Permit,
    _held: Held,
}

/// Asks policy and connects to an endpoint of where the stream's route leads.
///
/// # Errors
/// Why it is refused; telemetry has been told.
pub async fn open(
    origin: &Arc<StreamOrigin>,
    asked: &Asked,
    server_name: ServerName,
    worker: &Worker,
) -> Result<Opened, Refusal> {
    let held = worker.in_flight.hold(Kind::TcpStream);
    let connected = tcp_open::open(origin, asked, server_name, worker).await?;
    Ok(Opened {
        carrier: connected.carrier,
        exchange: connected.exchange,
        open: connected.open,
        active: connected.active,
        permit: connected.permit,
        _held: held,
    })
}

/// A TCP stream that was accepted before policy was asked, because it was sniffed or steered here or
/// its route depends on what it says first: a denial resets it without a byte (specs/istio-waypoint.md
/// 4.8), which nobody takes for an empty answer.
pub async fn serve_accepted(
    mut stream: ClientStream,
    origin: &Arc<StreamOrigin>,
    asked: &Asked,
    worker: &Worker,
) {
    let caller = origin.peer.identity.namespace();
    let target = worker.runtime.load().find(asked, caller);
    let asks = target.is_ok_and(|target| tcp_open::asks_for_server_name(origin, &target));
    let server_name = match asks {
        false => ServerName::Unread,
        true => match server_name::read(&mut stream).await {
            Ok(name) => name,
            Err(error) => {
                return tracing::debug!(%error, "stream broke before its server name");
            }
        },
    };
    match open(origin, asked, server_name, worker).await {
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
        // Who is told that it ended finds its place free.
        drop((self.active, self.permit));
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
    let settings = exchange.settings.as_ref();
    let mut report = tokio::time::interval(
        settings.map_or(TCP_REPORT_INTERVAL, |settings| settings.report_interval()),
    );
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
