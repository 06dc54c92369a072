//! `flow.Flow` and what it is made of.

use serde::Serialize;

use super::enums::{DropReason, FlowType, IpVersion, TracePoint, TrafficDirection};
use super::http::Layer7;
use super::json::{is_default, number};
use super::observer::Timestamp;

/// One thing that was seen.
#[derive(Clone, PartialEq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Flow {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    #[prost(string, tag = "34")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    #[prost(message, optional, tag = "41")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emitter: Option<Emitter>,
    #[prost(enumeration = "super::Verdict", tag = "2")]
    #[serde(
        skip_serializing_if = "is_default",
        serialize_with = "super::Verdict::serialize_wire"
    )]
    pub verdict: i32,
    /// As `drop_reason_desc`, for old clients.
    #[prost(uint32, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub drop_reason: u32,
    #[prost(message, optional, tag = "5")]
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<Layer4>,
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Endpoint>,
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
    #[prost(enumeration = "FlowType", tag = "10")]
    #[serde(
        rename = "Type",
        skip_serializing_if = "is_default",
        serialize_with = "FlowType::serialize_wire"
    )]
    pub r#type: i32,
    #[prost(string, tag = "11")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[prost(string, repeated, tag = "37")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_labels: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_names: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_names: Vec<String>,
    #[prost(message, optional, tag = "15")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l7: Option<Layer7>,
    /// As `is_reply`, for old clients.
    #[prost(bool, tag = "16")]
    #[serde(skip_serializing_if = "is_default")]
    pub reply: bool,
    #[prost(message, optional, tag = "19")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    #[prost(message, optional, tag = "20")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_service: Option<Service>,
    #[prost(message, optional, tag = "21")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_service: Option<Service>,
    #[prost(enumeration = "TrafficDirection", tag = "22")]
    #[serde(
        skip_serializing_if = "is_default",
        serialize_with = "TrafficDirection::serialize_wire"
    )]
    pub traffic_direction: i32,
    #[prost(uint32, tag = "23")]
    #[serde(skip_serializing_if = "is_default")]
    pub policy_match_type: u32,
    #[prost(enumeration = "TracePoint", tag = "24")]
    #[serde(
        skip_serializing_if = "is_default",
        serialize_with = "TracePoint::serialize_wire"
    )]
    pub trace_observation_point: i32,
    #[prost(enumeration = "DropReason", tag = "25")]
    #[serde(
        skip_serializing_if = "is_default",
        serialize_with = "DropReason::serialize_wire"
    )]
    pub drop_reason_desc: i32,
    /// Absent: not known.
    #[prost(message, optional, tag = "26")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    #[prost(message, optional, tag = "28")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    #[prost(message, optional, tag = "30")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_context: Option<TraceContext>,
    #[prost(string, tag = "100000")]
    #[serde(rename = "Summary", skip_serializing_if = "String::is_empty")]
    pub summary: String,
    #[prost(message, repeated, tag = "21001")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<Policy>,
    #[prost(message, repeated, tag = "21002")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<Policy>,
    #[prost(message, repeated, tag = "21004")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<Policy>,
    #[prost(message, repeated, tag = "21005")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<Policy>,
    #[prost(string, repeated, tag = "21006")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_log: Vec<String>,
}

/// Who made the record.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Emitter {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

/// Addresses.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Ip {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_xlated: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    #[prost(enumeration = "IpVersion", tag = "3")]
    #[serde(
        rename = "ipVersion",
        skip_serializing_if = "is_default",
        serialize_with = "IpVersion::serialize_wire"
    )]
    pub ip_version: i32,
    #[prost(bool, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    pub encrypted: bool,
}

/// Ports.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct Layer4 {
    /// Always TCP.
    #[prost(oneof = "layer4::Protocol", tags = "1")]
    #[serde(flatten)]
    pub protocol: Option<layer4::Protocol>,
}

/// What [`Layer4`] can hold.
pub mod layer4 {
    use serde::Serialize;

    /// The protocol.
    #[derive(Clone, PartialEq, Eq, prost::Oneof, Serialize)]
    pub enum Protocol {
        /// TCP.
        #[prost(message, tag = "1")]
        #[serde(rename = "TCP")]
        Tcp(super::Tcp),
    }
}

/// Ports and flags of TCP.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Tcp {
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub source_port: u32,
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub destination_port: u32,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<TcpFlags>,
}

/// Flags of TCP.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // the protocol's names
pub struct TcpFlags {
    #[prost(bool, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub fin: bool,
    #[prost(bool, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub syn: bool,
    #[prost(bool, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub rst: bool,
    #[prost(bool, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    pub psh: bool,
    #[prost(bool, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    pub ack: bool,
    #[prost(bool, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    pub urg: bool,
    #[prost(bool, tag = "7")]
    #[serde(skip_serializing_if = "is_default")]
    pub ece: bool,
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "is_default")]
    pub cwr: bool,
    #[prost(bool, tag = "9")]
    #[serde(skip_serializing_if = "is_default")]
    pub ns: bool,
}

/// One end.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Endpoint {
    #[prost(uint32, tag = "1")]
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    pub id: u32,
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub identity: u32,
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `k8s:app=web`.
    #[prost(string, repeated, tag = "4")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<Workload>,
}

/// What a pod belongs to.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Workload {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// Kind of the event, by the numbers of Cilium's monitor.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct EventType {
    #[prost(int32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub r#type: i32,
    #[prost(int32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub sub_type: i32,
}

/// A service.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Service {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// A network interface; none is known here.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Interface {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(string, tag = "2")]
    pub name: String,
}

/// The trace that a request is part of.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct TraceContext {
    #[prost(message, optional, tag = "1")]
    pub parent: Option<TraceParent>,
}

/// See [`TraceContext`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct TraceParent {
    #[prost(string, tag = "1")]
    pub trace_id: String,
}

/// A policy that decided.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Policy {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[prost(string, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Version of the snapshot.
    #[prost(uint64, tag = "4")]
    #[serde(skip_serializing_if = "is_default", serialize_with = "number")]
    pub revision: u64,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}
