//! Applications for demonstrations and tests: one speaks HTTP and tells what it was asked, one speaks
//! TCP, first and then as an echo. They know nothing of a mesh.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Background;

/// How long a listener rests after it could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running application. Dropped, it stops listening and its connections are cut.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    _running: Background,
}

impl App {
    /// HTTP/1.1 and HTTP/2 with prior knowledge. The answer's first line is `name`, then come the
    /// request line and the headers as they arrived.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub async fn http(address: SocketAddr, name: &str) -> std::io::Result<Self> {
        let name: Bytes = Bytes::from(name.to_owned());
        Self::start(address, move |tcp| serve_http(tcp, name.clone())).await
    }

    /// Says `name` and a line end at once, then sends back whatever comes.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub async fn tcp(address: SocketAddr, name: &str) -> std::io::Result<Self> {
        let greeting: Bytes = Bytes::from(format!("{name}\n"));
        Self::start(address, move |tcp| echo(tcp, greeting.clone())).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn start<F, S>(address: SocketAddr, mut serve: F) -> std::io::Result<Self>
    where
        F: FnMut(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let running = Background::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let tcp = accept(&listener).await;
                connections.spawn(serve(tcp));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            _running: running,
        })
    }
}

/// The next connection.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                // Small writes must not wait for an acknowledgement; without the option all still works.
                let _ = tcp.set_nodelay(true);
                return tcp;
            }
            // Out of descriptors, most likely: asking again at once would change nothing.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_http(tcp: TcpStream, name: Bytes) {
    let service = service_fn(|request| {
        let answer = tell(&request, &name);
        async { Ok::<_, Infallible>(answer) }
    });
    // A connection that breaks is the other side's business.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(tcp), service)
        .await;
}

fn tell(request: &Request<Incoming>, name: &Bytes) -> Response<Full<Bytes>> {
    let mut text = String::from_utf8_lossy(name).into_owned();
    let target = request.uri().path_and_query().map_or("", |p| p.as_str());
    text.push_str(&format!(
        "\n{} {target} {:?}\n",
        request.method(),
        request.version()
    ));
    for (name, value) in request.headers() {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

async fn echo(mut tcp: TcpStream, greeting: Bytes) {
    let (mut read, mut write) = tcp.split();
    if write.write_all(&greeting).await.is_ok() {
        // A connection that breaks is the other side's business.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    }
}
