//! gRPC without tonic's transport: one HTTP/2 connection over a stream that is there, as tonic's clients want
//! it. Who is called, and what is said, is not known here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::limits::{GRPC_PING_INTERVAL, PING_TIMEOUT};

/// One HTTP/2 connection as tonic wants it.
#[derive(Debug)]
pub struct Channel(pub SendRequest<Body>);

/// Begins HTTP/2. The connection ends with its last sender; an error reaches whoever waits for an answer. It sends no
/// PINGs, for a server may allow one in five minutes alone; whoever made the stream lets TCP notice who is dead.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect<S>(stream: S, header_bytes_max: u32) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    begin(&mut builder(header_bytes_max), stream).await
}

/// As [`connect`], with PINGs while a stream is open, which notice a server that hangs, too. For servers that are known
/// to allow them.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect_with_pings<S>(
    stream: S,
    header_bytes_max: u32,
) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = builder(header_bytes_max);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(GRPC_PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    begin(&mut builder, stream).await
}

fn builder(header_bytes_max: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.max_header_list_size(header_bytes_max);
    builder
}

async fn begin<S>(builder: &mut Builder<TokioExecutor>, stream: S) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = builder.handshake(TokioIo::new(stream));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use hyper::client::conn::http2::SendRequest;
    use tokio::time::Instant;
    use tonic::body::Body;

    use super::{connect, connect_with_pings};
    use crate::http2_peer;

    /// When PINGs come on the connection in 5 minutes of a stream on which nobody says anything.
    async fn pings_of_a_quiet_stream(
        connected: impl Future<Output = std::io::Result<SendRequest<Body>>>,
        theirs: tokio::io::DuplexStream,
    ) -> Vec<Instant> {
        let quiet = async {
            let request = Request::get("http://istiod/").body(Body::empty()).unwrap();
            let answer = connected.await.unwrap().send_request(request).await;
            panic!("nobody answers: {answer:?}");
        };
        tokio::select! {
            () = quiet => Vec::new(),
            pings = http2_peer::pings(theirs, Duration::from_secs(300)) => pings,
        }
    }

    /// istiod ends a connection with a quiet stream that pings more often than every 15 s, as Istio's proxies, which
    /// do it every 30 s, do not.
    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_is_kept_alive_and_istiod_is_not_pestered() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let pings = pings_of_a_quiet_stream(connect_with_pings(ours, 4096), theirs).await;
        let between: Vec<_> = pings.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(between.len() > 5, "{between:?}");
        let allowed = Duration::from_secs(15)..Duration::from_secs(60);
        assert!(between.iter().all(|b| allowed.contains(b)), "{between:?}");
    }

    /// By default a gRPC server allows one PING in 5 minutes.
    #[tokio::test(start_paused = true)]
    async fn a_server_of_unknown_patience_is_not_pinged() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let pings = pings_of_a_quiet_stream(connect(ours, 4096), theirs).await;
        assert_eq!(pings.len(), 0, "{pings:?}");
    }
}
