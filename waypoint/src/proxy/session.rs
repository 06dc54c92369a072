//! HTTP/2 towards an endpoint, over one of our streams: the engine's own HTTP/2 client behind the
//! session trait of its connector. Nothing of HTTP/2 is done here.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use h2::SendStream;
use http::HeaderMap;
use pingora_core::connectors::http::v2::ConnectionRef;
use pingora_core::protocols::http::custom::client::Session;
use pingora_core::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, UniqueIDType};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::Instant;

/// One request on a pooled HTTP/2 connection.
pub struct Http2Upstream {
    session: Http2Session,
    request_ended: bool,
    /// When the response must be over.
    deadline: Option<Instant>,
}

impl Http2Upstream {
    /// A session on which nothing has been sent.
    pub fn new(session: Http2Session) -> Self {
        Self {
            session,
            request_ended: false,
            deadline: None,
        }
    }

    /// Ends a read when the response must be over.
    async fn in_time<T>(
        deadline: Option<Instant>,
        read: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match deadline {
            None => read.await,
            Some(at) => (tokio::time::timeout_at(at, read).await)
                .or_err(ErrorType::ReadTimedout, "the time of the attempt is over")?,
        }
    }

    pub(super) fn connection(&self) -> &ConnectionRef {
        &self.session.conn
    }
}

#[async_trait]
impl Session for Http2Upstream {
    async fn write_request_header(&mut self, req: Box<RequestHeader>, end: bool) -> Result<()> {
        self.request_ended = end;
        self.session.write_request_header(req, end)
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.session.write_request_body(data, end).await
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.session.finish_request_body()
    }

    /// For all reads together; the engine sets it once, before it sends (`deadline.rs`).
    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.session.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        Self::in_time(self.deadline, self.session.read_response_header()).await
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        Self::in_time(self.deadline, self.session.read_response_body()).await
    }

    fn response_finished(&self) -> bool {
        self.session.response_finished()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.session.shutdown();
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.session.response_header()
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        self.session.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.session.digest_mut()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.session.server_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.session.client_addr()
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        Self::in_time(self.deadline, self.session.read_trailers()).await
    }

    fn fd(&self) -> UniqueIDType {
        self.session.fd()
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        self.session.check_response_end_or_error()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let stream = self.session.take_request_body_writer()?;
        Some(Box::new(Body {
            stream,
            ended: self.request_ended,
        }))
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        Some(Box::new(futures::stream::empty()))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }
}

/// The request body. Dropped before its end, it resets the stream.
struct Body {
    stream: SendStream<Bytes>,
    ended: bool,
}

impl Body {
    /// Waits until the peer has given window. What does not fit it waits inside the stream: at most
    /// one chunk of the engine.
    async fn room(&mut self, bytes: usize) -> Result<()> {
        self.stream.reserve_capacity(bytes);
        while self.stream.capacity() == 0 {
            match std::future::poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                Some(granted) => {
                    granted.or_err(ErrorType::WriteError, "waiting for the endpoint's window")?;
                }
                None => {
                    return Error::e_explain(
                        ErrorType::WriteError,
                        "the endpoint closed the stream",
                    );
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl BodyWrite for Body {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        if self.ended || data.is_empty() {
            return Ok(());
        }
        self.room(data.len()).await?;
        let data = data.split_to(data.len());
        self.stream
            .send_data(data, false)
            .or_err(ErrorType::WriteError, "sending the request body")
    }

    async fn finish(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.stream
            .send_data(Bytes::new(), true)
            .or_err(ErrorType::WriteError, "ending the request body")
    }

    async fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}
