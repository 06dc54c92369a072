//! One gRPC call over a connection that is there: what came back, or why nothing that can be used did.
//! What is asked and answered is not known here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use http::header::HeaderValue;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use super::AskError;
use super::connection::{Lease, Sender};
use crate::limits::EXT_AUTHZ_MESSAGE_BYTES_MAX;

/// A call.
pub(super) struct Call<'a> {
    /// Who is called.
    pub service: &'a ObjectKey,
    /// The method, as gRPC names it.
    pub method: &'static str,
    /// Sent as `grpc-timeout`; who waits no longer is the caller.
    pub timeout: Duration,
}

impl Call<'_> {
    /// Sends one message and reads one.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn unary<Q, A>(&self, lease: Lease, message: Q) -> Result<A, AskError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let Sender::Http2(sender, _streams) = &lease.sender else {
            return Err(AskError::NoEndpoint);
        };
        let origin = Uri::builder()
            .scheme("http")
            .authority(format!("{}.{}", self.service.name, self.service.namespace))
            .path_and_query("/")
            .build()?;
        let heard = Arc::new(Heard::default());
        let channel = Channel {
            sender: sender.clone(),
            heard: heard.clone(),
        };
        let client = Grpc::with_origin(channel, origin);
        let mut client = client.max_decoding_message_size(EXT_AUTHZ_MESSAGE_BYTES_MAX);
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        let ready = client.ready().await;
        ready.map_err(|_| heard.error(&Status::unavailable("")))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let method = PathAndQuery::from_static(self.method);
        let response = client.unary(request, method, codec).await;
        let response = response.map_err(|status| heard.error(&status))?;
        Ok(response.into_inner())
    }
}

/// What came over the wire, beside what tonic makes of it: its statuses do not tell an error that the
/// service reports from an answer that tonic could not read.
#[derive(Default)]
struct Heard {
    /// A status that is an error: of gRPC, or HTTP 5xx.
    failure: AtomicBool,
    /// What ended the connection.
    broken: Mutex<Option<AskError>>,
}

impl Heard {
    fn head<B>(&self, response: &http::Response<B>) {
        if response.status().is_server_error() {
            self.failure.store(true, Ordering::Relaxed);
        }
        self.status(response.headers());
    }

    fn status(&self, headers: &HeaderMap) {
        let status = headers.get(Status::GRPC_STATUS).map(HeaderValue::to_str);
        let code = status.and_then(|status| status.ok()?.parse::<u8>().ok());
        if code.is_some_and(|code| (1..=16).contains(&code)) {
            self.failure.store(true, Ordering::Relaxed);
        }
    }

    fn broke(&self, error: hyper::Error) -> AnswerBroke {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        *broken = Some(error.into());
        AnswerBroke
    }

    /// Why there is no answer.
    fn error(&self, status: &Status) -> AskError {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = broken.take() {
            return error;
        }
        let message: String = status.message().chars().take(200).collect();
        let message = message.escape_debug().to_string();
        match self.failure.load(Ordering::Relaxed) {
            true => AskError::Grpc(status.code() as i32, message),
            false => AskError::Unreadable(message),
        }
    }
}

/// In place of the error of the connection, which is kept elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct AnswerBroke;

/// One HTTP/2 connection as tonic wants it.
struct Channel {
    sender: http2::SendRequest<Body>,
    heard: Arc<Heard>,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = AnswerBroke;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AnswerBroke>> {
        let ready = self.sender.poll_ready(cx);
        ready.map_err(|error| self.heard.broke(error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, heard) = (self.sender.send_request(request), self.heard.clone());
        Box::pin(async move {
            let answer = answer.await.map_err(|error| heard.broke(error))?;
            heard.head(&answer);
            let of_body = heard.clone();
            let body = move |body: Incoming| {
                body.map_frame(move |frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        heard.status(trailers);
                    }
                    frame
                })
                .map_err(move |error| of_body.broke(error))
            };
            Ok(answer.map(|whole| Body::new(body(whole))))
        })
    }
}
