//! One client connection: HTTP/2 with CONNECT streams, PING, GOAWAY, idle and total limits
//! (specs/istio-waypoint.md 2.2 to 2.4).

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::admit::{self, Refusal};
use super::admitted::Admitted;
use crate::client_stream::ClientStream;
use crate::drain::Kind;
use crate::limits::{
    CONNECT_HEADER_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, STREAMS_PER_TUNNEL_MAX,
    TUNNEL_CONNECTION_WINDOW_BYTES, TUNNEL_FRAME_BYTES_MAX, TUNNEL_IDLE_TIMEOUT,
    TUNNEL_STREAM_WINDOW_BYTES,
};
use crate::proxy::{tcp, tcp_open};
use crate::recheck::Kept;
use crate::telemetry::counters;
use crate::telemetry::exchange::{Peer, StreamOrigin};
use crate::tunnel_stream::TunnelStream;
use crate::worker::Worker;

use cairn_config_schema::snapshot::AppProtocol;
use cairn_routing::ServerName;

/// A client that connects while we drain gets this long before GOAWAY: it may carry the request
/// for which it came.
const GOAWAY_DELAY_WHILE_DRAINING: Duration = Duration::from_millis(200);

/// How long a client whose tunnel is closed may take to read so.
const GOAWAY_TIMEOUT: Duration = Duration::from_millis(200);

/// Serves one client connection until it ends.
pub async fn serve<S>(io: S, peer: Arc<Peer>, worker: Arc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = h2::server::Builder::new()
        .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW_BYTES)
        .max_frame_size(TUNNEL_FRAME_BYTES_MAX)
        .max_header_list_size(CONNECT_HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_TUNNEL_MAX)
        .handshake::<_, Bytes>(io);
    match timeout(crate::limits::HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => drive(connection, peer, worker).await,
        Ok(Err(error)) => tracing::debug!(peer = %peer.identity, %error, "HTTP/2 handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.identity, "HTTP/2 handshake timed out"),
    }
}

async fn drive<S>(mut connection: Connection<S, Bytes>, peer: Arc<Peer>, worker: Arc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _held = worker.in_flight.hold(Kind::Tunnel);
    let _counted = counters::TUNNELS.track();
    // Its trust domain was accepted in the handshake, under whatever snapshot that was.
    let judged = worker.keep_judging(Kept::Tunnel(peer.clone()), 0, Arc::default());
    let open = Arc::new(());
    let mut draining = worker.drain.watch();
    let mut goaway_at = draining
        .borrow_and_update()
        .then(|| Instant::now() + GOAWAY_DELAY_WHILE_DRAINING);
    let mut told = false;
    let keepalive = keepalive(connection.ping_pong());
    tokio::pin!(keepalive);
    let mut idle_check = Instant::now() + TUNNEL_IDLE_TIMEOUT;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    idle_check = Instant::now() + TUNNEL_IDLE_TIMEOUT;
                    take(request, respond, &peer, &worker, &open);
                }
                Some(Err(error)) => {
                    tracing::debug!(peer = %peer.identity, %error, "client connection ended");
                    return;
                }
                None => return,
            },
            changed = draining.changed(), if goaway_at.is_none() => {
                // The sender lives as long as the process; an error would mean it is going anyway.
                let _ = changed;
                goaway_at = Some(Instant::now());
            }
            () = sleep_until(goaway_at.unwrap_or(idle_check)), if goaway_at.is_some() && !told => {
                told = true;
                connection.graceful_shutdown();
            }
            closure = judged.closed() => {
                tracing::info!(peer = %peer.identity, reason = closure.reason,
                    snapshot = closure.snapshot, "tunnel closed");
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                // So that the client hears it; if it does not listen, the end of TCP tells it.
                let _ = timeout(GOAWAY_TIMEOUT, poll_fn(|cx| connection.poll_closed(cx))).await;
                return;
            }
            () = &mut keepalive => {
                tracing::debug!(peer = %peer.identity, "client connection answers no PING");
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                return;
            }
            () = sleep_until(idle_check), if !told => {
                if Arc::strong_count(&open) == 1 {
                    told = true;
                    connection.graceful_shutdown();
                } else {
                    idle_check = Instant::now() + TUNNEL_IDLE_TIMEOUT;
                }
            }
        }
    }
}

/// Ends when the peer does not answer a PING in time.
pub(crate) async fn keepalive(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        // Taken already, which this program never does; without it there is nothing to watch.
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match timeout(PING_TIMEOUT, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Takes or refuses one CONNECT. `open` counts the streams of this connection by its references.
fn take(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    peer: &Arc<Peer>,
    worker: &Arc<Worker>,
    open: &Arc<()>,
) {
    let runtime = worker.runtime.load();
    let admitted = admit::asked(&request).and_then(|asked| Ok((runtime.find(&asked)?, asked)));
    match admitted {
        Ok((target, asked)) => {
            let origin = Arc::new(StreamOrigin {
                peer: peer.clone(),
                tunnel_authority: request.uri().authority().map_or("", |a| a.as_str()).into(),
                baggage: request.headers().get("baggage").cloned(),
                destination: target.destination,
                pod: None,
            });
            let stream = Stream {
                request,
                respond,
                admitted: Admitted {
                    origin,
                    asked,
                    target,
                },
            };
            let (worker, open) = (worker.clone(), open.clone());
            tokio::spawn(async move {
                let _open = open;
                let _held = worker.in_flight.hold(Kind::Stream);
                let _counted = counters::STREAMS.track();
                stream.serve(worker).await;
            });
        }
        Err(refusal) => refuse(respond, refusal, &request, peer, worker),
    }
}

fn refuse(
    mut respond: SendResponse<Bytes>,
    refusal: Refusal,
    request: &Request<RecvStream>,
    peer: &Peer,
    worker: &Worker,
) {
    worker.refused(refusal);
    if let Some(kept_back) = refusal.line().due() {
        tell(refusal, request, peer, kept_back);
    }
    let mut response = Response::new(());
    *response.status_mut() = refusal.status();
    // The peer may be gone; then nobody needs the answer.
    let _ = respond.send_response(response, true);
}

/// `kept_back`: refusals for the same reason that no line told of.
fn tell(refusal: Refusal, request: &Request<RecvStream>, peer: &Peer, kept_back: u64) {
    tracing::info!(
        peer = %peer.identity,
        address = %peer.address,
        method = %request.method(),
        authority = request.uri().authority().map_or("", |a| a.as_str()),
        reason = refusal.as_str(),
        kept_back,
        "tunnel refused"
    );
}

/// A CONNECT that was taken.
struct Stream {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    admitted: Admitted,
}

impl Stream {
    async fn serve(self, worker: Arc<Worker>) {
        if self.admitted.target.protocol == AppProtocol::Tcp {
            let (origin, target) = (&self.admitted.origin, &self.admitted.target);
            return match tcp_open::asks_for_server_name(origin, target) {
                false => self.serve_declared_tcp(worker).await,
                true => self.serve_by_server_name(worker).await,
            };
        }
        if let Some((stream, admitted)) = self.accept() {
            admitted.serve(stream, worker).await;
        }
    }

    /// Policy and the connection upstream come before the 200, so that a denial and a dead
    /// endpoint are refusals of the CONNECT (specs/istio-waypoint.md 2.4).
    async fn serve_declared_tcp(self, worker: Arc<Worker>) {
        let (origin, asked) = (&self.admitted.origin, &self.admitted.asked);
        match tcp::open(origin, asked, ServerName::Unread, &worker).await {
            Ok(opened) => {
                if let Some((stream, _)) = self.accept() {
                    opened.splice(stream).await;
                }
            }
            Err(refusal) => self.refuse(refusal, &worker),
        }
    }

    /// The server name comes after the 200, and with it the route and the connection upstream.
    async fn serve_by_server_name(self, worker: Arc<Worker>) {
        let (origin, target) = (&self.admitted.origin, &self.admitted.target);
        if let Err(refusal) = tcp_open::refuse_early(origin, target, &worker) {
            return self.refuse(refusal, &worker);
        }
        if let Some((stream, admitted)) = self.accept() {
            tcp::serve_accepted(stream, &admitted.origin, &admitted.asked, &worker).await;
        }
    }

    fn refuse(mut self, refusal: Refusal, worker: &Worker) {
        worker.refused(refusal);
        let mut response = Response::new(());
        *response.status_mut() = refusal.status();
        // The peer may be gone; then nobody needs the answer.
        let _ = self.respond.send_response(response, true);
    }

    fn accept(mut self) -> Option<(ClientStream, Admitted)> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::OK;
        let send = self.respond.send_response(response, false).ok()?;
        let stream = TunnelStream::new(self.request.into_body(), send);
        Some((ClientStream::Tunnel(stream), self.admitted))
    }
}
