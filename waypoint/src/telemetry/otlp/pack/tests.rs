//! How messages are put together, and in which memory.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::super::attributes::Attributes;
use super::*;

fn resource() -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", "waypoint");
    Resource {
        attributes: attributes.take(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "cairn".into(),
        ..InstrumentationScope::default()
    }
}

fn span(name: String) -> Span {
    Span {
        name,
        span_id: vec![1; 8],
        ..Span::default()
    }
}

fn pack() -> Pack {
    let head = Head::new(&resource(), &scope());
    Pack::new(head.into(), Arc::default(), 0)
}

fn add(pack: &mut Pack, names: impl IntoIterator<Item = String>, max: usize) {
    for name in names {
        pack.add(&span(name).encode_to_vec());
        pack.end_exchange(max);
    }
}

fn names(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("span {n}"))
}

/// The messages of the crate for OTLP.
fn request(names: impl IntoIterator<Item = String>) -> Bytes {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: names.into_iter().map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}

/// The messages of the crate for OTLP are the oracle.
#[test]
fn what_is_packed_is_what_would_be_encoded_at_once() {
    let mut pack = pack();
    add(&mut pack, names(0..3), 10);
    let [parcel] = &pack.finish()[..] else {
        panic!("one message")
    };
    assert_eq!(
        (&parcel.message, parcel.records),
        (&request(names(0..3)), 3)
    );
    assert!(self::pack().finish().is_empty());
}

#[test]
fn a_message_is_whole_with_so_many_exchanges_and_another_begins() {
    let mut pack = pack();
    add(&mut pack, names(0..5), 2);
    let full: Vec<_> = pack
        .take_whole()
        .finish()
        .into_iter()
        .map(|p| p.message)
        .collect();
    assert_eq!(full, [request(names(0..2)), request(names(2..4))]);
    let [last] = &pack.finish()[..] else {
        panic!("the rest")
    };
    assert_eq!(last.message, request(names(4..5)));
    assert_eq!(last.exchanges, 1);
}

#[test]
fn what_others_have_under_way_goes_along_while_there_is_room() {
    let mut all = pack();
    for numbers in [0..2, 2..4, 4..9] {
        let mut other = pack();
        add(&mut other, names(numbers), 100);
        all.append(other, 5);
    }
    let messages: Vec<_> = all.finish().into_iter().map(|p| p.message).collect();
    assert_eq!(messages, [request(names(0..4)), request(names(4..9))]);
}

#[test]
fn bytes_are_held_until_the_message_is_let_go() {
    let mut pack = pack();
    let held = pack.held.clone();
    add(&mut pack, names(0..3), 2);
    let bytes = held.own();
    assert_eq!(bytes, 3 * (2 + span("span 0".into()).encoded_len()));
    let parcels = pack.finish();
    assert_eq!((held.own(), held.of_all()), (bytes, bytes));
    drop(parcels);
    assert_eq!((held.own(), held.of_all()), (0, 0));
}

/// Messages are not of one length, and each would need a bit more than the last one had.
#[test]
fn the_next_message_is_written_where_one_was_that_was_sent() {
    let mut pack = pack();
    let mut places = std::collections::HashSet::new();
    for n in 0..20 {
        let name = "x".repeat(2_000 + n);
        add(&mut pack, std::iter::repeat_n(name, 10), 10);
        let [parcel] = &pack.take_whole().finish()[..] else {
            panic!("one message")
        };
        places.insert(parcel.message.as_ptr().addr() & !0xff);
    }
    // The first one grew from nothing; after it, while one is sent, another is filled.
    assert!(places.len() <= 4, "{places:?}");
}

#[test]
fn a_record_that_does_not_fit_begins_another_message() {
    let mut pack = pack();
    let half = OTLP_MESSAGE_BYTES_MAX / 2;
    let lengths = [10, half, half, 2 * OTLP_MESSAGE_BYTES_MAX, 10];
    add(&mut pack, lengths.map(|len| "x".repeat(len)), 100);
    let counts: Vec<u64> = pack.finish().iter().map(|p| p.records).collect();
    assert_eq!(counts, [2, 1, 1, 1]);
}
