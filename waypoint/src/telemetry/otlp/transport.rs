//! A connection to one receiver, and one export over it. Every answer is bounded in size and time.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cairn_config_schema::snapshot::ClusterKey;
use cairn_routing::Choice;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::body::Body;

use super::endpoint::{Destination, Protocol, Signal};
use super::grpc;
use crate::clock::now_ms;
use crate::limits::{OTLP_ANSWER_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT};
use crate::runtime::Runtime;
use crate::tls::{Alpn, originate};
use crate::upstream::{Dialer, Reach};

/// Why an export failed, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may succeed later; the receiver may have asked for a pause.
    Again(String, Option<Duration>),
    /// It never will.
    Final(String),
}

/// What a receiver took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    /// Records that it did not take.
    pub rejected: u64,
    /// Why not.
    pub words: String,
}

/// Where the receiver is.
pub(super) enum Way {
    /// At the host of a URL.
    Outside,
    /// A service of the mesh.
    Mesh(ClusterKey, Arc<Mesh>),
}

/// How services of the mesh are reached.
pub(super) struct Mesh {
    pub dialer: Dialer,
    pub runtime: Arc<ArcSwap<Runtime>>,
}

/// One receiver.
pub(super) struct Transport {
    signal: Signal,
    to: Destination,
    way: Way,
    kept: Option<Sender>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Body>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Outside => write!(f, "{:?}", self.to),
            Way::Mesh(cluster, _) => write!(f, "{cluster}"),
        }
    }
}

impl Transport {
    pub(super) fn new(signal: Signal, to: Destination, way: Way) -> Self {
        Self {
            signal,
            to,
            way,
            kept: None,
        }
    }

    /// Sends one message and reads the answer, within the time an export may take.
    pub(super) async fn send(&mut self, message: Bytes) -> Result<Partial, Failure> {
        let limit = self.to.timeout;
        let sent = match timeout(limit, self.exchange(message)).await {
            Ok(sent) => sent,
            Err(_) => {
                let words = format!("no answer within {} ms", limit.as_millis());
                Err(Failure::Again(words, None))
            }
        };
        if sent.is_err() {
            // Whatever is wrong, a new connection is not a part of it.
            self.kept = None;
        }
        sent
    }

    async fn exchange(&mut self, message: Bytes) -> Result<Partial, Failure> {
        let sender = match self.kept.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let connected = self.connect().await;
                connected
                    .map_err(|e| Failure::Again(format!("can not be connected to: {e}"), None))?
            }
        };
        match self.kept.insert(sender) {
            Sender::Http2(sender) => {
                let sender = sender.clone();
                grpc::export(sender, self.signal, &self.to, message).await
            }
            Sender::Http1(sender) => post(sender, &self.to, message).await,
        }
    }

    async fn connect(&self) -> io::Result<Sender> {
        let alpn = match self.to.protocol {
            Protocol::Grpc => Alpn::Http2,
            Protocol::Http => Alpn::Http1,
        };
        match &self.way {
            Way::Mesh(cluster, mesh) => {
                self.speak(dial(mesh, cluster, alpn, self.to.timeout).await?)
                    .await
            }
            Way::Outside => {
                let tcp = TcpStream::connect((&*self.to.host, self.to.port)).await?;
                tcp.set_nodelay(true)?;
                if !self.to.tls {
                    return self.speak(tcp).await;
                }
                let trust = &self.to.trust;
                let (roots, client) = (trust.roots.clone(), trust.client.clone());
                let tls = originate::outside(roots, client, alpn, &self.to.host)?;
                self.speak(tls.connect(tcp).await?).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        // Connections end with their senders; an error reaches whoever waits for an answer.
        match self.to.protocol {
            Protocol::Http => {
                let handshake = http1::Builder::new()
                    .max_buf_size(OTLP_ANSWER_BYTES_MAX)
                    .handshake(stream);
                let (sender, connection) = handshake.await.map_err(io::Error::other)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::Http1(sender))
            }
            Protocol::Grpc => {
                let handshake = http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(OTLP_ANSWER_BYTES_MAX as u32)
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .handshake(stream);
                let (sender, connection) = handshake.await.map_err(io::Error::other)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::Http2(sender))
            }
        }
    }
}

/// A stream to an endpoint of a service of the mesh.
async fn dial(
    mesh: &Mesh,
    key: &ClusterKey,
    alpn: Alpn,
    limit: Duration,
) -> io::Result<crate::upstream::Carrier> {
    let runtime = mesh.runtime.load_full();
    let nobody = || io::Error::other(format!("{key} has no endpoint"));
    let cluster = runtime.cluster(key).ok_or_else(nobody)?;
    let settings = cluster.settings();
    if let Some(reason) = &settings.refused {
        return Err(io::Error::other(reason.to_string()));
    }
    let live = cluster.pick(&Choice::new(fastrand::u64(..), &[], now_ms()));
    let live = live.ok_or_else(nobody)?;
    // Exports are the waypoint's own, not those of a pod of this node.
    let reach = Reach {
        egress: None,
        settings: &settings,
        alpn,
        client: None,
        host: None,
    };
    let destination = mesh.dialer.destination(&live.endpoint, &reach);
    let dialled = mesh.dialer.dial(&destination, limit).await;
    dialled.map_err(io::Error::other)
}

async fn post(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    to: &Destination,
    message: Bytes,
) -> Result<Partial, Failure> {
    let broke =
        |error: hyper::Error| Failure::Again(format!("the connection broke: {error}"), None);
    sender.ready().await.map_err(broke)?;
    let request = request(to, message).map_err(|e| Failure::Final(e.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broke)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, OTLP_ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|e| Failure::Final(format!("its answer can not be read: {e}")))?;
    let pause = head.headers.get(RETRY_AFTER).and_then(seconds);
    match head.status {
        StatusCode::OK => read(&body.to_bytes()),
        // Those that OTLP names; everything else is for good.
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            Err(Failure::Again(format!("it answered {status}"), pause))
        }
        status => Err(Failure::Final(format!("it answered {status}"))),
    }
}

fn request(to: &Destination, message: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
    let host = match to.host.contains(':') {
        true => format!("[{}]:{}", to.host, to.port),
        false => format!("{}:{}", to.host, to.port),
    };
    let path = if to.path.is_empty() { "/" } else { &to.path };
    let mut request = Request::post(path).body(Full::new(message))?;
    let headers = request.headers_mut();
    headers.extend(
        to.headers
            .iter()
            .cloned()
            .map(|(n, v): (HeaderName, _)| (n, v)),
    );
    headers.insert(HOST, HeaderValue::try_from(host)?);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    Ok(request)
}

/// A pause in seconds; dates are not for machines that talk every few seconds.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads what the receiver took. The answers of all signals have the same fields under the same numbers.
pub(super) fn read(answer: &[u8]) -> Result<Partial, Failure> {
    let answer = ExportTraceServiceResponse::decode(answer)
        .map_err(|e| Failure::Final(format!("its answer can not be read: {e}")))?;
    let partial = answer.partial_success.unwrap_or_default();
    let words = partial.error_message.chars().take(200);
    Ok(Partial {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        words: words.flat_map(char::escape_debug).collect(),
    })
}

#[cfg(test)]
mod tests;
