//! What records of the access log say of requests and TCP streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{LogFormat, WrittenFormat};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use serde_json::json;

use super::super::attributes::{find, of_json};
use super::super::endpoint::Signal;
use super::super::fixtures;
use super::super::process::Process;
use super::*;
use crate::telemetry::access_log::TimeText;
use crate::telemetry::access_log::template::Format;
use crate::telemetry::fixtures as exchanges;

const ELAPSED: Duration = Duration::from_millis(7);

fn read(exchange: &Exchange) -> LogRecord {
    let of = (Signal::Logs, true);
    let parcel = fixtures::told(exchange, ELAPSED, Process::default(), of);
    let mut request = ExportLogsServiceRequest::decode(parcel.message.clone()).unwrap();
    let mut logs = request.resource_logs.remove(0);
    logs.scope_logs.remove(0).log_records.remove(0)
}

#[test]
fn a_record_has_the_keys_of_the_json_line_and_the_ids_of_its_span() {
    let record = read(&fixtures::sampled());
    let of = |key| find(&record.attributes, key);
    assert_eq!(of("method").as_deref(), Some("GET"));
    assert_eq!(of("response_code").as_deref(), Some("200"));
    assert_eq!(of("duration").as_deref(), Some("7"));
    assert_eq!(of("verdict").as_deref(), Some("allow"));
    assert_eq!(of("route_name").as_deref(), Some("default"));
    assert_eq!(of("retry_denied"), None, "null says nothing");
    assert_eq!(record.trace_id.len(), 16);
    assert_eq!(record.span_id, 1_u64.to_be_bytes());
    assert_eq!(record.flags, 1);
    assert_eq!(record.severity_text, "INFO");
    assert_eq!(record.event_name, "cairn.access");
    let body = record.body.unwrap().value.unwrap();
    let line = "\"GET /a?b=1 HTTP/1.1\" 200 20";
    assert_eq!(body, Value::StringValue(line.to_owned()));
    let took = record.observed_time_unix_nano - record.time_unix_nano;
    assert_eq!(took, 7_000_000);
}

/// Numbers of fields are written by hand: nothing of a record may be in another one's place.
#[test]
fn a_whole_record_is_read_as_it_was_meant() {
    let record = read(&fixtures::sampled());
    assert!(!record.attributes.is_empty());
    let line = "\"GET /a?b=1 HTTP/1.1\" 200 20";
    let expected = LogRecord {
        time_unix_nano: 1_793_795_696_789_000_000,
        observed_time_unix_nano: 1_793_795_696_796_000_000,
        severity_number: SeverityNumber::Info as i32,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(line.into())),
        }),
        attributes: record.attributes.clone(),
        dropped_attributes_count: 0,
        flags: 1,
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128
            .to_be_bytes()
            .to_vec(),
        span_id: 1_u64.to_be_bytes().to_vec(),
        event_name: "cairn.access".into(),
    };
    assert_eq!(record, expected);
}

#[test]
fn a_tcp_stream_has_a_record_without_ids() {
    let record = read(&exchanges::tcp());
    assert!(record.trace_id.is_empty() && record.span_id.is_empty());
    let body = record.body.unwrap().value.unwrap();
    assert_eq!(body, Value::StringValue("TCP 10.96.1.2:8000 20".to_owned()));
}

fn by_key(attributes: Vec<KeyValue>) -> BTreeMap<String, KeyValue> {
    let count = attributes.len();
    let all: BTreeMap<_, _> = attributes.into_iter().map(|a| (a.key.clone(), a)).collect();
    assert_eq!(all.len(), count, "no key twice");
    all
}

/// The JSON line is the oracle, with every kind of member in it.
#[test]
fn the_attributes_are_the_members_of_the_json_line_that_are_there() {
    let mut denied = exchanges::http();
    denied.verdict = Some(exchanges::denied());
    denied.reason = Some("the rule \"matches\"".into());
    denied.upstream_local = Some("[fd00::1]:4000".parse().unwrap());
    let mut steered = exchanges::http();
    steered.origin = {
        let mut origin = Arc::into_inner(exchanges::origin("web", None)).unwrap();
        origin.tunnel_authority = "".into();
        origin.into()
    };
    steered.bytes_sent = u64::MAX;
    for exchange in [exchanges::http(), exchanges::tcp(), denied, steered] {
        let expected = access_log::members(&exchange, ELAPSED);
        let record = read(&exchange);
        assert_eq!(by_key(record.attributes), by_key(of_json(expected)));
    }
}

/// What a provider's format makes in JSON is the oracle.
#[test]
fn the_attributes_of_a_format_are_the_members_of_its_object_that_are_there() {
    for omits_empty in [false, true] {
        let written = |template| {
            LogFormat::Json(Arc::new(WrittenFormat {
                template,
                omits_empty,
                at: None,
            }))
        };
        let format = Format::read(
            &written(json!({
                "status": "%RESPONSE_CODE%",
                "path": "%REQ(:path)%",
                "absent": "%REQ(x-nope)%",
                "both": "%PROTOCOL% of %REQ(x-nope)%",
                "fixed": 1.5,
                "none": null,
                "list": ["%RESPONSE_CODE%", "%REQ(x-nope)%", true],
                "nested": {"a": "%RESPONSE_CODE%", "b": "%REQ(x-nope)%"},
            })),
            &mut Vec::new(),
        );
        let exchange = exchanges::http();
        let seen = fixtures::seen(&exchange, ELAPSED);
        let (mut line, mut time) = (Vec::new(), TimeText::default());
        format.write(&seen, &mut time, &mut line);
        let expected = of_json(serde_json::from_slice(&line).unwrap());
        let mut told = Pairs::of_record();
        format.tell(&seen, &mut time, &mut told);
        let record = LogRecord::decode(told.bytes()).unwrap();
        assert_eq!(by_key(record.attributes), by_key(expected));
    }
}
