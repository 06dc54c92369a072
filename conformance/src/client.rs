//! HTTP clients: one request over any stream, and curl.

use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::app::Echo;

/// An answer, its body read.
pub type Answer = Response<Bytes>;

/// One HTTP connection that takes any number of requests.
pub enum Connection {
    /// HTTP/1.1 with keep-alive.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2 with prior knowledge.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// HTTP/1.1 over a new TCP connection.
    pub async fn http1(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self::http1_over(stream).await
    }

    /// HTTP/1.1 over any stream.
    pub async fn http1_over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        Self::Http1(send)
    }

    /// HTTP/2 over a new TCP connection.
    pub async fn http2(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self::http2_over(stream).await
    }

    /// HTTP/2 over any stream.
    pub async fn http2_over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Self::Http2(send)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        let response = match self {
            Self::Http1(connection) => {
                connection.ready().await?;
                connection.send_request(request).await?
            }
            Self::Http2(connection) => {
                connection.ready().await?;
                connection.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// GET with Host `web.shop`.
    pub async fn get(&mut self, path: &str) -> Result<Answer, hyper::Error> {
        let uri = match self {
            Self::Http1(_) => path.to_owned(),
            Self::Http2(_) => format!("http://web.shop{path}"),
        };
        let mut request = Request::get(uri);
        if let Self::Http1(_) = self {
            request = request.header("host", "web.shop");
        }
        self.send(request.body(Full::default()).expect("a request"))
            .await
    }
}

/// One request with Host `web.shop` over a new HTTP/1.1 connection.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "web.shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::from_static(body));
    let request = request.body(body).expect("a request");
    let mut connection = Connection::http1(address).await;
    connection.send(request).await.expect("an answer")
}

/// One GET over a new HTTP/1.1 connection.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let mut connection = Connection::http1(address).await;
    connection.get(path).await.expect("an answer")
}

/// One GET with this Host over a new HTTP/1.1 connection.
pub async fn get_as(host: &str, address: SocketAddr, path: &str) -> Answer {
    let request = Request::builder().uri(path).header("host", host);
    let request = request.body(Full::default()).expect("a request");
    let mut connection = Connection::http1(address).await;
    connection.send(request).await.expect("an answer")
}

/// What the echo application said.
pub fn echo(answer: &Answer) -> Echo {
    serde_json::from_slice(answer.body()).unwrap_or_else(|e| {
        let body = String::from_utf8_lossy(answer.body());
        panic!("{} is not an echo ({e}): {body}", answer.status())
    })
}

/// Body as text.
pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

/// Whether a GET of the URL is answered 200, asked by curl.
pub async fn answers_200(url: &str) -> bool {
    let write = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let (code, status, _) = curl(&[&write[..], &[url]].concat()).await;
    code == Some(0) && status == "200"
}

/// What curl says: exit code, stdout, stderr.
pub async fn curl(arguments: &[&str]) -> (Option<i32>, String, String) {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let run = tokio::task::spawn_blocking(move || {
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30"])
            .args(&arguments)
            .output()
            .expect("curl runs")
    });
    let output = run.await.expect("curl");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
