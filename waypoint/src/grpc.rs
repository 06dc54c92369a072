//! gRPC without tonic's transport: one HTTP/2 connection over a stream that is there, as tonic's clients want
//! it. Who is called, and what is said, is not known here.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::dead_peer::Noticed;
use crate::limits::{GRPC_PING_INTERVAL, PING_TIMEOUT};

/// One HTTP/2 connection as tonic wants it.
#[derive(Debug)]
pub struct Channel(pub SendRequest<Body>);

/// Whether a connection still takes requests. Those that it took go on.
#[derive(Clone, Debug)]
pub struct Leaving(watch::Receiver<()>);

impl Leaving {
    /// It takes none any more: the other end said so (GOAWAY), or it broke.
    pub fn is_now(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until it takes none any more.
    pub async fn wait(mut self) {
        // Nothing is ever sent.
        while self.0.changed().await.is_ok() {}
    }
}

/// Begins HTTP/2. The connection ends with its last sender, which is closed once the other end takes no more requests; an
/// error reaches whoever waits for an answer. It sends no PINGs, for a server may allow one in five minutes alone; who is dead is noticed by TCP.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect<S>(stream: Noticed<S>, header_bytes_max: u32) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, _) = connect_followed(stream, header_bytes_max).await?;
    Ok(sender)
}

/// As [`connect`], and tells when the other end takes no more requests.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect_followed<S>(
    stream: Noticed<S>,
    header_bytes_max: u32,
) -> io::Result<(SendRequest<Body>, Leaving)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    begin(builder(header_bytes_max), stream).await
}

/// As [`connect`], with PINGs while a stream is open, which notice a server that hangs, too. For servers that are known
/// to allow them.
///
/// # Errors
/// When the other end does not speak it.
pub async fn connect_with_pings<S>(
    stream: Noticed<S>,
    header_bytes_max: u32,
) -> io::Result<SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut builder, beside) = builder(header_bytes_max);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(GRPC_PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let (sender, _) = begin((builder, beside), stream).await?;
    Ok(sender)
}

fn builder(header_bytes_max: u32) -> (Builder<Beside>, Beside) {
    let beside = Beside::default();
    let mut builder = Builder::new(beside.clone());
    builder.max_header_list_size(header_bytes_max);
    (builder, beside)
}

async fn begin<S>(
    (builder, beside): (Builder<Beside>, Beside),
    stream: Noticed<S>,
) -> io::Result<(SendRequest<Body>, Leaving)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = builder.handshake(TokioIo::new(stream.into_inner()));
    let (sender, mut connection) = handshake.await.map_err(io::Error::other)?;
    let (taking, leaving) = watch::channel(());
    tokio::spawn(async move {
        let connection = poll_fn(|cx| {
            beside.0.register(cx.waker());
            Pin::new(&mut connection).poll(cx)
        });
        drop(connection.await);
        drop(taking);
    });
    Ok((sender, Leaving(leaving)))
}

/// Runs what a connection does beside taking requests: reading and writing. Hyper looks whether a GOAWAY came only when
/// the part that takes requests is polled, and that would be with the next request; here it is whenever something came.
#[derive(Clone, Debug, Default)]
struct Beside(Arc<AtomicWaker>);

impl<F> Executor<F> for Beside
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, beside: F) {
        let taking = self.0.clone();
        let mut beside = Box::pin(beside);
        tokio::spawn(poll_fn(move |cx| {
            let polled = beside.as_mut().poll(cx);
            taking.wake();
            polled.map(drop)
        }));
    }
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
    use crate::dead_peer::Noticed;
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
        let pings =
            pings_of_a_quiet_stream(connect_with_pings(Noticed::new(ours), 4096), theirs).await;
        let between: Vec<_> = pings.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(between.len() > 5, "{between:?}");
        let allowed = Duration::from_secs(15)..Duration::from_secs(60);
        assert!(between.iter().all(|b| allowed.contains(b)), "{between:?}");
    }

    /// By default a gRPC server allows one PING in 5 minutes.
    #[tokio::test(start_paused = true)]
    async fn a_server_of_unknown_patience_is_not_pinged() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let pings = pings_of_a_quiet_stream(connect(Noticed::new(ours), 4096), theirs).await;
        assert_eq!(pings.len(), 0, "{pings:?}");
    }
}
