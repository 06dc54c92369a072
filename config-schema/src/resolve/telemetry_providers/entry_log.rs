//! `envoyHttpAls` and `envoyTcpAls`: access logs as entries of Envoy's Access Log Service.

use std::sync::Arc;

use super::TelemetryProvider;
use super::read::Reading;
use crate::diagnostics::{Code, Diagnostic};
use crate::limits::LOGGED_HEADERS_MAX;
use crate::resources::telemetry::{HttpEntryLogSpec, TcpEntryLogSpec};
use crate::snapshot::{EntryKind, EntryLog, LogSink};

/// Where a log goes, and what it is called there.
struct To<'a> {
    service: &'a str,
    port: u32,
    log_name: &'a str,
}

impl Reading<'_> {
    pub(super) fn http_entry_log(
        &mut self,
        name: &str,
        spec: &HttpEntryLogSpec,
        path: &str,
    ) -> Result<TelemetryProvider, String> {
        let path = format!("{path}.envoyHttpAls");
        let to = To {
            service: &spec.service,
            port: spec.port,
            log_name: spec.log_name.as_deref().unwrap_or("http_envoy_accesslog"),
        };
        self.never_there(
            "filterStateObjectsToLog",
            spec.filter_state_objects_to_log.as_deref(),
            &path,
        );
        self.never_there(
            "additionalResponseTrailersToLog",
            spec.additional_response_trailers_to_log.as_deref(),
            &path,
        );
        let kind = EntryKind::Http {
            request_headers: self.headers(
                "additionalRequestHeadersToLog",
                spec.additional_request_headers_to_log.as_deref(),
                &path,
            ),
            response_headers: self.headers(
                "additionalResponseHeadersToLog",
                spec.additional_response_headers_to_log.as_deref(),
                &path,
            ),
        };
        self.entry_log(name, &to, kind, &path)
    }

    pub(super) fn tcp_entry_log(
        &mut self,
        name: &str,
        spec: &TcpEntryLogSpec,
        path: &str,
    ) -> Result<TelemetryProvider, String> {
        let path = format!("{path}.envoyTcpAls");
        let to = To {
            service: &spec.service,
            port: spec.port,
            log_name: spec.log_name.as_deref().unwrap_or("tcp_envoy_accesslog"),
        };
        self.never_there(
            "filterStateObjectsToLog",
            spec.filter_state_objects_to_log.as_deref(),
            &path,
        );
        self.entry_log(name, &to, EntryKind::Tcp, &path)
    }

    fn entry_log(
        &mut self,
        name: &str,
        to: &To<'_>,
        kind: EntryKind,
        path: &str,
    ) -> Result<TelemetryProvider, String> {
        let log = EntryLog {
            collector: self.log_collector(name, (to.service, to.port), path)?,
            log_name: to.log_name.into(),
            kind,
        };
        Ok(TelemetryProvider::Log(LogSink::Entries(Arc::new(log))))
    }

    /// A list of what a waypoint has none of.
    fn never_there(&mut self, field: &str, names: Option<&[String]>, path: &str) {
        if names.is_some_and(|names| !names.is_empty()) {
            let message = format!("`{field}` of an access log is not supported");
            let finding = Diagnostic::warning(Code::Unsupported, message)
                .with_effect("entries are as without it");
            self.say(finding, &format!("{path}.{field}"));
        }
    }

    /// Names of headers in lower case; what can be none is told and left out.
    fn headers(&mut self, field: &str, names: Option<&[String]>, path: &str) -> Vec<Arc<str>> {
        let names = names.unwrap_or_default();
        let path = format!("{path}.{field}");
        if names.len() > LOGGED_HEADERS_MAX {
            let message = format!("more than {LOGGED_HEADERS_MAX} headers");
            let finding = Diagnostic::error(Code::LimitExceeded, message)
                .with_effect("those beyond are not logged");
            self.say(finding, &path);
        }
        let mut read: Vec<Arc<str>> = Vec::new();
        for (at, name) in names.iter().take(LOGGED_HEADERS_MAX).enumerate() {
            let name = name.to_ascii_lowercase();
            if http::HeaderName::try_from(name.as_str()).is_err() {
                let message = format!("`{name}` is no name of a header");
                let finding =
                    Diagnostic::error(Code::BadValue, message).with_effect("it is not logged");
                self.say(finding, &format!("{path}[{at}]"));
            } else if !read.iter().any(|known| **known == *name) {
                read.push(name.into());
            }
        }
        read
    }
}
