//! What is told of each service, made ready to run: a request finds its settings at its target. What
//! they say is resolved in `cairn-config-schema`.

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    AccessLog, Expression, LogFormat, LogSink, OtelLog, Snapshot, TagChange, Telemetry,
    TelemetrySettings, WrittenAt,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::access_log::template::Format;
use super::changes::Changes;
use super::expression::Compiled;
use super::trace::settings::Tracing;
use super::trace::{self, compile};
use crate::limits::TCP_REPORT_INTERVAL;

/// Settings of one service, or of everything without its own.
#[derive(Debug, Default)]
pub struct Settings {
    /// As resolved.
    pub resolved: Arc<TelemetrySettings>,
    /// How requests are traced; `None`: not at all.
    pub tracing: Option<Arc<Tracing>>,
    /// Access logs on stdout.
    pub logs: Vec<Log>,
    /// What is other than usual with Istio's metrics.
    pub metrics: Option<Arc<Changes>>,
    /// Access logs for collectors.
    pub collected: Vec<Collected>,
    is_unusual: bool,
}

/// One access log on stdout.
#[derive(Debug)]
pub struct Log {
    /// What a line looks like.
    pub format: Format,
    /// For what a line is written; `None`: for everything.
    pub filter: Option<Compiled>,
}

/// One access log for a collector.
#[derive(Debug)]
pub struct Collected {
    /// Who gets it.
    pub to: Arc<OtelLog>,
    /// The body of a record.
    pub text: Format,
    /// Its attributes, as a JSON object.
    pub labels: Format,
    /// For what there is a record; `None`: for everything.
    pub filter: Option<Compiled>,
}

/// Body and attributes of a collector's records.
fn formats(log: &OtelLog) -> [LogFormat; 2] {
    let (text, labels) = (log.text.clone(), log.labels.clone());
    [LogFormat::Text(text), LogFormat::Json(labels)]
}

impl Collected {
    fn compile(log: &AccessLog) -> Option<Self> {
        let LogSink::Collector(to) = &log.sink else {
            return None;
        };
        let [text, labels] = formats(to);
        let filter = log.filter.as_ref();
        Some(Self {
            to: to.clone(),
            text: Format::read(&text, &mut Vec::new()),
            labels: Format::read(&labels, &mut Vec::new()),
            filter: filter.and_then(|filter| Compiled::filter(&filter.text).ok()),
        })
    }
}

impl Settings {
    fn compile(resolved: &Arc<TelemetrySettings>) -> Self {
        let logs = resolved.access_log.iter().filter_map(|log| {
            let LogSink::Stdout(format) = &log.sink else {
                return None;
            };
            // What is wrong with either is told by `faults`.
            let filter = log.filter.as_ref();
            Some(Log {
                format: Format::read(format, &mut Vec::new()),
                filter: filter.and_then(|filter| Compiled::filter(&filter.text).ok()),
            })
        });
        Self {
            logs: logs.collect(),
            metrics: Changes::compile(&resolved.metrics).map(Arc::new),
            collected: resolved
                .access_log
                .iter()
                .filter_map(Collected::compile)
                .collect(),
            tracing: match trace::is_disabled() {
                true => None,
                false => compile::compile(&resolved.tracing, trace::default().as_ref(), |name| {
                    std::env::var(name).ok()
                }),
            },
            is_unusual: **resolved != TelemetrySettings::default(),
            resolved: resolved.clone(),
        }
    }

    /// How often bytes of open TCP streams are counted (specs/istio-waypoint.md 5.1).
    pub fn report_interval(&self) -> Duration {
        let said = self.resolved.metrics.report_interval_ms;
        said.map_or(TCP_REPORT_INTERVAL, Duration::from_millis)
    }

    /// Itself, if it says anything that is not as by default: most exchanges carry none.
    pub fn unusual(self: &Arc<Self>) -> Option<Arc<Self>> {
        self.is_unusual.then(|| self.clone())
    }
}

/// Settings of everything that is served.
#[derive(Debug, Default)]
pub struct AllSettings {
    waypoint: Arc<Settings>,
    services: FxHashMap<ObjectKey, Arc<Settings>>,
}

impl AllSettings {
    /// Makes them ready; those of `previous` that say the same are kept.
    pub fn compile(telemetry: &Telemetry, previous: Option<&Self>) -> Self {
        let one = |key: Option<&ObjectKey>, resolved: &Arc<TelemetrySettings>| {
            let before = previous.map(|previous| previous.of_service(key));
            match before.filter(|before| before.resolved == *resolved) {
                Some(before) => before.clone(),
                None => Arc::new(Settings::compile(resolved)),
            }
        };
        let services = telemetry.services.iter();
        Self {
            waypoint: one(None, &telemetry.waypoint),
            services: services
                .map(|(key, resolved)| (key.clone(), one(Some(key), resolved)))
                .collect(),
        }
    }

    /// Settings of a service; `None` is the address of a workload, or what is not served.
    pub fn of_service(&self, key: Option<&ObjectKey>) -> &Arc<Settings> {
        let own = key.and_then(|key| self.services.get(key));
        own.unwrap_or(&self.waypoint)
    }
}

/// Expressions and formats that are not what they should be: each is told once, with what holds instead.
pub fn faults(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = FxHashSet::default();
    let telemetry = &snapshot.telemetry;
    for settings in std::iter::once(&telemetry.waypoint).chain(telemetry.services.values()) {
        for log in &settings.access_log {
            match &log.sink {
                LogSink::Stdout(format) => of_format(format, &mut seen, &mut found),
                LogSink::Collector(to) => formats(to)
                    .iter()
                    .for_each(|format| of_format(format, &mut seen, &mut found)),
            }
            if let Some(filter) = &log.filter {
                let effect = "the access log has every request";
                let fault = Compiled::filter(&filter.text).err();
                of_expression(filter, fault, effect, &mut seen, &mut found);
            }
        }
        for tag in settings
            .metrics
            .overrides
            .values()
            .flat_map(|change| change.tags.values())
        {
            if let TagChange::Set(value) = tag {
                let effect = "the label is as without it";
                let fault = Compiled::value(&value.text).err();
                of_expression(value, fault, effect, &mut seen, &mut found);
            }
        }
    }
    found
}

fn of_expression(
    expression: &Expression,
    fault: Option<String>,
    effect: &str,
    seen: &mut FxHashSet<WrittenAt>,
    found: &mut Vec<Diagnostic>,
) {
    if let Some(message) = fault.filter(|_| seen.insert(expression.at.clone())) {
        found.push(marked(message, effect, Some(&expression.at)));
    }
}

fn of_format(format: &LogFormat, seen: &mut FxHashSet<WrittenAt>, found: &mut Vec<Diagnostic>) {
    let (LogFormat::Text(written) | LogFormat::Json(written)) = format else {
        return;
    };
    if written
        .at
        .as_ref()
        .is_some_and(|at| !seen.insert(at.clone()))
    {
        return;
    }
    let mut wrong = Vec::new();
    Format::read(format, &mut wrong);
    let effect = "a value that is not there is written in its place";
    let at = written.at.as_ref();
    found.extend(wrong.into_iter().map(|message| marked(message, effect, at)));
}

fn marked(message: String, effect: &str, at: Option<&WrittenAt>) -> Diagnostic {
    let finding = Diagnostic::error(Code::BadValue, message).with_effect(effect);
    match at {
        Some(at) => finding
            .at(at.location.clone())
            .of((*at.origin).clone(), &*at.path),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::{Kind, Origin};
    use cairn_config_schema::snapshot::{ClusterKey, Collector, OtlpProtocol, WrittenFormat};

    use super::*;

    fn written(template: serde_json::Value, path: &str) -> Arc<WrittenFormat> {
        let key = ObjectKey::new("istio-system", "istio");
        let origin = Origin {
            kind: Kind::ConfigMap,
            key,
        };
        Arc::new(WrittenFormat {
            template,
            omits_empty: false,
            at: Some(WrittenAt {
                origin: Arc::new(origin),
                path: path.into(),
                location: None,
            }),
        })
    }

    /// specs/istio-waypoint.md 5.5: formats of `envoyOtelAls` have the same operators as those of files.
    #[test]
    fn what_is_wrong_in_a_collectors_format_is_told_once_with_its_place() {
        let log = OtelLog {
            collector: Collector {
                name: "logs".into(),
                cluster: ClusterKey::new(ObjectKey::new("shop", "otel"), 4317),
                protocol: OtlpProtocol::Grpc,
                timeout_ms: 1_000,
                headers: vec![],
                tag_bytes_max: 256,
            },
            log_name: "shop".into(),
            text: written("%NO_SUCH% %PROTOCOL%".into(), "logFormat.text"),
            labels: written(
                serde_json::json!({"a": "%PROTOCOL%", "b": "%NEITHER(x)%"}),
                "logFormat.labels",
            ),
        };
        let log = AccessLog {
            provider: "logs".into(),
            sink: LogSink::Collector(Arc::new(log)),
            filter: None,
        };
        let settings = Arc::new(TelemetrySettings {
            access_log: vec![log],
            ..TelemetrySettings::default()
        });
        let mut snapshot = Snapshot::default();
        snapshot.telemetry.waypoint = settings.clone();
        let twice = ObjectKey::new("shop", "web");
        snapshot.telemetry.services.insert(twice, settings);
        let found = faults(&snapshot);
        let places: Vec<_> = found.iter().map(|d| &*d.path).collect();
        assert_eq!(places, ["logFormat.text", "logFormat.labels"]);
        assert!(found[0].message.contains("NO_SUCH"), "{found:?}");
        assert!(found[1].message.contains("NEITHER"), "{found:?}");
    }
}
