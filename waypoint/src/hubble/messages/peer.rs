//! Requests and answers of `peer.Peer`, which hubble-relay asks for the servers that there are.

/// A server came, changed or went.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(missing_docs)] // the protocol's names
pub struct ChangeNotification {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(enumeration = "PeerChange", tag = "3")]
    pub r#type: i32,
    /// Absent: no TLS.
    #[prost(message, optional, tag = "4")]
    pub tls: Option<PeerTls>,
}

/// How TLS is spoken.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerTls {
    /// The name to look for in the certificate.
    #[prost(string, tag = "1")]
    pub server_name: String,
}

/// What became of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // Hubble's words
pub enum PeerChange {
    Unknown = 0,
    Added = 1,
    Deleted = 2,
    Updated = 3,
}
