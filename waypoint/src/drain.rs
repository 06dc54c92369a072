//! Shutting down without a failed request: what is in flight is counted, everybody is told, and
//! the process leaves as soon as nothing is left or the deadline says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

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

    /// Waits until nothing has been in flight for `quiet`, or until the deadline. Answers whether
    /// it became idle.
    pub async fn idle(&self, quiet: Duration, deadline: Duration) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if self.is_idle() {
                    // Requests of keep-alive connections come in bursts: idle means quiet for a while.
                    tokio::select! {
                        () = changed => continue,
                        () = tokio::time::sleep(quiet) => return,
                    }
                }
                changed.await;
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
        if matches!(self.kind, Kind::Request | Kind::TcpStream) {
            self.in_flight.changed.notify_waiters();
        }
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
