//! The policy kind that is Cairn's own, because no standard has it yet: TrafficPolicy
//! (cairn.dev/v1alpha1). Its JSON schema and CRD are made from these types (issue 3, item 7).

use kube::CustomResource;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::TargetRef;

/// An API server would write Rust's defaults into the object, and refuses a definition whose own rules they break.
fn without_defaults(schema: &mut Schema) {
    let drop_default = |schema: &mut Schema| drop(schema.remove("default"));
    RecursiveTransform(drop_default).transform(schema);
}

/// How much traffic is let through: rate limits, and how many requests at once. Every TrafficPolicy that
/// reaches a request has to let it pass.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "cairn.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    namespaced,
    category = "cairn",
    status = "TrafficPolicyStatus",
    doc = "How much traffic is let through: rate limits, and how many requests at once"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct TrafficPolicySpec {
    /// What it is for: Services, Gateways, HTTPRoutes and GRPCRoutes of its own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<PolicyTargetRef>,
    /// Limits that each waypoint counts by itself.
    #[schemars(length(max = 16))]
    pub rate_limits: Vec<RateLimit>,
    /// A limit that a service of Envoy's rate limit protocol counts, for all waypoints together.
    pub global_rate_limit: Option<GlobalRateLimit>,
    /// Requests at once.
    pub concurrency: Option<Concurrency>,
}

/// What the controller says of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct TrafficPolicyStatus {
    /// `cairn.dev/WaypointAccepted`: whether waypoints enforce it.
    #[schemars(length(max = 8))]
    pub conditions: Vec<PolicyCondition>,
}

/// A condition, as in every kind of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// Sentences.
    pub message: String,
    /// Generation of the policy that was looked at.
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339.
    pub last_transition_time: String,
}

/// A target, in the policy's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargetRef {
    /// Empty for a Service, gateway.networking.k8s.io for the others.
    pub group: String,
    /// Service, Gateway, HTTPRoute or GRPCRoute.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl From<&PolicyTargetRef> for TargetRef {
    fn from(target: &PolicyTargetRef) -> Self {
        Self {
            group: target.group.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
            ..Self::default()
        }
    }
}

/// A token bucket, or one for each key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// In metrics and logs.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Requests in each interval.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// A duration of the Gateway API: 1s, 500ms, 1m, 1h.
    pub interval: String,
    /// Requests at once after a pause; as many as `requests` when absent.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// Everybody with another key has a bucket of their own. Empty: one bucket for all.
    #[schemars(length(max = 4))]
    pub by: Vec<LimitKey>,
}

/// A part of a key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitKey {
    /// Where it is taken from.
    #[serde(rename = "type")]
    pub source: LimitKeySource,
    /// With type Header: its name. Requests without it have an empty value.
    pub header: Option<String>,
}

/// Where a part of a key is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LimitKeySource {
    /// The identity in the client's certificate.
    #[default]
    PeerIdentity,
    /// The namespace in it.
    PeerNamespace,
    /// The address of the client.
    SourceAddress,
    /// The service that is asked.
    Service,
    /// A header.
    Header,
}

/// Requests at once.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Concurrency {
    /// At most so many of all that the policy is for, in each waypoint.
    #[schemars(range(min = 1))]
    pub max_requests: u32,
    /// With a Gateway for target: when there is no room, a service that has less than an equal share
    /// still comes in.
    pub fair_share: bool,
}

/// A limit that a service counts: `envoy.service.ratelimit.v3.RateLimitService`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GlobalRateLimit {
    /// Where the service is.
    pub service: LimitServiceRef,
    /// The service's name for a set of limits.
    #[schemars(length(min = 1))]
    pub domain: String,
    /// How long an answer may take, connecting included; 20ms when absent, as at Envoy.
    pub timeout: Option<String>,
    /// Whether a request passes when the service can not be reached or does not answer; true when
    /// absent, as at Envoy. Otherwise it is answered 500.
    pub fail_open: Option<bool>,
    /// What the service is told, each a list of keys and values.
    #[schemars(length(min = 1, max = 16))]
    pub descriptors: Vec<LimitDescriptor>,
}

/// A Service and a port of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitServiceRef {
    /// Name.
    pub name: String,
    /// Namespace; the policy's when absent.
    pub namespace: Option<String>,
    /// Port.
    pub port: u16,
}

/// One descriptor. It is left out for a request that lacks a header it names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitDescriptor {
    /// In the order that the service is configured with.
    #[schemars(length(min = 1, max = 8))]
    pub entries: Vec<LimitDescriptorEntry>,
}

/// One entry of a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitDescriptorEntry {
    /// The key.
    #[schemars(length(min = 1))]
    pub key: String,
    /// A value that is always the same; exactly one of `value` and `from`.
    pub value: Option<String>,
    /// A value of the request.
    pub from: Option<LimitKey>,
}
