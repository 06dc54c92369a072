//! The sockets behind the proxy: the application over plain TCP, and a destination tunnel that
//! answers inside its CONNECT streams, so that the load side costs as little as it can.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use http::{Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use crate::app::serve;
use crate::tunnel::{CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES, TunnelStream};

/// Where the destination tunnel's workload lives; the tunnel listens on the same address.
pub const TUNNEL_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Where the plain workload lives.
pub const PLAIN_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Port of the tunnelled workload that speaks HTTP/1.1. Nothing listens there.
pub const TUNNEL_HTTP_PORT: u16 = 8080;
/// Port of the tunnelled workload that speaks HTTP/2. Nothing listens there.
pub const TUNNEL_GRPC_PORT: u16 = 8090;

/// Where a backend listens, as it prints it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP/1.1 over plain TCP.
    pub plain_http: SocketAddr,
    /// HTTP/2 over plain TCP.
    pub plain_grpc: SocketAddr,
    /// The destination tunnel.
    pub tunnel: SocketAddr,
}

/// Listens and returns where; serving goes on on the current `LocalSet` until it is dropped.
pub async fn listen(identity_folder: &Path) -> anyhow::Result<Addresses> {
    let tls = crate::tls::server(identity_folder)?;
    let bind = |ip: IpAddr| async move {
        TcpListener::bind((ip, 0))
            .await
            .with_context(|| format!("can not listen on {ip}"))
    };
    let (http, grpc, tunnel) = (
        bind(PLAIN_IP).await?,
        bind(PLAIN_IP).await?,
        bind(TUNNEL_IP).await?,
    );
    let addresses = Addresses {
        plain_http: http.local_addr()?,
        plain_grpc: grpc.local_addr()?,
        tunnel: tunnel.local_addr()?,
    };
    spawn_local(accept(http, |tcp| serve(tcp, false)));
    spawn_local(accept(grpc, |tcp| serve(tcp, true)));
    spawn_local(accept(tunnel, move |tcp| terminate(tcp, tls.clone())));
    Ok(addresses)
}

async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                // Without it small answers wait for the peer's delayed ACK.
                let _ = tcp.set_nodelay(true);
                spawn_local(serve(tcp));
            }
            // Out of file descriptors: let some connections end first.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn terminate(tcp: TcpStream, tls: Arc<ServerConfig>) {
    let Ok(tls) = TlsAcceptor::from(tls).accept(tcp).await else {
        return;
    };
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(200)
        .handshake(tls)
        .await;
    let Ok(mut connection) = handshake else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let Some(http2) = connect_port(&request).map(|port| port == TUNNEL_GRPC_PORT) else {
            let mut refusal = Response::new(());
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            let _ = respond.send_response(refusal, true);
            continue;
        };
        if let Ok(send) = respond.send_response(Response::new(()), false) {
            let stream = TunnelStream::new(send, request.into_body());
            spawn_local(serve(stream, http2));
        }
    }
}

/// The port of a CONNECT to the workload's address; `None` for anything else.
fn connect_port<T>(request: &Request<T>) -> Option<u16> {
    let authority = request.uri().authority()?;
    let here = authority.host().parse::<IpAddr>().ok()? == TUNNEL_IP;
    (request.method() == Method::CONNECT && here)
        .then(|| authority.port_u16())
        .flatten()
}
