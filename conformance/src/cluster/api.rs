//! The API server's JSON over HTTP, as the administrator, through `kubectl proxy`: so that a test can ask much
//! and wait for events without a process for each question.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::process::READY_DEADLINE;

/// Between two attempts while the API server is away: it sends no event when it is back.
const RETRY: Duration = Duration::from_millis(100);

/// Path of the objects of a kind in a namespace, or in all of them: `collection("apps/v1", "shop", "deployments")`.
pub fn collection(api_version: &str, namespace: &str, plural: &str) -> String {
    let root = match api_version.contains('/') {
        true => format!("/apis/{api_version}"),
        false => format!("/api/{api_version}"),
    };
    match namespace {
        "" => format!("{root}/{plural}"),
        namespace => format!("{root}/namespaces/{namespace}/{plural}"),
    }
}

/// The API server as the administrator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    proxy: SocketAddr,
}

impl Api {
    /// Behind the `kubectl proxy` that listens there.
    pub fn behind(proxy: SocketAddr) -> Self {
        Self { proxy }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Incoming), String> {
        let stream = TcpStream::connect(self.proxy)
            .await
            .map_err(|e| e.to_string())?;
        let (mut send, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", content_type)
            .body(Full::new(body))
            .expect("a request");
        let response = send
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        Ok((response.status(), response.into_body()))
    }

    /// One call. An error is a connection that failed; a refusal is an answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), String> {
        let (status, body) = self.send(method, path, content_type, body).await?;
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, value))
    }

    async fn accepted(&self, method: Method, path: &str, of: &str, body: Option<&Value>) -> Value {
        let name = method.to_string();
        let (status, value) = self
            .call(method, path, of, body)
            .await
            .expect("an answer of the API server");
        assert!(status.is_success(), "{name} {path}: {status} {value}");
        value
    }

    /// An object or a list; `None` where there is none.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let (status, value) = self
            .call(Method::GET, path, "application/json", None)
            .await
            .expect("an answer of the API server");
        assert!(
            status.is_success() || status == StatusCode::NOT_FOUND,
            "GET {path}: {status} {value}"
        );
        status.is_success().then_some(value)
    }

    /// Makes an object.
    pub async fn create(&self, collection: &str, object: &Value) -> Value {
        self.accepted(Method::POST, collection, "application/json", Some(object))
            .await
    }

    /// Changes an object by a merge patch; `path` may end in `/status`.
    pub async fn patch(&self, path: &str, patch: &Value) -> Value {
        self.accepted(
            Method::PATCH,
            path,
            "application/merge-patch+json",
            Some(patch),
        )
        .await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) -> Value {
        self.accepted(Method::DELETE, path, "application/json", None)
            .await
    }

    /// Watches a collection, beginning with what is there; `query` narrows it (`fieldSelector=...`).
    pub async fn watch(&self, collection: &str, query: &str) -> Watch {
        loop {
            let path = format!("{collection}?watch=1&{query}");
            match self
                .send(Method::GET, &path, "application/json", None)
                .await
            {
                Ok((StatusCode::OK, body)) => {
                    return Watch {
                        body,
                        rest: BytesMut::new(),
                    };
                }
                Ok((status, _)) if status.is_client_error() && status != StatusCode::NOT_FOUND => {
                    panic!("watch {path}: {status}")
                }
                // Away, starting, or the kind is not served yet.
                _ => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Waits until an object is as it should be, and returns it. Panics with what it was last.
    pub async fn until(
        &self,
        collection: &str,
        name: &str,
        what: &str,
        is_right: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = self.follow(collection, name, |event| {
            last = event.object.clone();
            event.kind != "DELETED" && is_right(&event.object)
        });
        if tokio::time::timeout(READY_DEADLINE, found).await.is_err() {
            panic!("not in time: {collection}/{name} {what}; it was\n{last:#}");
        }
        last
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, collection: &str, name: &str) {
        let gone = async {
            while self.get(&format!("{collection}/{name}")).await.is_some() {
                let deleted = self.follow(collection, name, |event| event.kind == "DELETED");
                // It may have gone between the question and the watch.
                let _ = tokio::time::timeout(Duration::from_secs(1), deleted).await;
            }
        };
        if tokio::time::timeout(READY_DEADLINE, gone).await.is_err() {
            let left = self.get(&format!("{collection}/{name}")).await;
            panic!("not in time: {collection}/{name} is gone; it is\n{left:#?}");
        }
    }

    async fn follow(&self, collection: &str, name: &str, mut is_it: impl FnMut(&Event) -> bool) {
        let query = format!("fieldSelector=metadata.name%3D{name}");
        loop {
            let mut watch = self.watch(collection, &query).await;
            while let Some(event) = watch.next().await {
                if is_it(&event) {
                    return;
                }
            }
        }
    }
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `ERROR`.
    pub kind: String,
    /// The object.
    pub object: Value,
}

/// Events of a collection as they come.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    rest: BytesMut,
}

impl Watch {
    /// The next event; `None` when the watch ended, as the API server ends each some time.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line).expect("JSON");
                return Some(Event {
                    kind: event["type"].as_str().unwrap_or_default().to_owned(),
                    object: event["object"].take(),
                });
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}
