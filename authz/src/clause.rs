//! One clause of a rule, the smallest thing that matches or not. Clauses are combined in `policy`;
//! decisions are made in `decide`.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    Condition, Operation, PathPattern, RequestPrincipal, Source, StringMatch, Values,
};
use http::HeaderMap;
use http::header::{COOKIE, HOST, HeaderName};
use ipnet::{IpNet, Ipv4Net};

use crate::facts::{Facts, HttpFacts};
use crate::text;
use crate::token::Token;

/// A field with its values, or its `not` twin with its values.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    /// Where it was written.
    pub(crate) part: Part,
    /// The `not` twin: matches if none of the values does.
    pub(crate) negated: bool,
    /// The field and its values, at least one.
    pub(crate) test: Test,
}

/// The part of a rule a clause was written in, and the index of its item there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    From(usize),
    To(usize),
    When(usize),
}

/// A field and its values, of which one must match.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    Principal(Box<[StringMatch]>),
    Namespace(Box<[StringMatch]>),
    ServiceAccount(Box<[StringMatch]>),
    TrustDomain(Box<[StringMatch]>),
    SourceIp(Box<[IpNet]>),
    RemoteIp(Box<[IpNet]>),
    DestinationIp(Box<[IpNet]>),
    DestinationPort(Box<[u16]>),
    Host(Box<[StringMatch]>),
    Method(Box<[StringMatch]>),
    Path(Box<[PathPattern]>),
    Header(HeaderName, Box<[StringMatch]>),
    RequestPrincipal(Box<[RequestPrincipal]>),
    Audience(Box<[StringMatch]>),
    Presenter(Box<[StringMatch]>),
    Claim(Arc<[Arc<str>]>, Box<[StringMatch]>),
}

impl Clause {
    /// Whether the clause matches. Allocates nothing.
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        self.test.matches(facts) != self.negated
    }
}

impl Test {
    /// Whether one of the values matches. What is absent (no identity, no such header) matches no
    /// value, so that the `not` twin is satisfied: `not` is ¬∨ (specs/istio-waypoint.md 4.8).
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> bool {
        let peer = facts.peer;
        let http = facts.http.as_ref();
        let token = http.and_then(|h| h.token);
        match self {
            Self::Principal(values) => any(values, peer.map(Identity::principal)),
            Self::Namespace(values) => any(values, peer.and_then(Identity::namespace)),
            Self::TrustDomain(values) => any(values, peer.map(Identity::trust_domain)),
            Self::ServiceAccount(values) => peer.is_some_and(|p| service_account(values, p)),
            Self::SourceIp(blocks) => contains(blocks, facts.source_ip),
            Self::RemoteIp(blocks) => contains(blocks, facts.remote_ip),
            Self::DestinationIp(blocks) => contains(blocks, facts.destination_ip),
            Self::DestinationPort(ports) => ports.contains(&facts.destination_port),
            Self::Host(values) => http.is_some_and(|h| host(values, h.host)),
            Self::Method(values) => http.is_some_and(|h| {
                let method = h.method.as_bytes();
                values.iter().any(|v| text::matches_present(v, method))
            }),
            Self::Path(values) => {
                http.is_some_and(|h| values.iter().any(|v| text::matches_path(v, h.path)))
            }
            Self::Header(name, values) => http.is_some_and(|h| header(name, values, h)),
            Self::RequestPrincipal(values) => token.is_some_and(|t| request_principal(values, t)),
            Self::Audience(values) => token.is_some_and(|t| any_of(values, t.audiences())),
            Self::Presenter(values) => any(values, token.and_then(Token::presenter)),
            Self::Claim(path, values) => token.is_some_and(|t| any_of(values, t.claim(path))),
        }
    }

    /// Whether only HTTP requests have this field.
    pub(crate) fn http_only(&self) -> bool {
        matches!(
            self,
            Self::Host(_)
                | Self::Method(_)
                | Self::Path(_)
                | Self::Header(..)
                | Self::RequestPrincipal(_)
                | Self::Audience(_)
                | Self::Presenter(_)
                | Self::Claim(..)
        )
    }
}

fn any(values: &[StringMatch], value: Option<&str>) -> bool {
    value.is_some_and(|v| values.iter().any(|p| text::matches(p, v.as_bytes())))
}

fn any_of<'a>(values: &[StringMatch], mut found: impl Iterator<Item = &'a str>) -> bool {
    found.any(|text| any(values, Some(text)))
}

/// Both issuer and subject must be there; an empty one is as absent.
fn request_principal(values: &[RequestPrincipal], token: &Token) -> bool {
    let Some(subject) = token.subject.as_deref().filter(|s| !s.is_empty()) else {
        return false;
    };
    values.iter().any(|value| {
        text::matches(&value.issuer, token.issuer.as_bytes())
            && text::matches(&value.subject, subject.as_bytes())
    })
}

fn service_account(values: &[StringMatch], peer: &Identity) -> bool {
    let (Some(namespace), Some(account)) = (peer.namespace(), peer.service_account()) else {
        return false;
    };
    let pieces = [namespace.as_bytes(), b"/".as_slice(), account.as_bytes()];
    values
        .iter()
        .any(|v| text::matches_pieces(v, || pieces.iter().copied()))
}

fn host(values: &[StringMatch], host: &str) -> bool {
    values
        .iter()
        .any(|v| text::matches_host(v, host.as_bytes()))
}

/// Envoy reads `host` as the authority, and several values of one header as one, joined.
fn header(name: &HeaderName, values: &[StringMatch], http: &HttpFacts<'_>) -> bool {
    if *name == HOST {
        let host = http.host.as_bytes();
        return values.iter().any(|v| text::matches_present(v, host));
    }
    match sent(http.headers, name) {
        Header::Absent => false,
        Header::One(value) => values.iter().any(|v| text::matches_present(v, value)),
        Header::Several => {
            let pieces = || header_pieces(http.headers, name);
            values.iter().any(|v| text::matches_pieces(v, pieces))
        }
    }
}

/// The value of a header in pieces, its lines with what joins them.
pub(crate) fn header_pieces<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let separator: &[u8] = if *name == COOKIE { b"; " } else { b"," };
    let sent = headers.get_all(name).iter().enumerate();
    sent.flat_map(move |(index, value)| {
        let between: &[u8] = if index == 0 { b"" } else { separator };
        [between, value.as_bytes()]
    })
}

/// How often a header was sent.
enum Header<'a> {
    Absent,
    One(&'a [u8]),
    Several,
}

fn sent<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Header::Absent,
        (Some(value), None) => Header::One(value.as_bytes()),
        (Some(_), Some(_)) => Header::Several,
    }
}

/// IPv4 inside IPv6 (`::ffff:a.b.c.d`) is the IPv4 address, on both sides of the comparison.
fn contains(blocks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    blocks.iter().any(|b| b.contains(&address))
}

/// A block of mapped addresses becomes the IPv4 block it means.
fn canonical(block: IpNet) -> IpNet {
    let IpNet::V6(v6) = block else { return block };
    let (Some(v4), Some(length)) = (
        v6.addr().to_ipv4_mapped(),
        v6.prefix_len().checked_sub(128 - 32),
    ) else {
        return block;
    };
    Ipv4Net::new(v4, length).map_or(block, IpNet::V4)
}

/// The clauses of one item of `from`.
pub(crate) fn of_source(source: &Source, item: usize) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let part = Part::From(item);
    push(&mut clauses, part, &source.principals, Test::Principal);
    push(&mut clauses, part, &source.namespaces, Test::Namespace);
    let accounts = &source.service_accounts;
    push(&mut clauses, part, accounts, Test::ServiceAccount);
    push(&mut clauses, part, &source.trust_domains, Test::TrustDomain);
    let principals = &source.request_principals;
    push(&mut clauses, part, principals, Test::RequestPrincipal);
    push_blocks(&mut clauses, part, &source.ip_blocks, Test::SourceIp);
    push_blocks(&mut clauses, part, &source.remote_ip_blocks, Test::RemoteIp);
    clauses
}

/// The clauses of one item of `to`, the cheapest first.
pub(crate) fn of_operation(operation: &Operation, item: usize) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let part = Part::To(item);
    push(&mut clauses, part, &operation.ports, Test::DestinationPort);
    push(&mut clauses, part, &operation.methods, Test::Method);
    push(&mut clauses, part, &operation.paths, Test::Path);
    push(&mut clauses, part, &operation.hosts, Test::Host);
    clauses
}

/// The clauses of one item of `when`.
pub(crate) fn of_condition(condition: &Condition, item: usize) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let (to, part) = (&mut clauses, Part::When(item));
    match condition {
        Condition::RequestHeader { name, values } => {
            push(to, part, values, |v| Test::Header(name.clone(), v));
        }
        Condition::SourceIp(values) => push_blocks(to, part, values, Test::SourceIp),
        Condition::RemoteIp(values) => push_blocks(to, part, values, Test::RemoteIp),
        Condition::DestinationIp(values) => push_blocks(to, part, values, Test::DestinationIp),
        Condition::DestinationPort(values) => push(to, part, values, Test::DestinationPort),
        Condition::SourceNamespace(values) => push(to, part, values, Test::Namespace),
        Condition::SourcePrincipal(values) => push(to, part, values, Test::Principal),
        Condition::SourceServiceAccount(values) => push(to, part, values, Test::ServiceAccount),
        Condition::SourceTrustDomain(values) => push(to, part, values, Test::TrustDomain),
        Condition::RequestPrincipal(values) => push(to, part, values, Test::RequestPrincipal),
        Condition::Audience(values) => push(to, part, values, Test::Audience),
        Condition::Presenter(values) => push(to, part, values, Test::Presenter),
        Condition::Claim { path, values } => {
            push(to, part, values, |v| Test::Claim(path.clone(), v));
        }
    }
    clauses
}

fn push<T: Clone>(
    clauses: &mut Vec<Clause>,
    part: Part,
    values: &Values<T>,
    test: impl Fn(Box<[T]>) -> Test,
) {
    for (negated, list) in [(false, &values.any_of), (true, &values.none_of)] {
        if !list.is_empty() {
            let test = test(list.as_slice().into());
            clauses.push(Clause {
                part,
                negated,
                test,
            });
        }
    }
}

fn push_blocks(
    clauses: &mut Vec<Clause>,
    part: Part,
    values: &Values<IpNet>,
    test: impl Fn(Box<[IpNet]>) -> Test,
) {
    let all = |list: &[IpNet]| list.iter().copied().map(canonical).collect();
    let values = Values {
        any_of: all(&values.any_of),
        none_of: all(&values.none_of),
    };
    push(clauses, part, &values, test);
}
