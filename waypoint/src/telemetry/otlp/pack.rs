//! Records on their way into messages: encoded one by one as they are made, so that none is held, and the length of
//! each is counted once and not again by every message around it. Protobuf alone: JSON is made of it (`message`).

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{bytes, message};

use super::lane::Encoded;
use crate::limits::OTLP_MESSAGE_BYTES_MAX;

/// The first field of every message around a record: `resource_spans`, `resource_logs`; `resource`; `scope`.
const FIRST: u32 = 1;

/// Where what is inside stands: `scope_spans`, `scope_logs`; `spans`, `log_records`.
const INSIDE: u32 = 2;

/// Messages under way, of at most [`OTLP_MESSAGE_BYTES_MAX`]; a record that is longer alone is one of its own.
pub(super) struct Pack {
    /// `resource` and `scope` as the messages around records begin.
    resource: Vec<u8>,
    scope: Vec<u8>,
    full: Vec<Encoded>,
    /// Records of the message that is not full yet, each as a field.
    records: Vec<u8>,
    count: u64,
}

impl Pack {
    /// Without a record.
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let field = |of: &dyn Fn(&mut Vec<u8>)| {
            let mut field = Vec::new();
            of(&mut field);
            field
        };
        Self {
            resource: field(&|to| message::encode(FIRST, resource, to)),
            scope: field(&|to| message::encode(FIRST, scope, to)),
            full: Vec::new(),
            records: Vec::new(),
            count: 0,
        }
    }

    /// Takes a span, or a record of a log.
    pub(super) fn add(&mut self, record: &impl Message) {
        let before = self.records.len();
        message::encode(INSIDE, record, &mut self.records);
        if before > 0 && self.records.len() > OTLP_MESSAGE_BYTES_MAX {
            let last = self.records.split_off(before);
            self.close();
            self.records = last;
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

    fn close(&mut self) {
        let mut scoped = self.scope.clone();
        scoped.append(&mut self.records);
        let mut of_resource = self.resource.clone();
        bytes::encode(INSIDE, &scoped, &mut of_resource);
        let mut request = Vec::with_capacity(of_resource.len() + 16);
        bytes::encode(FIRST, &of_resource, &mut request);
        self.full
            .push((request.into(), std::mem::take(&mut self.count)));
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
        spans.iter().for_each(|span| pack.add(span));
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
            pack.add(&span("x".repeat(len)));
        }
        let counts: Vec<u64> = pack.finish().iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
    }
}
