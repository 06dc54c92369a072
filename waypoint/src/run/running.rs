//! A waypoint that serves: what it tells of itself, how it is told to read again, and how it drains and ends. Starts
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::{Running, WorkerThread};
use crate::admin::{self, NotReady};
use crate::drain::Kind;
use crate::hubble;
use crate::publish::InForce;

impl Running {
    /// Where clients' tunnels arrive.
    pub fn hbone_addr(&self) -> SocketAddr {
        self.hbone_addr
    }

    /// Metrics, readiness and admin.
    pub fn addresses(&self) -> admin::Addresses {
        self.admin.addresses()
    }

    /// Where Hubble's API is served; `None`: nowhere.
    pub fn hubble_addr(&self) -> Option<SocketAddr> {
        self.hubble.as_ref().map(hubble::Server::address)
    }

    /// The configuration in force.
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The threads that serve.
    pub fn workers(&self) -> &[WorkerThread] {
        &self.workers
    }

    /// Ends the waypoint as SIGTERM does, once it is notified.
    pub fn stop(&self) -> Arc<Notify> {
        self.stop.clone()
    }

    /// Reads configuration and certificates again, as SIGHUP does.
    pub fn reload(&self) {
        self.sources.files.look();
        self.reload.notify_waiters();
    }

    /// Waits for SIGTERM, SIGINT or `/quitquitquit`, reloading at SIGHUP, then drains. A second
    /// signal ends the drain at once.
    ///
    /// # Errors
    /// When signals can not be caught.
    pub async fn until_stopped(&self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = self.stop.notified() => break,
                _ = hangup.recv() => self.reload(),
            }
        }
        tokio::select! {
            () = self.drain() => {}
            _ = terminate.recv() => tracing::warn!("second signal: leaving at once"),
            _ = interrupt.recv() => tracing::warn!("second signal: leaving at once"),
        }
        Ok(())
    }

    /// Turns readiness off, tells every client to go elsewhere, and waits for what is in flight.
    pub async fn drain(&self) {
        let began = Instant::now();
        self.in_force.readiness.add(NotReady::Draining);
        self.drain.begin();
        tracing::info!(
            requests = self.in_flight.count(Kind::Request),
            tcp_streams = self.in_flight.count(Kind::TcpStream),
            deadline_s = self.drain_deadline.as_secs(),
            "draining"
        );
        let finished = self.in_flight.idle(self.drain_deadline).await;
        let took_ms = began.elapsed().as_millis() as u64;
        if finished {
            tracing::info!(took_ms, "drained: nothing was cut");
        } else {
            tracing::warn!(
                took_ms,
                requests = self.in_flight.count(Kind::Request),
                tcp_streams = self.in_flight.count(Kind::TcpStream),
                "drain deadline reached: these were cut"
            );
        }
    }
}
