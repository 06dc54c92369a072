//! HBONE tunnels to next hops, shared by many streams, one pool per worker.
//!
//! A tunnel belongs to one next hop, one expected identity and one version of the local identity;
//! nothing else may use it, so identities never share a connection. Full tunnels get company, dead
//! ones are noticed by PING and dropped, idle ones closed.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_config_schema::identity::Identity;
use h2::client::SendRequest;
use tokio::sync::Notify;

use super::asked::{Asked, StreamError};
use super::carrier::Carrier;
use super::connector::{ConnectError, TcpDialer};
use crate::limits::{
    STREAMS_PER_UPSTREAM_TUNNEL_MAX, TUNNEL_CONNECTION_WINDOW_BYTES, TUNNEL_FRAME_BYTES_MAX,
    TUNNEL_STREAM_WINDOW_BYTES, UPSTREAM_TUNNEL_IDLE_TIMEOUT, UPSTREAM_TUNNELS_PER_DESTINATION_MAX,
};
use crate::listener::tunnel::keepalive;
use crate::telemetry::counters;
use crate::tls::{self, Expected, LocalIdentity};

/// Who is at the other end, and as whom we came.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    next_hop: SocketAddr,
    identity: Identity,
    epoch: u64,
}

/// Tunnels of one worker. The lock is never contended: a worker is one thread.
pub struct TunnelPool {
    hops: Mutex<HashMap<Key, Arc<Hop>>>,
    tcp: Arc<TcpDialer>,
}

/// The tunnels of one key.
#[derive(Default)]
struct Hop {
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    /// One connects, the others wait for it: a burst of requests must not become a burst of TLS. Held by the
    /// task that connects.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// One connection with HTTP/2.
struct Tunnel {
    requests: SendRequest<Bytes>,
    streams: AtomicUsize,
    closed: AtomicBool,
    descriptor: OwnedFd,
    /// Our own end, for the access log.
    local: Option<SocketAddr>,
    next_hop: SocketAddr,
    /// Told when a stream ends, for the idle timer.
    released: Notify,
}

/// A stream's place in its tunnel, given back when dropped.
#[derive(Debug)]
pub struct StreamLease {
    tunnel: Arc<Tunnel>,
}

impl StreamLease {
    pub(super) fn underneath(&self) -> Underneath {
        Underneath(self.tunnel.clone())
    }
}

/// The TCP connection under a tunnel. Holds no place in the tunnel.
#[derive(Clone, Debug)]
pub struct Underneath(Arc<Tunnel>);

impl Underneath {
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.descriptor.try_clone()
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.0.local
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        if self.tunnel.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.tunnel.released.notify_one();
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("next_hop", &self.next_hop)
            .field("streams", &self.streams)
            .finish()
    }
}

impl Tunnel {
    /// A place on this tunnel, if it lives and has room.
    fn lease(self: &Arc<Self>) -> Option<StreamLease> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let room = STREAMS_PER_UPSTREAM_TUNNEL_MAX.min(self.requests.current_max_send_streams());
        let taken = self.streams.fetch_add(1, Ordering::Relaxed);
        let lease = StreamLease {
            tunnel: self.clone(),
        };
        (taken < room).then_some(lease)
    }
}

impl TunnelPool {
    /// An empty pool.
    pub fn new(tcp: Arc<TcpDialer>) -> Self {
        Self {
            hops: Mutex::default(),
            tcp,
        }
    }

    /// Tunnels open now.
    pub fn len(&self) -> usize {
        let hops: Vec<_> = lock(&self.hops).values().cloned().collect();
        hops.iter().map(|hop| lock(&hop.tunnels).len()).sum()
    }

    /// Whether no tunnel is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A stream to what is `asked` for through a tunnel to `next_hop`, which must be `identity`. A new tunnel may take
    /// `limit` to come about.
    ///
    /// # Errors
    /// [`ConnectError`]. A pooled tunnel that turns out dead is replaced without an error.
    pub async fn open(
        &self,
        next_hop: SocketAddr,
        identity: &Identity,
        local: Arc<LocalIdentity>,
        asked: Asked<'_>,
        limit: Duration,
    ) -> Result<Carrier, ConnectError> {
        let key = Key {
            next_hop,
            identity: identity.clone(),
            epoch: local.epoch,
        };
        let hop = lock(&self.hops).entry(key.clone()).or_default().clone();
        loop {
            let (lease, fresh) = match hop.lease() {
                Some(lease) => (lease, false),
                None => hop.connect(&self.tcp, &key, &local, limit).await?,
            };
            match asked.stream(&lease.tunnel.requests).await {
                Ok(stream) => {
                    let stream = Box::new(stream);
                    return Ok(Carrier::Tunnel { stream, lease });
                }
                // The tunnel died or was told to go away between its last use and now.
                Err(StreamError::Tunnel(error)) if !fresh => {
                    tracing::debug!(%next_hop, %error, "pooled tunnel is gone");
                    hop.discard(&lease.tunnel);
                }
                Err(StreamError::Tunnel(error)) => {
                    hop.discard(&lease.tunnel);
                    return Err(ConnectError::Tunnel(next_hop, error));
                }
                Err(StreamError::Refused(status)) => {
                    return Err(ConnectError::Refused(asked.endpoint(next_hop), status));
                }
            }
        }
    }

    /// Forgets hops without tunnels: pods come and go, their keys must not pile up.
    pub fn forget_empty(&self) {
        lock(&self.hops)
            .retain(|_, hop| Arc::strong_count(hop) > 1 || !lock(&hop.tunnels).is_empty());
    }
}

impl Hop {
    fn lease(&self) -> Option<StreamLease> {
        lock(&self.tunnels).iter().find_map(Tunnel::lease)
    }

    fn discard(&self, tunnel: &Arc<Tunnel>) {
        tunnel.closed.store(true, Ordering::Release);
        lock(&self.tunnels).retain(|t| !Arc::ptr_eq(t, tunnel));
    }

    /// A place on a new tunnel, or on one that somebody else opened while we waited. Who asked may leave: the
    /// others who wait, and the pool, get the tunnel all the same.
    async fn connect(
        self: &Arc<Self>,
        tcp: &Arc<TcpDialer>,
        key: &Key,
        local: &Arc<LocalIdentity>,
        limit: Duration,
    ) -> Result<(StreamLease, bool), ConnectError> {
        let one_at_a_time = self.connecting.clone().lock_owned().await;
        if let Some(lease) = self.lease() {
            return Ok((lease, false));
        }
        let next_hop = key.next_hop;
        let open = lock(&self.tunnels).len();
        if open >= UPSTREAM_TUNNELS_PER_DESTINATION_MAX {
            return Err(ConnectError::Full(next_hop, open));
        }
        let (hop, tcp, key, local) = (self.clone(), tcp.clone(), key.clone(), local.clone());
        let dial = async move {
            let _one_at_a_time = one_at_a_time;
            let tunnel = hop.clone().establish(&tcp, &key, &local);
            let tunnel = tokio::time::timeout(limit, tunnel).await;
            let tunnel =
                tunnel.map_err(|_| ConnectError::Timeout(next_hop, limit.as_millis()))??;
            let lease = tunnel.lease();
            let lease = lease.ok_or(ConnectError::Full(next_hop, open))?;
            lock(&hop.tunnels).push(tunnel);
            Ok::<_, ConnectError>((lease, true))
        };
        let dialled = tokio::spawn(dial).await;
        dialled.unwrap_or_else(|error| Err(ConnectError::Here(next_hop, io::Error::other(error))))
    }

    async fn establish(
        self: Arc<Self>,
        tcp: &TcpDialer,
        key: &Key,
        local: &Arc<LocalIdentity>,
    ) -> Result<Arc<Tunnel>, ConnectError> {
        let next_hop = key.next_hop;
        let tcp = tcp.connect(next_hop).await?;
        let descriptor = tcp
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| ConnectError::Here(next_hop, e))?;
        let local_address = tcp.local_addr().ok();
        let expected = Expected::Workload(key.identity.clone());
        let tls = tls::connect(local.clone(), expected, next_hop, tcp)
            .await
            .map_err(|e| ConnectError::Tls(next_hop, e))?;
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW_BYTES)
            .max_frame_size(TUNNEL_FRAME_BYTES_MAX)
            .initial_max_send_streams(STREAMS_PER_UPSTREAM_TUNNEL_MAX)
            .enable_push(false)
            .handshake(tls)
            .await
            .map_err(|e| ConnectError::Tunnel(next_hop, e))?;
        let ping_pong = connection.ping_pong();
        let tunnel = Arc::new(Tunnel {
            requests,
            streams: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            descriptor,
            local: local_address,
            next_hop,
            released: Notify::new(),
        });
        let watched = tunnel.clone();
        let counted = counters::UPSTREAM_TUNNELS.track();
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                ended = connection => {
                    tracing::debug!(%next_hop, error = ?ended.err(), "upstream tunnel ended");
                }
                () = keepalive(ping_pong) => {
                    tracing::info!(%next_hop, "upstream tunnel answers no PING, dropped");
                }
                () = idle(&watched) => {}
            }
            self.discard(&watched);
        });
        Ok(tunnel)
    }
}

/// Ends when a tunnel has had no stream for the idle timeout.
async fn idle(tunnel: &Tunnel) {
    loop {
        tokio::select! {
            () = tunnel.released.notified() => {}
            () = tokio::time::sleep(UPSTREAM_TUNNEL_IDLE_TIMEOUT) => {
                if tunnel.streams.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
        }
    }
}

/// A lock on plain data stays valid when a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often [`TunnelPool::forget_empty`] is worth calling.
pub const FORGET_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
