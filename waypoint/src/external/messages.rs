//! The messages of `envoy.service.auth.v3.Authorization`, as far as they are filled or looked at here.
//! Field numbers are the protocol's; unknown fields are skipped, as protobuf wants.

use std::collections::HashMap;

/// The method, as gRPC names it.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What is asked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    /// Everything about it.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// Everything about a request or connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// The client.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// Who it is for.
    #[prost(message, optional, tag = "2")]
    pub destination: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// One end of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// Address and port.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    /// Name of the service.
    #[prost(string, tag = "2")]
    pub service: String,
    /// SPIFFE ID.
    #[prost(string, tag = "4")]
    pub principal: String,
}

/// An address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// IP and port.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// IP and port, TCP.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    /// IP.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Port.
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

/// The request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// When it came.
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    /// HTTP. `None`: a TCP stream.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// A time.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Part of a second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The HTTP part.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// `x-request-id`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// Headers, names in lower case, values of one name joined by a comma; pseudo-headers too.
    #[prost(map = "string, string", tag = "3")]
    pub headers: HashMap<String, String>,
    /// Path and query.
    #[prost(string, tag = "4")]
    pub path: String,
    /// Authority.
    #[prost(string, tag = "5")]
    pub host: String,
    /// `x-forwarded-proto`.
    #[prost(string, tag = "6")]
    pub scheme: String,
    /// Content-Length, -1 when unknown.
    #[prost(int64, tag = "9")]
    pub size: i64,
    /// `HTTP/1.1` or `HTTP/2`.
    #[prost(string, tag = "10")]
    pub protocol: String,
    /// Body, when it is wanted as text.
    #[prost(string, tag = "11")]
    pub body: String,
    /// Body, when it is wanted as bytes.
    #[prost(bytes = "vec", tag = "12")]
    pub raw_body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    /// Code 0 allows.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// What becomes of the request, or of its client.
    #[prost(oneof = "HttpResponse", tags = "2, 3, 5")]
    pub http_response: Option<HttpResponse>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What becomes of the request, or of its client.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum HttpResponse {
    /// The client gets this.
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    /// The request is changed so.
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
    /// The service could not decide.
    #[prost(message, tag = "5")]
    Error(DeniedHttpResponse),
}

/// An answer for the client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeniedHttpResponse {
    /// Status, 403 when absent.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Headers.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Body.
    #[prost(string, tag = "3")]
    pub body: String,
}

/// An HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HttpStatus {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// Changes of a request that is allowed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OkHttpResponse {
    /// Request headers.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Request headers that are taken out.
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    /// Headers of the response.
    #[prost(message, repeated, tag = "6")]
    pub response_headers_to_add: Vec<HeaderValueOption>,
    /// Query parameters.
    #[prost(message, repeated, tag = "7")]
    pub query_parameters_to_set: Vec<QueryParameter>,
    /// Query parameters that are taken out.
    #[prost(string, repeated, tag = "8")]
    pub query_parameters_to_remove: Vec<String>,
}

/// A query parameter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryParameter {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A header, and what becomes of one that is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// The older form: append, or else replace.
    #[prost(message, optional, tag = "2")]
    pub append: Option<BoolValue>,
    /// 0 append, 1 only if absent, 2 replace or add, 3 replace only.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// A header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
    /// Value as bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BoolValue {
    /// The value.
    #[prost(bool, tag = "1")]
    pub value: bool,
}
