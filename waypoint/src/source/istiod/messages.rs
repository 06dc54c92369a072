//! The messages of delta discovery and of `istio.workload.Address`, as far as they are filled or looked at here.
//! Field numbers are the protocols' (specs/istio-waypoint.md 6.1, 6.2).

use std::collections::HashMap;

/// The method, as gRPC names it.
pub const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The one kind of resource that is asked for.
pub const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";

/// Asks for resources, or says what became of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; in the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Kind of resources.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names asked for from now on; `*`: all.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names and versions that are there already.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The answer that this is about.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why it was refused. `None`: it was taken.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// Who asks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// `TYPE~IP~POD.NAMESPACE~DOMAIN`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// More of it.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Values by name.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`: a text or a struct.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which.
    #[prost(oneof = "Kind", tags = "3, 5")]
    pub kind: Option<Kind>,
}

/// What a value is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
    /// Values by name.
    #[prost(message, tag = "5")]
    Struct(Struct),
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// gRPC's code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Resources that are new, changed or gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// New or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Kind of resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names this answer.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of those that are gone.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// A resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Itself.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    /// Kind.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A workload or a service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// Which.
    #[prost(oneof = "AddressKind", tags = "1, 2")]
    pub kind: Option<AddressKind>,
}

/// What an address is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AddressKind {
    /// A workload.
    #[prost(message, tag = "1")]
    Workload(Box<Workload>),
    /// A service.
    #[prost(message, tag = "2")]
    Service(Service),
}

/// A service: it is the Service of this cluster that counts, but for who may answer for it elsewhere.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Service {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Hostname.
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Who may answer for it, beside what its workloads say of themselves.
    #[prost(string, repeated, tag = "6")]
    pub subject_alt_names: Vec<String>,
}

/// A workload.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(missing_docs)]
pub struct Workload {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub addresses: Vec<Vec<u8>>,
    #[prost(string, tag = "4")]
    pub network: String,
    #[prost(int32, tag = "5")]
    pub tunnel_protocol: i32,
    #[prost(string, tag = "6")]
    pub trust_domain: String,
    #[prost(string, tag = "7")]
    pub service_account: String,
    #[prost(string, tag = "9")]
    pub node: String,
    #[prost(string, tag = "10")]
    pub canonical_name: String,
    #[prost(string, tag = "11")]
    pub canonical_revision: String,
    #[prost(int32, tag = "12")]
    pub workload_type: i32,
    #[prost(string, tag = "13")]
    pub workload_name: String,
    #[prost(int32, tag = "17")]
    pub status: i32,
    #[prost(string, tag = "18")]
    pub cluster_id: String,
    #[prost(message, optional, tag = "19")]
    pub network_gateway: Option<GatewayAddress>,
    #[prost(string, tag = "20")]
    pub uid: String,
    #[prost(string, tag = "21")]
    pub hostname: String,
    #[prost(map = "string, message", tag = "22")]
    pub services: HashMap<String, PortList>,
    #[prost(message, optional, tag = "23")]
    pub application_tunnel: Option<ApplicationTunnel>,
    #[prost(message, optional, tag = "24")]
    pub locality: Option<Locality>,
    #[prost(int32, tag = "25")]
    pub network_mode: i32,
    /// `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "27")]
    pub capacity: Option<Number>,
}

/// Where a gateway is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayAddress {
    /// What leads there.
    #[prost(oneof = "GatewayDestination", tags = "1, 2")]
    pub destination: Option<GatewayDestination>,
    /// Port for tunnels; 0: the usual one.
    #[prost(uint32, tag = "3")]
    pub hbone_mtls_port: u32,
}

/// What leads to a gateway.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum GatewayDestination {
    /// A name.
    #[prost(message, tag = "1")]
    Hostname(NamespacedHostname),
    /// An address.
    #[prost(message, tag = "2")]
    Address(NetworkAddress),
}

/// A name, and whose it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespacedHostname {
    /// Namespace of the Gateway.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The name.
    #[prost(string, tag = "2")]
    pub hostname: String,
}

/// An address in a network.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NetworkAddress {
    /// The network; empty: the default one.
    #[prost(string, tag = "1")]
    pub network: String,
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub address: Vec<u8>,
}

/// Ports of a service, and where they lead.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PortList {
    /// One by one.
    #[prost(message, repeated, tag = "1")]
    pub ports: Vec<Port>,
}

/// A port of a service.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Port {
    /// As clients dial it.
    #[prost(uint32, tag = "1")]
    pub service_port: u32,
    /// Of the workload.
    #[prost(uint32, tag = "2")]
    pub target_port: u32,
}

/// What a proxy wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ApplicationTunnel {
    /// 0: nothing.
    #[prost(int32, tag = "1")]
    pub protocol: i32,
}

/// A place.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Locality {
    /// Region.
    #[prost(string, tag = "1")]
    pub region: String,
    /// Zone.
    #[prost(string, tag = "2")]
    pub zone: String,
    /// Subzone.
    #[prost(string, tag = "3")]
    pub subzone: String,
}

/// A number that may be left out.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Number {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub value: u32,
}
