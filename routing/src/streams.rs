//! Which rule a connection without HTTP goes by (specs/istio-waypoint.md 4.4, specs/gateway-api.md
//! 1.4). Does not choose among backends, and reads no byte: what the client said of the server it wants
//! comes in as [`ServerName`].
//!
//! Routes of the caller's namespace if it has any, else those of the service's, as for requests. Of
//! TLSRoutes the most specific name goes first: exact, then the longest suffix, then any; then the oldest
//! route, its namespace/name, the order of its rules. A VirtualService's rules are asked in their order,
//! objects by age. Routes that could not be read come last.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::{
    HostPattern, Labels, ServerNames, StreamMatch, StreamRoute, StreamRule,
};

use crate::request::labels_hold;
use crate::table::IN_DOUBT;

/// What a client says of the server it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerName {
    /// Nobody has looked.
    #[default]
    Unread,
    /// It does not speak TLS, or nothing that could be read.
    NotTls,
    /// It speaks TLS and names no server.
    Absent,
    /// It names this one, in lower case.
    Named(Arc<str>),
}

/// What a connection is routed by.
#[derive(Clone, Copy, Debug)]
pub struct StreamParts<'a> {
    /// Namespace in the certificate of the caller.
    pub caller_namespace: Option<&'a str>,
    /// Labels of the caller's pod. `None`: which pod it is is not known.
    pub caller_labels: Option<&'a Labels>,
    /// The address that was dialled.
    pub destination: IpAddr,
    /// The server that it wants.
    pub server_name: &'a ServerName,
}

/// What became of a connection.
#[derive(Clone, Debug)]
pub enum FoundStream {
    /// No route takes it, and it goes to the service itself.
    Default,
    /// Routes are attached and none takes it: refused, never the service itself.
    NoMatch,
    /// This rule.
    Rule(StreamRuleRef),
}

/// A rule of a route, and the match of it that held.
#[derive(Clone, Debug)]
pub struct StreamRuleRef {
    /// The route.
    pub route: Arc<StreamRoute>,
    /// Which of its rules, from 0.
    pub rule: usize,
    /// Which match of the rule, from 0.
    pub matched: usize,
    /// Whether the match holds is not known: it asks for labels of a caller whose pod is not known.
    pub in_doubt: bool,
}

impl StreamRuleRef {
    /// The rule. Always `Some` for a reference that [`StreamRoutes`] gave out.
    pub fn rule(&self) -> Option<&StreamRule> {
        self.route.rules.get(self.rule)
    }

    /// Why it can not be honoured, if it can not.
    pub fn broken(&self) -> Option<&str> {
        let broken = || self.rule()?.broken.as_deref();
        self.in_doubt.then_some(IN_DOUBT).or_else(broken)
    }

    /// The match that held. Always `Some` for a reference that [`StreamRoutes`] gave out.
    pub fn matched(&self) -> Option<&StreamMatch> {
        self.rule()?.matches.get(self.matched)
    }
}

impl FoundStream {
    /// The rule, if it is one.
    pub fn rule(&self) -> Option<&StreamRule> {
        match self {
            Self::Rule(reference) => reference.rule(),
            Self::Default | Self::NoMatch => None,
        }
    }
}

/// The routes of the connections of one service port.
#[derive(Debug, Default)]
pub struct StreamRoutes {
    producer: Table,
    /// By namespace. A handful at most, so that they are walked.
    consumers: Vec<(Arc<str>, Table)>,
}

impl StreamRoutes {
    /// Compiles the routes of a port of a service in `namespace`; their order does not matter.
    pub fn compile(namespace: &str, routes: &[Arc<StreamRoute>]) -> Self {
        let mut consumers: Vec<(Arc<str>, Table)> = Vec::new();
        for route in routes {
            let from = &route.origin.key.namespace;
            if **from != *namespace && consumers.iter().all(|(there, _)| there != from) {
                consumers.push((from.clone(), Table::compile(from, routes)));
            }
        }
        Self {
            producer: Table::compile(namespace, routes),
            consumers,
        }
    }

    /// Whether the route of this caller's connections depends on the server name.
    pub fn ask_for_server_name(&self, caller_namespace: Option<&str>) -> bool {
        self.of(caller_namespace).asks_for_server_name
    }

    /// Finds the rule for a connection.
    pub fn find(&self, stream: &StreamParts<'_>) -> FoundStream {
        self.of(stream.caller_namespace).find(stream)
    }

    fn of(&self, caller: Option<&str>) -> &Table {
        let own = |(namespace, _): &&(Arc<str>, Table)| Some(&**namespace) == caller;
        let consumer = self.consumers.iter().find(own).map(|(_, table)| table);
        consumer.unwrap_or(&self.producer)
    }
}

/// Routes of one namespace: their matches in the order they are asked.
#[derive(Debug, Default)]
struct Table {
    matches: Vec<StreamRuleRef>,
    asks_for_server_name: bool,
    /// What no match takes goes to the service itself.
    falls_through: bool,
}

impl Table {
    fn compile(namespace: &str, routes: &[Arc<StreamRoute>]) -> Self {
        let own = |route: &&Arc<StreamRoute>| *route.origin.key.namespace == *namespace;
        let routes: Vec<_> = routes.iter().filter(own).collect();
        let mut matches: Vec<_> = routes.iter().flat_map(|route| rule_refs(route)).collect();
        matches.sort_by_cached_key(precedence);
        Self {
            matches,
            asks_for_server_name: routes.iter().any(|route| route.asks_for_server_name()),
            falls_through: routes.iter().all(|route| route.falls_through()),
        }
    }

    fn find(&self, stream: &StreamParts<'_>) -> FoundStream {
        let holds = |found: &&StreamRuleRef| found.matched().is_some_and(|m| holds(m, stream));
        match self.matches.iter().find(holds) {
            Some(found) => FoundStream::Rule(StreamRuleRef {
                in_doubt: stream.caller_labels.is_none()
                    && found.matched().is_some_and(|m| !m.caller_labels.is_empty()),
                ..found.clone()
            }),
            None if self.falls_through => FoundStream::Default,
            None => FoundStream::NoMatch,
        }
    }
}

fn rule_refs(route: &Arc<StreamRoute>) -> impl Iterator<Item = StreamRuleRef> {
    route.rules.iter().enumerate().flat_map(move |(at, rule)| {
        (0..rule.matches.len()).map(move |matched| StreamRuleRef {
            route: route.clone(),
            rule: at,
            matched,
            in_doubt: false,
        })
    })
}

/// Smaller comes first. A match of a TLSRoute has one name.
fn precedence(reference: &StreamRuleRef) -> impl Ord + use<> {
    let route = &reference.route;
    let names = reference.matched().and_then(|m| m.server_names.as_ref());
    let name = match (names, route.falls_through()) {
        // In the order written.
        (_, true) => (0, Reverse(0)),
        (Some(ServerNames::Of(names)), _) => match names.first() {
            Some(HostPattern::EndsWith(end)) => (1, Reverse(end.len())),
            Some(HostPattern::Exact(_)) | None => (0, Reverse(0)),
        },
        (Some(ServerNames::Any), _) => (2, Reverse(0)),
        (None, _) => (3, Reverse(0)),
    };
    let key = &route.origin.key;
    (
        route.broken,
        name,
        route.created_s.unwrap_or(i64::MAX),
        format!("{}/{}", key.namespace, key.name),
        reference.rule,
        reference.matched,
    )
}

fn holds(wanted: &StreamMatch, stream: &StreamParts<'_>) -> bool {
    let caller = wanted.caller_namespace.as_deref();
    caller.is_none_or(|namespace| stream.caller_namespace == Some(namespace))
        && labels_hold(&wanted.caller_labels, stream.caller_labels)
        && wanted.has_destination(stream.destination)
        && names_hold(wanted.server_names.as_ref(), stream.server_name)
}

fn names_hold(wanted: Option<&ServerNames>, found: &ServerName) -> bool {
    match (wanted, found) {
        (None, _) => true,
        (Some(_), ServerName::Unread | ServerName::NotTls) => false,
        (Some(ServerNames::Any), _) => true,
        (Some(ServerNames::Of(_)), ServerName::Absent) => false,
        (Some(ServerNames::Of(names)), ServerName::Named(name)) => {
            names.iter().any(|pattern| pattern.matches(name))
        }
    }
}

#[cfg(test)]
mod tests;
