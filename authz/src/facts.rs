//! What a verdict may depend on: the peer, the addresses, the request. Collects nothing itself.

use std::net::IpAddr;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::Backend;
use http::HeaderMap;

use crate::token::Token;

/// Everything policies can ask about one HTTP request or one TCP stream.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Identity in the client certificate of the tunnel. `None`: the peer has none; no positive
    /// clause about the peer matches then.
    pub peer: Option<&'a Identity>,
    /// What says that the peer is that.
    pub attested_by: Attestation,
    /// Address of the TCP peer as ztunnel presents it: the client workload (`source.ipBlocks`).
    pub source_ip: IpAddr,
    /// Address after x-forwarded-for (`source.remoteIpBlocks`); equal to `source_ip` without it.
    pub remote_ip: IpAddr,
    /// The address asked for: the virtual IP of the service, or the pod IP.
    pub destination_ip: IpAddr,
    /// The port asked for: the service port, never the targetPort.
    pub destination_port: u16,
    /// The backends of the rule that routing chose. Empty: the service itself.
    pub backends: &'a [Backend],
    /// The request. `None`: a TCP stream, judged by the TCP forms of the rules.
    pub http: Option<HttpFacts<'a>>,
}

/// What says that a peer is who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// A certificate of the mesh that the peer has shown in the handshake of its tunnel.
    Certificate,
    /// The node: the connection came in plain text out of the network namespace of a pod.
    Node,
}

/// The part of the facts that only an HTTP request has.
#[derive(Clone, Copy, Debug)]
pub struct HttpFacts<'a> {
    /// Method; of a gRPC call `POST`.
    pub method: &'a str,
    /// Authority as sent, port included if it was sent.
    pub host: &'a str,
    /// Path after normalisation, without query and fragment; of a gRPC call `/package.Service/Method`.
    pub path: &'a str,
    /// Query without the question mark, as the application gets it: a token that was taken out is not in
    /// it. Empty for a bare question mark.
    pub query: Option<&'a str>,
    /// Request headers. `host` is looked up in [`HttpFacts::host`], not here.
    pub headers: &'a HeaderMap,
    /// The verified token the request came with. `None`: no positive clause about one matches.
    pub token: Option<&'a Token>,
}
