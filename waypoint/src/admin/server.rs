//! The sockets of the endpoints and the threads they are served from. What is answered is in
//! `answer`.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use super::state::AdminState;
use crate::limits::{ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT};
use crate::priority::step_back;
use crate::telemetry::metrics::forget_idle;

/// Which of the addresses a request came in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// For Prometheus.
    Metrics,
    /// For the kubelet.
    Ready,
    /// For people on this machine.
    Admin,
}

/// Where to listen. Port 0 takes a free one.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // as in Surface
pub struct Addresses {
    pub metrics: SocketAddr,
    pub ready: SocketAddr,
    pub admin: SocketAddr,
}

/// The endpoints while they are served; dropped, they are gone.
#[derive(Debug)]
pub struct Server {
    bound: Addresses,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the addresses and serves them from two threads of their own: a scrape of many series at the metrics
    /// address takes long, and neither requests nor probes at the readiness address wait for it.
    ///
    /// # Errors
    /// When an address can not be opened (the message names it) or a thread not started.
    pub fn start(addresses: Addresses, state: AdminState) -> io::Result<Self> {
        let metrics = bind("metrics", addresses.metrics)?;
        let ready = bind("readiness", addresses.ready)?;
        let admin = bind("admin", addresses.admin)?;
        let bound = Addresses {
            metrics: metrics.local_addr()?,
            ready: ready.local_addr()?,
            admin: admin.local_addr()?,
        };
        if !bound.admin.ip().is_loopback() {
            tracing::warn!(address = %bound.admin, "the admin address is open to others; it shows the whole configuration");
        }
        let state = Arc::new(state);
        let mut server = Self {
            bound,
            stop: CancellationToken::new(),
            threads: Vec::new(),
        };
        let (scraped, stopped) = (state.clone(), server.stop.clone());
        server.thread("scrapes", async move {
            step_back();
            open(Surface::Metrics, metrics, &scraped);
            stopped.cancelled().await;
        })?;
        let stopped = server.stop.clone();
        server.thread("admin", async move {
            open(Surface::Ready, ready, &state);
            open(Surface::Admin, admin, &state);
            if let Some(idle) = state.metrics_idle {
                let of = state.clone();
                let snapshot = move || (of.snapshot)();
                tokio::spawn(forget_idle(state.registry.clone(), idle, snapshot));
            }
            stopped.cancelled().await;
        })?;
        Ok(server)
    }

    fn thread(
        &mut self,
        name: &str,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || runtime.block_on(serving))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The addresses as opened.
    pub fn addresses(&self) -> Addresses {
        self.bound
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // It has said itself why, if it panicked.
            let _ = thread.join();
        }
    }
}

fn bind(what: &str, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).or_else(|error| {
        // [::] takes both families; a machine without IPv6 has only the other.
        let no_ipv6 = address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse;
        if address.is_ipv6() && no_ipv6 {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        } else {
            Err(error)
        }
    });
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("{what} address {address}: {error}"))
    };
    let listener = listener.map_err(explain)?;
    listener.set_nonblocking(true).map_err(explain)?;
    Ok(listener)
}

fn open(surface: Surface, listener: std::net::TcpListener, state: &Arc<AdminState>) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            tokio::spawn(accept(surface, listener, state.clone()));
        }
        Err(error) => tracing::error!(?surface, %error, "an admin address is not served"),
    }
}

async fn accept(surface: Surface, listener: TcpListener, state: Arc<AdminState>) {
    let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = serve(surface, stream, peer, state.clone());
                tokio::spawn(async move {
                    // Cut without a word: the client is slow, or keeps a connection it does not use.
                    let _ = timeout(ADMIN_CONNECTION_TIMEOUT, connection).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would spin.
                tracing::warn!(?surface, %error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(surface: Surface, stream: TcpStream, peer: SocketAddr, state: Arc<AdminState>) {
    let loopback = peer.ip().to_canonical().is_loopback();
    let service = service_fn(|request| {
        let response = answer(&request, surface, loopback, &state);
        async move { Ok::<_, Infallible>(response.response().await) }
    });
    let outcome = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = outcome {
        tracing::debug!(?surface, %peer, %error, "admin connection ended");
    }
}
