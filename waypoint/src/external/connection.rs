//! Connections to authorization and rate limit services: dialled as to any backend, kept for the next check, and how
//! many checks may wait for one provider. One of these for each worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::ClusterKey;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;

use super::AskError;
use crate::limits::{
    EXT_AUTHZ_BODIES_MAX, EXT_AUTHZ_CHECKS_MAX, EXT_AUTHZ_HEADER_BYTES_MAX,
    EXT_AUTHZ_IDLE_CONNECTIONS_MAX, PING_INTERVAL, PING_TIMEOUT, REQUEST_HEADERS_MAX,
    STREAMS_PER_UPSTREAM_TUNNEL_MAX, UPSTREAM_IDLE_STREAM_TIMEOUT,
};
use crate::telemetry::counters;
use crate::telemetry::instruments::{Gauge, Tracked};
use crate::upstream::{Destination, Dialer};

/// Connections of one worker to authorization and rate limit services.
#[derive(Default)]
pub struct Clients {
    kept: Arc<Kept>,
    waiting: Mutex<HashMap<ClusterKey, Arc<()>>>,
    bodies: Arc<()>,
}

type Kept = Mutex<HashMap<(Destination, bool), Vec<Idle>>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

/// The sending end of a connection.
pub(super) enum Sender {
    Http1(http1::SendRequest<Body>),
    /// Shared by up to [`STREAMS_PER_UPSTREAM_TUNNEL_MAX`] checks, which the counter counts.
    Http2(http2::SendRequest<Body>, Arc<()>),
}

impl Sender {
    fn is_usable(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender, streams) => {
                !sender.is_closed() && Arc::strong_count(streams) <= STREAMS_PER_UPSTREAM_TUNNEL_MAX
            }
        }
    }
}

/// A connection for one check.
pub(super) struct Lease {
    pub sender: Sender,
    home: Arc<Kept>,
    key: (Destination, bool),
}

impl Lease {
    /// Keeps a connection whose last answer was read to its end. HTTP/2 connections are kept from the
    /// beginning.
    pub fn give_back(self) {
        if let Sender::Http1(_) = self.sender {
            keep(&self.home, self.key, self.sender);
        }
    }
}

/// A place under a limit, until this is dropped.
pub struct Place {
    _counted: Arc<()>,
    _tracked: Tracked,
}

impl Clients {
    /// A place among those that wait for this service, counted in a gauge too.
    pub(super) fn place(
        &self,
        provider: &ClusterKey,
        gauge: &'static Gauge,
    ) -> Result<Place, AskError> {
        let mut waiting = lock(&self.waiting);
        let places = match waiting.get(provider) {
            Some(places) => places,
            None => waiting.entry(provider.clone()).or_default(),
        };
        if Arc::strong_count(places) > EXT_AUTHZ_CHECKS_MAX {
            return Err(AskError::Full(EXT_AUTHZ_CHECKS_MAX));
        }
        Ok(Place {
            _counted: places.clone(),
            _tracked: gauge.track(),
        })
    }

    /// A place for a request's body, to be had before it is read.
    ///
    /// # Errors
    /// [`AskError::FullOfBodies`].
    pub fn place_for_body(&self) -> Result<Place, AskError> {
        if Arc::strong_count(&self.bodies) > EXT_AUTHZ_BODIES_MAX {
            return Err(AskError::FullOfBodies(EXT_AUTHZ_BODIES_MAX));
        }
        Ok(Place {
            _counted: self.bodies.clone(),
            _tracked: counters::EXT_AUTHZ_BODIES.track(),
        })
    }

    /// A kept connection.
    pub(super) fn kept(&self, destination: &Destination, http2: bool) -> Option<Lease> {
        let mut kept = lock(&self.kept);
        let key = (destination.clone(), http2);
        let idle = kept.get_mut(&key)?;
        let sender = if http2 {
            idle.retain(|idle| match &idle.sender {
                Sender::Http2(sender, _) => !sender.is_closed(),
                Sender::Http1(_) => false,
            });
            let usable = idle.iter_mut().find(|idle| idle.sender.is_usable())?;
            usable.since = Instant::now();
            match &usable.sender {
                Sender::Http2(sender, streams) => Sender::Http2(sender.clone(), streams.clone()),
                Sender::Http1(_) => return None,
            }
        } else {
            loop {
                let last = idle.pop()?;
                let fresh = last.since.elapsed() < UPSTREAM_IDLE_STREAM_TIMEOUT;
                if fresh && last.sender.is_usable() {
                    break last.sender;
                }
            }
        };
        Some(self.lease(sender, key))
    }

    /// A new connection.
    pub(super) async fn connect(
        &self,
        dialer: &Dialer,
        destination: Destination,
        http2: bool,
        limit: Duration,
    ) -> Result<Lease, AskError> {
        let carrier = dialer.dial(&destination, limit).await?;
        let io = TokioIo::new(carrier);
        let key = (destination, http2);
        if !http2 {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(EXT_AUTHZ_HEADER_BYTES_MAX)
                .max_headers(REQUEST_HEADERS_MAX)
                .handshake(io)
                .await?;
            // Ends with its sender; an error reaches whoever waits for an answer.
            tokio::spawn(async move { drop(connection.await) });
            return Ok(self.lease(Sender::Http1(sender), key));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(EXT_AUTHZ_HEADER_BYTES_MAX as u32)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await?;
        tokio::spawn(async move { drop(connection.await) });
        let streams = Arc::new(());
        keep(
            &self.kept,
            key.clone(),
            Sender::Http2(sender.clone(), streams.clone()),
        );
        Ok(self.lease(Sender::Http2(sender, streams), key))
    }

    fn lease(&self, sender: Sender, key: (Destination, bool)) -> Lease {
        Lease {
            sender,
            home: self.kept.clone(),
            key,
        }
    }

    /// Forgets connections to destinations that `alive` does not know any more, and idle ones.
    pub fn retain(&self, alive: impl Fn(&Destination) -> bool) {
        lock(&self.kept).retain(|(destination, _), idle| {
            idle.retain(|idle| match &idle.sender {
                Sender::Http2(sender, streams) => {
                    let unused = Arc::strong_count(streams) == 1
                        && idle.since.elapsed() > UPSTREAM_IDLE_STREAM_TIMEOUT;
                    !sender.is_closed() && !unused
                }
                Sender::Http1(sender) => {
                    !sender.is_closed() && idle.since.elapsed() < UPSTREAM_IDLE_STREAM_TIMEOUT
                }
            });
            !idle.is_empty() && alive(destination)
        });
        lock(&self.waiting).retain(|_, places| Arc::strong_count(places) > 1);
    }
}

fn keep(home: &Kept, key: (Destination, bool), sender: Sender) {
    let mut kept = lock(home);
    let idle = kept.entry(key).or_default();
    if idle.len() < EXT_AUTHZ_IDLE_CONNECTIONS_MAX {
        let since = Instant::now();
        idle.push(Idle { sender, since });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::ObjectKey;

    use super::*;

    #[test]
    fn places_are_limited_by_provider_and_free_again_when_they_are_left() {
        let (clients, waiting) = (Clients::default(), &counters::EXT_AUTHZ_WAITING);
        let gate = ClusterKey::new(ObjectKey::new("shop", "gate"), 80);
        let other = ClusterKey::new(ObjectKey::new("shop", "other"), 80);
        let mut places: Vec<_> = (0..EXT_AUTHZ_CHECKS_MAX)
            .map(|_| clients.place(&gate, waiting).unwrap())
            .collect();
        assert!(matches!(
            clients.place(&gate, waiting),
            Err(AskError::Full(_))
        ));
        assert!(clients.place(&other, waiting).is_ok());
        places.pop();
        assert!(clients.place(&gate, waiting).is_ok());
    }

    #[test]
    fn places_for_bodies_are_limited_for_all_providers_together() {
        let clients = Clients::default();
        let mut places: Vec<_> = (0..EXT_AUTHZ_BODIES_MAX)
            .map(|_| clients.place_for_body().unwrap())
            .collect();
        let full = clients.place_for_body();
        assert!(matches!(full, Err(AskError::FullOfBodies(_))));
        places.pop();
        assert!(clients.place_for_body().is_ok());
    }
}
