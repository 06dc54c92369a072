//! The messages of `envoy.service.ratelimit.v3.RateLimitService`, as far as they are filled or looked at
//! here. Field numbers are the protocol's; unknown fields are skipped, as protobuf wants.

use super::messages::HeaderValue;

/// The method, as gRPC names it.
pub const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What is asked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitRequest {
    /// The service's name for a set of limits.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What is counted: if any of them is over its limit, the request is.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<RateLimitDescriptor>,
    /// How many requests it counts for; 0 is one.
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// One thing that is counted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitDescriptor {
    /// Keys and values, in order.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// A key and a value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What is answered. The statuses of single descriptors are not looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitResponse {
    /// 1 within the limits, 2 over one.
    #[prost(enumeration = "Code", tag = "1")]
    pub overall_code: i32,
    /// For the client, in either case.
    #[prost(message, repeated, tag = "3")]
    pub response_headers_to_add: Vec<HeaderValue>,
    /// For the application.
    #[prost(message, repeated, tag = "4")]
    pub request_headers_to_add: Vec<HeaderValue>,
    /// Body for the client of a request over a limit.
    #[prost(bytes = "vec", tag = "5")]
    pub raw_body: Vec<u8>,
}

/// Whether a request is within its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// Nothing is said.
    Unknown = 0,
    /// Within.
    Ok = 1,
    /// Over.
    OverLimit = 2,
}
