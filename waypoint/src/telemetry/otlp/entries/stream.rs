//! A stream of Envoy's Access Log Service: messages one way, for as long as the receiver wants them. It is not answered, and
//! so nothing tells of a message more than that the connection had room for it; whoever refuses a stream does so soon. Once
//! the receiver wants to end the connection (GOAWAY), nothing more is handed to it, and the stream ends in good order.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::super::endpoint::Destination;
use super::super::grpc::{self, Encoded};
use super::super::transport::Failure;
use crate::grpc::Leaving;
use crate::limits::{LOG_STREAM_DOUBT, LOG_STREAM_LAST};

/// The gRPC method that takes entries.
pub const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// A message, and who is told when it is taken.
type Parted = (Bytes, oneshot::Sender<()>);

/// An open stream.
pub(in super::super) struct Stream {
    /// `None`: nothing more comes.
    messages: Option<mpsc::Sender<Parted>>,
    call: JoinHandle<Result<(), Status>>,
    /// Whether the connection does.
    leaving: Leaving,
    /// A message was taken, and nothing was said against it.
    is_trusted: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.call.abort();
    }
}

impl Stream {
    /// Opens one.
    ///
    /// # Errors
    /// When the connection can not be asked.
    pub(in super::super) async fn open(
        (sender, leaving): (SendRequest<Body>, Leaving),
        to: &Destination,
    ) -> Result<Self, Failure> {
        let mut client = grpc::client(sender, to)?;
        let ready = client.ready().await;
        ready.map_err(|e| Failure::Again(format!("the connection broke: {e}"), None))?;
        let (messages, queue) = mpsc::channel(1);
        let request = grpc::request(to, Messages::new(queue, leaving.clone()));
        let call = tokio::spawn(async move {
            let method = PathAndQuery::from_static(METHOD);
            let answer = client.client_streaming(request, method, Encoded).await;
            answer.map(drop)
        });
        Ok(Self {
            messages: Some(messages),
            call,
            leaving,
            is_trusted: false,
        })
    }

    /// Nobody reads it any more.
    pub(in super::super) fn is_over(&self) -> bool {
        self.call.is_finished()
    }

    /// It takes no more messages, and what it took may still be on its way.
    pub(in super::super) fn is_leaving(&self) -> bool {
        self.leaving.is_now() && !self.is_over()
    }

    /// Hands a message to the connection.
    ///
    /// # Errors
    /// Why the stream ended or takes no more. It did not get the message, or is over.
    pub(in super::super) async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        let (tell, taken) = oneshot::channel();
        let to = self.messages.as_ref();
        let to = to.ok_or_else(|| Failure::Final("the stream is over".to_owned()))?;
        // What is not sent is not taken.
        let _ = to.send((message, tell)).await;
        if taken.await.is_err() {
            if self.is_leaving() {
                let words = "it wants to end the connection";
                return Err(Failure::Again(words.to_owned(), None));
            }
            return Err(why(&(&mut self.call).await));
        }
        if !self.is_trusted {
            match timeout(LOG_STREAM_DOUBT, &mut self.call).await {
                // It says nothing, or that it took everything, as the end was ours.
                Err(_) => {}
                Ok(Ok(Ok(()))) if self.leaving.is_now() => {}
                Ok(ended) => return Err(why(&ended)),
            }
            self.is_trusted = true;
        }
        Ok(())
    }

    /// Ends it in good order: what was sent arrives, if the receiver takes it in time.
    pub(in super::super) async fn finish(mut self) {
        self.messages = None;
        if !self.call.is_finished() {
            // Whatever it is: there is nothing more to do about it.
            let _ = timeout(LOG_STREAM_LAST, &mut self.call).await;
        }
    }
}

/// Why it ended.
fn why(ended: &Result<Result<(), Status>, JoinError>) -> Failure {
    match ended {
        Ok(Err(status)) => grpc::failure(status),
        Ok(Ok(())) => Failure::Again("it ended the stream".to_owned(), None),
        Err(_) => Failure::Again("the stream's task ended".to_owned(), None),
    }
}

/// Tells of each message when the connection asks for it; the end of the connection is theirs.
struct Messages {
    queue: mpsc::Receiver<Parted>,
    left: BoxFuture<'static, ()>,
}

impl Messages {
    fn new(queue: mpsc::Receiver<Parted>, leaving: Leaving) -> Self {
        let left = leaving.wait().boxed();
        Self { queue, left }
    }
}

impl futures::Stream for Messages {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // First this: whoever ends the connection may never read what is in the queue.
        if self.left.poll_unpin(context).is_ready() {
            // The sender learns of it at once.
            self.queue.close();
            while self.queue.try_recv().is_ok() {}
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.queue.poll_recv(context));
        Poll::Ready(next.map(|(message, taken)| {
            // Nobody waits any more if it took too long.
            let _ = taken.send(());
            message
        }))
    }
}
