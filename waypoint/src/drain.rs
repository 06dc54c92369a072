//! Shutting down without a failed request: what is in flight is counted, everybody is told, and
//! the process leaves as soon as nothing is left or the deadline says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long nothing may be in flight before a draining process calls itself idle.
const QUIET: Duration = Duration::from_millis(500);

/// The same while clients keep streams open.
const QUIET_WITH_STREAMS: Duration = Duration::from_secs(2);

/// What is in flight in this process.
#[derive(Debug, Default)]
pub struct InFlight {
    requests: AtomicUsize,
    tcp_streams: AtomicUsize,
    tunnels: AtomicUsize,
    streams: AtomicUsize,
    changed: Notify,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An HTTP request, until its response is complete.
    Request,
    /// A spliced TCP stream.
    TcpStream,
    /// A client's connection.
    Tunnel,
    /// A CONNECT stream of any kind.
    Stream,
}

/// Counts one thing in flight until it is dropped.
#[derive(Debug)]
pub struct Held {
    in_flight: Arc<InFlight>,
    kind: Kind,
}

impl InFlight {
    /// Counts one more.
    pub fn hold(self: &Arc<Self>, kind: Kind) -> Held {
        self.counter(kind).fetch_add(1, Ordering::Relaxed);
        Held {
            in_flight: self.clone(),
            kind,
        }
    }

    /// How many there are now.
    pub fn count(&self, kind: Kind) -> usize {
        self.counter(kind).load(Ordering::Relaxed)
    }

    fn counter(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Request => &self.requests,
            Kind::TcpStream => &self.tcp_streams,
            Kind::Tunnel => &self.tunnels,
            Kind::Stream => &self.streams,
        }
    }

    fn is_idle(&self) -> bool {
        self.count(Kind::Request) == 0 && self.count(Kind::TcpStream) == 0
    }

    /// Waits until nothing has been in flight for a while, or until the deadline. Answers whether it
    /// became idle.
    pub async fn idle(&self, deadline: Duration) -> bool {
        self.idle_after(QUIET, QUIET_WITH_STREAMS, deadline).await
    }

    async fn idle_after(
        &self,
        alone: Duration,
        with_streams: Duration,
        deadline: Duration,
    ) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if !self.is_idle() {
                    changed.await;
                    continue;
                }
                // Requests of keep-alive connections come in bursts, and whoever has a stream open
                // may be about to send one.
                let quiet = match self.count(Kind::Stream) {
                    0 => alone,
                    _ => with_streams,
                };
                tokio::select! {
                    () = changed => {}
                    // A request that began meanwhile told nobody, and is not finished.
                    () = tokio::time::sleep(quiet) => if self.is_idle() { return },
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight
            .counter(self.kind)
            .fetch_sub(1, Ordering::Relaxed);
        self.in_flight.changed.notify_waiters();
    }
}

/// Tells every part of the process that it is draining.
#[derive(Clone, Debug)]
pub struct Drain {
    sender: Arc<watch::Sender<bool>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            sender: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Drain {
    /// A receiver that turns true when draining begins.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// Begins.
    pub fn begin(&self) {
        self.sender.send_replace(true);
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        *self.sender.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_request_that_begins_in_the_quiet_time_is_waited_for() {
        let in_flight = Arc::<InFlight>::default();
        let idle = in_flight.idle_after(SHORT, SHORT, LONG);
        tokio::pin!(idle);
        // The quiet time runs; the request that begins now tells nobody.
        assert!(futures::poll!(&mut idle).is_pending());
        let request = in_flight.hold(Kind::Request);
        assert!(tokio::time::timeout(SHORT * 5, &mut idle).await.is_err());
        drop(request);
        assert!(idle.await);
    }

    #[tokio::test]
    async fn a_client_with_a_stream_open_is_given_longer() {
        let in_flight = Arc::<InFlight>::default();
        let stream = in_flight.hold(Kind::Stream);
        let idle = in_flight.idle_after(SHORT, LONG, LONG);
        tokio::pin!(idle);
        assert!(tokio::time::timeout(SHORT * 5, &mut idle).await.is_err());
        drop(stream);
        assert!(idle.await);
    }

    #[tokio::test]
    async fn what_never_ends_is_cut_at_the_deadline() {
        let in_flight = Arc::<InFlight>::default();
        let _stuck = in_flight.hold(Kind::TcpStream);
        assert!(!in_flight.idle(SHORT).await);
    }
}
