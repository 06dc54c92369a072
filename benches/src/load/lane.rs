//! A lane: a place for one request in flight, and the check of its answer. Knows no time.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use super::Order;
use crate::app::LocalExecutor;
use crate::cell::Exchange;
use crate::tunnel::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Tunnel};

/// The Host of every request; waypoints do not route by it.
const HOST_NAME: &str = "app.bench.svc.cluster.local";

/// The request of an exchange, made once and cloned for each sending.
pub struct Template {
    exchange: Exchange,
    sheds: bool,
    method: Method,
    path: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Template {
    /// The request of an exchange.
    pub fn new(exchange: Exchange) -> Self {
        let (method, path) = exchange.target();
        let mut headers = HeaderMap::new();
        let uri = if exchange.is_http2() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(
                HeaderName::from_static("te"),
                HeaderValue::from_static("trailers"),
            );
            format!("http://{HOST_NAME}{path}")
        } else {
            headers.insert(HOST, HeaderValue::from_static(HOST_NAME));
            path.to_owned()
        };
        Self {
            exchange,
            sheds: false,
            method,
            path: uri.parse().unwrap_or_default(),
            headers,
            body: exchange.request_body(),
        }
    }

    /// The same request to another path.
    pub fn with_path(mut self, path: Uri) -> Self {
        self.path = path;
        self
    }

    /// The same, and 429 will do for an answer.
    pub fn shedding(mut self, sheds: bool) -> Self {
        self.sheds = sheds;
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// A place for one request in flight.
pub enum Lane {
    /// An HTTP/1.1 connection in a stream of its own.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// A share of an HTTP/2 connection.
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Opens the lanes of one connection: over HTTP/1.1 each in its own CONNECT stream, over HTTP/2
/// all in one, as one application behind ztunnel would.
pub async fn open(tunnel: &Tunnel, order: &Order) -> anyhow::Result<Vec<Lane>> {
    let mut lanes = Vec::with_capacity(order.lanes_per_connection);
    if order.exchange.is_http2() {
        let stream = TokioIo::new(tunnel.open(&order.authority).await?);
        let (send, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(stream)
            .await?;
        spawn_local(connection);
        lanes.extend((0..order.lanes_per_connection).map(|_| Lane::Http2(send.clone())));
    } else {
        for _ in 0..order.lanes_per_connection {
            let stream = TokioIo::new(tunnel.open(&order.authority).await?);
            let (send, connection) = http1::handshake(stream).await?;
            spawn_local(connection);
            lanes.push(Lane::Http1(send));
        }
    }
    Ok(lanes)
}

impl Lane {
    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not the one the exchange has.
    pub async fn exchange(&mut self, template: &Template) -> anyhow::Result<Response<()>> {
        let request = template.request();
        let response = match self {
            Self::Http1(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Self::Http2(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        check(template, response).await
    }
}

async fn check(template: &Template, response: Response<Incoming>) -> anyhow::Result<Response<()>> {
    let exchange = template.exchange;
    let (head, mut body) = response.into_parts();
    let mut count = 0;
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the answer broke off")?;
        match frame.into_data() {
            Ok(data) => count += data.len(),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if template.sheds && head.status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Response::from_parts(head, ()));
    }
    if head.status != StatusCode::OK {
        bail!("answered {}", head.status);
    }
    if count != exchange.answer_bytes() {
        bail!("answered {count} bytes");
    }
    if exchange.is_http2() {
        let status = trailers.as_ref().and_then(|t| t.get("grpc-status"));
        if status.is_none_or(|s| s != "0") {
            bail!("gRPC status is {status:?}");
        }
    }
    Ok(Response::from_parts(head, ()))
}
