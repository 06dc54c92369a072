//! A client of the flow API, for `cairn observe`. Shows nothing itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{GetFlowsRequest, GetFlowsResponse};
use crate::limits::{PING_INTERVAL, PING_TIMEOUT};

/// A connection.
pub struct Client(Grpc<Channel>);

impl Client {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(server: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server)
            .await
            .with_context(|| format!("connect to {server}"))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .with_context(|| format!("speak HTTP/2 with {server}"))?;
        // Its end is an error of the call that is under way.
        tokio::spawn(connection);
        let origin = Uri::builder()
            .scheme("http")
            .authority(server)
            .path_and_query("/")
            .build()?;
        Ok(Self(Grpc::with_origin(Channel(sender), origin)))
    }

    /// The flows that are asked for.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn flows(
        &mut self,
        request: GetFlowsRequest,
    ) -> Result<Streaming<GetFlowsResponse>, Status> {
        self.ready().await?;
        let codec: ProstCodec<GetFlowsRequest, GetFlowsResponse> = ProstCodec::default();
        let method = PathAndQuery::from_static("/observer.Observer/GetFlows");
        let request = tonic::Request::new(request);
        let response = self.0.server_streaming(request, method, codec).await?;
        Ok(response.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// The connection, as tonic wants it.
struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
