//! One request, or one TCP stream, as telemetry tells it: filled by the data path while it runs,
//! handed to [`super::finish`] once at its end, and never read by a decision.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cairn_authz::{Attestation, Verdict};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{Endpoint, Service, Workload};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::settings::Settings;
use super::tcp::TcpMeter;
use super::trace::Trace;
use crate::node::Pod;
use crate::recheck::Closure;
use crate::upstream::Egress;

/// The client of a tunnel, shared by everything that runs in it.
#[derive(Debug)]
pub struct Peer {
    /// From the client certificate; of a steered connection, the pod's.
    pub identity: Identity,
    /// The TCP peer address.
    pub address: SocketAddr,
}

/// What is known of a stream from its CONNECT, or from the listener of the pod it was steered from.
#[derive(Debug)]
pub struct StreamOrigin {
    /// The client.
    pub peer: Arc<Peer>,
    /// `:authority` of the CONNECT as sent; empty for a steered connection.
    pub tunnel_authority: Arc<str>,
    /// `baggage` of the CONNECT; telemetry only, never trusted.
    pub baggage: Option<HeaderValue>,
    /// Virtual IP (or pod IP) and port.
    pub destination: SocketAddr,
    /// The pod of this node it was steered from; `None` for a tunnel.
    pub pod: Option<Arc<Pod>>,
}

impl StreamOrigin {
    /// What says that the client is who it is.
    pub fn attested_by(&self) -> Attestation {
        match &self.pod {
            Some(_) => Attestation::Node,
            None => Attestation::Certificate,
        }
    }

    /// The client and what it dialled, for an endpoint at `address` to be told. What was dialled by name
    /// has no address.
    pub fn client_towards(&self, address: SocketAddr) -> (SocketAddr, SocketAddr) {
        let by_name = self.destination.ip().is_unspecified();
        let dialled = if by_name { address } else { self.destination };
        (self.peer.address, dialled)
    }

    /// Where plain connections for it leave from, when that is not this process's own namespace.
    pub fn egress(&self) -> Option<&Egress> {
        self.pod.as_ref().map(|pod| &pod.egress)
    }
}

/// The HTTP part of an exchange.
#[derive(Clone, Debug, Default)]
pub struct HttpExchange {
    /// Method.
    pub method: Method,
    /// Path and query as sent by the client.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2`, towards the client.
    pub protocol: &'static str,
    /// Host or `:authority` as sent.
    pub authority: String,
    /// `user-agent`.
    pub user_agent: Option<HeaderValue>,
    /// `x-request-id` as forwarded.
    pub request_id: Option<HeaderValue>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<HeaderValue>,
    /// Status sent to the client; `None` when nothing was sent.
    pub status: Option<StatusCode>,
    /// `content-type: application/grpc*` was requested.
    pub grpc: bool,
    /// `grpc-status` of the trailers (or trailers-only header), gRPC only.
    pub grpc_status: Option<u32>,
    /// Messages of a gRPC request and of its response.
    pub messages: (u64, u64),
    /// Time from sending the request upstream to its response header.
    pub upstream_service_time: Option<Duration>,
    /// Bytes of the request's header block as the client sent it.
    pub request_header_bytes: u64,
    /// Bytes of the response's header block as sent to the client.
    pub response_header_bytes: u64,
}

/// Headers of a request and its response, for who asks for one by its name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// As the endpoint got them, without those of the tunnel and of the route's own changes.
    pub request: Option<&'a HeaderMap>,
    /// As the client got them.
    pub response: Option<&'a HeaderMap>,
}

/// An exchange that ended.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// How long it took.
    pub elapsed: Duration,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// One request or one TCP stream.
#[derive(Debug)]
pub struct Exchange {
    /// Wall clock at the first byte.
    pub started_at: SystemTime,
    /// Monotonic clock at the first byte.
    pub started: Instant,
    /// Where it comes from.
    pub origin: Arc<StreamOrigin>,
    /// The client's workload, looked up by its address.
    pub source: Option<Arc<Workload>>,
    /// The service: the one dialled, or after routing the one the chosen backend names.
    pub service: Option<Arc<Service>>,
    /// Port of `service`: the one dialled, or that of the chosen backend.
    pub service_port: u16,
    /// HTTP part; `None` for TCP.
    pub http: Option<HttpExchange>,
    /// TCP metrics from the moment the stream is open; `None` for HTTP.
    pub tcp: Option<TcpMeter>,
    /// `HTTPRoute/<namespace>/<name>` and rule that matched.
    pub route: Option<(Arc<cairn_config_schema::snapshot::HttpRoute>, usize)>,
    /// The rule of a TLSRoute, TCPRoute or VirtualService that a TCP stream goes by.
    pub stream_rule: Option<cairn_routing::StreamRuleRef>,
    /// The server name that a TLS client asks for, where its route depends on it.
    pub server_name: Option<Arc<str>>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Endpoint>,
    /// Our end of the connection of the last attempt.
    pub upstream_local: Option<SocketAddr>,
    /// Attempts made upstream.
    pub attempts: u32,
    /// Why the last attempt was not followed by another that the route would have; `None` when nothing
    /// was wanted.
    pub retry_denied: Option<&'static str>,
    /// The policy verdict; `None` when the exchange ended before policy.
    pub verdict: Option<Verdict>,
    /// The verdict's reason in one clause; filled for denials.
    pub reason: Option<String>,
    /// Envoy's short flags (`UH`, `UF`, `NR`, `DC`...), `-` when empty.
    pub flags: &'static str,
    /// `response_code_details`.
    pub details: std::borrow::Cow<'static, str>,
    /// Why the last attempt to reach an endpoint failed, in words.
    pub upstream_failure: Option<std::borrow::Cow<'static, str>>,
    /// Bytes from the client: bodies for HTTP, payload for TCP.
    pub bytes_received: u64,
    /// Bytes to the client.
    pub bytes_sent: u64,
    /// Version of the snapshot that decided.
    pub snapshot: u64,
    /// Its place in a trace.
    pub trace: Trace,
    /// What is told of it, if that is other than usual.
    pub settings: Option<Arc<Settings>>,
}

impl Exchange {
    /// It was closed because a new snapshot denies what another allowed: that one's words count.
    pub fn closed_by(&mut self, closure: &Closure) {
        self.snapshot = closure.snapshot;
        self.verdict.clone_from(&closure.verdict);
        self.reason = Some(format!(
            "closed after a change of policy: {}",
            closure.reason
        ));
        self.details = closure.details.clone().into();
        self.flags = "";
        self.trace.decided_anew();
    }

    /// An exchange that begins now.
    pub fn begin(origin: Arc<StreamOrigin>) -> Self {
        let service_port = origin.destination.port();
        Self {
            started_at: SystemTime::now(),
            started: Instant::now(),
            origin,
            source: None,
            service: None,
            service_port,
            http: None,
            tcp: None,
            route: None,
            stream_rule: None,
            server_name: None,
            endpoint: None,
            upstream_local: None,
            attempts: 0,
            retry_denied: None,
            verdict: None,
            reason: None,
            flags: "",
            details: std::borrow::Cow::Borrowed(""),
            upstream_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            snapshot: 0,
            trace: Trace::default(),
            settings: None,
        }
    }
}
