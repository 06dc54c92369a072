//! What is told of traffic, and whom: spans, access logs, Istio's metrics (specs/istio-waypoint.md
//! 4.11, 5). Nothing here decides anything about a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::ClusterKey;
use crate::diagnostics::Location;
use crate::origin::{ObjectKey, Origin};

/// Settings for everything that is served here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Telemetry {
    /// Of everything without settings of its own.
    pub waypoint: Arc<TelemetrySettings>,
    /// Of services that have settings of their own.
    #[serde(serialize_with = "super::by_text")]
    pub services: BTreeMap<ObjectKey, Arc<TelemetrySettings>>,
}

impl Telemetry {
    /// Settings of a service; `None` is the address of a workload.
    pub fn of_service(&self, key: Option<&ObjectKey>) -> &Arc<TelemetrySettings> {
        let own = key.and_then(|key| self.services.get(key));
        own.unwrap_or(&self.waypoint)
    }
}

/// What is told of the requests and streams to one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TelemetrySettings {
    /// Spans.
    pub tracing: TraceSettings,
    /// Access logs; each gets a line of its own. Empty: none.
    pub access_log: Vec<AccessLog>,
    /// Istio's metrics.
    pub metrics: MetricSettings,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            tracing: TraceSettings::default(),
            access_log: vec![AccessLog::default()],
            metrics: MetricSettings::default(),
        }
    }
}

/// Which requests have spans, who gets them, and what is in them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSettings {
    /// Who gets them.
    pub to: TraceTarget,
    /// Requests per million that get a trace if the client has not decided. `None`: nobody says; then as the
    /// variables OTEL_* say, else 1 % (specs/istio-waypoint.md 5.4).
    pub sampled_ppm: Option<u32>,
    /// `false`: the context is passed on, and no span is sent (`disableSpanReporting`).
    pub reports: bool,
    /// Istio's own tags are in spans.
    pub istio_tags: bool,
    /// More tags.
    pub tags: Arc<BTreeMap<Arc<str>, TagSource>>,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            to: TraceTarget::Unnamed,
            sampled_ppm: None,
            reports: true,
            istio_tags: true,
            tags: Arc::default(),
        }
    }
}

/// Who gets spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceTarget {
    /// The configuration names nobody.
    #[default]
    Unnamed,
    /// This collector.
    Collector(Arc<Collector>),
    /// The configuration names somebody who can not get them, for this reason.
    Unusable(Arc<str>),
}

/// A receiver of OTLP.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Collector {
    /// Name in `meshConfig.extensionProviders`.
    pub name: Arc<str>,
    /// Where it is.
    pub cluster: ClusterKey,
    /// What is spoken.
    pub protocol: OtlpProtocol,
    /// How long one export may take, in milliseconds.
    pub timeout_ms: u64,
    /// Headers, or metadata, that it is sent; values may be secrets.
    #[serde(skip)]
    pub headers: Vec<(Arc<str>, TagSource)>,
    /// Values of tags are cut at so many bytes.
    pub tag_bytes_max: u32,
}

/// How OTLP is carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// gRPC.
    #[default]
    Grpc,
    /// Protobuf in POSTs to this path.
    Http(Arc<str>),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TagSource {
    /// It is this.
    Literal(Arc<str>),
    /// From the environment of the process; without it the second, if there is one.
    Environment(Arc<str>, Option<Arc<str>>),
    /// From a header of the request, in lower case; without it the second, if there is one.
    Header(Arc<str>, Option<Arc<str>>),
}

/// One access log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessLog {
    /// Name of the provider.
    pub provider: Arc<str>,
    /// Where lines go.
    pub sink: LogSink,
    /// Lines are written for what this is true of. `None`: for everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Arc<Expression>>,
}

/// The provider that is always there: standard output.
pub const BUILT_IN_LOG: &str = "envoy";

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            provider: BUILT_IN_LOG.into(),
            sink: LogSink::Stdout(LogFormat::default()),
            filter: None,
        }
    }
}

/// Where lines of an access log go.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSink {
    /// Standard output, in this format.
    Stdout(LogFormat),
    /// A receiver of OTLP.
    Collector(Arc<OtelLog>),
    /// Envoy's Access Log Service.
    Entries(Arc<EntryLog>),
}

/// An access log as entries of Envoy's Access Log Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntryLog {
    /// Who gets it.
    pub collector: Collector,
    /// `logName`.
    pub log_name: Arc<str>,
    /// Of what there are entries.
    pub kind: EntryKind,
}

/// Of what an access log has entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Requests.
    Http {
        /// Headers of theirs that are told beside those that always are, in lower case.
        request_headers: Vec<Arc<str>>,
        /// Headers of their responses.
        response_headers: Vec<Arc<str>>,
    },
    /// TCP streams.
    Tcp,
}

/// An access log by OTLP.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtelLog {
    /// Who gets it.
    pub collector: Collector,
    /// `logName`.
    pub log_name: Arc<str>,
    /// The body of a record.
    pub text: Arc<WrittenFormat>,
    /// Its attributes: a JSON object.
    pub labels: Arc<WrittenFormat>,
}

/// What a line looks like. Command operators in it are read where lines are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Cairn's JSON, with Istio's keys and its own.
    #[default]
    Cairn,
    /// Text with command operators.
    Text(Arc<WrittenFormat>),
    /// A JSON object whose texts have command operators.
    Json(Arc<WrittenFormat>),
}

/// Istio's text, with the line end (specs/istio-waypoint.md 5.5).
pub const ISTIO_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// A format as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenFormat {
    /// The text; of JSON the object.
    pub template: serde_json::Value,
    /// Keys without a value are left out (`omitEmptyValues`).
    pub omits_empty: bool,
    /// Where it is written. `None`: in a flag.
    #[serde(skip)]
    pub at: Option<WrittenAt>,
}

/// Istio's metrics of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricSettings {
    /// `false`: none of them is counted.
    pub enabled: bool,
    /// What is other than usual.
    pub overrides: BTreeMap<IstioMetric, MetricOverride>,
    /// How often bytes of open TCP streams are counted, in milliseconds; `None`: as usual.
    pub report_interval_ms: Option<u64>,
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            overrides: BTreeMap::new(),
            report_interval_ms: None,
        }
    }
}

/// What is other than usual with one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricOverride {
    /// It is not counted.
    pub disabled: bool,
    /// Labels that are changed.
    pub tags: BTreeMap<Arc<str>, TagChange>,
}

/// What becomes of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TagChange {
    /// It is left out.
    Remove,
    /// It is there, with this value.
    Set(Arc<Expression>),
}

/// A CEL expression, with where it stands: it is compiled where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Expression {
    /// The text.
    pub text: Arc<str>,
    /// Where it is written.
    #[serde(skip)]
    pub at: WrittenAt,
}

/// A place in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WrittenAt {
    /// The object.
    pub origin: Arc<Origin>,
    /// The path in it.
    pub path: Arc<str>,
    /// The place in a file.
    pub location: Option<Location>,
}

/// Istio's metrics, by their names in the Telemetry API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // the names are Istio's
pub enum IstioMetric {
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

impl IstioMetric {
    /// All of them, each with its name in the Telemetry API and that of the series.
    pub const ALL: [(Self, &'static str, &'static str); 10] = [
        (Self::RequestCount, "REQUEST_COUNT", "requests_total"),
        (
            Self::RequestDuration,
            "REQUEST_DURATION",
            "request_duration_milliseconds",
        ),
        (Self::RequestSize, "REQUEST_SIZE", "request_bytes"),
        (Self::ResponseSize, "RESPONSE_SIZE", "response_bytes"),
        (
            Self::TcpOpenedConnections,
            "TCP_OPENED_CONNECTIONS",
            "tcp_connections_opened_total",
        ),
        (
            Self::TcpClosedConnections,
            "TCP_CLOSED_CONNECTIONS",
            "tcp_connections_closed_total",
        ),
        (Self::TcpSentBytes, "TCP_SENT_BYTES", "tcp_sent_bytes_total"),
        (
            Self::TcpReceivedBytes,
            "TCP_RECEIVED_BYTES",
            "tcp_received_bytes_total",
        ),
        (
            Self::GrpcRequestMessages,
            "GRPC_REQUEST_MESSAGES",
            "request_messages_total",
        ),
        (
            Self::GrpcResponseMessages,
            "GRPC_RESPONSE_MESSAGES",
            "response_messages_total",
        ),
    ];
}
