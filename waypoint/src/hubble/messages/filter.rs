//! `flow.FlowFilter`: what a client asks for.

use super::enums::{DropReason, IpVersion, TrafficDirection};
use super::flow::{Interface, TcpFlags, Workload};
use super::http::HttpHeader;

/// Fields and, values of one field or.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)] // the protocol's names; semantics in `hubble::filter`
pub struct FlowFilter {
    #[prost(string, repeated, tag = "29")]
    pub uuid: Vec<String>,
    #[prost(string, repeated, tag = "1")]
    pub source_ip: Vec<String>,
    #[prost(string, repeated, tag = "34")]
    pub source_ip_xlated: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub source_pod: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub source_fqdn: Vec<String>,
    #[prost(string, repeated, tag = "10")]
    pub source_label: Vec<String>,
    #[prost(string, repeated, tag = "16")]
    pub source_service: Vec<String>,
    #[prost(message, repeated, tag = "26")]
    pub source_workload: Vec<Workload>,
    #[prost(string, repeated, tag = "37")]
    pub source_cluster_name: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub destination_ip: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub destination_pod: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    pub destination_fqdn: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    pub destination_label: Vec<String>,
    #[prost(string, repeated, tag = "17")]
    pub destination_service: Vec<String>,
    #[prost(message, repeated, tag = "27")]
    pub destination_workload: Vec<Workload>,
    #[prost(string, repeated, tag = "38")]
    pub destination_cluster_name: Vec<String>,
    #[prost(enumeration = "TrafficDirection", repeated, tag = "30")]
    pub traffic_direction: Vec<i32>,
    #[prost(enumeration = "super::Verdict", repeated, tag = "5")]
    pub verdict: Vec<i32>,
    #[prost(enumeration = "DropReason", repeated, tag = "33")]
    pub drop_reason_desc: Vec<i32>,
    #[prost(message, repeated, tag = "35")]
    pub interface: Vec<Interface>,
    #[prost(message, repeated, tag = "6")]
    pub event_type: Vec<EventTypeFilter>,
    #[prost(string, repeated, tag = "9")]
    pub http_status_code: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    pub protocol: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    pub source_port: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    pub destination_port: Vec<String>,
    #[prost(bool, repeated, tag = "15")]
    pub reply: Vec<bool>,
    #[prost(string, repeated, tag = "18")]
    pub dns_query: Vec<String>,
    #[prost(uint32, repeated, tag = "19")]
    pub source_identity: Vec<u32>,
    #[prost(uint32, repeated, tag = "20")]
    pub destination_identity: Vec<u32>,
    #[prost(string, repeated, tag = "21")]
    pub http_method: Vec<String>,
    #[prost(string, repeated, tag = "22")]
    pub http_path: Vec<String>,
    #[prost(string, repeated, tag = "31")]
    pub http_url: Vec<String>,
    #[prost(message, repeated, tag = "32")]
    pub http_header: Vec<HttpHeader>,
    #[prost(message, repeated, tag = "23")]
    pub tcp_flags: Vec<TcpFlags>,
    #[prost(string, repeated, tag = "24")]
    pub node_name: Vec<String>,
    #[prost(string, repeated, tag = "36")]
    pub node_labels: Vec<String>,
    #[prost(enumeration = "IpVersion", repeated, tag = "25")]
    pub ip_version: Vec<i32>,
    #[prost(string, repeated, tag = "28")]
    pub trace_id: Vec<String>,
    #[prost(uint64, repeated, tag = "39")]
    pub ip_trace_id: Vec<u64>,
    #[prost(bool, repeated, tag = "40")]
    pub encrypted: Vec<bool>,
    #[prost(message, optional, tag = "999")]
    pub experimental: Option<Experimental>,
}

/// What may change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Experimental {
    /// Expressions over a flow.
    #[prost(string, repeated, tag = "1")]
    pub cel_expression: Vec<String>,
}

/// Kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct EventTypeFilter {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(bool, tag = "2")]
    pub match_sub_type: bool,
    #[prost(int32, tag = "3")]
    pub sub_type: i32,
}
