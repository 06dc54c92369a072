//! An HTTP/1.1 endpoint that keeps every byte it is sent, and answers with bytes the test chose: what
//! was forwarded is seen as it was, not as a library understood it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is answered to a request, given its bytes.
type Answer = fn(&str) -> Vec<u8>;

/// A running endpoint.
pub struct Endpoint {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
    complete: Arc<Mutex<Vec<String>>>,
    requests: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    answer: Answer,
    /// Requests that must have come before any is answered.
    held_until: usize,
    /// Whether a connection is closed after its first answer.
    closes: bool,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
    complete: Arc<Mutex<Vec<String>>>,
    requests: Arc<watch::Sender<usize>>,
}

impl Endpoint {
    /// Answers every request with 200 and the body `ok`.
    pub fn answering_ok(address: SocketAddr) -> Self {
        Self::answering(address, 0, |_| {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
        })
    }

    /// Answers with what `answer` makes of the request, once `held_until` requests are there.
    pub fn answering(address: SocketAddr, held_until: usize, answer: Answer) -> Self {
        Self::start(address, held_until, false, answer)
    }

    /// Answers a request and closes the connection, whatever the answer says.
    pub fn answering_and_closing(address: SocketAddr, answer: Answer) -> Self {
        Self::start(address, 0, true, answer)
    }

    fn start(address: SocketAddr, held_until: usize, closes: bool, answer: Answer) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("an address");
        listener.set_nonblocking(true).expect("non-blocking");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = watch::channel(0);
        let script = Script {
            answer,
            held_until,
            closes,
            connections: Arc::default(),
            complete: Arc::default(),
            requests: Arc::new(sender),
        };
        let connections = script.connections.clone();
        let complete = script.complete.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone()));
            }
        });
        Self {
            address,
            connections,
            complete,
            requests,
            task,
        }
    }

    /// The bytes of every connection so far.
    pub fn connections(&self) -> Vec<String> {
        let connections = self.connections.lock().expect("no panic");
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        connections.iter().map(text).collect()
    }

    /// All bytes so far.
    pub fn seen(&self) -> String {
        self.connections().concat()
    }

    /// The last complete request.
    pub fn last(&self) -> String {
        let complete = self.complete.lock().expect("no panic");
        complete.last().cloned().unwrap_or_default()
    }

    /// Complete requests so far.
    pub fn requests(&self) -> usize {
        *self.requests.borrow()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Script) {
    let at = {
        let mut connections = script.connections.lock().expect("no panic");
        connections.push(Vec::new());
        connections.len() - 1
    };
    let mut unread = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                unread.extend_from_slice(&chunk[..n]);
                script.connections.lock().expect("no panic")[at].extend_from_slice(&chunk[..n]);
            }
        }
        while let Some(end) = request_end(&unread) {
            let request: Vec<u8> = unread.drain(..end).collect();
            let request = String::from_utf8_lossy(&request).into_owned();
            let complete = script.complete.clone();
            complete.lock().expect("no panic").push(request.clone());
            script.requests.send_modify(|requests| *requests += 1);
            let mut come = script.requests.subscribe();
            let held = come.wait_for(|requests| *requests >= script.held_until);
            drop(held.await);
            let answer = (script.answer)(&request);
            if stream.write_all(&answer).await.is_err() || script.closes {
                return;
            }
        }
    }
}

/// Where the first request ends: reads Content-Length and chunks as plainly as they are meant.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let find = |from: usize, what: &[u8]| {
        let at = bytes[from..].windows(what.len()).position(|w| w == what)?;
        Some(from + at + what.len())
    };
    let head = find(0, b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        // The tests' chunks have no such bytes inside.
        return find(head - 2, b"\r\n0\r\n\r\n");
    }
    let length = text.split("\r\ncontent-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}
