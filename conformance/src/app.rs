//! Applications behind the waypoint: an HTTP echo that says what it was sent, and a TCP server that
//! speaks first. Each runs in a thread of its own, so that stopping it is as abrupt as a killed pod.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What the TCP server says before it is asked.
pub const BANNER: &[u8] = b"220 hello\r\n";

/// Requests that an application remembers, so that one under load does not grow.
const SEEN_MAX: usize = 1_000;

/// What the HTTP echo answers with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Echo {
    /// The application's name.
    pub app: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Headers in the order received, names in lower case; `host` is the authority on HTTP/2.
    pub headers: Vec<(String, String)>,
    /// Length of the body in bytes.
    pub body_bytes: usize,
}

impl Echo {
    /// Values of a header, joined by a comma; `None` when absent.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// A running application.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What an application has seen.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    by_path: Mutex<HashMap<String, u64>>,
    seen: Mutex<Vec<Echo>>,
}

impl Counts {
    fn remember(&self, echo: &Echo) {
        let mut seen = self.seen.lock().expect("no panic");
        if seen.len() < SEEN_MAX {
            seen.push(echo.clone());
        }
    }

    /// How often a path has been asked for, this time included.
    fn count(&self, path: &str) -> u64 {
        let mut by_path = self.by_path.lock().expect("no panic");
        let count = by_path.entry(path.to_owned()).or_default();
        *count += 1;
        *count
    }
}

impl App {
    /// An HTTP echo, HTTP/1.1 and HTTP/2 with prior knowledge. Paths that do something else:
    /// `/status/<code>`, `/bytes/<n>`, `/wait/<ms>`, `/grpc/<status>`, `/asks/<seconds>` (503 with
    /// Retry-After); `/first/<n>/...` does so for its first n requests and then echoes. A WebSocket
    /// upgrade is echoed message by message.
    pub fn http(name: &str, address: SocketAddr) -> Self {
        let name: Arc<str> = name.into();
        Self::start(address, move |stream, counts| {
            let name = name.clone();
            Box::pin(serve_http(name, stream, counts))
        })
    }

    /// An HTTP/1.1 server that answers one request and closes without having said so.
    pub fn http_once(name: &str, address: SocketAddr) -> Self {
        let name: Arc<str> = name.into();
        Self::start(address, move |stream, counts| {
            Box::pin(serve_once(name.clone(), stream, counts))
        })
    }

    /// An HTTP/1.1 server that answers 503 to everything, and closes.
    pub fn http_failing(address: SocketAddr) -> Self {
        Self::start(address, |stream, counts| {
            Box::pin(serve_failure(stream, counts))
        })
    }

    /// An HTTP/1.1 server that answers with a half of a body and never goes on.
    pub fn http_stalling(address: SocketAddr) -> Self {
        Self::start(address, |stream, counts| {
            Box::pin(serve_half(stream, counts))
        })
    }

    /// A TCP server that sends [`BANNER`] at once and then echoes.
    pub fn server_first(address: SocketAddr) -> Self {
        Self::start(address, |stream, _| Box::pin(serve_tcp(stream, BANNER)))
    }

    /// A TCP server that echoes.
    pub fn tcp_echo(address: SocketAddr) -> Self {
        Self::start(address, |stream, _| Box::pin(serve_tcp(stream, b"")))
    }

    fn start<F>(address: SocketAddr, serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<Counts>) -> Pin<Box<dyn Future<Output = ()>>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind(address).expect("an address for the app");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let seen = counts.clone();
        let thread = std::thread::spawn(move || run(listener, serve, seen, stopped));
        Self {
            address,
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests read so far.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// What the first requests said, in the order of their ends. The HTTP echo only.
    pub fn seen(&self) -> Vec<Echo> {
        self.counts.seen.lock().expect("no panic").clone()
    }

    /// Kills it: the listener and every connection are gone when this returns.
    pub fn kill(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run<F>(
    listener: std::net::TcpListener,
    serve: F,
    counts: Arc<Counts>,
    stopped: oneshot::Receiver<()>,
) where
    F: Fn(TcpStream, Arc<Counts>) -> Pin<Box<dyn Future<Output = ()>>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    runtime.block_on(tasks.run_until(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        let accept = async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.set_nodelay(true);
                    tokio::task::spawn_local(serve(stream, counts.clone()));
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    }));
    // Dropping both closes every connection.
    drop(tasks);
    drop(runtime);
}

async fn serve_tcp(mut stream: TcpStream, banner: &[u8]) {
    if stream.write_all(banner).await.is_err() {
        return;
    }
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn serve_half(mut stream: TcpStream, counts: Arc<Counts>) {
    if read_head(&mut stream).await.is_none() {
        return;
    }
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345";
    let _ = stream.write_all(half).await;
    let _ = stream.read_u8().await;
}

async fn read_head(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(())
}

async fn serve_once(name: Arc<str>, mut stream: TcpStream, counts: Arc<Counts>) {
    if read_head(&mut stream).await.is_none() {
        return;
    }
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
        name.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn serve_failure(mut stream: TcpStream, counts: Arc<Counts>) {
    if read_head(&mut stream).await.is_none() {
        return;
    }
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let answer =
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

async fn serve_http(name: Arc<str>, stream: TcpStream, counts: Arc<Counts>) {
    let service = service_fn(move |request| {
        let (name, counts) = (name.clone(), counts.clone());
        async move {
            counts.requests.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer(&name, request, &counts).await)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let _ = connection.await;
}

async fn answer(
    name: &str,
    mut request: Request<Incoming>,
    counts: &Counts,
) -> Response<Full<Bytes>> {
    if let Some(key) = request.headers().get("sec-websocket-key") {
        let accept = derive_accept_key(key.as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                echo_messages(TokioIo::new(upgraded)).await;
            }
        });
        return Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", accept)
            .body(Full::default())
            .expect("a response");
    }
    let path = request.uri().path().to_owned();
    let mut echo = echo(name, &request);
    let body = request.into_body().collect().await;
    echo.body_bytes = body.map_or(0, |b| b.to_bytes().len());
    counts.remember(&echo);
    let mut words = path.split('/').skip(1);
    let mut next = || (words.next(), words.next().and_then(|n| n.parse().ok()));
    let (mut word, mut number) = next();
    if let (Some("first"), Some(times)) = (word, number) {
        (word, number) = match counts.count(&path) <= times {
            true => next(),
            false => (None, None),
        };
    }
    match (word, number) {
        (Some("status"), Some(code)) => respond(code as u16, Bytes::new()),
        (Some("bytes"), Some(n)) => respond(200, Bytes::from(vec![b'x'; n as usize])),
        (Some("wait"), Some(ms)) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            respond(200, json(&echo))
        }
        (Some("grpc"), Some(status)) => {
            let mut response = respond(200, Bytes::new());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(status));
            response
        }
        (Some("asks"), Some(seconds)) => {
            let mut response = respond(503, Bytes::new());
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert("retry-after", seconds);
            response
        }
        _ => respond(200, json(&echo)),
    }
}

fn echo(name: &str, request: &Request<Incoming>) -> Echo {
    let mut headers = pairs(request.headers());
    if request.headers().get("host").is_none()
        && let Some(authority) = request.uri().authority()
    {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    Echo {
        app: name.to_owned(),
        method: method(request.method()),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        version: format!("{:?}", request.version()),
        headers,
        body_bytes: 0,
    }
}

fn method(method: &Method) -> String {
    method.as_str().to_owned()
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.into_owned())
        })
        .collect()
}

fn json(echo: &Echo) -> Bytes {
    serde_json::to_vec(echo).expect("JSON").into()
}

fn respond(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("server", "echo")
        .body(Full::new(body))
        .expect("a response")
}

async fn echo_messages<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            break;
        }
    }
}

/// Reads exactly `n` bytes, for tests of raw streams.
pub async fn read_exactly(stream: &mut (impl AsyncReadExt + Unpin), n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).await.expect("bytes");
    bytes
}
