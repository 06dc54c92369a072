//! A connection to one receiver, and one export over it. Every answer is bounded in size and time.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cairn_config_schema::snapshot::ClusterKey;
use cairn_routing::Choice;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::body::Body;

use super::endpoint::{Destination, Protocol, Signal};
use super::entries::streams::Streams;
use super::{grpc, message};
use crate::clock::now_ms;
use crate::dead_peer::Noticed;
use crate::grpc::{Leaving, connect_followed};
use crate::limits::OTLP_ANSWER_BYTES_MAX;
use crate::runtime::Runtime;
use crate::tls::{Alpn, originate};
use crate::upstream::{Carrier, Dialer, Reach};

/// How a POST says that it is JSON.
const JSON: &str = "application/json";

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
    /// It never says what it took: the connection had room for all of it, and that is all that is known.
    pub is_unanswered: bool,
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
    /// What is sent goes into streams that stay open.
    entries: Option<Streams>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Body>, Leaving),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender, leaving) => sender.is_closed() || leaving.is_now(),
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
            entries: None,
        }
    }

    /// Messages are entries of access logs, in streams that begin with this.
    pub(super) fn stream_entries(&mut self, identifier: Vec<u8>) {
        self.entries = Some(Streams::new(identifier));
    }

    /// Ends what stays open between messages.
    pub(super) async fn finish(self) {
        if let Some(entries) = self.entries {
            entries.finish().await;
        }
    }

    /// In which form it takes messages.
    pub(super) fn protocol(&self) -> Protocol {
        self.to.protocol
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
            if let Some(entries) = &mut self.entries {
                entries.give_up();
            }
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
            Sender::Http2(sender, leaving) => {
                let sender = sender.clone();
                if let Some(entries) = &mut self.entries {
                    let over = (sender, leaving.clone());
                    return entries.send(over, &self.to, message).await;
                }
                grpc::export(sender, self.signal, &self.to, message).await
            }
            Sender::Http1(sender) => post(sender, &self.to, message).await,
        }
    }

    async fn connect(&self) -> io::Result<Sender> {
        let alpn = match self.to.protocol {
            Protocol::Grpc => Alpn::Http2,
            Protocol::Http | Protocol::Json => Alpn::Http1,
        };
        match &self.way {
            Way::Mesh(cluster, mesh) => {
                self.speak(dial(mesh, cluster, alpn, self.to.timeout).await?)
                    .await
            }
            Way::Outside => {
                let tcp = TcpStream::connect((&*self.to.host, self.to.port)).await?;
                tcp.set_nodelay(true)?;
                let tcp = Noticed::new(tcp);
                if !self.to.tls {
                    return self.speak(tcp).await;
                }
                let trust = &self.to.trust;
                let (roots, client) = (trust.roots.clone(), trust.client.clone());
                let tls = originate::outside(roots, client, alpn, &self.to.host)?;
                self.speak(tcp.within(|tcp| tls.connect(tcp)).await?).await
            }
        }
    }

    async fn speak<S>(&self, stream: Noticed<S>) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.to.protocol {
            Protocol::Http | Protocol::Json => {
                let handshake = http1::Builder::new()
                    .max_buf_size(OTLP_ANSWER_BYTES_MAX)
                    .handshake(TokioIo::new(stream.into_inner()));
                let (sender, connection) = handshake.await.map_err(io::Error::other)?;
                // It ends with its sender; an error reaches whoever waits for an answer.
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::Http1(sender))
            }
            Protocol::Grpc => {
                // Without PINGs: a log service says nothing while it reads, and ends who pings meanwhile.
                let (sender, leaving) =
                    connect_followed(stream, OTLP_ANSWER_BYTES_MAX as u32).await?;
                Ok(Sender::Http2(sender, leaving))
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
) -> io::Result<Noticed<Carrier>> {
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
    let carrier = dialled.map_err(io::Error::other)?;
    Ok(Noticed::new(carrier))
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
        StatusCode::OK => match is_json(&head.headers) {
            true => message::read_json(&body.to_bytes()),
            false => message::read(&body.to_bytes()),
        },
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
    let message = if to.gzip {
        compressed(&message)
    } else {
        message
    };
    let mut request = Request::post(path).body(Full::new(message))?;
    let headers = request.headers_mut();
    headers.extend(
        to.headers
            .iter()
            .cloned()
            .map(|(n, v): (HeaderName, _)| (n, v)),
    );
    headers.insert(HOST, HeaderValue::try_from(host)?);
    let form = match to.protocol {
        Protocol::Json => JSON,
        Protocol::Grpc | Protocol::Http => "application/x-protobuf",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
    if to.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(request)
}

/// The form of an answer; a receiver that does not say answers as it was asked in protobuf.
fn is_json(headers: &HeaderMap) -> bool {
    let form = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    form.is_some_and(|form| form.starts_with(JSON.as_bytes()))
}

fn compressed(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory can not fail.
    let written = encoder.write_all(message).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

/// A pause in seconds; dates are not for machines that talk every few seconds.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
