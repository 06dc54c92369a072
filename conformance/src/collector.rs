//! A receiver of OTLP on one port: over gRPC by tonic, and as protobuf or JSON over HTTP. Keeps what it gets; can be
//! told to stall, to answer nonsense, to be busy, or to go away.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use crate::process;

const JSON: &str = "application/json";

type AnyBody = UnsyncBoxBody<Bytes, tonic::Status>;

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    #[default]
    Fine,
    /// It reads, and never answers.
    Stalled,
    /// It answers with bytes that are no answer.
    Babbling,
    /// It asks to be left alone.
    Busy,
}

/// A running receiver.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mutex<Mood>,
    got: Mutex<Got>,
}

/// What it got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Spans, in the order they came.
    pub spans: Vec<Span>,
    /// Records of logs.
    pub records: Vec<LogRecord>,
    /// Metrics, of all exports.
    pub metrics: Vec<Metric>,
    /// Attributes of the last resource.
    pub resource: BTreeMap<String, String>,
    /// Headers of the last export.
    pub headers: BTreeMap<String, String>,
    /// Requests, whatever became of them.
    pub requests: usize,
}

impl Collector {
    /// Starts on an address.
    pub async fn start(address: SocketAddr) -> Self {
        Self::start_with(address, None).await
    }

    /// The same behind TLS, with this certificate and its key.
    pub async fn start_tls(
        address: SocketAddr,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::start_with(address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<State>::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let Some(tls) = tls else {
                        return serve(stream, shared).await;
                    };
                    // Who does not trust the certificate goes away.
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, shared).await;
                    }
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Changes how it behaves, for requests to come.
    pub fn be(&self, mood: Mood) {
        *self.state.mood.lock().expect("a lock") = mood;
    }

    /// Takes no more connections.
    pub fn leave(&self) {
        self.task.abort();
    }

    /// What it got so far.
    pub fn got(&self) -> Got {
        self.state.got.lock().expect("a lock").clone()
    }

    /// Waits until what it got is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Got) -> bool) -> Got {
        process::until(&format!("the collector has {what}"), async || {
            wanted(&self.state.got.lock().expect("a lock"))
        })
        .await;
        self.got()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Attributes by name, as text.
pub fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pairs = attributes.iter();
    pairs.map(|a| (a.key.clone(), text(&a.value))).collect()
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

impl State {
    fn spans(&self, request: ExportTraceServiceRequest) {
        let mut got = self.got.lock().expect("a lock");
        for resource in request.resource_spans {
            got.resource = texts(&resource.resource.unwrap_or_default().attributes);
            let scopes = resource.scope_spans.into_iter();
            got.spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }

    fn records(&self, request: ExportLogsServiceRequest) {
        let mut got = self.got.lock().expect("a lock");
        for resource in request.resource_logs {
            got.resource = texts(&resource.resource.unwrap_or_default().attributes);
            let scopes = resource.scope_logs.into_iter();
            got.records
                .extend(scopes.flat_map(|scope| scope.log_records));
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let mut got = self.got.lock().expect("a lock");
        for resource in request.resource_metrics {
            got.resource = texts(&resource.resource.unwrap_or_default().attributes);
            let scopes = resource.scope_metrics.into_iter();
            got.metrics.extend(scopes.flat_map(|scope| scope.metrics));
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request, state).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Response<AnyBody> {
    {
        let mut got = state.got.lock().expect("a lock");
        got.requests += 1;
        let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = request.headers().iter();
        got.headers = headers.map(|(n, v)| (n.to_string(), text(v))).collect();
    }
    let mood = *state.mood.lock().expect("a lock");
    let grpc = request.headers().get("content-type");
    let grpc = grpc.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    match mood {
        Mood::Fine if grpc => over_grpc(request, state).await,
        Mood::Fine => over_http(request, &state).await,
        Mood::Stalled => std::future::pending().await,
        Mood::Babbling => full(StatusCode::OK, b"\xff\xff\xff no answer at all"),
        Mood::Busy => full(StatusCode::SERVICE_UNAVAILABLE, b"later"),
    }
}

fn full(status: StatusCode, body: &'static [u8]) -> Response<AnyBody> {
    let never = |e: std::convert::Infallible| match e {};
    let body = Full::new(Bytes::from_static(body));
    let mut answer = Response::new(body.map_err(never).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

async fn over_http(request: Request<Incoming>, state: &State) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let is_json = (request.headers().get("content-type")).is_some_and(|v| v == JSON);
    let is_gzip = (request.headers().get("content-encoding")).is_some_and(|v| v == "gzip");
    let Ok(body) = request.into_body().collect().await else {
        return full(StatusCode::BAD_REQUEST, b"cut off");
    };
    let mut body = body.to_bytes();
    if is_gzip {
        let mut plain = Vec::new();
        match flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain) {
            Ok(_) => body = plain.into(),
            Err(_) => return full(StatusCode::BAD_REQUEST, b"not gzip"),
        }
    }
    let taken = match &*path {
        "/v1/traces" => read(&body, is_json).map(|request| state.spans(request)),
        "/v1/logs" => read(&body, is_json).map(|request| state.records(request)),
        "/v1/metrics" => read(&body, is_json).map(|request| state.metrics(request)),
        _ => return full(StatusCode::NOT_FOUND, b""),
    };
    match taken {
        // An answer that says nothing more is the same of all signals.
        Some(()) if is_json => {
            let mut answer = full(StatusCode::OK, b"{}");
            let form = http::HeaderValue::from_static(JSON);
            answer.headers_mut().insert("content-type", form);
            answer
        }
        Some(()) => full(StatusCode::OK, b""),
        None => full(StatusCode::BAD_REQUEST, b"not what it says it is"),
    }
}

/// A message in the form that it came in.
fn read<T: Message + Default + DeserializeOwned>(body: &[u8], is_json: bool) -> Option<T> {
    match is_json {
        true => serde_json::from_slice(body).ok(),
        false => T::decode(body).ok(),
    }
}

async fn over_grpc(request: Request<Incoming>, state: Arc<State>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let answer = match &*path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
            take(
                request,
                state,
                State::spans,
                ExportTraceServiceResponse::default(),
            )
            .await
        }
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
            take(
                request,
                state,
                State::records,
                ExportLogsServiceResponse::default(),
            )
            .await
        }
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
            take(
                request,
                state,
                State::metrics,
                ExportMetricsServiceResponse::default(),
            )
            .await
        }
        _ => return full(StatusCode::NOT_FOUND, b""),
    };
    answer.map(|body| body.boxed_unsync())
}

async fn take<Q, A>(
    request: Request<Incoming>,
    state: Arc<State>,
    keep: fn(&State, Q),
    answer: A,
) -> Response<tonic::body::Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Clone + Send + Sync + 'static,
{
    let codec: ProstCodec<A, Q> = ProstCodec::default();
    let taking = Taking {
        state,
        keep,
        answer,
    };
    let mut server =
        tonic::server::Grpc::new(codec).accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    server.unary(taking, request).await
}

/// One method.
struct Taking<Q, A> {
    state: Arc<State>,
    keep: fn(&State, Q),
    answer: A,
}

impl<Q, A> Service<tonic::Request<Q>> for Taking<Q, A>
where
    Q: Send + 'static,
    A: Clone + Send + 'static,
{
    type Response = tonic::Response<A>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Self::Response, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        (self.keep)(&self.state, request.into_inner());
        let answer = tonic::Response::new(self.answer.clone());
        Box::pin(async move { Ok(answer) })
    }
}
