//! What is encoded by hand, by the structs of the crate for OTLP.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, span};
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
        pairs.event(7, "event", |own| {
            for (key, value) in &of_event {
                match value {
                    Ok(text) => own.text(key, text),
                    Err(number) => own.number(key, *number),
                }
            }
        });
        pairs.field_pieces(5, ["sp", "an"]);
        let bare = Span { name: "span".into(), ..Span::default() };
        let decoded = Span::decode(pairs.bytes()).unwrap();
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
    pairs.extend(first.bytes());
    pairs.number("d", u64::MAX);
    let mut attributes = Attributes::default();
    attributes.text("a", "1.5");
    attributes.number("d", i64::MAX);
    let span = Span::decode(pairs.bytes()).unwrap();
    assert_eq!(span.attributes, attributes.take());
    pairs.clear();
    assert!(pairs.bytes().is_empty());
}

#[test]
fn fields_of_every_kind_are_those_of_the_structs() {
    let mut pairs = Pairs::of_record();
    pairs.field_fixed64(1, 7);
    pairs.field_number(2, 300);
    pairs.field_bytes(3, b"INFO");
    pairs.field_any_shown(5, "body");
    pairs.field_fixed32(8, 1);
    // What is as by default takes no byte.
    let before = pairs.bytes().len();
    pairs.field_number(7, 0);
    pairs.field_bytes(9, b"");
    pairs.field_fixed32(8, 0);
    assert_eq!(pairs.bytes().len(), before);
    pairs.any_text("empty", "");
    let flag = AnyValue {
        value: Some(Value::BoolValue(true)),
    };
    pairs.value("flag", &flag);
    let mut attributes = Attributes::default();
    attributes.label("empty", "");
    let mut attributes = attributes.take();
    attributes.push(KeyValue {
        key: "flag".into(),
        value: Some(flag),
        ..KeyValue::default()
    });
    let expected = LogRecord {
        time_unix_nano: 7,
        severity_number: 300,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(Value::StringValue("body".into())),
        }),
        flags: 1,
        attributes,
        ..LogRecord::default()
    };
    assert_eq!(LogRecord::decode(pairs.bytes()).unwrap(), expected);
}
