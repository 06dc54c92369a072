//! CONNECT: what is asked of the other end of a tunnel, and the stream that comes of it.

use std::net::SocketAddr;

use bytes::Bytes;
use cairn_config_schema::snapshot::NetworkGateway;
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode};

use crate::tunnel_stream::TunnelStream;

/// What a CONNECT asks for (specs/istio-waypoint.md 2.3, 2.6).
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// The endpoint whose tunnel it is.
    Endpoint(SocketAddr),
    /// A service in another network, of its gateway and of whom that leads to.
    Service(&'a NetworkGateway),
}

/// Why there is no stream.
pub(super) enum StreamError {
    /// The tunnel broke.
    Tunnel(h2::Error),
    /// The other end answered so.
    Refused(StatusCode),
}

impl Asked<'_> {
    /// The endpoint that was asked for: behind a gateway nobody but the gateway is known.
    pub(super) fn endpoint(self, next_hop: SocketAddr) -> SocketAddr {
        match self {
            Self::Endpoint(address) => address,
            Self::Service(_) => next_hop,
        }
    }

    fn request(self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        let authority = match self {
            Self::Endpoint(address) => address.to_string(),
            Self::Service(gateway) => gateway.authority.to_string(),
        };
        // `ip:port` and `host:port` are always valid authorities; the default would be refused by the other end.
        *request.uri_mut() = http::Uri::builder()
            .authority(authority)
            .build()
            .unwrap_or_default();
        if let Self::Service(gateway) = self {
            let headers = request.headers_mut();
            // What a waypoint has decided no waypoint there has to decide again.
            headers.insert("x-istio-source", HeaderValue::from_static("waypoint"));
            if let Ok(network) = HeaderValue::from_str(&gateway.own_network) {
                headers.insert("x-forwarded-network", network);
            }
        }
        request
    }

    /// A new stream of a connection.
    pub(super) async fn stream(
        self,
        requests: &SendRequest<Bytes>,
    ) -> Result<TunnelStream, StreamError> {
        let ready = requests.clone().ready().await;
        let mut requests = ready.map_err(StreamError::Tunnel)?;
        let (response, send) = requests
            .send_request(self.request(), false)
            .map_err(StreamError::Tunnel)?;
        let response = response.await.map_err(StreamError::Tunnel)?;
        match response.status() {
            StatusCode::OK => Ok(TunnelStream::new(response.into_body(), send)),
            status => Err(StreamError::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_gateway_is_asked_for_the_service_and_told_who_asks() {
        let gateway = NetworkGateway {
            network: "net-2".into(),
            own_network: "net-1".into(),
            authority: "web.shop.svc.cluster.local:80".into(),
            identities: Arc::from([]),
            target_port: None,
        };
        let request = Asked::Service(&gateway).request();
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "web.shop.svc.cluster.local:80");
        assert_eq!(request.headers()["x-istio-source"], "waypoint");
        assert_eq!(request.headers()["x-forwarded-network"], "net-1");
        let pod = Asked::Endpoint("[fd00::1]:80".parse().unwrap()).request();
        assert_eq!(pod.uri(), "[fd00::1]:80");
        assert!(pod.headers().is_empty());
    }
}
