//! The access log as records of OTLP, with the ids of the request's trace and span: with the keys of the JSON
//! line as attributes, or as a provider of the mesh configuration is to have it.

use std::fmt;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

use super::attributes;
use super::pack::Pack;
use super::pairs::Pairs;
use super::queue::Room;
use super::spans::nanos;
use crate::telemetry::access_log::{self, Members};
use crate::telemetry::exchange::{Exchange, Seen};
use crate::telemetry::settings::Collected;
use crate::telemetry::text;

/// Name of the records, by which a collector tells them from others.
const EVENT: &str = "cairn.access";

/// Numbers of the fields of `LogRecord`; attributes have theirs in `pairs`.
mod field {
    pub const TIME: u32 = 1;
    pub const SEVERITY: u32 = 2;
    pub const SEVERITY_TEXT: u32 = 3;
    pub const BODY: u32 = 5;
    pub const FLAGS: u32 = 8;
    pub const TRACE_ID: u32 = 9;
    pub const SPAN_ID: u32 = 10;
    pub const OBSERVED: u32 = 11;
    pub const EVENT_NAME: u32 = 12;
}

/// The access logs that providers of the mesh configuration get of an exchange. None where no Telemetry asks for it.
pub(super) fn collected<'s>(seen: &Seen<'s>) -> impl Iterator<Item = &'s Collected> {
    let exchange = seen.exchange;
    let settings = exchange.settings.as_ref();
    let logs = settings.map(|settings| &*settings.collected);
    let seen = *seen;
    logs.unwrap_or_default().iter().filter(move |log| {
        let filter = log.filter.as_ref();
        filter.is_none_or(|filter| filter.is_true(&seen))
    })
}

/// Adds the record of an exchange with the keys of the JSON line.
pub(super) fn add(seen: &Seen<'_>, room: &mut Room, pack: &mut Pack) {
    let Room { record, time, .. } = room;
    bare(seen, record);
    record.field_any_shown(field::BODY, Summary(seen.exchange));
    access_log::tell(seen, time, record);
    pack.add(record.bytes());
}

/// Adds the record of an exchange as a provider's format says.
pub(super) fn add_written(seen: &Seen<'_>, log: &Collected, room: &mut Room, pack: &mut Pack) {
    let Room {
        record, time, text, ..
    } = room;
    bare(seen, record);
    text.clear();
    log.text.write(seen, time, text);
    let line = text::of_bytes(text);
    record.field_any(field::BODY, line.trim_end());
    log.labels.tell(seen, time, record);
    pack.add(record.bytes());
}

/// Begins a record with times and ids.
fn bare(seen: &Seen<'_>, to: &mut Pairs) {
    let exchange = seen.exchange;
    to.clear();
    to.field_fixed64(field::TIME, nanos(exchange.started_at));
    let ended = exchange.started_at + seen.elapsed;
    to.field_fixed64(field::OBSERVED, nanos(ended));
    to.field_number(field::SEVERITY, SeverityNumber::Info as u64);
    to.field_bytes(field::SEVERITY_TEXT, b"INFO");
    to.field_fixed32(field::FLAGS, u32::from(exchange.trace.is_recorded()));
    if let Some(trace) = exchange.trace.id() {
        to.field_bytes(field::TRACE_ID, &trace.get().to_be_bytes());
    }
    if let Some(span) = exchange.trace.span() {
        to.field_bytes(field::SPAN_ID, &span.get().to_be_bytes());
    }
    to.field_bytes(field::EVENT_NAME, EVENT.as_bytes());
}

impl Members for Pairs {
    fn text(&mut self, key: &str, text: &str) {
        self.any_text(key, text);
    }

    fn shown(&mut self, key: &str, text: impl fmt::Display) {
        self.any_shown(key, text);
    }

    fn number(&mut self, key: &str, number: u64) {
        match i64::try_from(number) {
            Ok(number) => self.number(key, number),
            Err(_) => self.json(key, number.into()),
        }
    }

    fn json(&mut self, key: &str, value: serde_json::Value) {
        if let Some(value) = attributes::any(value) {
            self.value(key, &AnyValue { value: Some(value) });
        }
    }
}

/// One line for people.
struct Summary<'a>(&'a Exchange);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, sent) = (&self.0.origin, self.0.bytes_sent);
        match &self.0.http {
            Some(http) => {
                let status = http.status.map_or(0, |status| status.as_u16());
                let (method, path, protocol) = (&http.method, &http.path, http.protocol);
                write!(f, "\"{method} {path} {protocol}\" {status} {sent}")
            }
            None => write!(f, "TCP {} {sent}", origin.destination),
        }
    }
}

#[cfg(test)]
mod tests;
