//! The socket of the flow API and the thread it is served from: HTTP/2, in TLS if there is a certificate for
//! it; without, as the `hubble` command dials it unless told otherwise.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::flows::Teller;
use super::service::{Observer, Place};
use crate::limits::{
    HUBBLE_CALLS_PER_CONNECTION_MAX, HUBBLE_CONNECTIONS_MAX, HUBBLE_PREFACE_TIMEOUT, PING_INTERVAL,
    PING_TIMEOUT,
};
use crate::telemetry::flow::Ring;
use crate::tls::ApiTls;

/// How often the files of TLS are looked at.
const FILES_POLL: Duration = Duration::from_secs(1);

/// Bytes that every client of HTTP/2 sends first.
const PREFACE_BYTES: usize = 24;

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
    pub fn start(
        address: SocketAddr,
        tls: Option<ApiTls>,
        ring: Arc<Ring>,
        teller: Arc<Teller>,
    ) -> io::Result<Self> {
        let explain =
            |error: io::Error| io::Error::new(error.kind(), format!("flow API {address}: {error}"));
        let listener = std::net::TcpListener::bind(address).map_err(explain)?;
        listener.set_nonblocking(true).map_err(explain)?;
        let address = listener.local_addr()?;
        let tls = tls.map(Arc::new);
        let knows_its_clients = tls.as_ref().is_some_and(|tls| tls.knows_its_clients());
        if !address.ip().is_loopback() && !knows_its_clients {
            tracing::warn!(%address, "the flow API is open to others; it shows who talks to whom, with paths");
        }
        let place = Place {
            address: reachable(address).to_string(),
            tls: tls.clone(),
        };
        let observer = Observer::new(ring, teller, place);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || {
            runtime.block_on(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let serving = async {
                            tokio::select! {
                                () = accept(listener, observer, tls.clone()) => {}
                                () = follow_files(tls) => {}
                            }
                        };
                        stopped.run_until_cancelled_owned(serving).await;
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

/// Where others reach it: an address that stands for all of them is none to dial, so the pod's is said.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Kubernetes' usual name for it, and Istio's.
    let said = ["POD_IP", "INSTANCE_IP"].map(std::env::var);
    let pod = said.into_iter().flatten().find_map(|ip| ip.parse().ok());
    SocketAddr::new(pod.unwrap_or(address.ip()), address.port())
}

/// Looks at the files of TLS again and again: what changed is for connections to come.
async fn follow_files(tls: Option<Arc<ApiTls>>) {
    let Some(tls) = tls else {
        return std::future::pending().await;
    };
    let mut last_error = String::new();
    loop {
        tokio::time::sleep(FILES_POLL).await;
        let words = match tls.reload() {
            Ok(changed) => {
                if changed {
                    tracing::info!(
                        "the certificate of the flow API changed, in force for new connections"
                    );
                }
                String::new()
            }
            Err(error) => error.to_string(),
        };
        if !words.is_empty() && words != last_error {
            tracing::error!(error = %words, "the files of the flow API can not be loaded, the last good ones stay in force");
        }
        last_error = words;
    }
}

async fn accept(listener: TcpListener, observer: Observer, tls: Option<Arc<ApiTls>>) {
    let room = Arc::new(Semaphore::new(HUBBLE_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = greet(stream, peer, observer.clone(), tls.clone());
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

/// The handshake, if there is to be one, then the calls.
async fn greet(stream: TcpStream, peer: SocketAddr, observer: Observer, tls: Option<Arc<ApiTls>>) {
    // A small message must not wait for the answer to the one before.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return serve(stream, peer, observer).await;
    };
    match timeout(HUBBLE_PREFACE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, observer).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with a client of the flow API"),
        Err(_) => tracing::debug!(%peer, "a connection to the flow API did not begin"),
    }
}

async fn serve<S>(mut stream: S, peer: SocketAddr, observer: Observer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Pings end a connection that falls silent, but only once it speaks HTTP/2 (RFC 9113 3.4).
    let mut preface = [0; PREFACE_BYTES];
    match timeout(HUBBLE_PREFACE_TIMEOUT, stream.read_exact(&mut preface)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => {
            tracing::debug!(%peer, "a connection to the flow API did not begin");
            return;
        }
    }
    let (reader, writer) = tokio::io::split(stream);
    let begun = io::Cursor::new(preface).chain(reader);
    let stream = tokio::io::join(begun, writer);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hubble::Redaction;

    /// As many as there is room for would keep everybody else out.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_silent, (stream, peer)) = (client.unwrap(), accepted.unwrap());
        let teller = Arc::new(Teller::new(Redaction::default()));
        let observer = Observer::new(Arc::new(Ring::new(4)), teller, Place::default());
        let served = timeout(Duration::from_secs(60), serve(stream, peer, observer)).await;
        assert!(served.is_ok(), "it is still open");
    }
}
