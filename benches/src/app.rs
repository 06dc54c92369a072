//! The application behind the proxy: the answers of every exchange, over HTTP/1.1 and HTTP/2.
//! Opens no sockets.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cell::grpc_message;
use crate::tunnel::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// An answer's body: one frame, then perhaps trailers.
pub struct Answer {
    bytes: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.bytes.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |b| b.len() as u64))
    }
}

static ZEROS: [u8; 65536] = [0; 65536];

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let mut status = StatusCode::OK;
    let mut trailers = None;
    let bytes = if let Some(count) = path.strip_prefix("/bytes/") {
        let count = count.parse::<usize>().unwrap_or_default();
        Bytes::from_static(ZEROS.get(..count).unwrap_or(&ZEROS))
    } else if path == "/v1/traces" {
        // As a collector of OTLP that takes everything.
        drain(body).await?;
        Bytes::new()
    } else if path == "/sink" {
        drain(body).await?;
        Bytes::from_static(b"ok")
    } else if path == "/bench.Echo/Unary" {
        drain(body).await?;
        trailers = Some(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]));
        grpc_message()
    } else {
        status = StatusCode::NOT_FOUND;
        Bytes::new()
    };
    let is_grpc = trailers.is_some();
    let mut response = Response::new(Answer {
        bytes: Some(bytes),
        trailers,
    });
    *response.status_mut() = status;
    if is_grpc {
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
    }
    Ok(response)
}

async fn drain(mut body: Incoming) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Spawns on the current `LocalSet`.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves one connection until it ends. A broken one ends in silence: the client counts it.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + 'static, http2: bool) {
    let io = TokioIo::new(io);
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(1000)
            .serve_connection(io, service_fn(answer))
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service_fn(answer))
            .await;
    }
}
