//! What a flow says of HTTP.

use serde::Serialize;

use super::enums::L7FlowType;
use super::json::{is_default, number};

/// What is said at layer 7.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Layer7 {
    #[prost(enumeration = "L7FlowType", tag = "1")]
    #[serde(
        skip_serializing_if = "is_default",
        serialize_with = "L7FlowType::serialize_wire"
    )]
    pub r#type: i32,
    #[prost(uint64, tag = "2")]
    #[serde(skip_serializing_if = "is_default", serialize_with = "number")]
    pub latency_ns: u64,
    #[prost(oneof = "layer7::Record", tags = "101")]
    #[serde(flatten)]
    pub record: Option<layer7::Record>,
}

/// What [`Layer7`] can hold.
pub mod layer7 {
    use serde::Serialize;

    /// The protocol.
    #[derive(Clone, PartialEq, Eq, prost::Oneof, Serialize)]
    pub enum Record {
        /// HTTP.
        #[prost(message, tag = "101")]
        #[serde(rename = "http")]
        Http(super::Http),
    }
}

/// A request or response.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct Http {
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub code: u32,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    #[prost(message, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
}

/// A header.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[allow(missing_docs)] // the protocol's names
pub struct HttpHeader {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}
