//! Attributes of spans in protobuf as they are made: a span has about fifty, and to make a `KeyValue` of each, with two
//! texts of its own, to be measured at each level and then copied, is most of what a span costs. Which attributes
//! there are is said in `conventions` and `spans`; those of resources and records are in `attributes`.

use std::fmt::{self, Write as _};

use opentelemetry_proto::tonic::trace::v1::span;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Numbers of fields in the protocol: `Span.attributes` and `Span.events`, `Event.attributes`, `KeyValue.key` and
/// `.value`, `AnyValue.string_value` and `.int_value`.
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_EVENTS: u32 = 11;
const EVENT_ATTRIBUTES: u32 = 3;
const PAIR_KEY: u32 = 1;
const PAIR_VALUE: u32 = 2;
const ANY_STRING: u32 = 1;
const ANY_INT: u32 = 3;

/// The number of such a field with what it holds takes one byte.
const KEY_BYTES: usize = 1;

/// Fields of a span: its attributes and events, encoded. Texts without a letter are left out: they say nothing.
#[derive(Debug)]
pub(super) struct Pairs {
    field: u32,
    bytes: Vec<u8>,
    /// Room for what displays.
    shown: String,
}

/// Of a span.
impl Default for Pairs {
    fn default() -> Self {
        Self::of(SPAN_ATTRIBUTES)
    }
}

impl Pairs {
    fn of(field: u32) -> Self {
        Self {
            field,
            bytes: Vec::new(),
            shown: String::new(),
        }
    }

    pub(super) fn text(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            let any = field_bytes(value.len());
            self.pair(key.as_ref(), any, |to| put(ANY_STRING, value, to));
        }
    }

    /// What it displays.
    pub(super) fn display(&mut self, key: &str, value: impl fmt::Display) {
        let mut shown = std::mem::take(&mut self.shown);
        shown.clear();
        // Writing to a String can not fail.
        let _ = write!(shown, "{value}");
        self.text(key, &shown);
        self.shown = shown;
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
        let any = KEY_BYTES + encoded_len_varint(value);
        self.pair(key.as_ref(), any, |to| {
            encode_key(ANY_INT, WireType::Varint, to);
            encode_varint(value, to);
        });
    }

    /// Those of another, too.
    pub(super) fn extend(&mut self, more: &Self) {
        self.bytes.extend_from_slice(&more.bytes);
    }

    /// Adds an event with attributes of its own.
    pub(super) fn event(&mut self, event: &span::Event, attributes: impl FnOnce(&mut Self)) {
        let mut own = Self::of(EVENT_ATTRIBUTES);
        attributes(&mut own);
        message(SPAN_EVENTS, event, own.bytes(), &mut self.bytes);
    }

    /// As fields of a span.
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
        begin(self.field, field_bytes(key.len()) + field_bytes(any), to);
        put(PAIR_KEY, key, to);
        begin(PAIR_VALUE, any, to);
        write(to);
    }
}

/// What a field of so many bytes takes.
fn field_bytes(bytes: usize) -> usize {
    KEY_BYTES + encoded_len_varint(bytes as u64) + bytes
}

fn put(field: u32, text: &str, to: &mut Vec<u8>) {
    begin(field, text.len(), to);
    to.extend_from_slice(text.as_bytes());
}

/// Begins a field that holds so many bytes.
pub(super) fn begin(field: u32, bytes: usize, to: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(bytes as u64, to);
}

/// A message as a field, with `more` of its fields that are encoded already: their order is of no account.
pub(super) fn message(field: u32, of: &impl Message, more: &[u8], to: &mut Vec<u8>) {
    begin(field, of.encoded_len() + more.len(), to);
    // There is always room in memory.
    let _ = of.encode(to);
    to.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;

    use super::super::attributes::Attributes;
    use super::*;

    /// The same said both ways.
    fn both(said: &[(String, Result<String, i64>)]) -> (Pairs, Attributes) {
        let (mut pairs, mut attributes) = (Pairs::default(), Attributes::default());
        for (key, value) in said {
            match value {
                Ok(text) => {
                    pairs.text(key, text);
                    attributes.text(key.as_str(), text.as_str());
                }
                Err(number) => {
                    pairs.number(key, *number);
                    attributes.number(key.as_str(), *number);
                }
            }
        }
        (pairs, attributes)
    }

    fn value() -> impl Strategy<Value = Result<String, i64>> {
        prop_oneof![
            ".{0,8}".prop_map(Ok),
            // Lengths that take two bytes and three.
            (100_usize..300, 0_usize..17_000).prop_map(|(a, b)| Ok("x".repeat(a * (b % 2) + b))),
            any::<i64>().prop_map(Err),
            (0_i64..200).prop_map(Err),
        ]
    }

    proptest! {
        /// The structs of the crate for OTLP are the oracle.
        #[test]
        fn what_is_encoded_by_hand_is_what_the_structs_say(
            said in prop::collection::vec((".{0,200}", value()), 0..6),
            of_event in prop::collection::vec((".{0,9}", value()), 0..3),
        ) {
            let (mut pairs, attributes) = both(&said);
            let event = span::Event { time_unix_nano: 7, name: "event".into(), ..span::Event::default() };
            pairs.event(&event, |own| {
                for (key, value) in &of_event {
                    match value {
                        Ok(text) => own.text(key, text),
                        Err(number) => own.number(key, *number),
                    }
                }
            });
            let bare = Span { name: "span".into(), ..Span::default() };
            let mut encoded = Vec::new();
            message(1, &bare, pairs.bytes(), &mut encoded);
            // A field is its number, its length, and what it holds.
            let decoded = Span::decode_length_delimited(&encoded[1..]).unwrap();
            let expected = Span {
                attributes: attributes.take(),
                events: vec![span::Event { attributes: both(&of_event).1.take(), ..event }],
                ..bare
            };
            prop_assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn what_displays_is_a_text_and_others_are_taken_as_they_are() {
        let mut first = Pairs::default();
        first.display("a", 1.5);
        first.known("b", None::<&str>);
        first.known("c", Some(""));
        let mut pairs = Pairs::default();
        pairs.extend(&first);
        pairs.number("d", u64::MAX);
        let mut attributes = Attributes::default();
        attributes.text("a", "1.5");
        attributes.number("d", i64::MAX);
        let span = Span::decode(pairs.bytes()).unwrap();
        assert_eq!(span.attributes, attributes.take());
        pairs.clear();
        assert!(pairs.bytes().is_empty());
    }
}
