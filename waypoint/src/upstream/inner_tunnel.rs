//! A tunnel in a stream of another one: through the gateway of another network to whoever answers for the service there
//! (specs/istio-waypoint.md 2.6). It has one stream and no pool: with a pool all connections would end at one workload,
//! for it is by the outer stream that the gateway chooses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use cairn_config_schema::snapshot::NetworkGateway;
use tokio::sync::oneshot;

use super::asked::{Asked, StreamError};
use super::carrier::{Carrier, InnerStream};
use super::connector::ConnectError;
use crate::limits::{
    INNER_TUNNEL_CLOSE_TIMEOUT, TUNNEL_FRAME_BYTES_MAX, TUNNEL_STREAM_WINDOW_BYTES,
};
use crate::listener::tunnel::keepalive;
use crate::telemetry::counters;
use crate::tls::{self, Expected, LocalIdentity, TlsStream};

type Connection = h2::client::Connection<TlsStream<Carrier>, Bytes>;

/// A stream to a service behind the gateway at `address`, in a new tunnel in the stream `outer` of the tunnel to the
/// gateway.
///
/// # Errors
/// [`ConnectError`], as of the gateway: who is behind it is not known.
pub(super) async fn open(
    outer: Carrier,
    gateway: &NetworkGateway,
    address: SocketAddr,
    local: Arc<LocalIdentity>,
) -> Result<Carrier, ConnectError> {
    let Carrier::Tunnel { lease, .. } = &outer else {
        return Err(ConnectError::NoTunnel(address));
    };
    let underneath = lease.underneath();
    let expected = Expected::OneOf(gateway.identities.clone());
    let tls = tls::connect(local, expected, address, outer)
        .await
        .map_err(|error| ConnectError::Tls(address, error))?;
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_STREAM_WINDOW_BYTES)
        .max_frame_size(TUNNEL_FRAME_BYTES_MAX)
        .initial_max_send_streams(1)
        .enable_push(false)
        .handshake(tls)
        .await
        .map_err(|error| ConnectError::Tunnel(address, error))?;
    let (held, released) = oneshot::channel();
    tokio::spawn(carry(connection, address, released));
    match Asked::Service(gateway).stream(&requests).await {
        Ok(stream) => Ok(Carrier::Inner(Box::new(InnerStream {
            stream,
            underneath,
            _held: held,
        }))),
        Err(StreamError::Tunnel(error)) => Err(ConnectError::Tunnel(address, error)),
        Err(StreamError::Refused(status)) => Err(ConnectError::Refused(address, status)),
    }
}

/// Drives the connection. Once its one stream is given up what was written of it still goes out, for a while.
async fn carry(
    mut connection: Connection,
    gateway: SocketAddr,
    released: oneshot::Receiver<Infallible>,
) {
    let _counted = counters::INNER_TUNNELS.track();
    let ping_pong = connection.ping_pong();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => {
            tracing::debug!(%gateway, error = ?ended.err(), "inner tunnel ended");
            return;
        }
        () = keepalive(ping_pong) => {
            tracing::info!(%gateway, "inner tunnel answers no PING, dropped");
            return;
        }
        _ = released => {}
    }
    // Beyond that the outer stream is reset.
    let _ = tokio::time::timeout(INNER_TUNNEL_CLOSE_TIMEOUT, connection).await;
}
