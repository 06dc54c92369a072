//! NetworkPolicy, GlobalNetworkPolicy, their staged kinds and Tier of Calico (projectcalico.org/v3)
//! as written. What the
//! fields mean is `resolve`'s business.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

/// `spec` of a policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct CalicoPolicySpec {
    pub staged_action: Option<String>,
    pub tier: Option<String>,
    pub order: Option<f64>,
    pub selector: Option<String>,
    pub namespace_selector: Option<String>,
    pub service_account_selector: Option<String>,
    pub types: Option<Vec<String>>,
    pub ingress: Option<Vec<CalicoRule>>,
    pub egress: Option<Vec<CalicoRule>>,
    /// What is wrong in the egress rules, which breaks nothing else.
    #[serde(skip)]
    pub egress_fault: Option<Arc<str>>,
    pub do_not_track: Option<bool>,
    #[serde(rename = "preDNAT")]
    pub pre_dnat: Option<bool>,
    pub apply_on_forward: Option<bool>,
    pub performance_hints: Option<Vec<String>>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct CalicoRule {
    pub action: String,
    pub protocol: Option<IntOrString>,
    pub not_protocol: Option<IntOrString>,
    pub ip_version: Option<i64>,
    pub icmp: Option<serde_json::Value>,
    #[serde(rename = "notICMP")]
    pub not_icmp: Option<serde_json::Value>,
    pub source: Option<EntityRule>,
    pub destination: Option<EntityRule>,
    pub http: Option<HttpMatch>,
    pub metadata: Option<RuleMetadata>,
}

/// `metadata` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct RuleMetadata {
    pub annotations: Option<BTreeMap<String, String>>,
}

/// `source` or `destination` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct EntityRule {
    pub nets: Option<Vec<String>>,
    pub not_nets: Option<Vec<String>>,
    pub selector: Option<String>,
    pub not_selector: Option<String>,
    pub namespace_selector: Option<String>,
    pub ports: Option<Vec<IntOrString>>,
    pub not_ports: Option<Vec<IntOrString>>,
    pub service_accounts: Option<ServiceAccounts>,
    pub services: Option<ServiceMatch>,
    pub domains: Option<Vec<String>>,
}

/// `services`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct ServiceMatch {
    pub name: String,
    pub namespace: Option<String>,
}

/// `serviceAccounts`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct ServiceAccounts {
    pub names: Option<Vec<String>>,
    pub selector: Option<String>,
}

/// `http`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct HttpMatch {
    pub methods: Option<Vec<String>>,
    pub paths: Option<Vec<HttpPath>>,
}

/// One item of `paths`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct HttpPath {
    pub exact: Option<String>,
    pub prefix: Option<String>,
}

/// `spec` of a Tier.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct TierSpec {
    pub order: Option<f64>,
    pub default_action: Option<String>,
}

/// `spec` of a NetworkSet or GlobalNetworkSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Calico's
pub struct NetworkSetSpec {
    pub nets: Option<Vec<String>>,
    pub allowed_egress_domains: Option<Vec<String>>,
}

/// A port or protocol as it is written, number or name.
pub fn written(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}
