//! Gives the engine connections to endpoints: fresh streams for HTTP/1.1, pooled sessions for
//! HTTP/2. HTTP/1.1 streams are pooled by the engine.
//!
//! The engine names a peer by address and a few strings only. Ours is named by a number that
//! stands for the whole destination (address, expected identity, local identity) in a table of the
//! worker (`route_table`), so that two identities can never share a pooled connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::http::custom::{Connection, Connector};
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_error::{Error, ErrorType, OrErr, Result};

use super::endpoint_stream::Upstream;
use super::mirror;
use super::route_table::{Named, Route, Routes};
use super::session::Http2Upstream;
use crate::dead_peer::Noticed;
use crate::limits::{
    INNER_STREAMS_MAX, STREAMS_PER_UPSTREAM_TUNNEL_MAX, TUNNEL_CONNECTION_WINDOW_BYTES,
    TUNNEL_STREAM_WINDOW_BYTES, UPSTREAM_TUNNEL_IDLE_TIMEOUT,
};
use crate::tls::Alpn;
use crate::upstream::{ConnectError, Destination, Dialer};

/// HTTP version towards an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl HttpVersion {
    /// As TLS calls it.
    pub fn alpn(self) -> Alpn {
        match self {
            Self::Http1 => Alpn::Http1,
            Self::Http2 => Alpn::Http2,
        }
    }
}

/// Connects for the engine.
pub struct TunnelConnector {
    shared: Arc<Shared>,
}

/// The part of the connector that request handlers use.
pub struct Shared {
    dialer: Arc<Dialer>,
    routes: Mutex<Routes>,
    http2: Mutex<HashMap<u64, Vec<Pooled>>>,
    mirrors: mirror::InFlight,
}

/// An HTTP/2 connection and when it last got a request.
struct Pooled {
    connection: ConnectionRef,
    used: Instant,
}

impl Pooled {
    fn is_worth_keeping(&self) -> bool {
        let connection = &self.connection;
        let idle = connection.is_idle() && self.used.elapsed() > UPSTREAM_TUNNEL_IDLE_TIMEOUT;
        !idle && !connection.is_closed() && !connection.is_shutting_down()
    }
}

impl Shared {
    /// The connector's shared part.
    pub fn new(dialer: Dialer) -> Arc<Self> {
        Arc::new(Self {
            dialer: Arc::new(dialer),
            routes: Mutex::default(),
            http2: Mutex::default(),
            mirrors: mirror::InFlight::default(),
        })
    }

    /// The dialer.
    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    /// The peer that stands for a destination. `over` is when the exchange must be over, if ever; an
    /// HTTP/1.1 stream is told in another way (`deadline.rs`).
    pub fn peer(
        &self,
        destination: Destination,
        version: HttpVersion,
        connect_timeout: Duration,
        over: Option<Duration>,
    ) -> Box<HttpPeer> {
        let named = self.name(destination, version);
        let mut peer = Box::new(named.template.clone());
        peer.options.total_connection_timeout = Some(connect_timeout);
        if version == HttpVersion::Http2 {
            peer.options.read_timeout = over;
        }
        peer
    }

    /// Copies of requests in flight.
    pub(super) fn mirrors(&self) -> &mirror::InFlight {
        &self.mirrors
    }

    /// A stream for one request of our own, which goes into no pool.
    pub(super) async fn stream_to(
        &self,
        destination: &Destination,
        limit: Duration,
    ) -> Result<Upstream> {
        let carrier = self.dialer.dial(destination, limit).await;
        let carrier = carrier.map_err(|e| connect_error(&e))?;
        Upstream::new(carrier).or_err(ErrorType::ConnectError, "out of file descriptors")
    }

    /// An HTTP/2 session for a request of our own.
    pub(super) async fn session_to(
        &self,
        destination: Destination,
        limit: Duration,
    ) -> Result<Http2Upstream> {
        let named = self.name(destination, HttpVersion::Http2);
        match self.http2_session(named.number).await {
            Some(session) => Ok(session),
            None => self.new_http2_session(&named, limit).await,
        }
    }

    /// Forgets destinations that `alive` does not know any more, and closes idle connections.
    pub fn retain(&self, alive: impl Fn(&Destination) -> bool) {
        let mut routes = lock(&self.routes);
        routes.retain(alive, Instant::now());
        lock(&self.http2).retain(|number, pool| {
            pool.retain(Pooled::is_worth_keeping);
            routes.has(*number) && !pool.is_empty()
        });
        drop(routes);
        self.dialer.tunnels().forget_empty();
    }

    fn named(&self, peer: &impl Peer) -> Option<Arc<Named>> {
        lock(&self.routes).named(peer.sni().parse().ok()?)
    }

    /// The name of a destination. Where it is a new one and there is no more room, the names that were not
    /// used for longest are given up, and their connections with them.
    fn name(&self, destination: Destination, version: HttpVersion) -> Arc<Named> {
        let route = Route {
            destination,
            version,
        };
        let next_hop = self.dialer.next_hop(&route.destination);
        let mut routes = lock(&self.routes);
        let (named, crowded_out) = routes.name(route, next_hop, Instant::now());
        if !crowded_out.is_empty() {
            let mut pools = lock(&self.http2);
            for number in crowded_out {
                pools.remove(&number);
            }
        }
        named
    }

    async fn dial(&self, named: &Named, limit: Duration) -> Result<Upstream> {
        self.stream_to(&named.route.destination, limit).await
    }

    async fn http2_session(&self, number: u64) -> Option<Http2Upstream> {
        loop {
            let connection = {
                let mut pools = lock(&self.http2);
                let pool = pools.get_mut(&number)?;
                pool.retain(Pooled::is_worth_keeping);
                let found = pool
                    .iter_mut()
                    .find(|p| p.connection.more_streams_allowed())?;
                found.used = Instant::now();
                found.connection.clone()
            };
            match connection.spawn_stream().await {
                Ok(Some(session)) => return Some(Http2Upstream::new(session)),
                // Full or told to go away between the look and the use: the next one.
                Ok(None) if connection.is_shutting_down() => {}
                Ok(None) => return None,
                Err(_) => connection.mark_shutdown(),
            }
        }
    }

    async fn new_http2_session(&self, named: &Named, limit: Duration) -> Result<Http2Upstream> {
        let upstream = Noticed::new(self.dial(named, limit).await?);
        let connection = begin_http2(upstream).await?;
        let session = connection.spawn_stream().await?.ok_or_else(|| {
            Error::explain(ErrorType::ConnectError, "the endpoint allows no stream")
        })?;
        lock(&self.http2)
            .entry(named.number)
            .or_default()
            .push(Pooled {
                connection,
                used: Instant::now(),
            });
        Ok(Http2Upstream::new(session))
    }
}

async fn begin_http2(upstream: Noticed<Upstream>) -> Result<ConnectionRef> {
    handshake(Box::new(upstream.into_inner()), http2_settings()).await
}

/// HTTP/2 with an application. It is sent no PINGs: gRPC servers end a connection, and the streams on it, that pings
/// more often than they allow, which by default is once in five minutes (gRPC's proposals A8 and A9). Who is dead is
/// noticed by the PINGs of the tunnel underneath, or else by TCP ([`UNACKNOWLEDGED_TIMEOUT`](crate::limits::UNACKNOWLEDGED_TIMEOUT)).
fn http2_settings() -> H2HandshakeSettings {
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = STREAMS_PER_UPSTREAM_TUNNEL_MAX.min(INNER_STREAMS_MAX as usize);
    settings.stream_window_size = Some(TUNNEL_STREAM_WINDOW_BYTES);
    settings.connection_window_size = Some(TUNNEL_CONNECTION_WINDOW_BYTES);
    settings
}

impl TunnelConnector {
    /// A connector for the engine.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

fn limit_of(peer: &impl Peer) -> Duration {
    peer.total_connection_timeout()
        .unwrap_or(CONNECT_TIMEOUT_DEFAULT)
}

#[async_trait]
impl Connector for TunnelConnector {
    type Session = Http2Upstream;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<Http2Upstream>, bool)> {
        // Forgotten between the choice and now: the endpoint has left the configuration.
        let named = self.shared.named(peer).ok_or_else(|| {
            Error::explain(
                ErrorType::ConnectError,
                "the endpoint is no longer configured",
            )
        })?;
        let limit = limit_of(peer);
        match named.route.version {
            HttpVersion::Http1 => {
                let upstream = self.shared.dial(&named, limit).await?;
                Ok((Connection::Stream(Box::new(upstream)), false))
            }
            HttpVersion::Http2 => {
                let session = self.shared.new_http2_session(&named, limit).await?;
                Ok((Connection::Session(session), false))
            }
        }
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Option<Http2Upstream> {
        let number: u64 = peer.sni().parse().ok()?;
        self.shared.http2_session(number).await
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        session: Http2Upstream,
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
        // Dropping the session gives its stream back; the connection stays in the pool and is
        // closed by its tunnel's idle timeout.
        if session.connection().is_shutting_down() {
            tracing::debug!("endpoint's HTTP/2 connection is going away");
        }
    }
}

/// The engine has no error of its own for a full pool.
pub(super) const TUNNELS_FULL: ErrorType = ErrorType::Custom("TunnelsFull");

/// Nor for an endpoint that was not asked, for a reason that says nothing of it.
pub(super) const NOT_ASKED: ErrorType = ErrorType::Custom("NotAsked");

/// An error of ours in the engine's form; its context keeps our words for the log.
fn connect_error(error: &ConnectError) -> Box<Error> {
    let etype = match error {
        ConnectError::Timeout(..) => ErrorType::ConnectTimedout,
        ConnectError::Tls(..) => ErrorType::TLSHandshakeFailure,
        ConnectError::Refused(..) => ErrorType::ConnectProxyFailure,
        ConnectError::Full(..) => TUNNELS_FULL,
        ours if ours.is_ours() => NOT_ASKED,
        _ => ErrorType::ConnectError,
    };
    let mut wrapped = Error::explain(etype, error.to_string());
    // Nothing of the request was sent; `fail_to_connect` decides whether another try is due.
    wrapped.as_up();
    wrapped
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingora_core::connectors::http::v2::handshake;

    use super::http2_settings;
    use crate::http2_peer;

    /// A quiet stream of a gRPC server may stay quiet for as long as its application wants.
    #[tokio::test(start_paused = true)]
    async fn an_application_is_sent_no_pings() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let pings = http2_peer::pings(theirs, Duration::from_secs(600));
        let connected = async {
            let connection = handshake(Box::new(ours), http2_settings()).await.unwrap();
            connection.spawn_stream().await.unwrap().unwrap()
        };
        let (pings, _session) = tokio::join!(pings, connected);
        assert_eq!(pings.len(), 0, "{pings:?}");
    }
}
