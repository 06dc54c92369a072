//! Access logs for Envoy's Access Log Service, ready to be asked for each exchange.

use std::sync::Arc;

use cairn_config_schema::snapshot::{AccessLog, EntryKind, EntryLog, LogSink};

use crate::telemetry::access_log::{Given, Operator, TimeText};
use crate::telemetry::exchange::Seen;
use crate::telemetry::expression::Compiled;

/// One access log of entries.
#[derive(Debug)]
pub struct Entered {
    /// Who gets it.
    pub to: Arc<EntryLog>,
    /// Headers of requests that are told beside the usual ones.
    pub request_headers: Vec<NamedHeader>,
    /// The same of responses.
    pub response_headers: Vec<NamedHeader>,
    /// For what there is an entry; `None`: for everything.
    pub filter: Option<Compiled>,
}

/// A header that is told by its name. What is told of it is what a format that names it would write.
#[derive(Debug)]
pub struct NamedHeader {
    /// In lower case.
    pub name: Arc<str>,
    of: Operator,
}

impl NamedHeader {
    fn all(names: &[Arc<str>], operator: &str) -> Vec<Self> {
        let read = names.iter().filter_map(|name| {
            // Names were read by the resolver: all of these are.
            let of = Operator::read(operator, Some(name), None).ok()?;
            let name = name.clone();
            Some(Self { name, of })
        });
        read.collect()
    }

    /// What it is of this exchange.
    pub fn value(&self, seen: &Seen<'_>, time: &mut TimeText) -> Option<String> {
        match self.of.give(seen, time)? {
            Given::Text(text) => Some(text.into_owned()),
            Given::Number(number) => Some(number.to_string()),
        }
    }
}

impl Entered {
    pub(super) fn compile(log: &AccessLog) -> Option<Self> {
        let LogSink::Entries(to) = &log.sink else {
            return None;
        };
        let (request_headers, response_headers) = match &to.kind {
            EntryKind::Http {
                request_headers,
                response_headers,
            } => (
                NamedHeader::all(request_headers, "REQ"),
                NamedHeader::all(response_headers, "RESP"),
            ),
            EntryKind::Tcp => (Vec::new(), Vec::new()),
        };
        let filter = log.filter.as_ref();
        Some(Self {
            to: to.clone(),
            request_headers,
            response_headers,
            filter: filter.and_then(|filter| Compiled::filter(&filter.text).ok()),
        })
    }
}
