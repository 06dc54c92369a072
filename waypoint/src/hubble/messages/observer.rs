//! Requests and answers of `observer.Observer` and of `grpc.health.v1.Health`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::enums::{LostEventSource, NodeState, ServingStatus};
use super::filter::FlowFilter;
use super::flow::Flow;
use super::json::{is_default, number};

/// A time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Of the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since_1970.subsec_nanos()).unwrap_or_default(),
        }
    }
}

impl Timestamp {
    /// The time; `None` if it is before 1970 or not one.
    pub fn time(self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let nanos = u32::try_from(self.nanos)
            .ok()
            .filter(|n| *n < 1_000_000_000)?;
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::new(self.seconds, self.nanos).unwrap_or_default();
        to.collect_str(&time)
    }
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// Names of fields.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FieldMask {
    /// `source.pod_name`.
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

/// Which flows a client wants.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct GetFlowsRequest {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(bool, tag = "9")]
    pub first: bool,
    #[prost(bool, tag = "3")]
    pub follow: bool,
    #[prost(message, repeated, tag = "5")]
    pub blacklist: Vec<FlowFilter>,
    #[prost(message, repeated, tag = "6")]
    pub whitelist: Vec<FlowFilter>,
    #[prost(message, optional, tag = "7")]
    pub since: Option<Timestamp>,
    #[prost(message, optional, tag = "8")]
    pub until: Option<Timestamp>,
    #[prost(message, optional, tag = "10")]
    pub field_mask: Option<FieldMask>,
}

/// A flow, or a word about flows.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct GetFlowsResponse {
    #[prost(oneof = "get_flows_response::ResponseTypes", tags = "1, 2, 3")]
    #[serde(flatten)]
    pub response_types: Option<get_flows_response::ResponseTypes>,
    #[prost(string, tag = "1000")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[prost(message, optional, tag = "1001")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// What [`GetFlowsResponse`] can hold.
pub mod get_flows_response {
    use serde::Serialize;

    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof, Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum ResponseTypes {
        /// A flow.
        #[prost(message, tag = "1")]
        Flow(Box<super::Flow>),
        /// A node came or went.
        #[prost(message, tag = "2")]
        NodeStatus(super::NodeStatusEvent),
        /// Some were overwritten before they were read.
        #[prost(message, tag = "3")]
        LostEvents(super::LostEvent),
    }
}

/// A node came or went.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct NodeStatusEvent {
    #[prost(enumeration = "NodeState", tag = "1")]
    #[serde(serialize_with = "NodeState::serialize_wire")]
    pub state_change: i32,
    #[prost(string, repeated, tag = "2")]
    pub node_names: Vec<String>,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Flows that were overwritten before they were read.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct LostEvent {
    #[prost(enumeration = "LostEventSource", tag = "1")]
    #[serde(serialize_with = "LostEventSource::serialize_wire")]
    pub source: i32,
    #[prost(uint64, tag = "2")]
    #[serde(serialize_with = "number")]
    pub num_events_lost: u64,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

/// How the server is.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct ServerStatusResponse {
    #[prost(uint64, tag = "1")]
    #[serde(serialize_with = "number")]
    pub num_flows: u64,
    #[prost(uint64, tag = "2")]
    #[serde(serialize_with = "number")]
    pub max_flows: u64,
    #[prost(uint64, tag = "3")]
    #[serde(serialize_with = "number")]
    pub seen_flows: u64,
    #[prost(uint64, tag = "4")]
    #[serde(serialize_with = "number")]
    pub uptime_ns: u64,
    #[prost(message, optional, tag = "5")]
    pub num_connected_nodes: Option<u32>,
    #[prost(message, optional, tag = "6")]
    pub num_unavailable_nodes: Option<u32>,
    #[prost(string, repeated, tag = "7")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unavailable_nodes: Vec<String>,
    #[prost(string, tag = "8")]
    pub version: String,
    #[prost(double, tag = "9")]
    #[serde(skip_serializing_if = "is_default")]
    pub flows_rate: f64,
}

/// The waypoints that there are: this one.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct GetNodesResponse {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
}

/// A waypoint.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct Node {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(string, tag = "3")]
    pub address: String,
    #[prost(enumeration = "NodeState", tag = "4")]
    pub state: i32,
    #[prost(message, optional, tag = "5")]
    pub tls: Option<Tls>,
    #[prost(uint64, tag = "6")]
    pub uptime_ns: u64,
    #[prost(uint64, tag = "7")]
    pub num_flows: u64,
    #[prost(uint64, tag = "8")]
    pub max_flows: u64,
    #[prost(uint64, tag = "9")]
    pub seen_flows: u64,
}

/// Whether TLS is spoken.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct Tls {
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    #[prost(string, tag = "2")]
    pub server_name: String,
}

/// Namespaces that flows come from or go to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct GetNamespacesResponse {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<Namespace>,
}

/// A namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct Namespace {
    #[prost(string, tag = "1")]
    pub cluster: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

/// Whose health is asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthCheckRequest {
    /// Empty: the server's.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthCheckResponse {
    /// How.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}
