//! The shape of an answer of `cairn explain`, for people and scripts. Plain values.

use std::net::{IpAddr, SocketAddr};

use cairn_authz::Explanation;
use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::{AppProtocol, Truth};
use serde::Serialize;

/// What would become of a request or TCP stream.
#[derive(Debug, Serialize)]
pub struct Report {
    /// It passes, and wherever it may go there is an endpoint; or it is redirected as written.
    pub passes: bool,
    /// Who asks.
    pub client: Client,
    /// What was asked for, as given.
    pub to: String,
    /// What that is. `None`: nothing this waypoint serves.
    pub destination: Option<Destination>,
    /// Why the tunnel or stream would be refused before any byte of the request.
    pub refused: Option<Refused>,
    /// The request. `None`: TCP, or refused.
    pub request: Option<HttpRequest>,
    /// Whom the request is from by its token, `iss/sub`. `None`: it has none, or a refused one.
    pub request_principal: Option<String>,
    /// Who is asked before it is decided, in this order. What follows holds if all of them allow it and
    /// change nothing.
    pub asks: Vec<Asked>,
    /// The policies' verdict. `None`: refused before they were asked.
    pub verdict: Option<Explanation>,
    /// The route. `None`: TCP, or refused before one was looked for.
    pub route: Option<Route>,
    /// What its route makes fail on purpose, in words.
    pub faults: Vec<String>,
    /// What Cairn answers by itself. `None`: an application answers.
    pub answer: Option<Answer>,
    /// Where it may go, with the share of each. Empty when it does not go on.
    pub backends: Vec<Backend>,
    /// The whole way, link by link, with what others than this waypoint enforce.
    pub chain: Vec<Link>,
    /// Findings about the configuration that are errors.
    pub configuration_errors: usize,
}

/// An authorization service that a CUSTOM policy or a route's ExternalAuth filter asks.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// Its name.
    pub provider: String,
    /// `namespace/name:port`.
    pub service: String,
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// Without an answer the request passes.
    pub fails_open: bool,
    /// The policy, or the route.
    pub policy: Origin,
    /// Its rule that matches, from 0.
    pub rule: usize,
}

/// Who asks.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// SPIFFE ID.
    pub identity: Identity,
    /// Address; unspecified when nothing is known of it.
    pub ip: IpAddr,
    /// Its pod, `namespace/name`.
    pub pod: Option<String>,
}

/// What is asked for.
#[derive(Debug, Serialize)]
pub struct Destination {
    /// Virtual IP or pod IP, and port.
    pub address: SocketAddr,
    /// `namespace/name` of the service. `None`: a pod's own address.
    pub service: Option<String>,
    /// What the port declares.
    pub protocol: AppProtocol,
    /// What it was taken for here.
    pub taken_as: &'static str,
}

/// A refusal before any byte of the request.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// In which phase: `handshake`, `connect`, or `stream` (after the 200, closed without a byte).
    pub phase: &'static str,
    /// Status of the answer to CONNECT.
    pub status: Option<u16>,
    /// Why.
    pub reason: String,
}

/// The request as it came and as policies and routes see it.
#[derive(Debug, Serialize)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Host or `:authority`.
    pub authority: String,
    /// Path and query as sent.
    pub sent: String,
    /// Path and query after normalisation. `None`: refused.
    pub normalised: Option<String>,
}

/// Which route.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Route {
    /// No route is attached: the service itself.
    Default,
    /// Routes are attached and none matches.
    None,
    /// This rule.
    Rule {
        /// The HTTPRoute.
        route: Origin,
        /// Its rule, from 0.
        rule: usize,
        /// The rule's name.
        name: Option<String>,
        /// The match that held, in words.
        matched: String,
    },
}

/// An answer that Cairn gives by itself.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// gRPC status, when the request is gRPC.
    pub grpc_status: Option<u8>,
    /// Body, or gRPC message.
    pub body: String,
    /// Location of a redirect.
    pub location: Option<String>,
    /// Envoy's response flag, `-` for none.
    pub flag: String,
    /// Envoy's response code details.
    pub details: String,
    /// Why, in words.
    pub reason: Option<String>,
}

/// One place where it may go.
#[derive(Debug, Serialize)]
pub struct Backend {
    /// `namespace/name:port`; for a pod's own address that.
    pub name: String,
    /// Weight as written; 1 when there is no route.
    pub weight: u32,
    /// Share of the requests, 0 to 100.
    pub share_percent: f64,
    /// What the client gets for this share in place of an application's answer.
    pub answer: Option<Answer>,
    /// Path and query as the application gets them. `None` for TCP.
    pub path: Option<String>,
    /// Changes of request headers, `+ name: value` and `- name`.
    pub request_headers: Vec<String>,
    /// Changes of response headers: `set name: value`, `add name: value`, `remove name`.
    pub response_headers: Vec<String>,
    /// Endpoints that may be picked.
    pub endpoints: Vec<Endpoint>,
    /// What carries the token of a session, whose requests go to one endpoint: `cookie NAME` or
    /// `header NAME`. Shares are those of requests without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How they are found while requests are served, where that is by DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_up: Option<String>,
}

/// One endpoint.
#[derive(Debug, Serialize)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The identity that must be at the other end of the tunnel. `None`: plain TCP.
    pub hbone: Option<Identity>,
    /// What is behind the gateway of another network, if it is one: `web.shop.svc.cluster.local:80 in net-2, by HBONE
    /// to SPIFFE-ID or SPIFFE-ID inside`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// The name by which TLS is spoken to it, inside of the tunnel if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Its pod, `namespace/name`.
    pub pod: Option<String>,
}

/// One link of the chain that a request passes (specs/policies.md 2.4).
#[derive(Debug, Serialize)]
pub struct Link {
    /// Its name: `client-egress`, `client-ztunnel`, `waypoint-ingress`, `waypoint`,
    /// `waypoint-egress`, `destination-ingress`, `destination-ztunnel`.
    pub link: &'static str,
    /// Who enforces it.
    pub enforced_by: By,
    /// Whether that is this waypoint; all else is enforced by others, and only foretold here.
    pub here: bool,
    /// What of: `ingress of Pod/shop/web-1, port 15008`.
    pub what: String,
    /// Further endpoints of which the same is to be said.
    pub more: usize,
    /// Whether it lets the request through.
    pub outcome: LinkOutcome,
    /// The policy that decides; where none does, those that speak.
    pub policies: Vec<Origin>,
    /// The rule that decides: its number, or its path.
    pub rule: Option<String>,
    /// Why, in words.
    pub reason: String,
}

impl Link {
    /// A link of which nothing is said yet.
    pub(super) fn new(link: &'static str, enforced_by: By, what: String) -> Self {
        Self {
            link,
            enforced_by,
            here: enforced_by == By::Waypoint,
            what,
            more: 0,
            outcome: LinkOutcome::Unknown,
            policies: Vec::new(),
            rule: None,
            reason: String::new(),
        }
    }
}

/// Who enforces a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The network of the cluster, by NetworkPolicy.
    Cni,
    /// ztunnel, by AuthorizationPolicies that are not for a waypoint.
    Ztunnel,
    /// This waypoint.
    Waypoint,
}

/// Whether a link lets the request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkOutcome {
    /// It does.
    Passes,
    /// It does not.
    Denied,
    /// What it depends on is not in the configuration.
    Unknown,
}

impl From<Truth> for LinkOutcome {
    fn from(passes: Truth) -> Self {
        match passes {
            Truth::Yes => Self::Passes,
            Truth::No => Self::Denied,
            Truth::Unknown => Self::Unknown,
        }
    }
}
