//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2) as written. Lists are
//! `Option<Vec>`, for an absent list and an empty one mean opposite things (specs/policies.md 2.1.2).
//! What the fields mean is `resolve`'s business.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// `spec` and `specs` of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CiliumPolicySpec {
    /// The rules with the path of each: `spec`, or `specs[0]` and so on.
    pub rules: Vec<(String, CiliumRule)>,
}

/// One rule: `spec`, or one item of `specs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct CiliumRule {
    pub endpoint_selector: Option<LabelSelector>,
    pub node_selector: Option<LabelSelector>,
    pub ingress: Option<Vec<IngressRule>>,
    pub ingress_deny: Option<Vec<IngressRule>>,
    pub egress: Option<Vec<EgressRule>>,
    pub egress_deny: Option<Vec<EgressRule>>,
    /// What is wrong in the egress parts, which breaks nothing else.
    #[serde(skip)]
    pub egress_fault: Option<Arc<str>>,
    pub labels: Option<Vec<RuleLabel>>,
    pub enable_default_deny: Option<DefaultDeny>,
    pub description: Option<String>,
    pub log: Option<Log>,
}

/// `labels` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct RuleLabel {
    pub key: String,
    pub value: Option<String>,
    pub source: Option<String>,
}

/// `log`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct Log {
    pub value: Option<String>,
}

/// `enableDefaultDeny`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct DefaultDeny {
    pub ingress: Option<bool>,
    pub egress: Option<bool>,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are those of Kubernetes
pub struct LabelSelector {
    pub match_labels: Option<BTreeMap<String, String>>,
    pub match_expressions: Option<Vec<LabelRequirement>>,
}

/// One item of `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are those of Kubernetes
pub struct LabelRequirement {
    pub key: String,
    pub operator: String,
    pub values: Option<Vec<String>>,
}

/// One item of `ingress` or `ingressDeny`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct IngressRule {
    pub from_endpoints: Option<Vec<LabelSelector>>,
    pub from_requires: Option<Vec<LabelSelector>>,
    #[serde(rename = "fromCIDR")]
    pub from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    pub from_entities: Option<Vec<String>>,
    pub from_groups: Option<Vec<serde_json::Value>>,
    pub from_nodes: Option<Vec<LabelSelector>>,
    pub to_ports: Option<Vec<PortRule>>,
    pub icmps: Option<Vec<IcmpRule>>,
    pub authentication: Option<Authentication>,
}

/// One item of `egress` or `egressDeny`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct EgressRule {
    pub to_endpoints: Option<Vec<LabelSelector>>,
    pub to_requires: Option<Vec<LabelSelector>>,
    #[serde(rename = "toCIDR")]
    pub to_cidr: Option<Vec<String>>,
    #[serde(rename = "toCIDRSet")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    pub to_entities: Option<Vec<String>>,
    pub to_services: Option<Vec<ServiceSelector>>,
    pub to_groups: Option<Vec<serde_json::Value>>,
    pub to_nodes: Option<Vec<LabelSelector>>,
    #[serde(rename = "toFQDNs")]
    pub to_fqdns: Option<Vec<FqdnSelector>>,
    pub to_ports: Option<Vec<PortRule>>,
    pub icmps: Option<Vec<IcmpRule>>,
    pub authentication: Option<Authentication>,
}

/// One item of `toServices`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct ServiceSelector {
    pub k8s_service: Option<NamedService>,
    pub k8s_service_selector: Option<LabelledServices>,
}

/// `k8sService`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct NamedService {
    pub service_name: String,
    pub namespace: Option<String>,
}

/// `k8sServiceSelector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct LabelledServices {
    pub selector: LabelSelector,
    pub namespace: Option<String>,
}

/// One item of `toFQDNs`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct FqdnSelector {
    pub match_name: Option<String>,
    pub match_pattern: Option<String>,
}

/// One item of `fromCIDRSet`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct CidrRule {
    pub cidr: Option<String>,
    pub cidr_group_ref: Option<String>,
    pub cidr_group_selector: Option<LabelSelector>,
    pub except: Option<Vec<String>>,
}

/// `authentication`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct Authentication {
    pub mode: String,
}

/// One item of `icmps`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct IcmpRule {
    pub fields: Option<Vec<serde_json::Value>>,
}

/// One item of `toPorts`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct PortRule {
    pub ports: Option<Vec<PortProtocol>>,
    #[serde(rename = "terminatingTLS")]
    pub terminating_tls: Option<serde_json::Value>,
    #[serde(rename = "originatingTLS")]
    pub originating_tls: Option<serde_json::Value>,
    pub server_names: Option<Vec<String>>,
    pub listener: Option<serde_json::Value>,
    pub rules: Option<L7Rules>,
}

/// One item of `ports`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct PortProtocol {
    pub port: Option<String>,
    pub end_port: Option<i64>,
    pub protocol: Option<String>,
}

/// `rules` of a port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct L7Rules {
    pub http: Option<Vec<HttpRule>>,
    pub kafka: Option<Vec<serde_json::Value>>,
    pub dns: Option<Vec<FqdnSelector>>,
    pub l7proto: Option<String>,
    pub l7: Option<Vec<BTreeMap<String, String>>>,
}

impl L7Rules {
    /// How many families of L7 rules there are; a policy may have one.
    pub fn families(&self) -> usize {
        let l7 = self.l7proto.is_some() || self.l7.is_some();
        let all = [
            self.http.is_some(),
            self.kafka.is_some(),
            self.dns.is_some(),
            l7,
        ];
        all.into_iter().filter(|there| *there).count()
    }
}

/// One item of `http`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct HttpRule {
    pub path: Option<String>,
    pub method: Option<String>,
    pub host: Option<String>,
    pub headers: Option<Vec<String>>,
    pub header_matches: Option<Vec<HeaderMatch>>,
}

/// One item of `headerMatches`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct HeaderMatch {
    pub name: String,
    pub value: Option<String>,
    pub secret: Option<SecretRef>,
    pub mismatch: Option<String>,
}

/// `secret` of a header match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the fields are Cilium's
pub struct SecretRef {
    pub namespace: Option<String>,
    pub name: String,
}
