//! Istio kinds: AuthorizationPolicy (security.istio.io/v1) and the part of MeshConfig that Cairn
//! honours. All fields of the API are here, those not honoured too, so that they can be named.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TargetRef;
use super::telemetry::{
    DefaultProvidersSpec, FileLogSpec, HttpEntryLogSpec, MeshAccessLogSpec, OpenTelemetrySpec,
    OtelLogSpec, TcpEntryLogSpec,
};
use super::virtual_service::Retries;

/// `AuthorizationPolicy.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Selects workloads; not for a waypoint.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    pub target_ref: Option<TargetRef>,
    /// Attachment.
    pub target_refs: Option<Vec<TargetRef>>,
    /// Rules; a null rule is skipped.
    pub rules: Option<Vec<Option<Rule>>>,
    /// `ALLOW` when absent.
    pub action: Option<String>,
    /// Provider of a CUSTOM policy.
    pub provider: Option<ExtensionProvider>,
}

/// `selector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that must match.
    pub match_labels: BTreeMap<String, String>,
}

/// `provider`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// Name in `meshConfig.extensionProviders`.
    pub name: String,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Who.
    pub from: Option<Vec<From>>,
    /// What.
    pub to: Option<Vec<To>>,
    /// Conditions.
    pub when: Option<Vec<When>>,
}

/// One item of `from`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// The source.
    pub source: Option<Source>,
}

/// `source`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct Source {
    pub principals: Option<Vec<String>>,
    pub not_principals: Option<Vec<String>>,
    pub request_principals: Option<Vec<String>>,
    pub not_request_principals: Option<Vec<String>>,
    pub namespaces: Option<Vec<String>>,
    pub not_namespaces: Option<Vec<String>>,
    pub service_accounts: Option<Vec<String>>,
    pub not_service_accounts: Option<Vec<String>>,
    pub trust_domains: Option<Vec<String>>,
    pub not_trust_domains: Option<Vec<String>>,
    pub ip_blocks: Option<Vec<String>>,
    pub not_ip_blocks: Option<Vec<String>>,
    pub remote_ip_blocks: Option<Vec<String>>,
    pub not_remote_ip_blocks: Option<Vec<String>>,
}

/// One item of `to`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// `operation`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct Operation {
    pub hosts: Option<Vec<String>>,
    pub not_hosts: Option<Vec<String>>,
    pub ports: Option<Vec<String>>,
    pub not_ports: Option<Vec<String>>,
    pub methods: Option<Vec<String>>,
    pub not_methods: Option<Vec<String>>,
    pub paths: Option<Vec<String>>,
    pub not_paths: Option<Vec<String>>,
}

/// One item of `when`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct When {
    /// The attribute.
    pub key: String,
    /// Any of these.
    pub values: Option<Vec<String>>,
    /// None of these.
    pub not_values: Option<Vec<String>>,
}

/// What Cairn reads of `data.mesh` in the ConfigMap `istio`. MeshConfig has some hundred more
/// fields; those that would change a waypoint's behaviour are reported, the rest is not for us.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshConfigSpec {
    /// `trustDomain`.
    pub trust_domain: Option<String>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<String>,
    /// `rootNamespace`.
    pub root_namespace: Option<String>,
    /// `pathNormalization.normalization`, as written.
    pub path_normalization: Option<String>,
    /// `connectTimeout` in milliseconds.
    pub connect_timeout_ms: Option<u64>,
    /// `defaultHttpRetryPolicy`.
    pub default_http_retry_policy: Option<Retries>,
    /// `extensionProviders`, in the order written.
    pub extension_providers: Vec<ExtensionProviderSpec>,
    /// `defaultProviders`.
    pub default_providers: Option<DefaultProvidersSpec>,
    /// `accessLogFile`, `accessLogFormat`, `accessLogEncoding`.
    pub access_log: MeshAccessLogSpec,
}

/// One entry of `extensionProviders`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionProviderSpec {
    /// Its name. Empty: it has none.
    pub name: String,
    /// What it is.
    pub kind: ExtensionProviderKind,
}

/// What an extension provider is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionProviderKind {
    /// `envoyExtAuthzHttp`.
    Http(Box<ExtAuthzHttpSpec>),
    /// `envoyExtAuthzGrpc`.
    Grpc(Box<ExtAuthzGrpcSpec>),
    /// `opentelemetry`.
    OpenTelemetry(Box<OpenTelemetrySpec>),
    /// `envoyFileAccessLog`.
    FileLog(Box<FileLogSpec>),
    /// `envoyOtelAls`.
    OtelLog(Box<OtelLogSpec>),
    /// `envoyHttpAls`.
    HttpEntryLog(Box<HttpEntryLogSpec>),
    /// `envoyTcpAls`.
    TcpEntryLog(Box<TcpEntryLogSpec>),
    /// `prometheus`.
    Prometheus,
    /// Another one: the field it has.
    Other(String),
    /// It can not be read, for this reason.
    Broken(String),
}

impl ExtensionProviderKind {
    /// The field of the provider that says what it is; empty for one that is broken.
    pub fn field(&self) -> &str {
        match self {
            Self::Http(_) => "envoyExtAuthzHttp",
            Self::Grpc(_) => "envoyExtAuthzGrpc",
            Self::OpenTelemetry(_) => "opentelemetry",
            Self::FileLog(_) => "envoyFileAccessLog",
            Self::OtelLog(_) => "envoyOtelAls",
            Self::HttpEntryLog(_) => "envoyHttpAls",
            Self::TcpEntryLog(_) => "envoyTcpAls",
            Self::Prometheus => "prometheus",
            Self::Other(field) => field,
            Self::Broken(_) => "",
        }
    }
}

/// `envoyExtAuthzHttp`, as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct ExtAuthzHttpSpec {
    pub service: String,
    pub port: u32,
    pub timeout: Option<String>,
    pub path_prefix: Option<String>,
    pub fail_open: Option<bool>,
    pub clear_route_cache: Option<bool>,
    pub status_on_error: Option<String>,
    /// The older name of `includeRequestHeadersInCheck`.
    pub include_headers_in_check: Option<Vec<String>>,
    pub include_request_headers_in_check: Option<Vec<String>>,
    pub include_additional_headers_in_check: Option<BTreeMap<String, String>>,
    pub include_request_body_in_check: Option<RequestBodySpec>,
    pub headers_to_upstream_on_allow: Option<Vec<String>>,
    pub headers_to_downstream_on_allow: Option<Vec<String>>,
    pub headers_to_downstream_on_deny: Option<Vec<String>>,
}

/// `envoyExtAuthzGrpc`, as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct ExtAuthzGrpcSpec {
    pub service: String,
    pub port: u32,
    pub timeout: Option<String>,
    pub fail_open: Option<bool>,
    pub clear_route_cache: Option<bool>,
    pub status_on_error: Option<String>,
    pub include_request_body_in_check: Option<RequestBodySpec>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Istio's
pub struct RequestBodySpec {
    pub max_request_bytes: u32,
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}
