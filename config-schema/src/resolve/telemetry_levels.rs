//! What one Telemetry object says, checked. Which of several counts is `telemetry`'s business.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use super::telemetry_providers::TelemetryProviders;
use crate::diagnostics::{Code, Diagnostic};
use crate::duration::go_ms;
use crate::limits::{
    METRIC_TAGS_MAX, REPORT_INTERVAL_MAX_MS, REPORT_INTERVAL_MIN_MS, SPAN_TAGS_MAX,
    TELEMETRY_EXPRESSION_BYTES_MAX,
};
use crate::origin::Origin;
use crate::resources::Object;
use crate::resources::telemetry::{
    AccessLoggingSpec, CustomTagSpec, MetricOverrideSpec, MetricsSpec, ProviderSpec, TelemetrySpec,
    TracingSpec,
};
use crate::snapshot::{Expression, IstioMetric, TagChange, TagSource, TraceTarget, WrittenAt};

/// What one object says.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub origin: Origin,
    pub tracing: Vec<TracingLevel>,
    pub logs: Vec<LogLevel>,
    pub metrics: Vec<MetricLevel>,
}

/// One item of `tracing`; what it does not say stays.
#[derive(Clone, Debug, Default)]
pub(super) struct TracingLevel {
    pub to: Option<TraceTarget>,
    pub sampled_ppm: Option<u32>,
    pub reports: Option<bool>,
    pub istio_tags: Option<bool>,
    pub tags: Option<Arc<BTreeMap<Arc<str>, TagSource>>>,
}

/// One item of `accessLogging`.
#[derive(Clone, Debug, Default)]
pub(super) struct LogLevel {
    /// Empty: those of the level above.
    pub providers: Vec<Arc<str>>,
    pub disabled: bool,
    pub filter: Option<Arc<Expression>>,
}

/// One item of `metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricLevel {
    /// Empty: those of the level above.
    pub providers: Vec<Arc<str>>,
    pub overrides: Vec<MetricChange>,
    pub report_interval_ms: Option<u64>,
}

/// One override.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricChange {
    pub metrics: Vec<IstioMetric>,
    pub disabled: Option<bool>,
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// Reads an object.
pub(super) fn read(
    object: &Object<TelemetrySpec>,
    providers: &TelemetryProviders,
    findings: &mut Findings,
) -> Level {
    let mut reading = Reading {
        object,
        origin: Arc::new(object.origin.clone()),
        providers,
        findings,
    };
    let spec = &object.spec;
    let tracing = spec.tracing.iter().flatten().enumerate();
    let tracing = tracing
        .filter_map(|(at, item)| reading.tracing(item, &format!("spec.tracing[{at}]")))
        .collect();
    let logs = spec.access_logging.iter().flatten().enumerate();
    let logs = logs
        .filter_map(|(at, item)| reading.log(item, &format!("spec.accessLogging[{at}]")))
        .collect();
    let metrics = spec.metrics.iter().flatten().enumerate();
    let metrics = metrics
        .map(|(at, item)| reading.metrics(item, &format!("spec.metrics[{at}]")))
        .collect();
    Level {
        origin: object.origin.clone(),
        tracing,
        logs,
        metrics,
    }
}

struct Reading<'a> {
    object: &'a Object<TelemetrySpec>,
    origin: Arc<Origin>,
    providers: &'a TelemetryProviders,
    findings: &'a mut Findings,
}

impl Reading<'_> {
    fn say(&mut self, finding: Diagnostic, path: &str) {
        self.findings.push(self.object.mark(finding, path));
    }

    /// Whether a `mode` is for a waypoint, which stands on the server's side.
    fn is_for_servers(&mut self, mode: Option<&str>, path: &str) -> bool {
        match mode {
            None | Some("" | "CLIENT_AND_SERVER" | "SERVER") => true,
            Some("CLIENT") => false,
            Some(other) => {
                let finding =
                    Diagnostic::error(Code::BadValue, format!("mode '{other}' is unknown"))
                        .with_effect("this item has no effect")
                        .with_hint("CLIENT_AND_SERVER, SERVER or CLIENT");
                self.say(finding, &format!("{path}.match.mode"));
                false
            }
        }
    }

    /// Names in `providers`; those that are not there are told.
    fn names(&mut self, written: Option<&[ProviderSpec]>, path: &str) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for (at, provider) in written.unwrap_or_default().iter().enumerate() {
            let name = provider.name.as_str();
            if !self.providers.has(name) {
                let message = format!("there is no extension provider '{name}'");
                let finding = Diagnostic::error(Code::BackendNotFound, message)
                    .with_effect("nothing is told to it")
                    .with_hint(format!("there are: {}", self.providers.names()));
                self.say(finding, &format!("{path}.providers[{at}].name"));
            }
            names.push(name.into());
        }
        names
    }

    fn unusable(&mut self, reason: &str, path: &str, at: usize, what: &str) {
        let finding = Diagnostic::error(Code::Unsupported, reason.to_owned())
            .with_effect(format!("it gets no {what}"));
        self.say(finding, &format!("{path}.providers[{at}].name"));
    }

    fn tracing(&mut self, item: &TracingSpec, path: &str) -> Option<TracingLevel> {
        let mode = item.matches.as_ref().and_then(|m| m.mode.as_deref());
        if !self.is_for_servers(mode, path) {
            return None;
        }
        let names = self.names(item.providers.as_deref(), path);
        if names.len() > 1 {
            let message = "spans go to one provider, and here are several";
            let finding =
                Diagnostic::warning(Code::Unsupported, message).with_effect("they go to the first");
            self.say(finding, &format!("{path}.providers"));
        }
        let to = names.first().map(|name| self.providers.traces(name));
        if let (Some(TraceTarget::Unusable(reason)), true) =
            (&to, names.first().is_some_and(|n| self.providers.has(n)))
        {
            self.unusable(reason, path, 0, "spans");
        }
        if item.use_request_id_for_trace_sampling.is_some() {
            let message = "the id of a request does not decide whether it is sampled";
            let finding = Diagnostic::warning(Code::Unsupported, message)
                .with_effect("the trace id decides, with `true` and with `false`");
            self.say(finding, &format!("{path}.useRequestIdForTraceSampling"));
        }
        Some(TracingLevel {
            to,
            sampled_ppm: self.sampling(item.random_sampling_percentage, path),
            reports: item.disable_span_reporting.map(|disabled| !disabled),
            istio_tags: item.enable_istio_tags,
            tags: self.span_tags(item, path),
        })
    }

    fn sampling(&mut self, percentage: Option<f64>, path: &str) -> Option<u32> {
        let percentage = percentage?;
        if !(0.0..=100.0).contains(&percentage) {
            let message = format!("{percentage} is no percentage");
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect("as many requests are sampled as without it");
            self.say(finding, &format!("{path}.randomSamplingPercentage"));
            return None;
        }
        // At most a million.
        Some((percentage * 10_000.0).round() as u32)
    }

    fn span_tags(
        &mut self,
        item: &TracingSpec,
        path: &str,
    ) -> Option<Arc<BTreeMap<Arc<str>, TagSource>>> {
        let written = item.custom_tags.as_ref().filter(|tags| !tags.is_empty())?;
        let path = format!("{path}.customTags");
        if written.len() > SPAN_TAGS_MAX {
            let message = format!(
                "there are {} tags, at most {SPAN_TAGS_MAX} are set",
                written.len()
            );
            let finding = Diagnostic::warning(Code::LimitExceeded, message)
                .with_effect("the first by name are set");
            self.say(finding, &path);
        }
        let mut tags = BTreeMap::new();
        for (name, tag) in written.iter().take(SPAN_TAGS_MAX) {
            match tag_source(tag) {
                Ok(source) => drop(tags.insert(name.as_str().into(), source)),
                Err(message) => {
                    let finding = Diagnostic::error(Code::Unsupported, message)
                        .with_effect("spans do not have the tag");
                    let field = tag.formatter.as_ref().map_or("", |_| ".formatter");
                    self.say(finding, &format!("{path}.{name}{field}"));
                }
            }
        }
        Some(Arc::new(tags))
    }

    fn log(&mut self, item: &AccessLoggingSpec, path: &str) -> Option<LogLevel> {
        let mode = item.matches.as_ref().and_then(|m| m.mode.as_deref());
        if !self.is_for_servers(mode, path) {
            return None;
        }
        let names = self.names(item.providers.as_deref(), path);
        for (at, name) in names.iter().enumerate() {
            if let Some(reason) = self.providers.no_log(name) {
                self.unusable(&reason, path, at, "access log");
            }
        }
        let written = item.filter.as_ref().and_then(|f| f.expression.as_deref());
        let filter = written.filter(|text| !text.is_empty()).and_then(|text| {
            let at = format!("{path}.filter.expression");
            self.expression(text, &at, "the access log has every request")
        });
        Some(LogLevel {
            providers: names,
            disabled: item.disabled.unwrap_or(false),
            filter,
        })
    }

    fn expression(&mut self, text: &str, path: &str, effect: &str) -> Option<Arc<Expression>> {
        if text.len() > TELEMETRY_EXPRESSION_BYTES_MAX {
            let message = format!(
                "an expression has at most {TELEMETRY_EXPRESSION_BYTES_MAX} bytes, this one {}",
                text.len()
            );
            let finding = Diagnostic::error(Code::LimitExceeded, message).with_effect(effect);
            self.say(finding, path);
            return None;
        }
        Some(Arc::new(Expression {
            text: text.into(),
            at: WrittenAt {
                origin: self.origin.clone(),
                path: path.into(),
                location: self.object.place.locate(path),
            },
        }))
    }

    fn metrics(&mut self, item: &MetricsSpec, path: &str) -> MetricLevel {
        let report_interval_ms = self.report_interval(item.reporting_interval.as_deref(), path);
        let names = self.names(item.providers.as_deref(), path);
        for (at, name) in names.iter().enumerate() {
            if let Some(reason) = self.providers.no_metrics(name) {
                self.unusable(&reason, path, at, "metrics");
            }
        }
        let overrides = item.overrides.iter().flatten().enumerate();
        let overrides = overrides
            .filter_map(|(at, change)| self.change(change, &format!("{path}.overrides[{at}]")));
        let overrides = overrides.collect();
        MetricLevel {
            providers: names,
            overrides,
            report_interval_ms,
        }
    }

    fn report_interval(&mut self, written: Option<&str>, path: &str) -> Option<u64> {
        let text = written.filter(|text| !text.is_empty())?;
        let bounds = REPORT_INTERVAL_MIN_MS..=REPORT_INTERVAL_MAX_MS;
        let ms = go_ms(text).filter(|ms| bounds.contains(ms));
        if ms.is_none() {
            let message = format!("`{text}` is no duration from 100 ms to an hour");
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect("bytes of TCP streams are counted as often as without it");
            self.say(finding, &format!("{path}.reportingInterval"));
        }
        ms
    }

    fn change(&mut self, written: &MetricOverrideSpec, path: &str) -> Option<MetricChange> {
        let matches = written.matches.as_ref();
        let mode = matches.and_then(|m| m.mode.as_deref());
        if !self.is_for_servers(mode, path) {
            return None;
        }
        let metric = matches.and_then(|m| m.metric.as_deref());
        let custom = matches.and_then(|m| m.custom_metric.as_deref());
        let metrics: Vec<IstioMetric> = match (metric, custom) {
            (None | Some("" | "ALL_METRICS"), None | Some("")) => IstioMetric::ALL
                .iter()
                .map(|(metric, ..)| *metric)
                .collect(),
            (Some(name), _) if !name.is_empty() => named(|(_, known, _)| *known == name),
            (_, Some(name)) => {
                let name = name.strip_prefix("istio_").unwrap_or(name);
                named(|(_, _, series)| *series == name)
            }
            (_, None) => Vec::new(),
        };
        if metrics.is_empty() {
            let field = if custom.is_some() {
                "customMetric"
            } else {
                "metric"
            };
            let name = custom.or(metric).unwrap_or_default();
            let known: Vec<&str> = IstioMetric::ALL.iter().map(|(_, name, _)| *name).collect();
            let finding = Diagnostic::error(Code::BadValue, format!("there is no metric '{name}'"))
                .with_effect("this override has no effect")
                .with_hint(format!("ALL_METRICS, {}", known.join(", ")));
            self.say(finding, &format!("{path}.match.{field}"));
            return None;
        }
        Some(MetricChange {
            metrics,
            disabled: written.disabled,
            tags: self.labels(written, path),
        })
    }

    fn labels(
        &mut self,
        written: &MetricOverrideSpec,
        path: &str,
    ) -> BTreeMap<Arc<str>, TagChange> {
        let mut tags = BTreeMap::new();
        let path = format!("{path}.tagOverrides");
        for (at, (label, tag)) in written.tag_overrides.iter().flatten().enumerate() {
            let at_tag = format!("{path}.{label}");
            if at >= METRIC_TAGS_MAX {
                let message = format!("an override changes at most {METRIC_TAGS_MAX} labels");
                let finding = Diagnostic::error(Code::LimitExceeded, message)
                    .with_effect("the others are as usual");
                self.say(finding, &path);
                break;
            }
            if !is_label(label) {
                let message = format!("'{label}' can not be the name of a label");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("metrics do not have it");
                self.say(finding, &at_tag);
                continue;
            }
            let value = tag.value.as_deref().unwrap_or_default();
            let wrong = match (tag.operation.as_deref().unwrap_or("UPSERT"), value) {
                ("REMOVE", _) => {
                    tags.insert(label.as_str().into(), TagChange::Remove);
                    continue;
                }
                ("" | "UPSERT", "") => "UPSERT needs a `value`".to_owned(),
                ("" | "UPSERT", text) => {
                    let set = self.expression(text, &format!("{at_tag}.value"), LABEL_AS_USUAL);
                    tags.extend(set.map(|set| (label.as_str().into(), TagChange::Set(set))));
                    continue;
                }
                (other, _) => format!("operation '{other}' is unknown"),
            };
            let finding = Diagnostic::error(Code::BadValue, wrong)
                .with_effect(LABEL_AS_USUAL)
                .with_hint("UPSERT with a value, or REMOVE");
            self.say(finding, &at_tag);
        }
        tags
    }
}

/// What becomes of a label whose override can not be honoured.
pub(super) const LABEL_AS_USUAL: &str = "the label is as without it";

fn named(
    is_meant: impl Fn(&&(IstioMetric, &'static str, &'static str)) -> bool,
) -> Vec<IstioMetric> {
    let found = IstioMetric::ALL.iter().filter(is_meant);
    found.map(|(metric, ..)| *metric).collect()
}

/// Where a tag's value comes from.
fn tag_source(written: &CustomTagSpec) -> Result<TagSource, &'static str> {
    let text = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(Arc::from);
    match written {
        CustomTagSpec {
            literal: Some(tag),
            environment: None,
            header: None,
            formatter: None,
        } => Ok(TagSource::Literal(tag.value.as_str().into())),
        CustomTagSpec {
            literal: None,
            environment: Some(tag),
            header: None,
            formatter: None,
        } => Ok(TagSource::Environment(
            tag.name.as_str().into(),
            text(&tag.default_value),
        )),
        CustomTagSpec {
            literal: None,
            environment: None,
            header: Some(tag),
            formatter: None,
        } => {
            let name = tag.name.to_ascii_lowercase();
            Ok(TagSource::Header(name.into(), text(&tag.default_value)))
        }
        CustomTagSpec {
            formatter: Some(_), ..
        } => Err("a tag by `formatter` is not supported"),
        _ => Err("a tag has exactly one of literal, environment and header"),
    }
}

/// As Prometheus allows; `le` belongs to histograms.
fn is_label(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first)
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with("__")
        && name != "le"
}
