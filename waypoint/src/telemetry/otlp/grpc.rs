//! One export by gRPC, over a connection that is there. The message is encoded already, once for all
//! attempts.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::client::conn::http2::SendRequest;
use prost::Message;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::endpoint::{Destination, Signal};
use super::message::read;
use super::transport::{Failure, Partial};
use crate::grpc::Channel;
use crate::limits::OTLP_ANSWER_BYTES_MAX;

/// A client of one receiver, over a connection that is there.
///
/// # Errors
/// When its address is none.
pub(super) fn client(
    sender: SendRequest<Body>,
    to: &Destination,
) -> Result<Grpc<Channel>, Failure> {
    let scheme = if to.tls { "https" } else { "http" };
    let host = match to.host.contains(':') {
        true => format!("[{}]", to.host),
        false => to.host.clone(),
    };
    let origin = Uri::builder()
        .scheme(scheme)
        .authority(format!("{host}:{}", to.port))
        .path_and_query("/")
        .build()
        .map_err(|e| Failure::Final(e.to_string()))?;
    let client =
        Grpc::with_origin(Channel(sender), origin).max_decoding_message_size(OTLP_ANSWER_BYTES_MAX);
    Ok(match to.gzip {
        true => client.send_compressed(CompressionEncoding::Gzip),
        false => client,
    })
}

/// A request with the receiver's metadata.
pub(super) fn request<T>(to: &Destination, message: T) -> tonic::Request<T> {
    let headers = to.headers.iter().cloned().collect();
    let metadata = MetadataMap::from_headers(headers);
    tonic::Request::from_parts(metadata, tonic::Extensions::default(), message)
}

pub(super) async fn export(
    sender: SendRequest<Body>,
    signal: Signal,
    to: &Destination,
    message: Bytes,
) -> Result<Partial, Failure> {
    let mut client = client(sender, to)?;
    let mut request = request(to, message);
    request.set_timeout(to.timeout);
    let ready = client.ready().await;
    ready.map_err(|e| Failure::Again(format!("the connection broke: {e}"), None))?;
    let method = PathAndQuery::from_static(signal.method());
    match client.unary(request, method, Encoded).await {
        Ok(answer) => read(&answer.into_inner()),
        Err(status) => Err(failure(&status)),
    }
}

/// Which statuses are worth another attempt: those that OTLP names. One that is out of resources is only
/// if it says when to come again.
pub(super) fn failure(status: &Status) -> Failure {
    let message: String = status
        .message()
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    let words = format!("it answered gRPC status {:?}: {message}", status.code());
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Again(words, pushback(status)),
        // A connection that broke is told by a status of tonic's own.
        _ if std::error::Error::source(status).is_some() => Failure::Again(words, None),
        Code::ResourceExhausted if pushback(status).is_some() => {
            Failure::Again(words, pushback(status))
        }
        _ => Failure::Final(words),
    }
}

/// How long the receiver wants to be left alone: `google.rpc.RetryInfo` among the details.
fn pushback(status: &Status) -> Option<Duration> {
    let details = Details::decode(status.details()).ok()?.details;
    let mut details = details.into_iter();
    let found = details.find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*found.value).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos)
        .ok()
        .filter(|n| *n < 1_000_000_000);
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos?))
}

/// `google.rpc.Status`, of which only the details are of interest.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Messages that are encoded, and answers that are not decoded yet.
#[derive(Clone, Copy)]
pub(super) struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exhausted(seconds: i64) -> Status {
        let info = RetryInfo {
            retry_delay: Some(Delay {
                seconds,
                nanos: 5_000_000,
            }),
        };
        let details = Details {
            details: vec![Detail {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec(),
            }],
        };
        let details = Bytes::from(details.encode_to_vec());
        Status::with_details(Code::ResourceExhausted, "busy", details)
    }

    #[test]
    fn out_of_resources_is_worth_another_attempt_only_if_it_says_when() {
        let pause = Some(Duration::from_millis(2_005));
        assert!(matches!(failure(&exhausted(2)), Failure::Again(_, p) if p == pause));
        assert!(matches!(failure(&exhausted(-1)), Failure::Final(_)));
        let bare = Status::resource_exhausted("busy");
        assert!(matches!(failure(&bare), Failure::Final(_)));
    }

    #[test]
    fn the_statuses_that_otlp_names_are_worth_another_attempt_and_no_others() {
        let again = [1, 4, 10, 11, 14, 15];
        for code in (1..=16).filter(|code| *code != 8) {
            let failed = failure(&Status::new(Code::from_i32(code), ""));
            let is_again = matches!(failed, Failure::Again(..));
            assert_eq!(is_again, again.contains(&code), "{code}");
        }
    }
}
