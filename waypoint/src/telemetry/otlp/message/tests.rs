//! What JSON of OTLP looks like, checked by the rules of its mapping and not by what wrote it; and what answers say.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest,
};

use super::super::endpoint::Signal;
use super::super::fixtures;
use super::super::process::Process;
use super::*;
use crate::telemetry::trace::recording::What;

/// What is told of a request with an attempt and an event.
fn told(signal: Signal) -> Bytes {
    let mut exchange = fixtures::sampled();
    let endpoint = exchange.endpoint.clone().unwrap();
    exchange.trace.begin_attempt(&endpoint, || 21);
    exchange.trace.event(|| What::Verdict);
    let (elapsed, of) = (Duration::from_millis(12), (signal, true));
    let parcel = fixtures::told(&exchange, elapsed, Process::default(), of);
    parcel.message.clone()
}

fn traces(protocol: Protocol) -> Bytes {
    formed::<ExportTraceServiceRequest>(told(Signal::Traces), protocol)
}

fn records(protocol: Protocol) -> Bytes {
    formed::<ExportLogsServiceRequest>(told(Signal::Logs), protocol)
}

/// Every member of every object, with its name.
fn members<'v>(value: &'v Value, found: &mut Vec<(&'v str, &'v Value)>) {
    match value {
        Value::Object(all) => {
            for (name, member) in all {
                found.push((name, member));
                members(member, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, found)),
        _ => {}
    }
}

fn is_hex(value: &Value, digits: usize) -> bool {
    let text = value.as_str().unwrap_or("no text");
    text.is_empty()
        || text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_integer_text(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.parse::<i128>().is_ok())
}

/// The rules of OTLP's mapping, member by member.
#[test]
fn names_ids_numbers_and_enumerations_are_as_the_mapping_says() {
    let mut seen = Vec::new();
    for message in [traces(Protocol::Json), records(Protocol::Json)] {
        let value: Value = serde_json::from_slice(&message).unwrap();
        let mut found = Vec::new();
        members(&value, &mut found);
        for (name, value) in found {
            let camel = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_alphanumeric());
            assert!(camel, "{name} is not lowerCamelCase");
            assert!(!value.is_null(), "{name} is null");
            let as_said = match name {
                "traceId" => is_hex(value, 32),
                "spanId" | "parentSpanId" => is_hex(value, 16),
                "kind" | "code" | "severityNumber" => value.is_u64(),
                "intValue" => is_integer_text(value),
                name if name.ends_with("UnixNano") => is_integer_text(value),
                name if name.ends_with("Count") || name == "flags" => value.is_u64(),
                _ => true,
            };
            assert!(as_said, "{name}: {value}");
            seen.push(name.to_owned());
        }
    }
    for name in [
        "resourceSpans",
        "scopeSpans",
        "resourceLogs",
        "logRecords",
        "traceId",
        "parentSpanId",
        "startTimeUnixNano",
        "kind",
        "severityNumber",
        "intValue",
        "stringValue",
        "events",
    ] {
        assert!(seen.iter().any(|s| s == name), "there is no {name}");
    }
    let value: Value = serde_json::from_slice(&traces(Protocol::Json)).unwrap();
    let server = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(server["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(server["spanId"], "0000000000000001");
    assert_eq!(server["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(server["kind"], 2, "SPAN_KIND_SERVER");
    assert_eq!(server["startTimeUnixNano"], "1793795696789000000");
}

#[test]
fn json_says_what_protobuf_says() {
    let json: ExportTraceServiceRequest = serde_json::from_slice(&traces(Protocol::Json)).unwrap();
    let spans = |request: ExportTraceServiceRequest| {
        let mut spans = request
            .resource_spans
            .into_iter()
            .flat_map(|r| r.scope_spans);
        // The attempt still runs: when it began is this test's own time.
        spans.next().unwrap().spans.remove(0)
    };
    let protobuf = ExportTraceServiceRequest::decode(traces(Protocol::Http)).unwrap();
    let (mut json, mut protobuf) = (spans(json), spans(protobuf));
    for span in [&mut json, &mut protobuf] {
        span.events
            .iter_mut()
            .for_each(|event| event.time_unix_nano = 0);
    }
    assert_eq!(json, protobuf);
    let json: ExportLogsServiceRequest = serde_json::from_slice(&records(Protocol::Json)).unwrap();
    let protobuf = ExportLogsServiceRequest::decode(records(Protocol::Http)).unwrap();
    assert_eq!(json, protobuf);
}

#[test]
fn what_was_rejected_is_read_and_its_words_are_kept_short() {
    let answer = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: format!("too\nlong {}", "x".repeat(10_000)),
        }),
    };
    let partial = read(&answer.encode_to_vec()).unwrap();
    assert_eq!(partial.rejected, 3);
    assert!(partial.words.starts_with("too\\nlong") && partial.words.len() < 250);
    let negative = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: -1,
            ..ExportTracePartialSuccess::default()
        }),
    };
    assert_eq!(read(&negative.encode_to_vec()).unwrap().rejected, 0);
}

/// Each signal has its own name for what was rejected; numbers are texts, or numbers.
#[test]
fn answers_in_json_say_the_same() {
    for (answer, rejected) in [
        (
            r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too\nlong"}}"#,
            3,
        ),
        (
            r#"{"partialSuccess":{"rejectedLogRecords":4,"errorMessage":"too\nlong"}}"#,
            4,
        ),
        (
            r#"{"partialSuccess":{"rejectedDataPoints":"5","errorMessage":"too\nlong"}}"#,
            5,
        ),
        (
            r#"{"partialSuccess":{"rejectedSpans":"-1","errorMessage":"too\nlong"}}"#,
            0,
        ),
    ] {
        let partial = read_json(answer.as_bytes()).unwrap();
        assert_eq!(
            (partial.rejected, &*partial.words),
            (rejected, "too\\nlong")
        );
    }
    for fine in [
        "",
        "{}",
        r#"{"partialSuccess":{}}"#,
        r#"{"partialSuccess":null}"#,
    ] {
        assert_eq!(
            read_json(fine.as_bytes()).unwrap(),
            Partial::default(),
            "{fine}"
        );
    }
    let deep = "[".repeat(100_000);
    for broken in ["{", "no answer at all", &*deep] {
        let failed = read_json(broken.as_bytes());
        assert!(matches!(failed, Err(Failure::Final(_))), "{failed:?}");
    }
}
