//! Reads providers and defaults of telemetry out of the mesh configuration, and tells what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::Findings;
use super::super::providers::find_cluster;
use super::{TelemetryProvider, TelemetryProviders};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::duration::go_ms;
use crate::limits::{COLLECTOR_TIMEOUT_DEFAULT_MS, LOG_FORMAT_BYTES_MAX, TAG_BYTES_DEFAULT};
use crate::origin::ObjectKey;
use crate::resources::Object;
use crate::resources::istio::{ExtensionProviderKind, MeshConfigSpec};
use crate::resources::telemetry::{
    FileLogSpec, LogFormatSpec, OpenTelemetrySpec, OtelLogSpec, OtlpHeaderSpec,
};
use crate::snapshot::{
    Collector, ISTIO_TEXT, LogFormat, LogSink, OtelLog, OtlpProtocol, Service, TagSource,
    TraceTarget, WrittenAt, WrittenFormat,
};

/// The mesh configuration while it is read.
pub(super) struct Reading<'a> {
    pub(super) config: &'a Object<MeshConfigSpec>,
    pub(super) services: &'a BTreeMap<ObjectKey, Service>,
    pub(super) findings: &'a mut Findings,
}

impl Reading<'_> {
    pub(super) fn say(&mut self, finding: Diagnostic, path: &str) {
        self.findings.push(self.config.mark(finding, path));
    }

    /// `defaultProviders`. One that can not be used is an error: somebody counts on it.
    pub(super) fn defaults(&mut self, known: &mut TelemetryProviders) {
        let Some(defaults) = &self.config.spec.default_providers else {
            return;
        };
        let path = "data.mesh.defaultProviders";
        let mut wrong = Vec::new();
        if let Some(name) = defaults.tracing.iter().flatten().next() {
            known.default_traces = known.traces(name);
            if let TraceTarget::Unusable(reason) = &known.default_traces {
                wrong.push(("tracing[0]".to_owned(), reason.to_string()));
            }
        }
        let logs: Vec<Arc<str>> = defaults
            .access_logging
            .iter()
            .flatten()
            .map(|n| n.as_str().into())
            .collect();
        for (at, name) in logs.iter().enumerate() {
            let missing = || Some(format!("there is no extension provider '{name}'"));
            let reason = match known.has(name) {
                true => known.no_log(name),
                false => missing(),
            };
            wrong.extend(reason.map(|reason| (format!("accessLogging[{at}]"), reason)));
        }
        if !logs.is_empty() {
            known.default_logs = logs;
        }
        for (at, name) in defaults.metrics.iter().flatten().enumerate() {
            if !known.is_prometheus(name) {
                let reason = format!("provider '{name}' takes no metrics");
                wrong.push((format!("metrics[{at}]"), reason));
            }
        }
        for (at, reason) in wrong {
            let finding = Diagnostic::error(Code::Unsupported, reason)
                .with_effect("it is told nothing")
                .with_hint(format!("there are: {}", known.names()));
            self.say(finding, &format!("{path}.{at}"));
        }
    }

    /// Whether there is an access log, and in which format. Istio has none unless it is asked for;
    /// Cairn has one unless it is told not to (`accessLogFile: ""`).
    pub(super) fn mesh_log(&mut self) -> (bool, LogFormat) {
        let log = &self.config.spec.access_log;
        if let Some(file) = log.file.as_deref().filter(|file| !file.is_empty()) {
            self.only_stdout(file, "data.mesh.accessLogFile");
        }
        let asked = log.file.as_deref().is_some_and(|file| !file.is_empty());
        let is_on = log.file.as_deref() != Some("");
        let written = log.format.as_deref().filter(|text| !text.is_empty());
        let at = self.at("data.mesh.accessLogFormat");
        let format = match log.encoding.as_deref() {
            Some("JSON") => match written {
                None => LogFormat::Cairn,
                Some(text) => match serde_json::from_str::<Value>(text) {
                    Ok(template @ Value::Object(_)) => self.stdout_json(template, at, false),
                    _ => {
                        let message =
                            "accessLogEncoding is JSON, and accessLogFormat is no JSON object";
                        let finding = Diagnostic::error(Code::BadValue, message)
                            .with_effect("lines are in Cairn's JSON");
                        self.say(finding, "data.mesh.accessLogFormat");
                        LogFormat::Cairn
                    }
                },
            },
            None | Some("" | "TEXT") => match written {
                Some(text) => self.stdout_text(text, at, false),
                None if asked => self.stdout_text(ISTIO_TEXT, at, false),
                None => LogFormat::Cairn,
            },
            Some(other) => {
                let message = format!("accessLogEncoding '{other}' is unknown");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("lines are in Cairn's JSON")
                    .with_hint("TEXT or JSON");
                self.say(finding, "data.mesh.accessLogEncoding");
                LogFormat::Cairn
            }
        };
        (is_on, format)
    }

    fn at(&self, path: &str) -> WrittenAt {
        WrittenAt {
            origin: Arc::new(self.config.origin.clone()),
            path: path.into(),
            location: self.config.place.locate(path),
        }
    }

    fn stdout_text(&mut self, text: &str, at: WrittenAt, omits_empty: bool) -> LogFormat {
        let effect = "lines are in Cairn's JSON";
        let format = self.format(text.into(), at, omits_empty, effect);
        format.map_or(LogFormat::Cairn, LogFormat::Text)
    }

    fn stdout_json(&mut self, template: Value, at: WrittenAt, omits_empty: bool) -> LogFormat {
        let effect = "lines are in Cairn's JSON";
        let format = self.format(template, at, omits_empty, effect);
        format.map_or(LogFormat::Cairn, LogFormat::Json)
    }

    /// A format as written; `None` if it is too long, which is told with its effect.
    fn format(
        &mut self,
        template: Value,
        at: WrittenAt,
        omits_empty: bool,
        effect: &str,
    ) -> Option<Arc<WrittenFormat>> {
        let bytes = match &template {
            Value::String(text) => text.len(),
            other => other.to_string().len(),
        };
        if bytes > LOG_FORMAT_BYTES_MAX {
            let message =
                format!("a format has at most {LOG_FORMAT_BYTES_MAX} bytes, this one {bytes}");
            let finding = Diagnostic::error(Code::LimitExceeded, message).with_effect(effect);
            let path = at.path.clone();
            self.say(finding, &path);
            return None;
        }
        Some(Arc::new(WrittenFormat {
            template,
            omits_empty,
            at: Some(at),
        }))
    }

    fn only_stdout(&mut self, file: &str, path: &str) {
        if file == "/dev/stdout" {
            return;
        }
        let message = format!("an access log goes to /dev/stdout, not to '{file}'");
        let finding = Diagnostic::warning(Code::Unsupported, message)
            .with_effect("it goes to standard output");
        self.say(finding, path);
    }

    /// `None`: not one of telemetry.
    pub(super) fn provider(
        &mut self,
        name: &str,
        kind: &ExtensionProviderKind,
        path: &str,
    ) -> Option<TelemetryProvider> {
        let read = match kind {
            ExtensionProviderKind::Http(_) | ExtensionProviderKind::Grpc(_) => {
                Err(format!("provider '{name}' is for authorization"))
            }
            ExtensionProviderKind::OpenTelemetry(spec) => self.open_telemetry(name, spec, path),
            ExtensionProviderKind::FileLog(spec) => Ok(self.file_log(spec, path)),
            ExtensionProviderKind::OtelLog(spec) => self.otel_log(name, spec, path),
            ExtensionProviderKind::HttpEntryLog(spec) => self.http_entry_log(name, spec, path),
            ExtensionProviderKind::TcpEntryLog(spec) => self.tcp_entry_log(name, spec, path),
            ExtensionProviderKind::Prometheus => Ok(TelemetryProvider::Prometheus),
            ExtensionProviderKind::Other(field) => Err(format!(
                "provider '{name}' is `{field}`, which is not supported"
            )),
            ExtensionProviderKind::Broken(reason) => {
                Err(format!("provider '{name}' is broken: {reason}"))
            }
        };
        let of_text = |reason: String| TelemetryProvider::Unusable(reason.into());
        Some(read.unwrap_or_else(of_text)).filter(|_| !name.is_empty())
    }

    fn open_telemetry(
        &mut self,
        name: &str,
        spec: &OpenTelemetrySpec,
        path: &str,
    ) -> Result<TelemetryProvider, String> {
        let path = format!("{path}.opentelemetry");
        for (field, is_set) in [
            ("dynatraceSampler", spec.dynatrace_sampler.is_some()),
            ("resourceDetectors", is_more_than_environment(spec)),
            (
                "serviceAttributeEnrichment",
                spec.service_attribute_enrichment.is_some(),
            ),
        ] {
            if is_set {
                let message = format!("`{field}` of a collector is not supported");
                let finding = Diagnostic::new(Severity::Warning, Code::Unsupported, message)
                    .with_effect("spans are as without it");
                self.say(finding, &format!("{path}.{field}"));
            }
        }
        let (protocol, timeout, headers) = match (&spec.http, &spec.grpc) {
            (Some(http), _) => (
                OtlpProtocol::Http(http.path.as_str().into()),
                http.timeout.as_deref(),
                http.headers.as_deref(),
            ),
            (None, Some(grpc)) => (
                OtlpProtocol::Grpc,
                grpc.timeout.as_deref(),
                grpc.initial_metadata.as_deref(),
            ),
            (None, None) => (OtlpProtocol::Grpc, None, None),
        };
        let timeout_ms = self.timeout(timeout, &path);
        let cluster = self.cluster(name, &spec.service, spec.port, &path)?;
        Ok(TelemetryProvider::Traces(Arc::new(Collector {
            name: name.into(),
            cluster,
            protocol,
            timeout_ms,
            headers: headers.unwrap_or_default().iter().map(header).collect(),
            tag_bytes_max: spec.max_tag_length.unwrap_or(TAG_BYTES_DEFAULT),
        })))
    }

    fn timeout(&mut self, written: Option<&str>, path: &str) -> u64 {
        let Some(text) = written else {
            return COLLECTOR_TIMEOUT_DEFAULT_MS;
        };
        go_ms(text).filter(|ms| *ms > 0).unwrap_or_else(|| {
            let message = format!("`{text}` is no duration of a millisecond or more");
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect(format!("it is {COLLECTOR_TIMEOUT_DEFAULT_MS} ms"));
            self.say(finding, path);
            COLLECTOR_TIMEOUT_DEFAULT_MS
        })
    }

    pub(super) fn cluster(
        &mut self,
        name: &str,
        service: &str,
        port: u32,
        path: &str,
    ) -> Result<crate::snapshot::ClusterKey, String> {
        find_cluster(self.services, service, port).map_err(|missing| {
            // Only a provider that is named and can not be used is an error.
            let finding = Diagnostic::warning(Code::BackendNotFound, missing.message.clone())
                .with_effect(format!("provider '{name}' is told nothing"))
                .with_hint(missing.hint);
            self.say(finding, &format!("{path}.{}", missing.field));
            format!("provider '{name}' is broken: {}", missing.message)
        })
    }

    /// The receiver of an access log, of which its provider says no more than where it is.
    pub(super) fn log_collector(
        &mut self,
        name: &str,
        (service, port): (&str, u32),
        path: &str,
    ) -> Result<Collector, String> {
        Ok(Collector {
            name: name.into(),
            cluster: self.cluster(name, service, port, path)?,
            protocol: OtlpProtocol::Grpc,
            timeout_ms: COLLECTOR_TIMEOUT_DEFAULT_MS,
            headers: Vec::new(),
            tag_bytes_max: TAG_BYTES_DEFAULT,
        })
    }

    fn file_log(&mut self, spec: &FileLogSpec, path: &str) -> TelemetryProvider {
        let path = format!("{path}.envoyFileAccessLog");
        if !spec.path.is_empty() {
            self.only_stdout(&spec.path, &format!("{path}.path"));
        }
        let omits_empty = spec.omit_empty_values.unwrap_or(false);
        let (text, labels) = parts(spec.log_format.as_ref());
        let at_text = self.at(&format!("{path}.logFormat.text"));
        let format = match (text, labels) {
            (Some(text), _) => self.stdout_text(text, at_text, omits_empty),
            (None, Some(labels)) => {
                let at = self.at(&format!("{path}.logFormat.labels"));
                self.stdout_json(Value::Object(labels.clone()), at, omits_empty)
            }
            (None, None) => self.stdout_text(ISTIO_TEXT, at_text, omits_empty),
        };
        TelemetryProvider::Log(LogSink::Stdout(format))
    }

    fn otel_log(
        &mut self,
        name: &str,
        spec: &OtelLogSpec,
        path: &str,
    ) -> Result<TelemetryProvider, String> {
        let path = format!("{path}.envoyOtelAls");
        let collector = self.log_collector(name, (&spec.service, spec.port), &path)?;
        let (text, labels) = parts(spec.log_format.as_ref());
        let (text, labels) = self.otel_formats(text, labels, &format!("{path}.logFormat"));
        let log_name = spec.log_name.as_deref().unwrap_or("otel_envoy_accesslog");
        Ok(TelemetryProvider::Log(LogSink::Collector(Arc::new(
            OtelLog {
                collector,
                log_name: log_name.into(),
                text,
                labels,
            },
        ))))
    }

    /// Body and attributes of a record; what is too long is as if it were not written.
    fn otel_formats(
        &mut self,
        text: Option<&str>,
        labels: Option<&serde_json::Map<String, Value>>,
        path: &str,
    ) -> (Arc<WrittenFormat>, Arc<WrittenFormat>) {
        let unwritten = |template, omits_empty| {
            Arc::new(WrittenFormat {
                template,
                omits_empty,
                at: None,
            })
        };
        let text = text.and_then(|text| {
            let at = self.at(&format!("{path}.text"));
            // A record is no line.
            let text = text.trim_end_matches('\n');
            self.format(text.into(), at, false, "the body is Istio's text")
        });
        let labels = labels.and_then(|labels| {
            let at = self.at(&format!("{path}.labels"));
            let labels = Value::Object(labels.clone());
            self.format(labels, at, true, "records have no attributes")
        });
        let usual = || unwritten(ISTIO_TEXT.trim_end_matches('\n').into(), false);
        let none = || unwritten(Value::Object(serde_json::Map::new()), true);
        (text.unwrap_or_else(usual), labels.unwrap_or_else(none))
    }
}

/// Text and labels of a format, as far as there are any.
fn parts(
    format: Option<&LogFormatSpec>,
) -> (Option<&str>, Option<&serde_json::Map<String, Value>>) {
    let text = format.and_then(|f| f.text.as_deref());
    let labels = format.and_then(|f| f.labels.as_ref());
    (
        text.filter(|text| !text.is_empty()),
        labels.filter(|labels| !labels.is_empty()),
    )
}

/// The environment's detector is what OTEL_RESOURCE_ATTRIBUTES does anyway.
fn is_more_than_environment(spec: &OpenTelemetrySpec) -> bool {
    let detectors = spec.resource_detectors.as_ref().and_then(Value::as_object);
    detectors.is_some_and(|detectors| detectors.keys().any(|key| key != "environment"))
}

fn header(written: &OtlpHeaderSpec) -> (Arc<str>, TagSource) {
    let name = written.name.to_ascii_lowercase().into();
    let source = match &written.env_name {
        Some(variable) => TagSource::Environment(variable.as_str().into(), None),
        None => TagSource::Literal(written.value.as_deref().unwrap_or_default().into()),
    };
    (name, source)
}
