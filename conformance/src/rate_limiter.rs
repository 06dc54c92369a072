//! A rate limit service that speaks Envoy's protocol, by tonic. What it says depends on the values it is
//! told; what it was asked is kept.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use cairn_waypoint::external::limit_messages::{Code, METHOD, RateLimitRequest, RateLimitResponse};
use cairn_waypoint::external::messages::HeaderValue;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

type Asked = Arc<Mutex<Vec<RateLimitRequest>>>;

/// A running rate limit service. A word in a value it is told says what it answers: `over` that the
/// request is over its limit, with headers and a body; `silent` nothing, ever; `error` a gRPC error; `empty`
/// an empty message; `mine` a change of what is the waypoint's. Everything else is within its limits,
/// with a header for the application and one for the client.
#[derive(Debug)]
pub struct RateLimiter {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Asked,
    task: tokio::task::JoinHandle<()>,
}

impl RateLimiter {
    /// Starts on an address.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let asked = Asked::default();
        let shared = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<RateLimitRequest> {
        self.asked.lock().expect("a lock").clone()
    }
}

impl Drop for RateLimiter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, asked: Asked) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = asked.clone();
        async move {
            if request.uri().path() != METHOD {
                let mut unknown = Response::new(tonic::body::Body::empty());
                *unknown.status_mut() = http::StatusCode::NOT_FOUND;
                return Ok::<_, Infallible>(unknown);
            }
            let codec: ProstCodec<RateLimitResponse, RateLimitRequest> = ProstCodec::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.unary(Count(asked), request).await)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

struct Count(Asked);

impl Service<tonic::Request<RateLimitRequest>> for Count {
    type Response = tonic::Response<RateLimitResponse>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Self::Response, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<RateLimitRequest>) -> Self::Future {
        let request = request.into_inner();
        self.0.lock().expect("a lock").push(request.clone());
        Box::pin(async move {
            let entries = request.descriptors.iter().flat_map(|d| &d.entries);
            let values: String = entries.map(|entry| entry.value.as_str()).collect();
            let says = |word: &str| values.contains(word);
            if says("silent") {
                std::future::pending::<()>().await;
            }
            if says("error") {
                return Err(tonic::Status::unavailable("no counter"));
            }
            Ok(tonic::Response::new(if says("empty") {
                RateLimitResponse::default()
            } else if says("over") {
                over()
            } else {
                let name = if says("mine") { "host" } else { "x-counted" };
                within(name)
            }))
        })
    }
}

fn header(key: &str, value: &str) -> HeaderValue {
    HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
        raw_value: Vec::new(),
    }
}

fn over() -> RateLimitResponse {
    RateLimitResponse {
        overall_code: Code::OverLimit as i32,
        response_headers_to_add: vec![header("x-ratelimit-remaining", "0")],
        raw_body: b"come again".to_vec(),
        ..RateLimitResponse::default()
    }
}

fn within(name: &str) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: Code::Ok as i32,
        response_headers_to_add: vec![header("x-ratelimit-remaining", "7")],
        request_headers_to_add: vec![header(name, "yes")],
        ..RateLimitResponse::default()
    }
}
