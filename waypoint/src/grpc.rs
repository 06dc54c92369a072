//! gRPC without tonic's transport: one HTTP/2 connection over a stream that is there, as tonic's clients want
//! it. Who is called, and what is said, is not known here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::limits::{PING_INTERVAL, PING_TIMEOUT};

/// One HTTP/2 connection as tonic wants it.
#[derive(Debug)]
pub struct Channel(pub SendRequest<Body>);

/// Begins HTTP/2. The connection is kept alive by PINGs and ends with its last sender; an error reaches
/// whoever waits for an answer.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect<S>(stream: S, header_bytes_max: u32) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connect_with_pings(stream, header_bytes_max, PING_INTERVAL).await
}

/// The same for a server that wants other PINGs.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect_with_pings<S>(
    stream: S,
    header_bytes_max: u32,
    every: Duration,
) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = Builder::new(TokioExecutor::new())
        .max_header_list_size(header_bytes_max)
        .timer(TokioTimer::new())
        .keep_alive_interval(every)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
