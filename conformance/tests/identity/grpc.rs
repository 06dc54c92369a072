//! gRPC methods of a test's server: a closure that answers. Knows no method.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

/// Serves one connection; each request is a call, answered by `answer`.
pub async fn serve<S, F>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // It ends when the client has what it wanted, or goes away.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// A method as tonic wants it.
pub struct Method<F>(pub F);

impl<Q, A, F> Service<tonic::Request<Q>> for Method<F>
where
    F: FnMut(tonic::Request<Q>) -> Result<A, Status>,
    A: Send + 'static,
{
    type Response = tonic::Response<A>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request).map(tonic::Response::new);
        Box::pin(async move { answer })
    }
}
