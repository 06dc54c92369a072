//! A client of the flow API, for `cairn observe`. Shows nothing itself.

use anyhow::Context as _;
use http::Uri;
use http::uri::PathAndQuery;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{GetFlowsRequest, GetFlowsResponse};
use crate::dead_peer::Noticed;
use crate::grpc::Channel;
use crate::tls::{ApiClientFiles, connect_to_api};

/// Header block of an answer, for a tool that asks a server of its user's choice.
const ANSWER_HEADER_BYTES_MAX: u32 = 16 * 1024;

/// A connection.
pub struct Client(Grpc<Channel>);

impl Client {
    /// Connects to `HOST:PORT`, in TLS if `tls` says how.
    ///
    /// # Errors
    /// When nobody answers there, or not the one who is meant.
    pub async fn connect(server: &str, tls: Option<&ApiClientFiles>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server)
            .await
            .with_context(|| format!("connect to {server}"))?;
        let stream = Noticed::new(stream);
        let Some(tls) = tls else {
            return Self::over(stream, server).await;
        };
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = stream
            .within(|stream| connect_to_api(tls, host, stream))
            .await
            .with_context(|| format!("speak TLS with {server}"))?;
        Self::over(stream, server).await
    }

    async fn over<S>(stream: Noticed<S>, server: &str) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let sender = crate::grpc::connect(stream, ANSWER_HEADER_BYTES_MAX)
            .await
            .with_context(|| format!("speak HTTP/2 with {server}"))?;
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
