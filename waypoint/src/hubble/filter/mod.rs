//! Which flows a client wants (specs/policies.md 3.2): fields of one filter and, values of one field or,
//! filters of one list or, the whitelist's without the blacklist's. Each field has a small function of its
//! own: of the ends in `ends`, of HTTP in `http`, of everything else in `rest`.

mod ends;
mod http;
mod pattern;
mod rest;
mod selector;

use std::borrow::Cow;

use ends::{AddressSet, End, NamePrefix, Of};
use pattern::Pattern;
use selector::Selector;

use super::messages::{EventTypeFilter, Flow, FlowFilter, HttpHeader, TcpFlags, Workload};

/// Why a filter can not be understood; in words for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub Cow<'static, str>);

impl Invalid {
    fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

/// Both lists of a request.
#[derive(Debug, Default)]
pub struct Filters {
    wanted: Vec<Filter>,
    unwanted: Vec<Filter>,
}

/// All fields of one filter.
type Filter = Vec<Test>;

/// One field of a filter that says something.
#[derive(Debug)]
enum Test {
    Uuid(Vec<String>),
    EventType(Vec<EventTypeFilter>),
    Verdict(Vec<i32>),
    DropReason(Vec<i32>),
    Reply(Vec<bool>),
    Encrypted(Vec<bool>),
    IpVersion(Vec<i32>),
    Direction(Vec<i32>),
    Protocol(Vec<rest::Protocol>),
    TcpFlags(Vec<TcpFlags>),
    TraceId(Vec<String>),
    Node(Vec<(Pattern, Pattern)>),
    NodeLabel(Vec<Selector>),
    Interface(Vec<super::messages::Interface>),
    /// What no flow of a waypoint has: packets with trace ids, DNS.
    Never,
    Identity(End, Vec<u32>),
    Address(End, AddressSet),
    Translated(AddressSet),
    Name(End, Of, Vec<NamePrefix>),
    Workload(End, Vec<Workload>),
    Fqdn(End, Vec<Pattern>),
    Label(End, Vec<Selector>),
    Port(End, Vec<u16>),
    Cluster(End, Vec<String>),
    Status(Vec<http::Status>),
    Method(Vec<String>),
    Path(regex::RegexSet),
    Url(regex::RegexSet),
    Header(Vec<HttpHeader>),
}

impl Filters {
    /// Reads both lists.
    ///
    /// # Errors
    /// When a value means nothing: an unknown protocol, a broken expression.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, Invalid> {
        let read = |list: &[FlowFilter]| list.iter().map(filter).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            wanted: read(whitelist)?,
            unwanted: read(blacklist)?,
        })
    }

    /// Whether the client wants it.
    pub fn want(&self, flow: &Flow) -> bool {
        let matches = |filter: &Filter| filter.iter().all(|test| test.matches(flow));
        (self.wanted.is_empty() || self.wanted.iter().any(matches))
            && !self.unwanted.iter().any(matches)
    }
}

/// Reads one filter: the fields that have values.
fn filter(from: &FlowFilter) -> Result<Filter, Invalid> {
    let mut tests = Vec::new();
    rest::read(from, &mut tests)?;
    ends::read(from, &mut tests)?;
    http::read(from, &mut tests)?;
    let expressions = from.experimental.as_ref().map(|e| &e.cel_expression);
    if expressions.is_some_and(|expressions| !expressions.is_empty()) {
        return Err(Invalid::new("CEL expressions are not evaluated here"));
    }
    Ok(tests)
}

impl Test {
    fn matches(&self, flow: &Flow) -> bool {
        match self {
            Self::Uuid(uuids) => uuids.contains(&flow.uuid),
            Self::EventType(types) => rest::event_type(types, flow),
            Self::Verdict(verdicts) => verdicts.contains(&flow.verdict),
            Self::DropReason(reasons) => rest::drop_reason(reasons, flow),
            Self::Reply(replies) => rest::reply(replies, flow),
            Self::Encrypted(wanted) => wanted.contains(&rest::is_encrypted(flow)),
            Self::IpVersion(versions) => rest::ip_version(versions, flow),
            Self::Direction(directions) => directions.contains(&flow.traffic_direction),
            Self::Protocol(protocols) => protocols.iter().any(|p| p.is_of(flow)),
            Self::TcpFlags(flags) => rest::tcp_flags(flags, flow),
            Self::TraceId(ids) => rest::trace_id(ids, flow),
            Self::Node(patterns) => rest::node(patterns, flow),
            Self::NodeLabel(selectors) => selectors.iter().any(|s| s.selects(&flow.node_labels)),
            Self::Interface(interfaces) => rest::interface(interfaces, flow),
            Self::Never => false,
            Self::Identity(end, ids) => end.of(flow).is_some_and(|e| ids.contains(&e.identity)),
            Self::Address(end, addresses) => addresses.contain(end.address(flow)),
            Self::Translated(addresses) => addresses.contain(ends::translated(flow)),
            Self::Name(end, of, names) => ends::name(*end, *of, names, flow),
            Self::Workload(end, workloads) => ends::workload(*end, workloads, flow),
            Self::Fqdn(end, patterns) => ends::fqdn(*end, patterns, flow),
            Self::Label(end, selectors) => ends::label(*end, selectors, flow),
            Self::Port(end, ports) => end.port(flow).is_some_and(|port| ports.contains(&port)),
            Self::Cluster(end, names) => ends::cluster(*end, names, flow),
            Self::Status(statuses) => http::status(statuses, flow),
            Self::Method(methods) => http::method(methods, flow),
            Self::Path(paths) => http::path(paths, flow),
            Self::Url(urls) => http::url(urls, flow),
            Self::Header(headers) => http::header(headers, flow),
        }
    }
}

#[cfg(test)]
mod tests;
