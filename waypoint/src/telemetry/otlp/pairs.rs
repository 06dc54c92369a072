//! Spans and records of logs in protobuf as they are made: a span has about fifty attributes, and to make a `KeyValue` of
//! each, with two texts of its own, to be measured at each level and then copied, is most of what a span costs. Which
//! fields and attributes there are is said in `conventions`, `spans` and `logs`; attributes of resources are in `attributes`.

use std::fmt::{self, Write as _};

use opentelemetry_proto::tonic::common::v1::AnyValue;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Numbers of fields in the protocol: `Span.attributes` and `Span.events`, `LogRecord.attributes`; `Event.time_unix_nano`,
/// `.name` and `.attributes`; `KeyValue.key` and `.value`, `AnyValue.string_value` and `.int_value`.
const SPAN_ATTRIBUTES: u8 = 9;
const SPAN_EVENTS: u32 = 11;
const RECORD_ATTRIBUTES: u8 = 6;
const EVENT_TIME: u32 = 1;
const EVENT_NAME: u32 = 2;
const EVENT_ATTRIBUTES: u8 = 3;
const PAIR_KEY: u8 = 1;
const PAIR_VALUE: u8 = 2;
const ANY_STRING: u8 = 1;
const ANY_INT: u32 = 3;

/// The number of such a field with what it holds takes one byte.
const KEY_BYTES: usize = 1;

/// What begins an integer as a value.
const VARINT_OF_ANY_INT: u8 = (ANY_INT as u8) << 3 | WireType::Varint as u8;

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// Fields of a span or of a record, encoded, attributes and events among them. An attribute whose text has no letter is
/// left out: it says nothing.
#[derive(Debug)]
pub(super) struct Pairs {
    field: u8,
    bytes: Vec<u8>,
    /// Room for what displays.
    shown: String,
    /// Room for what is in an event.
    inner: Vec<u8>,
}

/// Of a span.
impl Default for Pairs {
    fn default() -> Self {
        Self::of(SPAN_ATTRIBUTES)
    }
}

impl Pairs {
    fn of(field: u8) -> Self {
        Self {
            field,
            bytes: Vec::new(),
            shown: String::new(),
            inner: Vec::new(),
        }
    }

    /// Of a record of a log.
    pub(super) fn of_record() -> Self {
        Self::of(RECORD_ATTRIBUTES)
    }

    /// A field of its own, not an attribute, as long as it is not its default.
    pub(super) fn field_bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            begin(field, value.len(), &mut self.bytes);
            self.bytes.extend_from_slice(value);
        }
    }

    /// The same of a text in pieces.
    pub(super) fn field_pieces<const N: usize>(&mut self, field: u32, pieces: [&str; N]) {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        if bytes > 0 {
            begin(field, bytes, &mut self.bytes);
            for piece in pieces {
                self.bytes.extend_from_slice(piece.as_bytes());
            }
        }
    }

    /// The same of integers, and of enumerations.
    pub(super) fn field_number(&mut self, field: u32, value: u64) {
        if value > 0 {
            encode_key(field, WireType::Varint, &mut self.bytes);
            encode_varint(value, &mut self.bytes);
        }
    }

    /// The same of a time or bits.
    pub(super) fn field_fixed64(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::SixtyFourBit, &mut self.bytes);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// The same of 32 bits.
    pub(super) fn field_fixed32(&mut self, field: u32, value: u32) {
        if value > 0 {
            encode_key(field, WireType::ThirtyTwoBit, &mut self.bytes);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A field that is a value with a text.
    pub(super) fn field_any(&mut self, field: u32, text: &str) {
        begin(field, field_bytes(text.len()), &mut self.bytes);
        put(ANY_STRING, text, &mut self.bytes);
    }

    /// The same of what displays.
    pub(super) fn field_any_shown(&mut self, field: u32, value: impl fmt::Display) {
        self.shown(&value, |to, shown| to.field_any(field, shown));
    }

    /// What displays, for as long as `then` needs it.
    fn shown(&mut self, value: &dyn fmt::Display, then: impl FnOnce(&mut Self, &str)) {
        let mut shown = std::mem::take(&mut self.shown);
        shown.clear();
        // Writing to a String can not fail.
        let _ = write!(shown, "{value}");
        then(self, &shown);
        self.shown = shown;
    }

    pub(super) fn text(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.any_text(key.as_ref(), value);
        }
    }

    /// A text that is there even without a letter.
    pub(super) fn any_text(&mut self, key: &str, value: &str) {
        if !self.short_text(key, value) {
            let any = field_bytes(value.len());
            self.pair(key, any, |to| put(ANY_STRING, value, to));
        }
    }

    /// The same of one whose lengths all take a byte, as nearly all do, in fewer steps; `false`: this one's do not.
    fn short_text(&mut self, key: &str, value: &str) -> bool {
        let (Ok(all @ ..128), Ok(of_key), Ok(of_value)) = (
            u8::try_from(key.len() + value.len() + 6),
            u8::try_from(key.len()),
            u8::try_from(value.len()),
        ) else {
            return false;
        };
        let head = [delimited(self.field), all, delimited(PAIR_KEY), of_key];
        let any = [
            delimited(PAIR_VALUE),
            of_value + 2,
            delimited(ANY_STRING),
            of_value,
        ];
        self.short(head, key, any, value.as_bytes())
    }

    /// Writes a pair: what is before its key, the key, what is before its value, the value. Room is made once for all.
    fn short(&mut self, head: [u8; 4], key: &str, any: [u8; 4], value: &[u8]) -> bool {
        let begin = self.bytes.len();
        let bytes = head.len() + key.len() + any.len() + value.len();
        self.bytes.resize(begin + bytes, 0);
        let place = self.bytes.get_mut(begin..).unwrap_or_default();
        // There is always room: it was made just now.
        if let Some((of_head, rest)) = place.split_first_chunk_mut()
            && let Some((of_key, rest)) = rest.split_at_mut_checked(key.len())
            && let Some((of_any, of_value)) = rest.split_first_chunk_mut()
        {
            (*of_head, *of_any) = (head, any);
            of_key.copy_from_slice(key.as_bytes());
            of_value.copy_from_slice(value);
        }
        true
    }

    /// The same of what displays.
    pub(super) fn any_shown(&mut self, key: &str, value: impl fmt::Display) {
        self.shown(&value, |to, shown| to.any_text(key, shown));
    }

    /// What it displays.
    pub(super) fn display(&mut self, key: &str, value: impl fmt::Display) {
        self.display_as([key], value);
    }

    /// The same under several keys.
    pub(super) fn display_as<const N: usize>(&mut self, keys: [&str; N], value: impl fmt::Display) {
        self.shown(&value, |to, shown| {
            for key in keys {
                to.text(key, shown);
            }
        });
    }

    /// Of any type.
    pub(super) fn value(&mut self, key: &str, value: &AnyValue) {
        self.pair(key, value.encoded_len(), |to| {
            // There is always room in memory.
            let _ = value.encode(to);
        });
    }

    /// One of those that may be unknown.
    pub(super) fn known(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(super) fn number(&mut self, key: impl AsRef<str>, value: impl TryInto<i64>) {
        let value = value.try_into().unwrap_or(i64::MAX);
        // Protobuf's form of integers: those below zero are large ones.
        let value = value.cast_unsigned();
        if self.short_number(key.as_ref(), value) {
            return;
        }
        let any = KEY_BYTES + encoded_len_varint(value);
        self.pair(key.as_ref(), any, |to| {
            encode_key(ANY_INT, WireType::Varint, to);
            encode_varint(value, to);
        });
    }

    /// The same of one whose lengths all take a byte, as nearly all do, in fewer steps; `false`: this one's do not.
    fn short_number(&mut self, key: &str, value: u64) -> bool {
        let mut number = [0; VARINT_BYTES_MAX];
        let mut rest = &mut number[..];
        encode_varint(value, &mut rest);
        let of_number = VARINT_BYTES_MAX - rest.len();
        let (Ok(all @ ..128), Ok(of_key), Ok(of_any)) = (
            u8::try_from(key.len() + of_number + 5),
            u8::try_from(key.len()),
            u8::try_from(of_number + KEY_BYTES),
        ) else {
            return false;
        };
        // There is always a first byte.
        let Some((first, rest)) = number.get(..of_number).and_then(<[u8]>::split_first) else {
            return false;
        };
        let head = [delimited(self.field), all, delimited(PAIR_KEY), of_key];
        let any = [delimited(PAIR_VALUE), of_any, VARINT_OF_ANY_INT, *first];
        self.short(head, key, any, rest)
    }

    /// Those that are encoded already, too.
    pub(super) fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Adds an event at a time, in nanoseconds since 1970, with attributes of its own.
    pub(super) fn event(&mut self, time: u64, name: &str, attributes: impl FnOnce(&mut Self)) {
        self.field_message(SPAN_EVENTS, |event| {
            event.field_fixed64(EVENT_TIME, time);
            event.field_bytes(EVENT_NAME, name.as_bytes());
            attributes(event);
        });
    }

    /// A field that is a message; its attributes are those of an event.
    pub(super) fn field_message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut own = Self {
            field: EVENT_ATTRIBUTES,
            bytes: std::mem::take(&mut self.inner),
            shown: std::mem::take(&mut self.shown),
            inner: Vec::new(),
        };
        own.bytes.clear();
        write(&mut own);
        self.field_bytes(field, &own.bytes);
        (self.inner, self.shown) = (own.bytes, own.shown);
    }

    /// As they are encoded.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// None again.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// `any`: bytes of the value that `write` writes.
    fn pair(&mut self, key: &str, any: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let to = &mut self.bytes;
        begin(
            self.field.into(),
            field_bytes(key.len()) + field_bytes(any),
            to,
        );
        put(PAIR_KEY, key, to);
        begin(PAIR_VALUE.into(), any, to);
        write(to);
    }
}

/// What begins a field of a low number that holds bytes, before their length.
fn delimited(field: u8) -> u8 {
    field << 3 | WireType::LengthDelimited as u8
}

/// What a field of so many bytes takes.
fn field_bytes(bytes: usize) -> usize {
    KEY_BYTES + encoded_len_varint(bytes as u64) + bytes
}

fn put(field: u8, text: &str, to: &mut Vec<u8>) {
    begin(field.into(), text.len(), to);
    to.extend_from_slice(text.as_bytes());
}

/// Begins a field that holds so many bytes.
pub(super) fn begin(field: u32, bytes: usize, to: &mut Vec<u8>) {
    // Nearly all are short and of the first fields: two bytes, of which there are hundreds in a span.
    if let (Ok(field @ ..16), Ok(bytes @ ..128)) = (u8::try_from(field), u8::try_from(bytes)) {
        to.extend_from_slice(&[delimited(field), bytes]);
        return;
    }
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(bytes as u64, to);
}

/// A message as a field.
pub(super) fn message(field: u32, of: &impl Message, to: &mut Vec<u8>) {
    begin(field, of.encoded_len(), to);
    // There is always room in memory.
    let _ = of.encode(to);
}

#[cfg(test)]
mod tests;
