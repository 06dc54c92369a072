//! Dials endpoints: over HBONE with the workload's identity pinned, or in plain text to a workload
//! that has no tunnel (specs/istio-waypoint.md 2.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{ClusterSettings, Endpoint, NetworkGateway};
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::asked::Asked;
use super::carrier::Carrier;
use super::egress::Egress;
use super::inner_tunnel;
use super::tunnel_pool::TunnelPool;
use cairn_kernel_redirect::is_of_slots;

use super::ProxyHeader;
use crate::listener::accept::tune;
use crate::tls::{Alpn, IdentitySource, Originate, Originations};

/// An endpoint as a thing to connect to. Two destinations are equal when their connections may be
/// shared: same address, same expected identity, same local identity, same service behind a gateway,
/// same pod they are for, same TLS inside, same client where the endpoint is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Pod IP and target port.
    pub address: SocketAddr,
    /// Whom the tunnel must end at; `None` is plain TCP.
    pub identity: Option<Identity>,
    /// It is the gateway of another network, and inside of its tunnel there is another one.
    pub gateway: Option<Arc<NetworkGateway>>,
    /// There must be a tunnel (`tls.mode: ISTIO_MUTUAL`).
    pub tunnel_only: bool,
    /// Epoch of the local identity.
    pub epoch: u64,
    /// The pod of this node it is for. Plain TCP leaves from its network namespace.
    pub egress: Option<Egress>,
    /// Whose connection it is, for the endpoint to know.
    pub proxy: Option<ProxyHeader>,
    /// TLS of our own, inside of all that.
    pub tls: Option<Originate>,
}

/// How an endpoint is to be reached, beside its address.
pub struct Reach<'a> {
    /// The pod of this node it is for.
    pub egress: Option<&'a Egress>,
    /// The settings of its cluster.
    pub settings: &'a ClusterSettings,
    /// What will be spoken.
    pub alpn: Alpn,
    /// The client and what it dialled. `None`: it is for the waypoint itself.
    pub client: Option<(SocketAddr, SocketAddr)>,
    /// The host of the request.
    pub host: Option<&'a str>,
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
    /// It is to be reached by its tunnel alone, and has none.
    #[error("{0} has no tunnel (HBONE), and tls.mode ISTIO_MUTUAL allows nothing else")]
    NoTunnel(SocketAddr),
    /// This end can not do it, whoever is there: no descriptor left, a file for TLS that can not be used.
    #[error("{0} was not asked: {1}")]
    Here(SocketAddr, #[source] std::io::Error),
}

impl ConnectError {
    /// A TCP connection that failed: by the other end, by what is between, or by this one.
    pub fn tcp(address: SocketAddr, error: std::io::Error) -> Self {
        match is_from_there(&error) {
            true => Self::Tcp(address, error),
            false => Self::Here(address, error),
        }
    }

    /// Whether nobody answered. An answer that is no good is none of that: a certificate that does not
    /// hold, a CONNECT that is denied, and whatever is our own fault.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Tcp(..) | Self::Timeout(..) => true,
            Self::Tls(_, error) => is_from_there(error),
            Self::Tunnel(_, error) => !error.is_library(),
            // The tunnel's end says so of the application behind it.
            Self::Refused(_, status) => status.is_server_error(),
            Self::Full(..) | Self::Own(_) | Self::NoTunnel(_) | Self::Here(..) => false,
        }
    }

    /// Whether it says nothing of the endpoint: our limits, our configuration, our machine.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Full(..) | Self::Own(_) | Self::NoTunnel(_) | Self::Here(..) => true,
            Self::Tcp(..)
            | Self::Timeout(..)
            | Self::Tls(..)
            | Self::Tunnel(..)
            | Self::Refused(..) => false,
        }
    }
}

/// Whether it is something that the other end, or the network before it, did or did not do. Anything else
/// is taken for ours.
fn is_from_there(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            // Reset before this end could ask who it is.
            | Kind::NotConnected
    )
}

/// Dials for one worker.
pub struct Dialer {
    tunnels: TunnelPool,
    identity: Arc<IdentitySource>,
    hbone_port: u16,
    tcp: Arc<TcpDialer>,
    originations: Arc<Originations>,
}

/// Makes TCP connections, but never to this process: whatever the configuration declares, nobody
/// may reach the admin port through the waypoint, nor make it talk to itself.
#[derive(Debug)]
pub struct TcpDialer {
    pub(super) own_ports: Arc<[SocketAddr]>,
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
        let failed = |e| ConnectError::tcp(address, e);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // This host's other addresses are known only now: both ends are the same.
        let (local, there) = (stream.local_addr(), stream.peer_addr());
        let (local, there) = (local.map_err(failed)?, there.map_err(failed)?);
        if self.is_own(address, Some(local)) || self.is_own(there, Some(local)) {
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
        let stream = connected.map_err(|e| ConnectError::tcp(address, e))?;
        let _ = tune(&stream);
        Ok(stream)
    }

    fn is_own(&self, address: SocketAddr, local: Option<SocketAddr>) -> bool {
        let ip = address.ip().to_canonical();
        // 0.0.0.0 and [::] lead to the loopback of this machine.
        let is_this_machine = ip.is_loopback() || ip.is_unspecified();
        let is_local = |l: SocketAddr| l.ip().to_canonical() == ip;
        let here = is_this_machine || local.is_some_and(is_local);
        self.own_ports.iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            let of_machine = ip.is_unspecified() && own_ip.is_loopback();
            let listens_there = own_ip == ip || (own_ip.is_unspecified() && here) || of_machine;
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
        originations: Arc<Originations>,
    ) -> Self {
        let tcp = Arc::new(TcpDialer { own_ports });
        Self {
            tunnels: TunnelPool::new(tcp.clone()),
            identity,
            hbone_port,
            tcp,
            originations,
        }
    }

    /// The destination of an endpoint under the identity in force.
    pub fn destination(&self, endpoint: &Endpoint, reach: &Reach<'_>) -> Destination {
        let settings = reach.settings;
        let tls = settings.tls.as_ref();
        let proxy = settings.proxy_protocol;
        Destination {
            address: endpoint.address,
            identity: endpoint.hbone_identity().cloned(),
            gateway: endpoint.gateway.clone(),
            tunnel_only: settings.tunnel_only,
            epoch: self.identity.borrow().epoch,
            egress: reach.egress.cloned(),
            proxy: proxy.map(|version| ProxyHeader {
                version,
                client: reach.client,
            }),
            tls: tls.map(|tls| self.originations.get(tls, reach.alpn, reach.host)),
        }
    }

    /// The TCP address a destination is reached through.
    pub fn next_hop(&self, destination: &Destination) -> SocketAddr {
        match (&destination.identity, &destination.gateway) {
            (Some(_), None) => SocketAddr::new(destination.address.ip(), self.hbone_port),
            // Of a gateway it is the port of its tunnels that is told.
            (_, Some(_)) | (None, None) => destination.address,
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
        if let Some(why) = destination.tls.as_ref().and_then(Originate::unusable) {
            let why = std::io::Error::other(why.to_string());
            return Err(ConnectError::Here(destination.address, why));
        }
        let dialled = async {
            let carrier = match &destination.identity {
                Some(identity) => {
                    let local = self.identity.current();
                    let gateway = destination.gateway.as_deref();
                    let endpoint = Asked::Endpoint(destination.address);
                    let asked = gateway.map_or(endpoint, Asked::Service);
                    let tunnels = &self.tunnels;
                    let outer = tunnels.open(next_hop, identity, local.clone(), asked, limit);
                    match gateway {
                        None => outer.await?,
                        // Boxed: few requests go there, and all would have a larger future.
                        Some(gateway) => {
                            let inner = inner_tunnel::open(outer.await?, gateway, next_hop, local);
                            Box::pin(inner).await?
                        }
                    }
                }
                None if destination.tunnel_only || destination.gateway.is_some() => {
                    return Err(ConnectError::NoTunnel(next_hop));
                }
                None => {
                    let tcp = match &destination.egress {
                        Some(egress) => self.tcp.connect_from(egress, next_hop).await,
                        None => self.tcp.connect(next_hop).await,
                    };
                    Carrier::Plain(tcp?)
                }
            };
            dress(carrier, destination).await
        };
        timeout(limit, dialled)
            .await
            .unwrap_or(Err(ConnectError::Timeout(next_hop, limit.as_millis())))
    }
}

/// What the endpoint gets before the first byte of the client: the PROXY header, then TLS.
async fn dress(mut carrier: Carrier, destination: &Destination) -> Result<Carrier, ConnectError> {
    let address = destination.address;
    if let Some(header) = &destination.proxy {
        let written = header.write(&mut carrier).await;
        written.map_err(|e| ConnectError::tcp(address, e))?;
    }
    match &destination.tls {
        None => Ok(carrier),
        Some(tls) => match tls.connect(carrier).await {
            Ok(stream) => Ok(Carrier::Tls(Box::new(stream))),
            Err(error) => Err(ConnectError::Tls(address, error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/security.md: never Cairn's own ports, however their address is written.
    #[tokio::test]
    async fn own_ports_are_refused_by_every_name_of_this_machine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let dialer = TcpDialer {
            own_ports: Arc::from([own]),
        };
        for address in ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
            let address = SocketAddr::new(address.parse().unwrap(), own.port());
            let refused = dialer.connect(address).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Own(_)), "{address}");
        }
    }

    /// Only the silence of the other end lets a provider fail open (docs/ext-authz.md), and says something
    /// of an endpoint.
    #[test]
    fn what_is_the_matter_here_is_not_the_other_ends_silence() {
        use std::io::{Error, ErrorKind};
        let there: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let tcp = |error| ConnectError::tcp(there, error);
        let tls = |error| ConnectError::Tls(there, error);
        let refused = |status| ConnectError::Refused(there, status);
        let out_of_descriptors = Error::from_raw_os_error(nix::libc::EMFILE);
        let out_of_ports = Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL);
        let bad_certificate = Error::new(ErrorKind::InvalidData, "UnknownIssuer");
        for (error, silence, ours) in [
            (tcp(ErrorKind::ConnectionRefused.into()), true, false),
            (tcp(ErrorKind::HostUnreachable.into()), true, false),
            (tcp(ErrorKind::NotConnected.into()), true, false),
            (ConnectError::Timeout(there, 1), true, false),
            (tls(ErrorKind::UnexpectedEof.into()), true, false),
            (refused(StatusCode::SERVICE_UNAVAILABLE), true, false),
            (tls(bad_certificate), false, false),
            (refused(StatusCode::UNAUTHORIZED), false, false),
            (tcp(out_of_descriptors), false, true),
            (tcp(out_of_ports), false, true),
            (ConnectError::Full(there, 1), false, true),
            (ConnectError::Own(there), false, true),
            (ConnectError::NoTunnel(there), false, true),
        ] {
            assert_eq!(error.is_silence(), silence, "{error}");
            assert_eq!(error.is_ours(), ours, "{error}");
        }
    }

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
        assert!(matches!(elsewhere, ConnectError::Here(..)), "{elsewhere}");
    }
}
