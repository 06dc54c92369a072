//! Dials endpoints: over HBONE with the workload's identity pinned, or in plain text to a workload
//! that has no tunnel (specs/istio-waypoint.md 2.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::Endpoint;
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::carrier::Carrier;
use super::egress::Egress;
use super::tunnel_pool::TunnelPool;
use cairn_kernel_redirect::is_of_slots;

use crate::listener::accept::tune;
use crate::tls::IdentitySource;

/// An endpoint as a thing to connect to. Two destinations are equal when their connections may be
/// shared: same address, same expected identity, same local identity,
/// same pod they are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Pod IP and target port.
    pub address: SocketAddr,
    /// Whom the tunnel must end at; `None` is plain TCP.
    pub identity: Option<Identity>,
    /// Epoch of the local identity.
    pub epoch: u64,
    /// The pod of this node it is for. Plain TCP leaves from its network namespace.
    pub egress: Option<Egress>,
}

/// Why an endpoint was not reached. Nothing of a request was sent in any of these cases, so that
/// another endpoint may be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP connect failed.
    #[error("connect to {0}: {1}")]
    Tcp(SocketAddr, #[source] std::io::Error),
    /// The connect timeout passed (`meshConfig.connectTimeout`).
    #[error("connect to {0}: no answer within {1} ms")]
    Timeout(SocketAddr, u128),
    /// TLS failed; the message names the identity found when it is the wrong one.
    #[error("TLS with {0}: {1}")]
    Tls(SocketAddr, #[source] std::io::Error),
    /// The tunnel broke.
    #[error("tunnel to {0}: {1}")]
    Tunnel(SocketAddr, #[source] h2::Error),
    /// The other end refused the CONNECT.
    #[error("tunnel to {0}: CONNECT refused with {1}")]
    Refused(SocketAddr, StatusCode),
    /// Too many tunnels to this next hop.
    #[error("tunnel to {0}: all {1} tunnels are full")]
    Full(SocketAddr, usize),
    /// The endpoint is one of this waypoint's own ports.
    #[error("{0} is a port of this waypoint itself")]
    Own(SocketAddr),
}

/// Dials for one worker.
pub struct Dialer {
    tunnels: TunnelPool,
    identity: Arc<IdentitySource>,
    hbone_port: u16,
    tcp: Arc<TcpDialer>,
}

/// Makes TCP connections, but never to this process: whatever the configuration declares, nobody
/// may reach the admin port through the waypoint, nor make it talk to itself.
#[derive(Debug)]
pub struct TcpDialer {
    own_ports: Arc<[SocketAddr]>,
}

impl TcpDialer {
    /// A connection with the options of all our sockets.
    ///
    /// # Errors
    /// [`ConnectError::Tcp`], or [`ConnectError::Own`].
    pub async fn connect(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        if self.is_own(address, None) {
            return Err(ConnectError::Own(address));
        }
        let failed = |e| ConnectError::Tcp(address, e);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // This host's other addresses are known only now: both ends are the same.
        let local = stream.local_addr().map_err(failed)?;
        if self.is_own(address, Some(local)) {
            return Err(ConnectError::Own(address));
        }
        // Without the options the connection still works, only slower to notice a dead peer.
        let _ = tune(&stream);
        Ok(stream)
    }

    /// A connection from inside a pod. Loopback and the networks of the slots are refused there: it is
    /// where the pod's connections are steered to, so they would come back.
    ///
    /// # Errors
    /// [`ConnectError::Tcp`], or [`ConnectError::Own`].
    pub async fn connect_from(
        &self,
        egress: &Egress,
        address: SocketAddr,
    ) -> Result<TcpStream, ConnectError> {
        let ip = address.ip().to_canonical();
        if ip.is_loopback() || ip.is_unspecified() || is_of_slots(ip) {
            return Err(ConnectError::Own(address));
        }
        let connected = egress.connect(address).await;
        let stream = connected.map_err(|e| ConnectError::Tcp(address, e))?;
        let _ = tune(&stream);
        Ok(stream)
    }

    fn is_own(&self, address: SocketAddr, local: Option<SocketAddr>) -> bool {
        let here = address.ip().is_loopback() || local.is_some_and(|l| l.ip() == address.ip());
        self.own_ports.iter().any(|own| {
            let listens_there = own.ip() == address.ip() || (own.ip().is_unspecified() && here);
            own.port() == address.port() && listens_there
        })
    }
}

impl Dialer {
    /// A dialer. `hbone_port` is where endpoints listen for tunnels; `own_ports` are addresses of
    /// this process that are never dialled, whatever the configuration says.
    pub fn new(
        identity: Arc<IdentitySource>,
        hbone_port: u16,
        own_ports: Arc<[SocketAddr]>,
    ) -> Self {
        let tcp = Arc::new(TcpDialer { own_ports });
        Self {
            tunnels: TunnelPool::new(tcp.clone()),
            identity,
            hbone_port,
            tcp,
        }
    }

    /// The destination of an endpoint under the identity in force.
    pub fn destination(&self, endpoint: &Endpoint, egress: Option<&Egress>) -> Destination {
        Destination {
            address: endpoint.address,
            identity: endpoint.hbone_identity().cloned(),
            epoch: self.identity.borrow().epoch,
            egress: egress.cloned(),
        }
    }

    /// The TCP address a destination is reached through.
    pub fn next_hop(&self, destination: &Destination) -> SocketAddr {
        match destination.identity {
            Some(_) => SocketAddr::new(destination.address.ip(), self.hbone_port),
            None => destination.address,
        }
    }

    /// The pool of tunnels, for metrics and idle eviction.
    pub fn tunnels(&self) -> &TunnelPool {
        &self.tunnels
    }

    /// A new byte stream to an endpoint.
    ///
    /// # Errors
    /// [`ConnectError`]; another endpoint may be tried.
    pub async fn dial(
        &self,
        destination: &Destination,
        limit: Duration,
    ) -> Result<Carrier, ConnectError> {
        let next_hop = self.next_hop(destination);
        let dialled = async {
            match &destination.identity {
                Some(identity) => {
                    let local = self.identity.current();
                    self.tunnels
                        .open(next_hop, identity, local, destination.address)
                        .await
                }
                None => {
                    let tcp = match &destination.egress {
                        Some(egress) => self.tcp.connect_from(egress, next_hop).await,
                        None => self.tcp.connect(next_hop).await,
                    };
                    Ok(Carrier::Plain(tcp?))
                }
            }
        };
        timeout(limit, dialled)
            .await
            .unwrap_or(Err(ConnectError::Timeout(next_hop, limit.as_millis())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pods_connection_never_goes_to_its_own_listener() {
        let dialer = TcpDialer {
            own_ports: Arc::from([]),
        };
        let dial = async |address: &str| {
            let address = SocketAddr::new(address.parse().unwrap(), 15_001);
            dialer.connect_from(&Egress::nowhere(), address).await
        };
        for address in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "127.128.0.9",
            "::ffff:127.128.0.9",
            "fd63:6169:726e::9",
            "fd63:6169:726e::ffff:ffff",
        ] {
            let refused = dial(address).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Own(_)), "{address}");
        }
        let elsewhere = dial("10.0.0.1").await.unwrap_err();
        assert!(matches!(elsewhere, ConnectError::Tcp(..)), "{elsewhere}");
    }
}
