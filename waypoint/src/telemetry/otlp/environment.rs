//! What the variables OTEL_* say (OpenTelemetry specification, "Environment Variable Specification" and "OTLP
//! Exporter Configuration"). Reads no variable itself, so that tests can say what is in them.
//!
//! As that specification wants it, a number, a word or a switch that is not known is warned of and taken
//! for unset. An endpoint, a header or a file that can not be used keeps the process from starting: without
//! it, what is exported would go elsewhere, or in the clear.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::endpoint::{Destination, Protocol, Signal, Trust};
use crate::limits::{OTLP_BATCH_RECORDS_MAX, OTLP_QUEUE_RECORDS_MAX};
use crate::telemetry::trace::propagate::{Formats, Propagation};
use crate::telemetry::trace::sampler::Sampler;

/// Everything that is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// Who gets spans. `None`: nobody, unless the configuration names somebody.
    pub traces: Option<Destination>,
    /// Who gets the access log.
    pub logs: Option<Destination>,
    /// Who gets metrics.
    pub metrics: Option<Destination>,
    /// Nothing is exported, whatever the configuration says.
    pub disabled: bool,
    /// Which traces are kept.
    pub sampler: Option<Sampler>,
    /// Forms of the trace context.
    pub propagation: Option<Propagation>,
    /// `service.name`.
    pub service_name: Option<String>,
    /// Attributes of this process, in the order written.
    pub resource: Vec<(String, String)>,
    /// How spans are gathered.
    pub spans: Batching,
    /// How records of the access log are gathered.
    pub records: Batching,
    /// How often metrics are exported.
    pub metric_interval: Option<Duration>,
    /// What was left out of account, and why.
    pub warnings: Vec<String>,
}

/// How records are gathered until they are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Records that wait at most.
    pub queue_max: usize,
    /// Records in one export at most.
    pub batch_max: usize,
    /// They wait so long for others.
    pub delay: Duration,
}

/// The specification's numbers for spans.
impl Default for Batching {
    fn default() -> Self {
        Self {
            queue_max: 2_048,
            batch_max: 512,
            delay: Duration::from_secs(5),
        }
    }
}

/// A variable whose value can not be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct Unusable {
    variable: String,
    reason: String,
}

/// One reading of the variables.
struct Reading<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Environment {
    /// Reads the variables of this process.
    ///
    /// # Errors
    /// [`Unusable`] names the variable.
    pub fn read() -> Result<Self, Unusable> {
        Self::of(&|name| std::env::var(name).ok())
    }

    /// Reads variables.
    ///
    /// # Errors
    /// [`Unusable`] names the variable.
    pub fn of(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, Unusable> {
        let mut reading = Reading {
            get,
            warnings: Vec::new(),
        };
        if reading.switch("OTEL_SDK_DISABLED") {
            return Ok(Self {
                disabled: true,
                propagation: reading.propagation(),
                warnings: reading.warnings,
                ..Self::default()
            });
        }
        let resource = reading.pairs("OTEL_RESOURCE_ATTRIBUTES")?;
        Ok(Self {
            traces: reading.destination(Signal::Traces)?,
            logs: reading.destination(Signal::Logs)?,
            metrics: reading.destination(Signal::Metrics)?,
            disabled: false,
            sampler: reading.sampler(),
            propagation: reading.propagation(),
            service_name: reading.text("OTEL_SERVICE_NAME"),
            resource,
            spans: reading.batching("OTEL_BSP", Duration::from_secs(5)),
            records: reading.batching("OTEL_BLRP", Duration::from_secs(1)),
            metric_interval: reading.millis("OTEL_METRIC_EXPORT_INTERVAL"),
            warnings: reading.warnings,
        })
    }
}

impl Reading<'_> {
    /// An empty value is none.
    fn text(&self, name: &str) -> Option<String> {
        let value = (self.get)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn warn(&mut self, name: &str, value: &str, expected: &str) {
        let shown: String = value
            .chars()
            .take(100)
            .flat_map(char::escape_debug)
            .collect();
        let warning = format!("{name}: '{shown}' is not {expected}; it is taken for unset");
        self.warnings.push(warning);
    }

    fn switch(&mut self, name: &str) -> bool {
        match self.text(name) {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            Some(value) => {
                self.warn(name, &value, "true or false");
                false
            }
        }
    }

    fn number(&mut self, name: &str, max: usize) -> Option<usize> {
        let value = self.text(name)?;
        match value.parse() {
            Ok(number) if (1..=max).contains(&number) => Some(number),
            _ => {
                self.warn(name, &value, &format!("a number from 1 to {max}"));
                None
            }
        }
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        let millis = self.number(name, 86_400_000)?;
        Some(Duration::from_millis(millis as u64))
    }

    fn batching(&mut self, prefix: &str, delay: Duration) -> Batching {
        let usual = Batching::default();
        let name = |what: &str| format!("{prefix}_{what}");
        let queue_max = self.number(&name("MAX_QUEUE_SIZE"), OTLP_QUEUE_RECORDS_MAX);
        let queue_max = queue_max.unwrap_or(usual.queue_max);
        let batch_max = self.number(&name("MAX_EXPORT_BATCH_SIZE"), OTLP_BATCH_RECORDS_MAX);
        Batching {
            queue_max,
            // "It must be less or equal to" the queue's size.
            batch_max: batch_max.unwrap_or(usual.batch_max).min(queue_max),
            delay: self.millis(&name("SCHEDULE_DELAY")).unwrap_or(delay),
        }
    }

    fn sampler(&mut self) -> Option<Sampler> {
        let name = "OTEL_TRACES_SAMPLER";
        let value = self.text(name)?;
        let (parent_first, kind) = match value.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, &*value),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio(),
            _ => {
                let known = "always_on, always_off, traceidratio or one of them with parentbased_";
                self.warn(name, &value, known);
                return None;
            }
        };
        Some(Sampler {
            parent_first,
            ratio,
        })
    }

    fn ratio(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.text(name) else {
            return 1.0;
        };
        match value.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.warn(name, &value, "a number from 0 to 1");
                1.0
            }
        }
    }

    fn propagation(&mut self) -> Option<Propagation> {
        let name = "OTEL_PROPAGATORS";
        let value = self.text(name)?;
        let mut forms = Formats::default();
        for word in value.split(',').map(str::trim) {
            match word {
                "tracecontext" => forms.w3c = true,
                "b3" => forms.b3 = true,
                "b3multi" => forms.b3_several = true,
                // Baggage goes through as it is, like every header.
                "baggage" | "none" | "" => {}
                _ => self.warn(name, word, "tracecontext, b3, b3multi, baggage or none"),
            }
        }
        Some(Propagation {
            read: forms,
            write: forms,
        })
    }

    /// `key=value,...`, percent-encoded.
    fn pairs(&self, name: &str) -> Result<Vec<(String, String)>, Unusable> {
        let unusable = |pair: &str| Unusable {
            variable: name.to_owned(),
            reason: match pair.split_once('=') {
                Some((key, _)) => format!("'{key}' is not KEY=VALUE"),
                // Not shown: it may be a secret.
                None => "a part between commas is not KEY=VALUE".to_owned(),
            },
        };
        let text = self.text(name).unwrap_or_default();
        let pairs = text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').ok_or_else(|| unusable(pair))?;
            let decoded = |text: &str| {
                let decoded = percent_encoding::percent_decode_str(text.trim());
                decoded.decode_utf8().map(std::borrow::Cow::into_owned)
            };
            match (decoded(key), decoded(value)) {
                (Ok(key), Ok(value)) if !key.is_empty() => Ok((key, value)),
                _ => Err(unusable(pair)),
            }
        };
        pairs.map(pair).collect()
    }
}

/// Where a signal goes.
impl Reading<'_> {
    fn destination(&mut self, signal: Signal) -> Result<Option<Destination>, Unusable> {
        let exporter = format!("OTEL_{}_EXPORTER", signal.variable());
        let wanted = match self.text(&exporter).as_deref() {
            None => None,
            Some("otlp") => Some(true),
            Some("none") => Some(false),
            Some(other) => {
                self.warn(&exporter, other, "otlp or none");
                None
            }
        };
        let own = self.of_signal(signal, "ENDPOINT");
        let general = self.text("OTEL_EXPORTER_OTLP_ENDPOINT");
        // Access log and metrics have another way out that is open anyway: the endpoint of all signals
        // is not enough for them.
        let named = own.is_some() || (signal == Signal::Traces && general.is_some());
        if !wanted.unwrap_or(named) {
            return Ok(None);
        }
        let protocol = self.protocol(signal);
        let insecure = match self.of_signal(signal, "INSECURE") {
            Some((name, _)) => self.switch(&name),
            None => self.switch("OTEL_EXPORTER_OTLP_INSECURE"),
        };
        let mut destination = match (own, general) {
            (Some((name, url)), _) => Destination::parse(&url, protocol, None, insecure)
                .map_err(|reason| unusable(&name, reason))?,
            (None, Some(url)) => Destination::parse(&url, protocol, Some(signal), insecure)
                .map_err(|reason| unusable("OTEL_EXPORTER_OTLP_ENDPOINT", reason))?,
            (None, None) => {
                let url = match protocol {
                    Protocol::Grpc => "http://localhost:4317",
                    Protocol::Http | Protocol::Json => "http://localhost:4318",
                };
                Destination::parse(url, protocol, Some(signal), true)
                    .map_err(|reason| unusable(&exporter, reason))?
            }
        };
        destination.headers = self.headers(signal)?;
        destination.trust = self.trust(signal)?;
        let timeout = match self.of_signal(signal, "TIMEOUT") {
            Some((name, _)) => self.millis(&name),
            None => self.millis("OTEL_EXPORTER_OTLP_TIMEOUT"),
        };
        destination.timeout = timeout.unwrap_or(destination.timeout);
        destination.gzip = self.gzip(signal);
        Ok(Some(destination))
    }

    /// The variable of one signal, with its name.
    fn of_signal(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let name = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable());
        let value = self.text(&name)?;
        Some((name, value))
    }

    /// That of the signal, else that of all signals.
    fn either(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        self.of_signal(signal, what).or_else(|| {
            let name = format!("OTEL_EXPORTER_OTLP_{what}");
            let value = self.text(&name)?;
            Some((name, value))
        })
    }

    fn protocol(&mut self, signal: Signal) -> Protocol {
        let Some((name, value)) = self.either(signal, "PROTOCOL") else {
            return Protocol::Http;
        };
        match &*value {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::Http,
            "http/json" => Protocol::Json,
            other => {
                self.warn(&name, other, "grpc, http/protobuf or http/json");
                Protocol::Http
            }
        }
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        let Some((name, value)) = self.either(signal, "COMPRESSION") else {
            return false;
        };
        if !matches!(&*value, "gzip" | "none") {
            self.warn(&name, &value, "gzip or none");
        }
        value == "gzip"
    }

    fn headers(&self, signal: Signal) -> Result<Vec<(HeaderName, HeaderValue)>, Unusable> {
        let Some((name, _)) = self.either(signal, "HEADERS") else {
            return Ok(Vec::new());
        };
        let header = |(key, value): (String, String)| {
            let header = HeaderName::try_from(&key)
                .ok()
                .zip(HeaderValue::try_from(value).ok());
            // Not the value, which may be a secret.
            header
                .ok_or_else(|| unusable(&name, format!("'{key}' is no header, or its value none")))
        };
        self.pairs(&name)?.into_iter().map(header).collect()
    }

    fn trust(&self, signal: Signal) -> Result<Trust, Unusable> {
        let file = |what| self.either(signal, what);
        let readable = |found: Option<(String, String)>| match found {
            None => Ok(None),
            Some((name, path)) => match std::fs::read(&path) {
                Ok(_) => Ok(Some(path)),
                Err(error) => Err(unusable(&name, format!("{path}: {error}"))),
            },
        };
        let chain = readable(file("CLIENT_CERTIFICATE"))?;
        let key = readable(file("CLIENT_KEY"))?;
        if chain.is_some() != key.is_some() {
            let name = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
            return Err(unusable(name, "certificate and key belong together".into()));
        }
        Ok(Trust {
            roots: readable(file("CERTIFICATE"))?.map(Into::into),
            client: chain.zip(key).map(|(c, k)| (c.into(), k.into())),
        })
    }
}

fn unusable(variable: &str, reason: String) -> Unusable {
    Unusable {
        variable: variable.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
