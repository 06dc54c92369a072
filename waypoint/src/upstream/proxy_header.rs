//! The header of the PROXY protocol, by which an endpoint is told first whose connection it is
//! (DestinationRule `proxyProtocol`, specs/istio-waypoint.md 4.7).

use std::io;
use std::net::SocketAddr;

use cairn_config_schema::snapshot::ProxyProtocol;
use ppp::{v1, v2};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Whose connection it is. Part of what makes two connections different: each client has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyHeader {
    /// The version of the protocol.
    pub version: ProxyProtocol,
    /// The client, and what it dialled. `None`: the connection is the waypoint's own.
    pub client: Option<(SocketAddr, SocketAddr)>,
}

impl ProxyHeader {
    /// Writes it, as the first bytes of a stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<()> {
        stream.write_all(&self.bytes()?).await?;
        stream.flush().await
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        match self.version {
            ProxyProtocol::V1 => {
                let addresses = self.client.map_or(v1::Addresses::Unknown, Into::into);
                Ok(addresses.to_string().into_bytes())
            }
            ProxyProtocol::V2 => {
                let (command, addresses) = match self.client {
                    Some(client) => (v2::Command::Proxy, client.into()),
                    None => (v2::Command::Local, v2::Addresses::Unspecified),
                };
                let protocol = match addresses {
                    v2::Addresses::Unspecified => v2::Protocol::Unspecified,
                    _ => v2::Protocol::Stream,
                };
                v2::Builder::with_addresses(v2::Version::Two | command, protocol, addresses).build()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: ProxyProtocol, from: &str, to: &str) -> Vec<u8> {
        let client = Some((from.parse().unwrap(), to.parse().unwrap()));
        ProxyHeader { version, client }.bytes().unwrap()
    }

    #[test]
    fn it_names_the_client_and_what_it_dialled() {
        let v1 = header(ProxyProtocol::V1, "10.0.0.1:4000", "10.96.0.1:80");
        assert_eq!(v1, b"PROXY TCP4 10.0.0.1 10.96.0.1 4000 80\r\n");
        let v1 = header(ProxyProtocol::V1, "[fd00::1]:4000", "[fd00::2]:80");
        assert_eq!(v1, b"PROXY TCP6 fd00::1 fd00::2 4000 80\r\n");
        let bytes = header(ProxyProtocol::V2, "10.0.0.1:4000", "10.96.0.1:80");
        let parsed = v2::Header::try_from(&bytes[..]).unwrap();
        assert_eq!(parsed.command, v2::Command::Proxy);
        let expected = v2::IPv4::new([10, 0, 0, 1], [10, 96, 0, 1], 4000, 80);
        assert_eq!(parsed.addresses, v2::Addresses::IPv4(expected));
    }

    #[test]
    fn the_waypoints_own_connections_name_nobody() {
        let own = |version| {
            ProxyHeader {
                version,
                client: None,
            }
            .bytes()
            .unwrap()
        };
        assert_eq!(own(ProxyProtocol::V1), b"PROXY UNKNOWN\r\n");
        let bytes = own(ProxyProtocol::V2);
        assert_eq!(
            v2::Header::try_from(&bytes[..]).unwrap().command,
            v2::Command::Local
        );
    }
}
