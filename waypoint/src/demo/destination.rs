//! The tunnel in front of a pod, as a node's ztunnel is one: takes CONNECT to the pod's own address and
//! passes bytes on. It asks no policy; its peers are verified by TLS alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cairn_config_schema::snapshot::Mesh;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Background;
use super::app::accept;
use crate::limits::{
    TUNNEL_CONNECTION_WINDOW_BYTES, TUNNEL_FRAME_BYTES_MAX, TUNNEL_STREAM_WINDOW_BYTES,
};
use crate::tls::{Acceptor, IdentityFiles, IdentitySource};
use crate::tunnel_stream::TunnelStream;

/// A running tunnel. Dropped, it stops listening and everything in it is cut.
#[derive(Debug)]
pub struct DestinationTunnel {
    address: SocketAddr,
    _running: Background,
}

impl DestinationTunnel {
    /// Listens on `address` with the identity in `identity_dir`. Peers are workloads of the default
    /// trust domain, `cluster.local`.
    ///
    /// # Errors
    /// When the address can not be listened on or the identity not be loaded.
    pub async fn start(address: SocketAddr, identity_dir: &Path) -> anyhow::Result<Self> {
        let identity = IdentitySource::load(&IdentityFiles {
            dir: identity_dir.to_owned(),
        })?;
        let acceptor = Acceptor::new(&identity, Arc::new(ArcSwap::from_pointee(Mesh::default())))?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let running = Background::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let tcp = accept(&listener).await;
                connections.spawn(serve(tcp, acceptor.clone(), address));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            _running: running,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(tcp: TcpStream, acceptor: Acceptor, own: SocketAddr) {
    let Ok((tls, _peer)) = acceptor.accept(tcp).await else {
        return;
    };
    let handshake = h2::server::Builder::new()
        .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW_BYTES)
        .max_frame_size(TUNNEL_FRAME_BYTES_MAX)
        .handshake::<_, Bytes>(tls);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        streams.spawn(pass_on(request, respond, own));
        while streams.try_join_next().is_some() {}
    }
}

/// One CONNECT. A peer that goes away in the middle needs no answer, hence the ignored results.
async fn pass_on(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, own: SocketAddr) {
    let mut answer = Response::new(());
    let asked = request
        .uri()
        .authority()
        .and_then(|a| a.as_str().parse::<SocketAddr>().ok());
    let Some(pod) = asked.filter(|a| a.ip() == own.ip() && request.method() == Method::CONNECT)
    else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        let _ = respond.send_response(answer, true);
        return;
    };
    let Ok(mut app) = TcpStream::connect(pod).await else {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let _ = respond.send_response(answer, true);
        return;
    };
    let _ = app.set_nodelay(true);
    let Ok(send) = respond.send_response(answer, false) else {
        return;
    };
    let mut stream = TunnelStream::new(request.into_body(), send);
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut app).await;
}
