//! CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig (cilium.io/v2) as written. What is in `resources` is
//! Envoy's own configuration, and read by `resolve::envoy_config`.

use serde::Deserialize;
use serde_json::Value;

/// `spec` of both kinds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct CiliumEnvoyConfigSpec {
    pub services: Option<Vec<EnvoyService>>,
    pub backend_services: Option<Vec<EnvoyBackendService>>,
    pub resources: Option<Vec<Value>>,
    pub node_selector: Option<Value>,
}

/// A service that is taken over.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct EnvoyService {
    pub name: String,
    pub namespace: Option<String>,
    pub ports: Option<Vec<u16>>,
    pub listener: Option<String>,
}

/// A service that may be led to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct EnvoyBackendService {
    pub name: String,
    pub namespace: Option<String>,
    /// Port numbers, or names.
    pub number: Option<Vec<String>>,
}
