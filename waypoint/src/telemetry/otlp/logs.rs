//! The access log as records of OTLP, with the ids of the request's trace and span: with the keys of the JSON
//! line as attributes, or as a provider of the mesh configuration is to have it.

use std::sync::Arc;

use cairn_config_schema::snapshot::OtelLog;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attributes::{self, Attributes};
use super::endpoint::Protocol;
use super::lane::Encoded;
use super::message;
use super::pack::Pack;
use super::process::Process;
use super::queue::Ended;
use super::spans::nanos;
use crate::telemetry::access_log::template::Format;
use crate::telemetry::access_log::{self, TimeText};
use crate::telemetry::exchange::{Exchange, Seen};
use crate::telemetry::settings::Collected;
use crate::telemetry::trace::settings::Receiver;

/// Name of the records, by which a collector tells them from others.
const EVENT: &str = "cairn.access";

/// What a collector is told of an exchange, as its provider's format says.
#[derive(Debug)]
pub struct Line {
    /// Who is told.
    pub to: Arc<OtelLog>,
    text: Vec<u8>,
    /// A JSON object.
    labels: Vec<u8>,
}

impl Line {
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.labels.len()
    }
}

/// What collectors of access logs are told of an exchange: written here, where its headers still are. Nothing
/// where no Telemetry asks for it.
pub fn lines(seen: &Seen<'_>) -> Vec<Line> {
    let settings = seen.exchange.settings.as_ref();
    let logs = settings.map(|settings| &*settings.collected);
    let logs = logs.unwrap_or_default();
    let wanted = |log: &&Collected| {
        log.filter
            .as_ref()
            .is_none_or(|filter| filter.is_true(seen))
    };
    let written = |format: &Format| {
        let mut to = Vec::new();
        format.write(seen, &mut TimeText::default(), &mut to);
        to
    };
    let logs = logs.iter().filter(wanted);
    let line = |log: &Collected| Line {
        to: log.to.clone(),
        text: written(&log.text),
        labels: written(&log.labels),
    };
    logs.map(line).collect()
}

/// The messages of a batch, and how many records each has.
pub(super) fn encode(
    batch: &[Arc<Ended>],
    process: &Process,
    receiver: &Receiver,
    protocol: Protocol,
) -> Vec<Encoded> {
    let mut resource = process.resource.clone();
    let records: Vec<_> = match receiver {
        Receiver::Log(log) => {
            let mut name = Attributes::default();
            name.text("log_name", &*log.log_name);
            resource.attributes.extend(name.take());
            let lines = batch.iter().flat_map(|ended| {
                let own = ended.lines.iter().filter(|line| line.to == *log);
                own.map(|line| written(ended, line))
            });
            lines.collect()
        }
        Receiver::Environment | Receiver::Collector(_) => {
            batch.iter().map(|ended| record(ended)).collect()
        }
    };
    let mut pack = Pack::new(&resource, &process.scope);
    records.iter().for_each(|record| pack.add(record, &[]));
    let messages = pack.finish().into_iter();
    let formed = messages.map(|(message, records)| {
        let message = message::formed::<ExportLogsServiceRequest>(message, protocol);
        (message, records)
    });
    formed.collect()
}

fn record(ended: &Ended) -> LogRecord {
    let members = access_log::members(&ended.exchange, ended.elapsed);
    LogRecord {
        body: Some(AnyValue {
            value: Some(Value::StringValue(summary(&ended.exchange))),
        }),
        attributes: attributes::of_json(members),
        ..bare(ended)
    }
}

/// A record with times and ids.
fn bare(ended: &Ended) -> LogRecord {
    let exchange = &ended.exchange;
    let trace = exchange.trace.id();
    let span = exchange.trace.span();
    LogRecord {
        time_unix_nano: nanos(exchange.started_at),
        observed_time_unix_nano: nanos(ended.ended_at()),
        severity_number: SeverityNumber::Info as i32,
        severity_text: "INFO".to_owned(),
        flags: u32::from(exchange.trace.is_recorded()),
        trace_id: trace.map_or_else(Vec::new, |id| id.get().to_be_bytes().to_vec()),
        span_id: span.map_or_else(Vec::new, |id| id.get().to_be_bytes().to_vec()),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

/// The record of a line that is written already.
fn written(ended: &Ended, line: &Line) -> LogRecord {
    let text = String::from_utf8_lossy(&line.text);
    let labels = serde_json::from_slice(&line.labels).unwrap_or_default();
    LogRecord {
        body: Some(AnyValue {
            value: Some(Value::StringValue(text.trim_end().to_owned())),
        }),
        attributes: attributes::of_json(labels),
        ..bare(ended)
    }
}

/// One line for people.
fn summary(exchange: &Exchange) -> String {
    let (origin, sent) = (&exchange.origin, exchange.bytes_sent);
    match &exchange.http {
        Some(http) => {
            let status = http.status.map_or(0, |status| status.as_u16());
            format!(
                "\"{} {} {}\" {status} {sent}",
                http.method, http.path, http.protocol
            )
        }
        None => format!("TCP {} {sent}", origin.destination),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;

    use super::super::attributes::find;
    use super::super::{fixtures, queue};
    use super::*;

    fn read(exchange: Exchange) -> LogRecord {
        let (outlet, mut queue) = queue::Outlet::new(1, true);
        outlet.take(exchange, Duration::from_millis(7), vec![]);
        let messages = encode(
            &[queue.try_recv().unwrap()],
            &Process::default(),
            &Receiver::Environment,
            Protocol::Http,
        );
        let [(message, 1)] = &messages[..] else {
            panic!("one record in one message")
        };
        let mut request = ExportLogsServiceRequest::decode(message.clone()).unwrap();
        request
            .resource_logs
            .remove(0)
            .scope_logs
            .remove(0)
            .log_records
            .remove(0)
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
