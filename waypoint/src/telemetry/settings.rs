//! What is told of each service, made ready to run: a request finds its settings at its target. What
//! they say is resolved in `cairn-config-schema`.

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{
    AccessLog, Expression, LogFormat, LogSink, OtelLog, Snapshot, TagChange, Telemetry,
    TelemetrySettings, WrittenAt,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::access_log::template::{Format, Wrong};
use super::changes::Changes;
use super::expression::{Compiled, Outcome};
use super::trace::settings::Tracing;
use super::trace::{self, compile};
use crate::limits::TCP_REPORT_INTERVAL;

mod entries;

pub use entries::{Entered, NamedHeader};

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
    /// Access logs for Envoy's Access Log Service.
    pub entered: Vec<Entered>,
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
            entered: resolved
                .access_log
                .iter()
                .filter_map(Entered::compile)
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
                // It has no format.
                LogSink::Entries(_) => {}
            }
            if let Some(filter) = &log.filter {
                let effects = Effects {
                    of_fault: "the access log has every request",
                    of_error: "a request is not in the access log if that decides, as at Istio",
                };
                let read = Compiled::filter(&filter.text);
                of_expression(filter, read, effects, &mut seen, &mut found);
            }
        }
        for tag in settings
            .metrics
            .overrides
            .values()
            .flat_map(|change| change.tags.values())
        {
            if let TagChange::Set(value) = tag {
                let effects = Effects {
                    of_fault: "the label is as without it",
                    of_error: "the label is `unknown` if that decides, as at Istio",
                };
                let read = Compiled::value(&value.text);
                of_expression(value, read, effects, &mut seen, &mut found);
            }
        }
    }
    found
}

/// What holds instead of an expression that can not be taken, and where a part of one is an error.
#[derive(Clone, Copy)]
struct Effects {
    of_fault: &'static str,
    of_error: &'static str,
}

/// How bad a part is that can not be right, and what it means; `of_error`: where it is an error.
fn judged(outcome: Outcome, of_error: &'static str) -> (Severity, &'static str) {
    match outcome {
        Outcome::Unknown => (Severity::Error, of_error),
        Outcome::Error => (Severity::Warning, of_error),
        Outcome::Always(true) => (
            Severity::Warning,
            "that comparison is true wherever both sides are there, as at Istio",
        ),
        Outcome::Always(false) => (
            Severity::Warning,
            "that comparison is false wherever both sides are there, as at Istio",
        ),
    }
}

fn of_expression(
    expression: &Expression,
    read: Result<Compiled, String>,
    effects: Effects,
    seen: &mut FxHashSet<WrittenAt>,
    found: &mut Vec<Diagnostic>,
) {
    let at = Some(&expression.at);
    let told: Vec<_> = match read {
        Err(fault) => vec![marked(fault, (Severity::Error, effects.of_fault), at)],
        Ok(compiled) => {
            let doubts = compiled.doubts().iter();
            let told = doubts.map(|doubt| {
                let judged = judged(doubt.outcome, effects.of_error);
                marked(doubt.words.clone(), judged, at)
            });
            told.collect()
        }
    };
    if !told.is_empty() && seen.insert(expression.at.clone()) {
        found.extend(told);
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
    found.extend(wrong.into_iter().map(|wrong| match wrong {
        Wrong::Missing(words) => marked(words, (Severity::Error, effect), at),
        Wrong::Doubted(doubt) => {
            let effect = "a value that is not there is written in its place if that decides";
            marked(doubt.words, judged(doubt.outcome, effect), at)
        }
    }));
}

fn marked(
    message: String,
    (severity, effect): (Severity, &str),
    at: Option<&WrittenAt>,
) -> Diagnostic {
    let finding = Diagnostic {
        severity,
        ..Diagnostic::error(Code::BadValue, message).with_effect(effect)
    };
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
        Arc::new(WrittenFormat {
            template,
            omits_empty: false,
            at: Some(at(path)),
        })
    }

    fn at(path: &str) -> WrittenAt {
        let key = ObjectKey::new("istio-system", "istio");
        WrittenAt {
            origin: Arc::new(Origin {
                kind: Kind::ConfigMap,
                key,
            }),
            path: path.into(),
            location: None,
        }
    }

    /// specs/istio-waypoint.md 5.5: what is told of a part that can not be right is what it does.
    #[test]
    fn findings_say_what_a_part_of_an_expression_does_that_can_not_be_right() {
        use Severity::{Error, Warning};
        for (text, severity, effect) in [
            ("response.code >= ", Error, "every request"),
            ("response.code == '200'", Warning, "is false wherever"),
            ("!(response.code == '200')", Warning, "is false wherever"),
            ("response.code != '200'", Warning, "is true wherever"),
            ("response.code in ['200']", Warning, "is false wherever"),
            ("response.code > '200'", Warning, "is not in the access log"),
            ("request.nope == ''", Error, "is not in the access log"),
            ("connection.id == 7u", Error, "is not in the access log"),
            (
                "request.duration > duration('1s')",
                Error,
                "is not in the access log",
            ),
        ] {
            let log = AccessLog {
                provider: "logs".into(),
                sink: LogSink::Stdout(LogFormat::Cairn),
                filter: Some(Arc::new(Expression {
                    text: text.into(),
                    at: at(text),
                })),
            };
            let mut snapshot = Snapshot::default();
            snapshot.telemetry.waypoint = Arc::new(TelemetrySettings {
                access_log: vec![log],
                ..TelemetrySettings::default()
            });
            let [found] = &faults(&snapshot)[..] else {
                panic!("{text}: {:?}", faults(&snapshot))
            };
            assert_eq!(found.severity, severity, "{text}");
            let told = found.effect.as_deref().unwrap();
            assert!(told.contains(effect), "{text}: {told}");
        }
    }

    /// As of filters, with what is written instead.
    #[test]
    fn findings_of_formats_say_whether_a_dash_is_written() {
        let log = AccessLog {
            provider: "logs".into(),
            sink: LogSink::Stdout(LogFormat::Text(written(
                "%CEL(foo.bar)% %CEL(response.code == '200')% %NO_SUCH%".into(),
                "accessLogFormat",
            ))),
            filter: None,
        };
        let mut snapshot = Snapshot::default();
        snapshot.telemetry.waypoint = Arc::new(TelemetrySettings {
            access_log: vec![log],
            ..TelemetrySettings::default()
        });
        let found = faults(&snapshot);
        let told: Vec<_> = found
            .iter()
            .map(|d| (d.severity, d.effect.as_deref().unwrap()))
            .collect();
        let missing = "a value that is not there is written in its place";
        let decides = format!("{missing} if that decides");
        let never = "that comparison is false wherever both sides are there, as at Istio";
        assert_eq!(
            told,
            [
                (Severity::Error, &*decides),
                (Severity::Warning, never),
                (Severity::Error, missing),
            ]
        );
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
