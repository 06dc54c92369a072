//! Streams of entries to one receiver, one after the other: each begins by saying who sends it, and one whose connection
//! takes no more ends in good order beside the next. Knows nothing of how the receiver is reached.

use bytes::Bytes;
use hyper::client::conn::http2::SendRequest;
use tokio::task::JoinHandle;
use tonic::body::Body;

use super::super::endpoint::Destination;
use super::super::transport::{Failure, Partial};
use super::stream::Stream;
use crate::grpc::Leaving;

pub(in super::super) struct Streams {
    /// What begins the first message of each.
    identifier: Vec<u8>,
    open: Option<Stream>,
    /// The end of the last one that had to go; those before it had their time.
    ending: Option<JoinHandle<()>>,
}

impl Streams {
    /// None is open.
    pub(in super::super) fn new(identifier: Vec<u8>) -> Self {
        Self {
            identifier,
            open: None,
            ending: None,
        }
    }

    /// Sends a message in the open stream, or in a new one over this connection.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(in super::super) async fn send(
        &mut self,
        over: (SendRequest<Body>, Leaving),
        to: &Destination,
        message: Bytes,
    ) -> Result<Partial, Failure> {
        if self.open.as_ref().is_some_and(Stream::is_leaving) {
            self.give_up();
        }
        let (stream, message) = match self.open.take().filter(|stream| !stream.is_over()) {
            Some(stream) => (stream, message),
            None => {
                let first = [&self.identifier[..], &message].concat();
                (Stream::open(over, to).await?, first.into())
            }
        };
        self.open.insert(stream).send(message).await?;
        Ok(Partial {
            is_unanswered: true,
            ..Partial::default()
        })
    }

    /// Sends nothing more in the open stream. What it took arrives if the other end still wants it.
    pub(in super::super) fn give_up(&mut self) {
        let leaving = self.open.take().filter(Stream::is_leaving);
        if let Some(stream) = leaving {
            self.ending = Some(tokio::spawn(stream.finish()));
        }
    }

    /// Ends what is open in good order.
    pub(in super::super) async fn finish(self) {
        let open = async {
            if let Some(stream) = self.open {
                stream.finish().await;
            }
        };
        let ending = async {
            if let Some(ending) = self.ending {
                // A task that panicked has nothing left to end.
                let _ = ending.await;
            }
        };
        tokio::join!(open, ending);
    }
}
