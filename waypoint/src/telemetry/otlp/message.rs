//! Messages in the form that a receiver takes, protobuf or JSON, and the answers to them. What is in a message is
//! said in `spans`, `logs` and `metrics`.
//!
//! JSON is protobuf's, with what OTLP changes in it (specification of OTLP, "JSON Protobuf Encoding"): names in
//! lowerCamelCase, ids in hexadecimal digits, enumerations as numbers. Integers of 64 bits are texts.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde::Serialize;
use serde_json::Value;

use super::endpoint::Protocol;
use super::transport::{Failure, Partial};

/// Characters of what a receiver says that are kept.
const WORDS_MAX: usize = 200;

/// A message as its receiver reads it.
pub(super) fn encode<T: Message + Serialize>(message: &T, protocol: Protocol) -> Bytes {
    match protocol {
        Protocol::Grpc | Protocol::Http => message.encode_to_vec().into(),
        Protocol::Json => {
            // Texts and numbers alone: neither step can fail.
            let mut value = serde_json::to_value(message).unwrap_or_default();
            leave_out_nulls(&mut value);
            serde_json::to_vec(&value).unwrap_or_default().into()
        }
    }
}

/// A message that was encoded as protobuf, as its receiver reads it.
pub(super) fn formed<T: Message + Default + Serialize>(
    message: Bytes,
    protocol: Protocol,
) -> Bytes {
    match protocol {
        Protocol::Grpc | Protocol::Http => message,
        // It was encoded here.
        Protocol::Json => encode(&T::decode(message).unwrap_or_default(), protocol),
    }
}

/// What is not there is not written: a receiver that reads numbers need not take null for one.
fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// Reads from an answer in protobuf what the receiver took. The answers of all signals have the same fields under
/// the same numbers.
///
/// # Errors
/// It is none.
pub(super) fn read(answer: &[u8]) -> Result<Partial, Failure> {
    let answer = ExportTraceServiceResponse::decode(answer)
        .map_err(|e| Failure::Final(format!("its answer can not be read: {e}")))?;
    let partial = answer.partial_success.unwrap_or_default();
    Ok(partial_of(partial.rejected_spans, &partial.error_message))
}

/// The same of an answer in JSON, in which the signals have names of their own.
///
/// # Errors
/// It is none.
pub(super) fn read_json(answer: &[u8]) -> Result<Partial, Failure> {
    if answer.is_empty() {
        return Ok(Partial::default());
    }
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|e| Failure::Final(format!("its answer can not be read: {e}")))?;
    let partial = answer.get("partialSuccess");
    let of = |name: &str| partial.and_then(|partial| partial.get(name));
    let names = ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"];
    let rejected = names.into_iter().find_map(of).and_then(integer);
    let words = of("errorMessage").and_then(Value::as_str);
    Ok(partial_of(
        rejected.unwrap_or_default(),
        words.unwrap_or_default(),
    ))
}

/// As text or as number: both are JSON of protobuf.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn partial_of(rejected: i64, words: &str) -> Partial {
    let words = words.chars().take(WORDS_MAX);
    Partial {
        rejected: u64::try_from(rejected).unwrap_or(0),
        words: words.flat_map(char::escape_debug).collect(),
        is_unanswered: false,
    }
}

#[cfg(test)]
mod tests;
