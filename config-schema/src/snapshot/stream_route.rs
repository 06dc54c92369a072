//! Routes of connections attached to services: TLSRoute, TCPRoute, and the rules `tls` and `tcp` of a
//! VirtualService (specs/istio-waypoint.md 4.4, specs/policies.md 2.6).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{Backend, HostPattern, Labels};
use crate::origin::{Kind, Origin};

/// One TLSRoute, TCPRoute or VirtualService, as far as it is about connections.
#[derive(Clone, Debug, Serialize)]
pub struct StreamRoute {
    /// The object.
    pub origin: Origin,
    /// `creationTimestamp` in seconds since 1970; objects without one count as youngest.
    pub created_s: Option<i64>,
    /// Rules in the order they are asked.
    pub rules: Vec<StreamRule>,
    /// Set when the object could not be read at all: its only rule matches what no other route
    /// matches, and refuses it.
    pub broken: bool,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct StreamRule {
    /// The rule's name, when it has one.
    pub name: Option<Arc<str>>,
    /// Any of these must match. Empty only where a VirtualService means other ports: never matched.
    pub matches: Vec<StreamMatch>,
    /// Weighted targets, those of weight 0 left out; none has filters. Empty: refused.
    pub backends: Vec<Backend>,
    /// Set when the rule has something Cairn can not honour: it still matches, and refuses the
    /// connection for this reason.
    pub broken: Option<Arc<str>>,
}

/// One match: all of its parts must hold. The default is every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamMatch {
    /// On the server name that a TLS client asks for. `None`: whatever is spoken.
    pub server_names: Option<ServerNames>,
    /// Networks of the address that was dialled. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<IpNet>,
    /// Namespace in the certificate of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_namespace: Option<Arc<str>>,
    /// Labels that the caller's pod must have. Where they are not known the match holds, and its rule
    /// refuses the connection.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub caller_labels: Labels,
}

/// Server names of TLS connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerNames {
    /// Any, and TLS that names none.
    Any,
    /// Those that are one of these, in lower case.
    Of(Vec<HostPattern>),
}

impl StreamRoute {
    /// Whether what no rule takes goes to the service itself, as with a VirtualService; routes of the
    /// Gateway API take the place of the service (specs/gateway-api.md 1.4, "Nothing matches").
    pub fn falls_through(&self) -> bool {
        self.origin.kind == Kind::VirtualService
    }

    /// Whether a match looks at the labels of the caller's pod.
    pub fn asks_for_caller_labels(&self) -> bool {
        let mut matches = self.rules.iter().flat_map(|rule| &rule.matches);
        matches.any(|matched| !matched.caller_labels.is_empty())
    }

    /// Whether a rule asks for the server name, so that the first bytes must be read.
    pub fn asks_for_server_name(&self) -> bool {
        let mut matches = self.rules.iter().flat_map(|rule| &rule.matches);
        matches.any(|matched| matched.server_names.is_some())
    }
}

impl StreamMatch {
    /// Whether the address that was dialled is meant.
    pub fn has_destination(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.destinations.is_empty() || self.destinations.iter().any(|net| net.contains(&ip))
    }
}

impl HostPattern {
    /// Whether a host in lower case is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *host,
            Self::EndsWith(end) => host.len() > end.len() && host.ends_with(&**end),
        }
    }
}
