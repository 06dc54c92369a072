//! A client that speaks HBONE: for `cairn request`, the demo, tests and measurements. One tunnel, any
//! number of streams, HTTP over them. It retries nothing and pools nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cairn_config_schema::identity::Identity;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::limits::{
    TUNNEL_CONNECTION_WINDOW_BYTES, TUNNEL_FRAME_BYTES_MAX, TUNNEL_STREAM_WINDOW_BYTES,
};
use crate::tls::{self, LocalIdentity};
use crate::tunnel_stream::TunnelStream;

/// Why there is no tunnel, no stream or no answer. None of them says that the request had an effect,
/// except [`ClientError::Http`], which leaves it open.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection.
    #[error("can not connect to {address}: {error}")]
    Connect {
        /// The tunnel's server.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No TLS session: a certificate was refused, on either side.
    #[error("TLS with {address}: {error}")]
    Tls {
        /// The tunnel's server.
        address: SocketAddr,
        /// What went wrong.
        error: io::Error,
    },
    /// The server is somebody else.
    #[error("the server is {found}, expected {expected}")]
    OtherServer {
        /// Who it is.
        found: Identity,
        /// Who it should be.
        expected: Identity,
    },
    /// The tunnel broke. A server that refuses a client certificate is noticed here: in TLS 1.3 the
    /// client's handshake is over by then.
    #[error("the tunnel broke: {0}")]
    Tunnel(#[source] h2::Error),
    /// The authority is not one.
    #[error("{0} is not HOST:PORT")]
    Authority(String),
    /// The server answered CONNECT with another status than 200.
    #[error("CONNECT {authority} was refused with status {status}")]
    Refused {
        /// What was asked for.
        authority: String,
        /// The answer.
        status: StatusCode,
    },
    /// HTTP inside the tunnel failed.
    #[error("HTTP inside the tunnel: {0}")]
    Http(#[source] hyper::Error),
}

/// One HBONE connection. Streams opened before it is dropped end with it.
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    server: Identity,
    connection: AbortHandle,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Tunnel {
    /// Connects with TLS 1.3 and HTTP/2 as a ztunnel would. With `expected` the server must be that
    /// workload, otherwise any of the mesh will do.
    ///
    /// # Errors
    /// [`ClientError`] up to `Tunnel`.
    pub async fn connect(
        address: SocketAddr,
        local: Arc<LocalIdentity>,
        expected: Option<&Identity>,
    ) -> Result<Self, ClientError> {
        let connect = |error| ClientError::Connect { address, error };
        let tcp = TcpStream::connect(address).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let (tls, server) = tls::connect_to_any(local, address, tcp)
            .await
            .map_err(|error| ClientError::Tls { address, error })?;
        if let Some(expected) = expected.filter(|expected| **expected != server) {
            return Err(ClientError::OtherServer {
                found: server,
                expected: expected.clone(),
            });
        }
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(TUNNEL_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW_BYTES)
            .max_frame_size(TUNNEL_FRAME_BYTES_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(tls)
            .await
            .map_err(ClientError::Tunnel)?;
        // Its error reaches whoever waits for a stream.
        let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self {
            requests,
            server,
            connection,
        })
    }

    /// Who is at the other end.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// Opens a stream to `authority`, `ip:port` or `hostname:port`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the server answers, `Tunnel` when it does not.
    pub async fn open(&self, authority: &str) -> Result<TunnelStream, ClientError> {
        let no_authority = || ClientError::Authority(authority.to_owned());
        let parsed: http::uri::Authority = authority.parse().map_err(|_| no_authority())?;
        if parsed.port().is_none() {
            return Err(no_authority());
        }
        let uri = Uri::builder()
            .authority(parsed)
            .build()
            .map_err(|_| no_authority())?;
        let mut connect = Request::new(());
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = uri;
        *connect.version_mut() = Version::HTTP_2;
        let mut requests = self
            .requests
            .clone()
            .ready()
            .await
            .map_err(ClientError::Tunnel)?;
        let (response, send) = requests
            .send_request(connect, false)
            .map_err(ClientError::Tunnel)?;
        let response = response.await.map_err(ClientError::Tunnel)?;
        match response.status() {
            StatusCode::OK => Ok(TunnelStream::new(response.into_body(), send)),
            status => Err(ClientError::Refused {
                authority: authority.to_owned(),
                status,
            }),
        }
    }
}

/// An HTTP connection over any byte stream.
pub enum HttpClient {
    /// HTTP/1.1 with keep-alive.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2 with prior knowledge.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl HttpClient {
    /// Speaks HTTP/1.1, or HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// [`ClientError::Http`].
    pub async fn over<S>(stream: S, http2: bool) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        if http2 {
            let (send, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(ClientError::Http)?;
            tokio::spawn(async move { drop(connection.await) });
            Ok(Self::Http2(send))
        } else {
            let (send, connection) = http1::handshake(io).await.map_err(ClientError::Http)?;
            tokio::spawn(async move { drop(connection.await) });
            Ok(Self::Http1(send))
        }
    }

    /// Sends one request and gives the answer as soon as its header is there.
    ///
    /// # Errors
    /// [`ClientError::Http`]: the server may have seen the request.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        match self {
            Self::Http1(send) => {
                send.ready().await.map_err(ClientError::Http)?;
                send.send_request(request).await
            }
            Self::Http2(send) => {
                send.ready().await.map_err(ClientError::Http)?;
                send.send_request(request).await
            }
        }
        .map_err(ClientError::Http)
    }

    /// [`HttpClient::send`], and the whole body.
    ///
    /// # Errors
    /// [`ClientError::Http`]: the server may have seen the request.
    pub async fn fetch(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await.map_err(ClientError::Http)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
