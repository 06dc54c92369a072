//! Records on their way into messages: encoded one by one as they are made, so that none is held, and the length of
//! each is counted once and not again by every message around it. Protobuf alone: JSON is made of it (`message`).

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::lane::Encoded;
use super::pairs::{begin, message};
use crate::limits::OTLP_MESSAGE_BYTES_MAX;

/// The first field of every message around a record: `resource_spans`, `resource_logs`; `resource`; `scope`.
const FIRST: u32 = 1;

/// Where what is inside stands: `scope_spans`, `scope_logs`; `spans`, `log_records`.
const INSIDE: u32 = 2;

/// What begins a field around others: its number and a length.
const FRAME_BYTES_MAX: usize = 1 + 10;

/// Messages under way, of at most [`OTLP_MESSAGE_BYTES_MAX`]; a record that is longer alone is one of its own.
pub(super) struct Pack {
    /// `resource` and `scope` as the messages around records begin.
    resource: Vec<u8>,
    scope: Vec<u8>,
    full: Vec<Encoded>,
    /// Room for what begins the message, whose lengths are known at its end; then its records, each as a field.
    /// Megabytes are written once and never moved.
    message: Vec<u8>,
    count: u64,
}

impl Pack {
    /// Without a record.
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let (mut of_resource, mut of_scope) = (Vec::new(), Vec::new());
        message(FIRST, resource, &[], &mut of_resource);
        message(FIRST, scope, &[], &mut of_scope);
        Self {
            message: vec![0; of_resource.len() + of_scope.len() + 2 * FRAME_BYTES_MAX],
            resource: of_resource,
            scope: of_scope,
            full: Vec::new(),
            count: 0,
        }
    }

    fn head_bytes_max(&self) -> usize {
        self.resource.len() + self.scope.len() + 2 * FRAME_BYTES_MAX
    }

    fn records_bytes(&self) -> usize {
        self.message.len().saturating_sub(self.head_bytes_max())
    }

    /// Makes room for so many times what there is.
    pub(super) fn expect(&mut self, times: usize) {
        let bytes = self.records_bytes().saturating_mul(times);
        self.message.reserve(bytes.min(OTLP_MESSAGE_BYTES_MAX));
    }

    /// Takes a span, or a record of a log, with `more` of its fields that are encoded already.
    pub(super) fn add(&mut self, record: &impl Message, more: &[u8]) {
        let before = self.message.len();
        message(INSIDE, record, more, &mut self.message);
        if self.count > 0 && self.records_bytes() > OTLP_MESSAGE_BYTES_MAX {
            let last = self.message.split_off(before);
            self.close();
            self.message.extend_from_slice(&last);
        }
        self.count += 1;
    }

    /// All messages, and how many records each has.
    pub(super) fn finish(mut self) -> Vec<Encoded> {
        if self.count > 0 {
            self.close();
        }
        self.full
    }

    /// Begins the next message.
    fn close(&mut self) {
        let (room, records) = (self.head_bytes_max(), self.records_bytes());
        let mut inner = self.resource.clone();
        begin(INSIDE, self.scope.len() + records, &mut inner);
        inner.extend_from_slice(&self.scope);
        let mut head = Vec::with_capacity(room);
        begin(FIRST, inner.len() + records, &mut head);
        head.append(&mut inner);
        // There is always room for it.
        let start = room.saturating_sub(head.len());
        if let Some(place) = self.message.get_mut(start..room) {
            place.copy_from_slice(&head);
        }
        let full = std::mem::replace(&mut self.message, vec![0; room]);
        let full = Bytes::from(full).slice(start..);
        self.full.push((full, std::mem::take(&mut self.count)));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

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

    fn span(name: String) -> Span {
        Span {
            name,
            span_id: vec![1; 8],
            ..Span::default()
        }
    }

    /// The messages of the crate for OTLP are the oracle.
    #[test]
    fn what_is_packed_is_what_would_be_encoded_at_once() {
        let spans: Vec<Span> = (0..3).map(|n| span(format!("span {n}"))).collect();
        let scope = InstrumentationScope {
            name: "cairn".into(),
            ..InstrumentationScope::default()
        };
        let mut pack = Pack::new(&resource(), &scope);
        spans.iter().for_each(|span| pack.add(span, &[]));
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        assert_eq!(pack.finish(), [(request.encode_to_vec().into(), 3)]);
        let none = Pack::new(&resource(), &InstrumentationScope::default());
        assert!(none.finish().is_empty());
    }

    #[test]
    fn a_record_that_does_not_fit_begins_another_message() {
        let scope = InstrumentationScope::default();
        let mut pack = Pack::new(&Resource::default(), &scope);
        let half = OTLP_MESSAGE_BYTES_MAX / 2;
        for len in [10, half, half, 2 * OTLP_MESSAGE_BYTES_MAX, 10] {
            pack.add(&span("x".repeat(len)), &[]);
        }
        let counts: Vec<u64> = pack.finish().iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
    }
}
