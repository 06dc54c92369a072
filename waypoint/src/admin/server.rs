//! The sockets of the endpoints and the thread they are served from. What is answered is in
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
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the addresses and serves them from a thread of its own.
    ///
    /// # Errors
    /// When an address can not be opened (the message names it) or the thread not started.
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
        let listeners = [
            (Surface::Metrics, metrics),
            (Surface::Ready, ready),
            (Surface::Admin, admin),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || runtime.block_on(serve_all(listeners, Arc::new(state), stopped));
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(serve)?;
        Ok(Self {
            bound,
            stop,
            thread: Some(thread),
        })
    }

    /// The addresses as opened.
    pub fn addresses(&self) -> Addresses {
        self.bound
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
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

async fn serve_all(
    listeners: [(Surface, std::net::TcpListener); 3],
    state: Arc<AdminState>,
    stop: CancellationToken,
) {
    for (surface, listener) in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                tokio::spawn(accept(surface, listener, state.clone()));
            }
            Err(error) => tracing::error!(?surface, %error, "an admin address is not served"),
        }
    }
    if let Some(idle) = state.metrics_idle {
        let of = state.clone();
        let snapshot = move || (of.snapshot)();
        tokio::spawn(forget_idle(state.registry.clone(), idle, snapshot));
    }
    stop.cancelled().await;
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
