//! Telemetry (telemetry.istio.io/v1) and the providers of telemetry in MeshConfig, as written. All
//! fields of the API are here, those not honoured too, so that they can be named.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TargetRef;
use super::istio::WorkloadSelector;

/// `Telemetry.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetrySpec {
    /// Selects workloads; not for a waypoint.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    pub target_ref: Option<TargetRef>,
    /// Attachment; without any it is for a namespace, or for the mesh.
    pub target_refs: Option<Vec<TargetRef>>,
    /// Spans.
    pub tracing: Option<Vec<TracingSpec>>,
    /// Istio's metrics.
    pub metrics: Option<Vec<MetricsSpec>>,
    /// Access logs.
    pub access_logging: Option<Vec<AccessLoggingSpec>>,
}

/// `match` of tracing and access logging.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeSpec {
    /// `CLIENT`, `SERVER` or `CLIENT_AND_SERVER`.
    pub mode: Option<String>,
}

/// One item of `providers`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderSpec {
    /// Name in `meshConfig.extensionProviders`.
    pub name: String,
}

/// One item of `tracing`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct TracingSpec {
    #[serde(rename = "match")]
    pub matches: Option<ModeSpec>,
    pub providers: Option<Vec<ProviderSpec>>,
    pub random_sampling_percentage: Option<f64>,
    pub disable_span_reporting: Option<bool>,
    pub custom_tags: Option<BTreeMap<String, CustomTagSpec>>,
    pub use_request_id_for_trace_sampling: Option<bool>,
    pub enable_istio_tags: Option<bool>,
}

/// One of `customTags`; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct CustomTagSpec {
    pub literal: Option<LiteralTagSpec>,
    pub environment: Option<NamedTagSpec>,
    pub header: Option<NamedTagSpec>,
    pub formatter: Option<LiteralTagSpec>,
}

/// `literal`, and `formatter`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct LiteralTagSpec {
    pub value: String,
}

/// `environment` and `header`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct NamedTagSpec {
    pub name: String,
    pub default_value: Option<String>,
}

/// One item of `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct MetricsSpec {
    pub providers: Option<Vec<ProviderSpec>>,
    pub overrides: Option<Vec<MetricOverrideSpec>>,
    pub reporting_interval: Option<String>,
}

/// One item of `overrides`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct MetricOverrideSpec {
    #[serde(rename = "match")]
    pub matches: Option<MetricSelectorSpec>,
    pub disabled: Option<bool>,
    pub tag_overrides: Option<BTreeMap<String, TagOverrideSpec>>,
}

/// `match` of an override.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct MetricSelectorSpec {
    pub metric: Option<String>,
    pub custom_metric: Option<String>,
    pub mode: Option<String>,
}

/// One of `tagOverrides`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct TagOverrideSpec {
    pub operation: Option<String>,
    pub value: Option<String>,
}

/// One item of `accessLogging`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct AccessLoggingSpec {
    #[serde(rename = "match")]
    pub matches: Option<ModeSpec>,
    pub providers: Option<Vec<ProviderSpec>>,
    pub disabled: Option<bool>,
    pub filter: Option<FilterSpec>,
}

/// `filter`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterSpec {
    /// CEL.
    pub expression: Option<String>,
}

/// `defaultProviders` of MeshConfig: names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct DefaultProvidersSpec {
    pub tracing: Option<Vec<String>>,
    pub metrics: Option<Vec<String>>,
    pub access_logging: Option<Vec<String>>,
}

/// `accessLogFile`, `accessLogFormat` and `accessLogEncoding` of MeshConfig.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // the fields are Istio's
pub struct MeshAccessLogSpec {
    pub file: Option<String>,
    pub format: Option<String>,
    pub encoding: Option<String>,
}

/// `opentelemetry`: a collector of spans.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct OpenTelemetrySpec {
    pub service: String,
    pub port: u32,
    pub max_tag_length: Option<u32>,
    pub http: Option<OtlpHttpSpec>,
    pub grpc: Option<OtlpGrpcSpec>,
    pub resource_detectors: Option<serde_json::Value>,
    pub dynatrace_sampler: Option<serde_json::Value>,
    pub service_attribute_enrichment: Option<String>,
}

/// `http` of a collector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct OtlpHttpSpec {
    pub path: String,
    pub timeout: Option<String>,
    pub headers: Option<Vec<OtlpHeaderSpec>>,
}

/// `grpc` of a collector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct OtlpGrpcSpec {
    pub timeout: Option<String>,
    pub initial_metadata: Option<Vec<OtlpHeaderSpec>>,
}

/// A header that a collector is sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct OtlpHeaderSpec {
    pub name: String,
    pub value: Option<String>,
    pub env_name: Option<String>,
}

/// `envoyFileAccessLog`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct FileLogSpec {
    pub path: String,
    pub log_format: Option<LogFormatSpec>,
    pub omit_empty_values: Option<bool>,
}

/// `envoyOtelAls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct OtelLogSpec {
    pub service: String,
    pub port: u32,
    pub log_name: Option<String>,
    pub log_format: Option<LogFormatSpec>,
}

/// `envoyHttpAls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct HttpEntryLogSpec {
    pub service: String,
    pub port: u32,
    pub log_name: Option<String>,
    pub filter_state_objects_to_log: Option<Vec<String>>,
    pub additional_request_headers_to_log: Option<Vec<String>>,
    pub additional_response_headers_to_log: Option<Vec<String>>,
    pub additional_response_trailers_to_log: Option<Vec<String>>,
}

/// `envoyTcpAls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct TcpEntryLogSpec {
    pub service: String,
    pub port: u32,
    pub log_name: Option<String>,
    pub filter_state_objects_to_log: Option<Vec<String>>,
}

/// `logFormat`: `text`, or `labels`, which make a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct LogFormatSpec {
    pub text: Option<String>,
    pub labels: Option<serde_json::Map<String, serde_json::Value>>,
}
