//! The messages of Envoy's Access Log Service (envoy/service/accesslog/v3/als.proto, envoy/data/accesslog/v3/accesslog.proto,
//! envoy/config/core/v3/address.proto and base.proto) as far as they are told. Bytes that Envoy's own descriptors made hold the
//! numbers in tests.

#![allow(missing_docs)] // the names are Envoy's

use std::collections::BTreeMap;

use prost::Message;

/// What a stream is made of.
#[derive(Clone, PartialEq, Message)]
pub struct StreamAccessLogsMessage {
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<Identifier>,
    #[prost(message, optional, tag = "2")]
    pub http_logs: Option<HttpAccessLogEntries>,
    #[prost(message, optional, tag = "3")]
    pub tcp_logs: Option<TcpAccessLogEntries>,
}

/// What a stream would be answered with.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct StreamAccessLogsResponse {}

/// Entries of requests.
#[derive(Clone, PartialEq, Message)]
pub struct HttpAccessLogEntries {
    #[prost(message, repeated, tag = "1")]
    pub log_entry: Vec<HttpAccessLogEntry>,
}

/// Entries of TCP streams.
#[derive(Clone, PartialEq, Message)]
pub struct TcpAccessLogEntries {
    #[prost(message, repeated, tag = "1")]
    pub log_entry: Vec<TcpAccessLogEntry>,
}

/// Who sends entries: the first thing on a stream.
#[derive(Clone, PartialEq, Message)]
pub struct Identifier {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(string, tag = "2")]
    pub log_name: String,
}

/// The sender.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub cluster: String,
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
}

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct HttpAccessLogEntry {
    #[prost(message, optional, tag = "1")]
    pub common_properties: Option<AccessLogCommon>,
    #[prost(int32, tag = "2")]
    pub protocol_version: i32,
    #[prost(message, optional, tag = "3")]
    pub request: Option<HttpRequestProperties>,
    #[prost(message, optional, tag = "4")]
    pub response: Option<HttpResponseProperties>,
}

/// A TCP stream.
#[derive(Clone, PartialEq, Message)]
pub struct TcpAccessLogEntry {
    #[prost(message, optional, tag = "1")]
    pub common_properties: Option<AccessLogCommon>,
    #[prost(message, optional, tag = "2")]
    pub connection_properties: Option<ConnectionProperties>,
}

/// Bytes of a TCP stream.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ConnectionProperties {
    #[prost(uint64, tag = "1")]
    pub received_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub sent_bytes: u64,
}

/// What both have.
#[derive(Clone, PartialEq, Message)]
pub struct AccessLogCommon {
    #[prost(message, optional, tag = "2")]
    pub downstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "3")]
    pub downstream_local_address: Option<Address>,
    #[prost(message, optional, tag = "4")]
    pub tls_properties: Option<TlsProperties>,
    #[prost(message, optional, tag = "5")]
    pub start_time: Option<Seconds>,
    #[prost(message, optional, tag = "12")]
    pub time_to_last_downstream_tx_byte: Option<Seconds>,
    #[prost(message, optional, tag = "13")]
    pub upstream_remote_address: Option<Address>,
    #[prost(message, optional, tag = "14")]
    pub upstream_local_address: Option<Address>,
    #[prost(string, tag = "15")]
    pub upstream_cluster: String,
    #[prost(message, optional, tag = "16")]
    pub response_flags: Option<ResponseFlags>,
    #[prost(string, tag = "18")]
    pub upstream_transport_failure_reason: String,
    #[prost(string, tag = "19")]
    pub route_name: String,
    #[prost(message, optional, tag = "20")]
    pub downstream_direct_remote_address: Option<Address>,
    #[prost(message, optional, tag = "23")]
    pub duration: Option<Seconds>,
    #[prost(uint32, tag = "24")]
    pub upstream_request_attempt_count: u32,
    #[prost(string, tag = "25")]
    pub connection_termination_details: String,
    #[prost(string, tag = "26")]
    pub stream_id: String,
    #[prost(int32, tag = "33")]
    pub access_log_type: i32,
}

/// `google.protobuf.Timestamp` and `Duration`, which have the same fields.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Seconds {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.UInt32Value`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Number {
    #[prost(uint32, tag = "1")]
    pub value: u32,
}

/// An address; those of Envoy may be pipes, too.
#[derive(Clone, PartialEq, Message)]
pub struct Address {
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// Of TCP.
#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

/// The TLS connection of the client.
#[derive(Clone, PartialEq, Message)]
pub struct TlsProperties {
    #[prost(int32, tag = "1")]
    pub tls_version: i32,
    #[prost(string, tag = "3")]
    pub tls_sni_hostname: String,
    #[prost(message, optional, tag = "5")]
    pub peer_certificate_properties: Option<CertificateProperties>,
}

/// A certificate.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateProperties {
    #[prost(message, repeated, tag = "1")]
    pub subject_alt_name: Vec<SubjectAltName>,
}

/// A name of it.
#[derive(Clone, PartialEq, Message)]
pub struct SubjectAltName {
    #[prost(string, tag = "1")]
    pub uri: String,
}

/// What happened, each by itself.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ResponseFlags {
    #[prost(bool, tag = "1")]
    pub failed_local_healthcheck: bool,
    #[prost(bool, tag = "2")]
    pub no_healthy_upstream: bool,
    #[prost(bool, tag = "3")]
    pub upstream_request_timeout: bool,
    #[prost(bool, tag = "4")]
    pub local_reset: bool,
    #[prost(bool, tag = "5")]
    pub upstream_remote_reset: bool,
    #[prost(bool, tag = "6")]
    pub upstream_connection_failure: bool,
    #[prost(bool, tag = "7")]
    pub upstream_connection_termination: bool,
    #[prost(bool, tag = "8")]
    pub upstream_overflow: bool,
    #[prost(bool, tag = "9")]
    pub no_route_found: bool,
    #[prost(bool, tag = "10")]
    pub delay_injected: bool,
    #[prost(bool, tag = "11")]
    pub fault_injected: bool,
    #[prost(bool, tag = "12")]
    pub rate_limited: bool,
    #[prost(message, optional, tag = "13")]
    pub unauthorized_details: Option<Unauthorized>,
    #[prost(bool, tag = "14")]
    pub rate_limit_service_error: bool,
    #[prost(bool, tag = "15")]
    pub downstream_connection_termination: bool,
    #[prost(bool, tag = "16")]
    pub upstream_retry_limit_exceeded: bool,
    #[prost(bool, tag = "17")]
    pub stream_idle_timeout: bool,
    #[prost(bool, tag = "18")]
    pub invalid_envoy_request_headers: bool,
    #[prost(bool, tag = "19")]
    pub downstream_protocol_error: bool,
    #[prost(bool, tag = "20")]
    pub upstream_max_stream_duration_reached: bool,
    #[prost(bool, tag = "21")]
    pub response_from_cache_filter: bool,
    #[prost(bool, tag = "22")]
    pub no_filter_config_found: bool,
    #[prost(bool, tag = "23")]
    pub duration_timeout: bool,
    #[prost(bool, tag = "24")]
    pub upstream_protocol_error: bool,
    #[prost(bool, tag = "25")]
    pub no_cluster_found: bool,
    #[prost(bool, tag = "26")]
    pub overload_manager: bool,
    #[prost(bool, tag = "27")]
    pub dns_resolution_failure: bool,
    #[prost(bool, tag = "28")]
    pub downstream_remote_reset: bool,
}

/// Why a request was not let pass.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Unauthorized {
    #[prost(int32, tag = "1")]
    pub reason: i32,
}

/// The request.
#[derive(Clone, PartialEq, Message)]
pub struct HttpRequestProperties {
    #[prost(int32, tag = "1")]
    pub request_method: i32,
    #[prost(string, tag = "2")]
    pub scheme: String,
    #[prost(string, tag = "3")]
    pub authority: String,
    #[prost(string, tag = "5")]
    pub path: String,
    #[prost(string, tag = "6")]
    pub user_agent: String,
    #[prost(string, tag = "7")]
    pub referer: String,
    #[prost(string, tag = "8")]
    pub forwarded_for: String,
    #[prost(string, tag = "9")]
    pub request_id: String,
    #[prost(string, tag = "10")]
    pub original_path: String,
    #[prost(uint64, tag = "11")]
    pub request_headers_bytes: u64,
    #[prost(uint64, tag = "12")]
    pub request_body_bytes: u64,
    #[prost(btree_map = "string, string", tag = "13")]
    pub request_headers: BTreeMap<String, String>,
}

/// Its response.
#[derive(Clone, PartialEq, Message)]
pub struct HttpResponseProperties {
    #[prost(message, optional, tag = "1")]
    pub response_code: Option<Number>,
    #[prost(uint64, tag = "2")]
    pub response_headers_bytes: u64,
    #[prost(uint64, tag = "3")]
    pub response_body_bytes: u64,
    #[prost(btree_map = "string, string", tag = "4")]
    pub response_headers: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    pub response_code_details: String,
}
