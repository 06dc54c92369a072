//! The listening socket of one worker: accepts under limits, does TLS, hands over to `tunnel`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::tunnel;
use crate::limits::{CONNECTIONS_PER_WORKER_MAX, HANDSHAKE_TIMEOUT};
use crate::log::Seldom;
use crate::telemetry::counters;
use crate::telemetry::exchange::Peer;
use crate::tls::Acceptor;
use crate::worker::Worker;

/// Why a connection did not become a tunnel: labels of `cairn_handshake_failed_total`.
pub const FAILURES: [&str; 3] = [CONNECTION_LIMIT, TLS, TIMEOUT];
const CONNECTION_LIMIT: &str = "connection_limit";
const TLS: &str = "tls";
const TIMEOUT: &str = "timeout";

/// A listening socket that shares its port with those of the other workers.
///
/// # Errors
/// When the address is in use by another program, or not allowed.
pub fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 too, as users of Envoy expect.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts until the process ends.
pub async fn run(listener: TcpListener, acceptor: Acceptor, worker: Arc<Worker>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_PER_WORKER_MAX));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                static LINE: Seldom = Seldom::new();
                if let Some(kept_back) = LINE.due() {
                    tracing::warn!(%error, kept_back, "accept failed");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            worker.handshake_failed(CONNECTION_LIMIT);
            continue;
        };
        let (acceptor, worker) = (acceptor.clone(), worker.clone());
        tokio::spawn(async move {
            serve(stream, address, &acceptor, worker).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, acceptor: &Acceptor, worker: Arc<Worker>) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "socket options refused");
    }
    let _counted = counters::CONNECTIONS.track();
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok((tls, identity))) => {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            tunnel::serve(tls, Arc::new(Peer { identity, address }), worker).await;
        }
        Ok(Err(error)) => {
            static LINE: Seldom = Seldom::new();
            worker.handshake_failed(TLS);
            if let Some(kept_back) = LINE.due() {
                tracing::info!(%address, %error, kept_back, "TLS handshake refused");
            }
        }
        Err(_) => worker.handshake_failed(TIMEOUT),
    }
}

/// TCP_NODELAY, and keep-alive as ztunnel sets it (specs/istio-waypoint.md 2.1).
pub(crate) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(180))
        .with_interval(Duration::from_secs(180))
        .with_retries(9);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
