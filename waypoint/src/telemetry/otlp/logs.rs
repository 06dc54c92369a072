//! The access log as records of OTLP: the keys of the JSON line as attributes, with the ids of the request's
//! trace and span.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use prost::Message;

use super::attributes;
use super::process::Process;
use super::queue::Ended;
use super::spans::nanos;
use crate::telemetry::access_log;
use crate::telemetry::exchange::Exchange;

/// Name of the records, by which a collector tells them from others.
const EVENT: &str = "cairn.access";

/// The message of a batch, and how many records it has.
pub(super) fn encode(batch: &[Arc<Ended>], process: &Process) -> (Bytes, u64) {
    let records: Vec<_> = batch.iter().map(|ended| record(ended)).collect();
    let count = records.len() as u64;
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(process.resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(process.scope.clone()),
                log_records: records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    (request.encode_to_vec().into(), count)
}

fn record(ended: &Ended) -> LogRecord {
    let exchange = &ended.exchange;
    let trace = exchange.trace.id();
    let span = exchange.trace.span();
    let members = access_log::members(exchange, ended.elapsed);
    LogRecord {
        time_unix_nano: nanos(exchange.started_at),
        observed_time_unix_nano: nanos(ended.ended_at()),
        severity_number: SeverityNumber::Info as i32,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(summary(exchange))),
        }),
        attributes: attributes::of_json(members),
        flags: u32::from(exchange.trace.is_recorded()),
        trace_id: trace.map_or_else(Vec::new, |id| id.get().to_be_bytes().to_vec()),
        span_id: span.map_or_else(Vec::new, |id| id.get().to_be_bytes().to_vec()),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

/// One line for people.
fn summary(exchange: &Exchange) -> String {
    let (origin, sent) = (&exchange.origin, exchange.bytes_sent);
    match &exchange.http {
        Some(http) => {
            let status = http.status.map_or(0, |status| status.as_u16());
            format!("\"{} {} {}\" {status} {sent}", http.method, http.path, http.protocol)
        }
        None => format!("TCP {} {sent}", origin.destination),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::attributes::find;
    use super::super::{fixtures, queue};
    use super::*;

    fn read(exchange: Exchange) -> LogRecord {
        let (outlet, mut queue) = queue::Outlet::new(1, true);
        outlet.take(exchange, Duration::from_millis(7));
        let (message, count) = encode(&[queue.try_recv().unwrap()], &Process::default());
        assert_eq!(count, 1);
        let mut request = ExportLogsServiceRequest::decode(message).unwrap();
        request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0)
    }

    #[test]
    fn a_record_has_the_keys_of_the_json_line_and_the_ids_of_its_span() {
        let record = read(fixtures::sampled());
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
    }

    #[test]
    fn a_tcp_stream_has_a_record_without_ids() {
        let record = read(crate::telemetry::fixtures::tcp());
        assert!(record.trace_id.is_empty() && record.span_id.is_empty());
        let body = record.body.unwrap().value.unwrap();
        assert_eq!(body, Value::StringValue("TCP 10.96.1.2:8000 20".to_owned()));
    }
}
