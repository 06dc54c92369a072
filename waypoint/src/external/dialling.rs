//! Dials under way to authorization and rate limit services, and who waits for them. Who stops waiting leaves
//! the dial to those who come after: it goes on to the connect timeout, and its connection is kept
//! (`connection.rs`). A time-out shorter than dialling would otherwise never let a service be asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;

use super::AskError;
use super::connection::{Kept, Key, Sender, keep, lock};
use crate::dead_peer::Noticed;
use crate::limits::{
    EXT_AUTHZ_HEADER_BYTES_MAX, GRPC_PING_INTERVAL, PING_TIMEOUT, REQUEST_HEADERS_MAX,
};
use crate::upstream::{Carrier, Dialer};

/// A connection, or why there is none, which all who waited for it are told.
pub(super) type Dialled = Result<Sender, Arc<AskError>>;

/// Dials of one worker. Never more at once than there were checks waiting for them, which are
/// limited (`EXT_AUTHZ_CHECKS_MAX`); of HTTP/2, which checks share, one for each destination.
#[derive(Default)]
pub(super) struct Dials(Mutex<HashMap<Key, Wanted>>);

/// Dials to one destination.
#[derive(Default)]
struct Wanted {
    /// One reference here and one for each dial.
    dials: Arc<()>,
    waiting: VecDeque<oneshot::Sender<Dialled>>,
}

/// One dial.
pub(super) struct Dial {
    pub dialer: Arc<Dialer>,
    pub key: Key,
    /// The connect timeout.
    pub limit: Duration,
    pub dials: Arc<Dials>,
    pub kept: Arc<Kept>,
}

impl Dials {
    /// Waits for a connection with the others. Gives the count of a dial that has to begin for it.
    pub fn join(&self, key: &Key, waiter: oneshot::Sender<Dialled>) -> Option<Arc<()>> {
        let mut all = lock(&self.0);
        let wanted = all.entry(key.clone()).or_default();
        wanted.waiting.retain(|waiter| !waiter.is_closed());
        wanted.waiting.push_back(waiter);
        let (_, http2) = key;
        let enough = if *http2 { 1 } else { wanted.waiting.len() };
        (Arc::strong_count(&wanted.dials) <= enough).then(|| wanted.dials.clone())
    }

    /// Shares out what a dial came to; keeps a connection that nobody waits for. Gives the count back
    /// when somebody still waits and no other dial is under way.
    fn settle(
        &self,
        key: &Key,
        dialled: Dialled,
        kept: &Kept,
        counted: Arc<()>,
    ) -> Option<Arc<()>> {
        let mut all = lock(&self.0);
        let wanted = all.get_mut(key)?;
        let (_, http2) = key;
        match dialled {
            Ok(Sender::Http2(sender, streams)) => {
                let one = || Sender::Http2(sender.clone(), streams.clone());
                keep(kept, key.clone(), one());
                // The first gets it in any case, so that dialling comes to an end.
                while wanted.give(Ok(one())).is_none() && one().is_usable() {}
            }
            Ok(sender) => {
                if let Some(Ok(sender)) = wanted.give(Ok(sender)) {
                    keep(kept, key.clone(), sender);
                }
            }
            Err(error) if *http2 => while wanted.give(Err(error.clone())).is_none() {},
            Err(error) => drop(wanted.give(Err(error))),
        }
        wanted.waiting.retain(|waiter| !waiter.is_closed());
        let is_last = Arc::strong_count(&wanted.dials) == 2;
        match (is_last, wanted.waiting.is_empty()) {
            (true, false) => return Some(counted),
            (true, true) => drop(all.remove(key)),
            (false, _) => {}
        }
        // Before the lock is: whoever joins next must not count on it.
        drop(counted);
        None
    }
}

impl Wanted {
    /// Gives it to the first who still waits. `Some`: nobody does.
    fn give(&mut self, mut dialled: Dialled) -> Option<Dialled> {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.send(dialled) {
                Ok(()) => return None,
                Err(back) => dialled = back,
            }
        }
        Some(dialled)
    }
}

impl Dial {
    /// Dials, and again while somebody waits whom no connection was left for.
    pub async fn run(self, mut counted: Arc<()>) {
        loop {
            let dialled = self.once().await.map_err(Arc::new);
            let more = self.dials.settle(&self.key, dialled, &self.kept, counted);
            let Some(more) = more else {
                return;
            };
            counted = more;
        }
    }

    async fn once(&self) -> Result<Sender, AskError> {
        let (destination, http2) = &self.key;
        let carrier = self.dialer.dial(destination, self.limit).await?;
        begin(Noticed::new(carrier), *http2).await
    }
}

async fn begin(carrier: Noticed<Carrier>, http2: bool) -> Result<Sender, AskError> {
    let io = TokioIo::new(carrier.into_inner());
    if !http2 {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(EXT_AUTHZ_HEADER_BYTES_MAX)
            .max_headers(REQUEST_HEADERS_MAX)
            .handshake(io)
            .await?;
        // Ends with its sender; an error reaches whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        return Ok(Sender::Http1(sender));
    }
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(EXT_AUTHZ_HEADER_BYTES_MAX as u32)
        .timer(TokioTimer::new())
        .keep_alive_interval(GRPC_PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(io)
        .await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::Http2(sender, Arc::new(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Destination;

    fn key(http2: bool) -> Key {
        let destination = Destination {
            address: "10.0.0.1:80".parse().unwrap(),
            identity: None,
            gateway: None,
            tunnel_only: false,
            epoch: 1,
            egress: None,
            proxy: None,
            tls: None,
        };
        (destination, http2)
    }

    fn nobody() -> Dialled {
        Err(Arc::new(AskError::NoEndpoint))
    }

    #[test]
    fn all_who_want_http2_wait_for_one_dial() {
        let (dials, kept, key) = (Dials::default(), Kept::default(), key(true));
        let (first, gone) = oneshot::channel();
        let (second, mut waits) = oneshot::channel();
        let counted = dials.join(&key, first).expect("a dial");
        drop(gone);
        assert!(dials.join(&key, second).is_none(), "one is under way");
        assert!(dials.settle(&key, nobody(), &kept, counted).is_none());
        assert!(matches!(waits.try_recv(), Ok(Err(_))));
        let (third, _waits) = oneshot::channel();
        assert!(dials.join(&key, third).is_some(), "it is over");
    }

    #[test]
    fn one_dial_of_http1_is_for_one_and_a_dial_that_was_left_for_the_next() {
        let (dials, kept, key) = (Dials::default(), Kept::default(), key(false));
        let join = || {
            let (waiter, waits) = oneshot::channel();
            (dials.join(&key, waiter), waits)
        };
        let (one, gone) = join();
        let (other, mut second) = join();
        let (one, other) = (one.expect("a dial"), other.expect("a dial"));
        drop(gone);
        let (none, mut third) = join();
        assert!(none.is_none(), "two dials are enough for two");
        assert!(dials.settle(&key, nobody(), &kept, one).is_none());
        assert!(second.try_recv().is_ok() && third.try_recv().is_err());
        assert!(dials.settle(&key, nobody(), &kept, other).is_none());
        assert!(third.try_recv().is_ok());
        assert!(lock(&dials.0).is_empty(), "nothing is left behind");
    }
}
