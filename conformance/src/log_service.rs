//! Envoy's Access Log Service, by tonic. Keeps what it is told; can be made to know nothing of that service, to drain its
//! connections, or to read nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use cairn_waypoint::telemetry::otlp::entries::messages::{
    HttpAccessLogEntry, Identifier, StreamAccessLogsMessage, StreamAccessLogsResponse,
    TcpAccessLogEntry,
};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tonic::codegen::Service;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::process;

const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// A running service.
#[derive(Debug)]
pub struct LogService {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    refuses: AtomicBool,
    stalls: AtomicBool,
    ends: Notify,
    drains: Notify,
    told: Mutex<Told>,
}

/// What it was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Streams that their senders ended.
    pub ended: usize,
    /// Of each stream.
    pub identifiers: Vec<Identifier>,
    /// Of all streams.
    pub requests: Vec<HttpAccessLogEntry>,
    /// Of all streams.
    pub streams: Vec<TcpAccessLogEntry>,
}

impl LogService {
    /// Starts on an address.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<State>::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Ends all streams, and takes new ones or says that it does not know the service.
    pub fn refuses(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
        self.state.ends.notify_waiters();
    }

    /// Says on each connection that it takes no more streams (GOAWAY); those that are open go on.
    pub fn drain(&self) {
        self.state.drains.notify_waiters();
    }

    /// Reads nothing of streams that begin from now on, and ends those that are open.
    pub fn stall(&self) {
        self.state.stalls.store(true, Ordering::SeqCst);
        self.state.ends.notify_waiters();
    }

    /// What it was told so far.
    pub fn told(&self) -> Told {
        self.state.told.lock().expect("a lock").clone()
    }

    /// Waits until what it was told is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        process::until(&format!("the log service has {what}"), async || {
            wanted(&self.state.told.lock().expect("a lock"))
        })
        .await;
        self.told()
    }
}

impl Drop for LogService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let drained = state.clone();
    let drains = &drained.drains;
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move {
            if request.uri().path() != METHOD {
                let mut unknown = Response::new(tonic::body::Body::empty());
                *unknown.status_mut() = http::StatusCode::NOT_FOUND;
                return Ok::<_, Infallible>(unknown);
            }
            let codec: ProstCodec<StreamAccessLogsResponse, StreamAccessLogsMessage> =
                ProstCodec::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.client_streaming(Take(state), request).await)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = drains.notified() => connection.as_mut().graceful_shutdown(),
        }
    }
}

struct Take(Arc<State>);

impl Service<tonic::Request<Streaming<StreamAccessLogsMessage>>> for Take {
    type Response = tonic::Response<StreamAccessLogsResponse>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(
        &mut self,
        request: tonic::Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            if state.refuses.load(Ordering::SeqCst) {
                return Err(Status::unimplemented("no such service"));
            }
            let mut messages = request.into_inner();
            if state.stalls.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            loop {
                let message = tokio::select! {
                    message = messages.message() => message?,
                    () = state.ends.notified() => return Err(Status::unavailable("away")),
                };
                let Some(message) = message else {
                    state.told.lock().expect("a lock").ended += 1;
                    return Ok(tonic::Response::new(StreamAccessLogsResponse {}));
                };
                let mut told = state.told.lock().expect("a lock");
                told.identifiers.extend(message.identifier);
                let requests = message.http_logs.map(|logs| logs.log_entry);
                told.requests.extend(requests.unwrap_or_default());
                let streams = message.tcp_logs.map(|logs| logs.log_entry);
                told.streams.extend(streams.unwrap_or_default());
            }
        })
    }
}
