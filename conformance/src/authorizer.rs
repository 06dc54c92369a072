//! An authorization service that speaks both of the protocols, on one port: HTTP, and gRPC by tonic. What
//! it says depends on the path it is asked about; what it was asked is kept.

mod answers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use cairn_waypoint::external::messages::{CheckRequest, CheckResponse};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

type AnyBody = UnsyncBoxBody<Bytes, tonic::Status>;

/// What it was asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers over HTTP; over gRPC those of the message, `host` from its own field.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The message, over gRPC.
    pub check: Option<CheckRequest>,
}

impl Question {
    /// A header's values.
    pub fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.iter().filter(|(n, _)| n == name);
        let values: Vec<&str> = values.map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// A running authorization service. `word` in the path says what it answers:
///
/// `deny` 401 with headers and body; `error` 500, gRPC UNKNOWN; `wait` only after [`Self::release`];
/// `huge` a denial with far too many headers, over gRPC a yes that is far too long; `endless` a denial
/// whose body never ends; `cut` ends the connection; `garbled`, `nothing`, `page` and `busy` are answers
/// over gRPC that are none, see [`not_grpc`]; `empty` an empty gRPC message; `both` a gRPC yes and no; `pseudo` sets `:path`;
/// `host`, `xfcc`, `framing` set a header that is not its own; `query` changes the query; `response`
/// adds to the response; `append` has a header for each append action. Everything else is allowed with `x-user: alice` set.
#[derive(Debug)]
pub struct Authorizer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    questions: Mutex<Vec<Question>>,
    waiting: watch::Sender<usize>,
    gate: Semaphore,
    connections: AtomicUsize,
}

impl Authorizer {
    /// Starts on an address.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Starts on an address, and answers every connection in no protocol at all.
    pub async fn babbling(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"yes, do let them in\r\n\r\n").await;
                    // Closed by the other side, which is to read it first.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// What it was asked, in order.
    pub fn questions(&self) -> Vec<Question> {
        self.state.questions.lock().expect("a lock").clone()
    }

    /// What it was asked last.
    pub fn last(&self) -> Question {
        self.questions().pop().expect("a question")
    }

    /// Connections it has accepted.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many questions wait for [`Self::release`].
    pub async fn waiting(&self, n: usize) {
        let mut waiting = self.state.waiting.subscribe();
        let _ = waiting.wait_for(|w| *w >= n).await;
    }

    /// Lets so many waiting questions be answered.
    pub fn release(&self, n: usize) {
        self.state.gate.add_permits(n);
    }
}

impl Drop for Authorizer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move {
            let grpc = request.headers().get("content-type");
            let answer = match grpc.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc")) {
                true => over_grpc(request, state).await,
                false => over_http(request, &state).await,
            };
            // Cut: the connection ends without an answer.
            answer.ok_or("no answer")
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_buf_size(1024 * 1024);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

impl Default for State {
    fn default() -> Self {
        Self {
            questions: Mutex::default(),
            waiting: watch::Sender::new(0),
            gate: Semaphore::new(0),
            connections: AtomicUsize::new(0),
        }
    }
}

impl State {
    async fn note(&self, question: Question) -> String {
        let path = question.path.clone();
        self.questions.lock().expect("a lock").push(question);
        if path.contains("wait") {
            self.waiting.send_modify(|w| *w += 1);
            self.gate.acquire().await.expect("open").forget();
        }
        path
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

fn full(body: &'static str) -> AnyBody {
    let never = |e: Infallible| match e {};
    Full::new(Bytes::from_static(body.as_bytes()))
        .map_err(never)
        .boxed_unsync()
}

/// Nothing, for ever.
fn endless() -> AnyBody {
    let nothing = futures::stream::pending::<Result<Frame<Bytes>, tonic::Status>>();
    StreamBody::new(nothing).boxed_unsync()
}

async fn over_http(request: Request<Incoming>, state: &State) -> Option<Response<AnyBody>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let path = state
        .note(Question {
            method: head.method.to_string(),
            path: head.uri.path_and_query()?.to_string(),
            headers: pairs(&head.headers),
            body: body.to_vec(),
            check: None,
        })
        .await;
    let answer = Response::builder();
    let has = |word: &str| path.contains(word);
    let answer = if has("cut") {
        return None;
    } else if has("deny") {
        let denied = answer.status(401).header("x-why", "because");
        let denied = denied.header("www-authenticate", "Basic");
        denied
            .header("content-type", "text/html")
            .body(full("<b>no</b>"))
    } else if has("moved") {
        let moved = answer
            .status(302)
            .header("location", "https://login.example/");
        moved.header("x-why", "login").body(full(""))
    } else if has("error") {
        answer.status(500).body(full("broken"))
    } else if has("huge") {
        let large = "x".repeat(128 * 1024);
        answer.status(403).header("x-huge", large).body(full(""))
    } else if has("endless") {
        answer
            .status(403)
            .header("x-why", "because")
            .body(endless())
    } else {
        let allowed = answer.header("x-user", "alice").header("x-user", "bob");
        let allowed = allowed.header("x-secret", "not listed");
        allowed.header("set-cookie", "seen=1").body(full("fine"))
    };
    answer.ok()
}

async fn over_grpc(request: Request<Incoming>, state: Arc<State>) -> Option<Response<AnyBody>> {
    if request.uri().path() != cairn_waypoint::external::messages::METHOD {
        return None;
    }
    let codec: ProstCodec<CheckResponse, CheckRequest> = ProstCodec::default();
    let mut grpc = tonic::server::Grpc::new(codec);
    let answer = grpc.unary(Decide(state.clone()), request).await;
    let path = state.questions.lock().expect("a lock").last()?.path.clone();
    if path.contains("cut") {
        return None;
    }
    Some(match not_grpc(&path) {
        Some(other) => other,
        None => answer.map(|body| body.boxed_unsync()),
    })
}

/// Answers over gRPC that are not the method's: `garbled` no message but bytes, `nothing` a good status
/// without a message, `page` an HTTP answer as of another server, `busy` one of a proxy on the way.
fn not_grpc(path: &str) -> Option<Response<AnyBody>> {
    let (status, body, trailers) = if path.contains("garbled") {
        (200, "\0\0\0\0\x03\x7f\x7f\x7f", true)
    } else if path.contains("nothing") {
        (200, "", true)
    } else if path.contains("page") {
        (404, "no such page", false)
    } else if path.contains("busy") {
        (503, "busy", false)
    } else {
        return None;
    };
    let mut answer = Response::new(full(body));
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    if !trailers {
        return Some(answer);
    }
    let name = http::HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert("content-type", name);
    let good = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    Some(answer.map(|body| body.with_trailers(async { Some(Ok(good)) }).boxed_unsync()))
}

struct Decide(Arc<State>);

impl Service<tonic::Request<CheckRequest>> for Decide {
    type Response = tonic::Response<CheckResponse>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Self::Response, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { decide(request.into_inner(), &state).await })
    }
}

async fn decide(
    check: CheckRequest,
    state: &State,
) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
    let attributes = check.attributes.clone().unwrap_or_default();
    let http = attributes.request.and_then(|r| r.http);
    // A TCP stream is told by its port.
    let port = attributes.destination.and_then(|d| d.address);
    let port = port.and_then(|a| a.socket_address).map(|a| a.port_value);
    let question = match http {
        Some(http) => {
            let mut headers: Vec<_> = http.headers.into_iter().collect();
            headers.push(("host".to_owned(), http.host));
            Question {
                method: http.method,
                path: http.path,
                headers,
                body: match http.raw_body.is_empty() {
                    true => http.body.into_bytes(),
                    false => http.raw_body,
                },
                check: Some(check),
            }
        }
        None => Question {
            method: "TCP".to_owned(),
            path: match port {
                Some(7) => "/deny".to_owned(),
                _ => "/tcp".to_owned(),
            },
            check: Some(check),
            ..Question::default()
        },
    };
    let path = state.note(question).await;
    answers::response(&path).map(tonic::Response::new)
}
