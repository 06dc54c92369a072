//! The socket of the flow API and the thread it is served from: HTTP/2 without TLS, as the `hubble` command
//! dials it unless told otherwise.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::flows::Teller;
use crate::limits::{
    HUBBLE_CALLS_PER_CONNECTION_MAX, HUBBLE_CONNECTIONS_MAX, PING_INTERVAL, PING_TIMEOUT,
};
use crate::telemetry::flow::Ring;

/// The flow API while it is served; dropped, it is gone.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the address and serves the records of a ring from a thread of its own.
    ///
    /// # Errors
    /// When the address can not be opened (the message names it) or the thread not started.
    pub fn start(address: SocketAddr, ring: Arc<Ring>, teller: Arc<Teller>) -> io::Result<Self> {
        let explain =
            |error: io::Error| io::Error::new(error.kind(), format!("flow API {address}: {error}"));
        let listener = std::net::TcpListener::bind(address).map_err(explain)?;
        listener.set_nonblocking(true).map_err(explain)?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the flow API is open to others; it shows who talks to whom, with paths");
        }
        let observer = Observer::new(ring, teller, &address.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || {
            runtime.block_on(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        stopped
                            .run_until_cancelled_owned(accept(listener, observer))
                            .await;
                    }
                    Err(error) => tracing::error!(%error, "the flow API is not served"),
                }
            })
        };
        let thread = std::thread::Builder::new()
            .name("hubble".into())
            .spawn(serve)?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// The address as opened.
    pub fn address(&self) -> SocketAddr {
        self.address
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

async fn accept(listener: TcpListener, observer: Observer) {
    let room = Arc::new(Semaphore::new(HUBBLE_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = serve(stream, peer, observer.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would spin.
                tracing::warn!(%error, "a connection to the flow API could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, observer: Observer) {
    // A small message must not wait for the answer to the one before.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let observer = observer.clone();
        async move { Ok::<_, Infallible>(observer.answer(request).await) }
    });
    let outcome = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HUBBLE_CALLS_PER_CONNECTION_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "connection to the flow API ended");
    }
}
