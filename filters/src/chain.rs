//! The one order in which a request is judged: normalise, route, authorise, answer; then, for a
//! request that may go on, choose a backend and change the request. The data path and `cairn explain`
//! both run it. Sends nothing and picks no endpoint.
//!
//! The route is found before policy is asked so that a denial, too, can be told with its route; but a
//! denied request is denied whether a route matches or not: 403 before 404.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use cairn_authz::{Facts, HttpFacts, PolicySet, Verdict};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::{
    Backend, BackendTarget, Binding, ClusterKey, Filter, HttpMatch, HttpRule, PathNormalization,
    Policy, Service, ServicePort, Snapshot,
};
use cairn_routing::{Found, RequestParts, RouteTable, RuleRef};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use crate::authority::{self, AuthorityError};
use crate::header_change::{self, Headers};
use crate::hygiene;
use crate::normalise::{Rejection, Target, normalise};
use crate::outcome::Outcome;
use crate::{redirect, rewrite};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Everything that applies to requests to one service port, or to a workload's addresses, compiled.
/// Immutable; one snapshot's.
#[derive(Debug)]
pub struct PortChain {
    routes: RouteTable,
    policies: PolicySet,
    normalization: PathNormalization,
    /// Where requests go that no route claims. `None`: to the address that was dialled.
    default_cluster: Option<ClusterKey>,
    /// Writes x-forwarded-client-cert.
    client_cert: bool,
    /// Set when nothing may pass, for this reason.
    refused: Option<Arc<str>>,
}

/// A request, as it is judged. Its headers have been through [`PortChain::clean`].
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Identity in the client certificate of the tunnel.
    pub peer: Option<&'a Identity>,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Virtual IP and service port, or pod IP and port.
    pub destination: SocketAddr,
    /// Method.
    pub method: &'a Method,
    /// Request target as sent.
    pub target: &'a str,
    /// Host or `:authority` as sent ([`authority::of_request`] finds it).
    pub authority: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// What becomes of a request, and everything that led to it.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The normalised target. `None`: refused before it was known.
    pub target: Option<Target<'a>>,
    /// The route. `None`: refused before one was looked for.
    pub found: Option<Found>,
    /// The verdict of the policies. `None`: refused before they were asked.
    pub verdict: Option<Verdict>,
    /// What to do.
    pub answer: Answer,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Send it on; [`PortChain::backend`] says where to.
    Forward,
    /// Answer with a redirect.
    Redirect {
        /// Status.
        status: StatusCode,
        /// Location.
        location: HeaderValue,
    },
    /// 403: policy denied it.
    Deny,
    /// 404: routes are attached and none matches.
    NotFound,
    /// 400: the target or the authority is refused.
    BadPath(Rejection),
    /// 500: the rule can not be honoured, for this reason.
    BrokenRule(Cow<'static, str>),
    /// 500: the rule has neither a backend nor a redirect.
    NoBackend,
    /// 503: nothing may pass here, for this reason.
    Refused(Arc<str>),
}

impl Answer {
    /// The row of the table of outcomes. `None`: the request is sent on.
    pub fn outcome(&self) -> Option<Outcome> {
        Some(match self {
            Self::Forward => return None,
            Self::Redirect { .. } => Outcome::Redirected,
            Self::Deny => Outcome::Denied,
            Self::NotFound => Outcome::NoRoute,
            Self::BadPath(Rejection::Authority(_)) => Outcome::BadAuthority,
            Self::BadPath(_) => Outcome::BadPath,
            Self::BrokenRule(_) => Outcome::BrokenRule,
            Self::NoBackend => Outcome::NoBackend,
            Self::Refused(_) => Outcome::NotServed,
        })
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// An endpoint of this cluster.
    Cluster {
        /// The cluster.
        key: &'a ClusterKey,
        /// The backend of the rule that chose it. `None`: no route is attached.
        backend: Option<&'a Backend>,
    },
    /// The address that was dialled, a pod's.
    Dialled,
}

impl<'a> Destination<'a> {
    /// The backend of the rule, for [`Decision::change_request`].
    pub fn backend(&self) -> Option<&'a Backend> {
        match self {
            Self::Cluster { backend, .. } => *backend,
            Self::Dialled => None,
        }
    }
}

/// Why a request has nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend whose share this is could not be resolved, for this reason.
    InvalidBackend(Arc<str>),
    /// The rule has no backend.
    NoBackend,
    /// The decision was not to forward: asking for a backend is the caller's mistake.
    NotForwarded,
}

impl Failure {
    /// The row of the table of outcomes.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::InvalidBackend(_) => Outcome::InvalidBackend,
            Self::NoBackend => Outcome::NoBackend,
            Self::NotForwarded => Outcome::Internal,
        }
    }
}

impl PortChain {
    /// The chain of one port of a service.
    pub fn compile(snapshot: &Snapshot, service: &Arc<Service>, port: &ServicePort) -> Self {
        let mut chain = Self::bare(snapshot, &service.policies);
        chain.routes = RouteTable::compile(&port.routes);
        chain.default_cluster = Some(ClusterKey {
            service: service.key.clone(),
            port: port.number,
        });
        // The policies of a service that is not served were never resolved: their empty list would
        // allow everything.
        if chain.refused.is_none() && service.binding != Binding::Served {
            chain.refused = Some("the service is not served by this waypoint".into());
        }
        chain
    }

    /// The chain for traffic to the addresses of workloads: the waypoint's policies, and no routes.
    pub fn for_workload(snapshot: &Snapshot) -> Self {
        let policies = snapshot.waypoint.as_ref().map_or(&[][..], |w| &w.policies);
        Self::bare(snapshot, policies)
    }

    /// A chain without routes. It refuses everything when the waypoint is missing or blocked.
    fn bare(snapshot: &Snapshot, policies: &[Arc<Policy>]) -> Self {
        let waypoint = snapshot.waypoint.as_ref();
        Self {
            routes: RouteTable::default(),
            policies: PolicySet::compile(policies),
            normalization: snapshot.mesh.path_normalization,
            default_cluster: None,
            client_cert: waypoint.is_some_and(|w| w.xfcc_include_client_identity),
            refused: match waypoint {
                Some(waypoint) => waypoint.blocked.clone(),
                None => Some("there is no Gateway for this waypoint".into()),
            },
        }
    }

    /// The compiled policies, for explanations.
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// The cluster of requests that no route claims. `None`: a workload's chain.
    pub fn default_cluster(&self) -> Option<&ClusterKey> {
        self.default_cluster.as_ref()
    }

    /// First of all: removes the headers a client may not set and sets those every request has
    /// ([`hygiene::clean_request`]). `own` is the waypoint's identity.
    pub fn clean(
        &self,
        headers: &mut impl Headers,
        own: Option<&Identity>,
        peer: Option<&Identity>,
        request_id: impl FnOnce() -> HeaderValue,
    ) {
        let client_cert = own
            .filter(|_| self.client_cert)
            .and_then(|own| hygiene::client_cert(own, peer));
        hygiene::clean_request(headers, client_cert, request_id);
    }

    /// Judges a request: normalise, route, authorise, answer.
    pub fn decide<'a>(&self, view: &RequestView<'a>) -> Decision<'a> {
        if let Some(reason) = &self.refused {
            return Decision::early(Answer::Refused(reason.clone()));
        }
        let target = match self.read_target(view) {
            Ok(target) => target,
            Err(rejection) => return Decision::early(Answer::BadPath(rejection)),
        };
        let found = self.routes.find(&RequestParts {
            method: view.method,
            authority: view.authority,
            path: &target.path,
            query: target.query,
            headers: view.headers,
        });
        let verdict = self.policies.decide(&facts(view, &target));
        let answer = if verdict.allowed {
            answer(view, &target, &found)
        } else {
            Answer::Deny
        };
        Decision {
            target: Some(target),
            found: Some(found),
            verdict: Some(verdict),
            answer,
        }
    }

    /// Judges a TCP stream.
    pub fn decide_tcp(
        &self,
        peer: Option<&Identity>,
        source_ip: IpAddr,
        destination: SocketAddr,
    ) -> Verdict {
        if self.refused.is_some() {
            return Verdict {
                allowed: false,
                policy: None,
                rule: None,
                shadow: Vec::new(),
            };
        }
        self.policies
            .decide(&tcp_facts(peer, source_ip, destination))
    }

    /// Why nothing may pass here, when nothing may.
    pub fn refused(&self) -> Option<&Arc<str>> {
        self.refused.as_ref()
    }

    /// Where a request goes that was decided to be forwarded. `random` is uniform.
    pub fn backend<'d>(
        &'d self,
        decision: &'d Decision<'_>,
        random: u64,
    ) -> Result<Destination<'d>, Failure> {
        if decision.answer != Answer::Forward {
            return Err(Failure::NotForwarded);
        }
        match &decision.found {
            Some(Found::Default) => Ok(match &self.default_cluster {
                Some(key) => Destination::Cluster { key, backend: None },
                None => Destination::Dialled,
            }),
            Some(Found::Rule(rule)) => {
                let backends = rule.rule().map_or(&[][..], |r| &r.backends);
                let backend = cairn_routing::choose(backends, random).ok_or(Failure::NoBackend)?;
                match &backend.target {
                    BackendTarget::Cluster(key) => Ok(Destination::Cluster {
                        key,
                        backend: Some(backend),
                    }),
                    BackendTarget::Invalid(reason) => Err(Failure::InvalidBackend(reason.clone())),
                }
            }
            Some(Found::NoMatch) | None => Err(Failure::NotForwarded),
        }
    }

    fn read_target<'a>(&self, view: &RequestView<'a>) -> Result<Target<'a>, Rejection> {
        authority::validate(view.authority)?;
        let target = normalise(view.target, self.normalization)?;
        if target.path == "*" && view.method != Method::OPTIONS {
            return Err(Rejection::Form);
        }
        match target.authority {
            Some(a) if !a.eq_ignore_ascii_case(view.authority) => {
                Err(AuthorityError::Contradiction.into())
            }
            _ => Ok(target),
        }
    }
}

/// The facts that policies judge a request by.
pub fn facts<'a>(view: &RequestView<'a>, target: &'a Target<'_>) -> Facts<'a> {
    Facts {
        remote_ip: remote_ip(view),
        http: Some(HttpFacts {
            method: view.method.as_str(),
            host: view.authority,
            path: &target.path,
            headers: view.headers,
        }),
        ..tcp_facts(view.peer, view.source_ip, view.destination)
    }
}

/// The facts that policies judge a TCP stream by.
pub fn tcp_facts(peer: Option<&Identity>, source_ip: IpAddr, destination: SocketAddr) -> Facts<'_> {
    Facts {
        peer,
        source_ip,
        remote_ip: source_ip,
        destination_ip: destination.ip(),
        destination_port: destination.port(),
        http: None,
    }
}

/// The right-most entry of x-forwarded-for, else the TCP peer (specs/istio-waypoint.md 4.8,
/// `source.remoteIpBlocks`).
fn remote_ip(view: &RequestView<'_>) -> IpAddr {
    let last_value = view.headers.get_all(X_FORWARDED_FOR).iter().next_back();
    last_value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.rsplit(',').next())
        .and_then(|entry| entry.trim().parse().ok())
        .unwrap_or(view.source_ip)
}

/// The answer to a request that policy allows.
fn answer(view: &RequestView<'_>, target: &Target<'_>, found: &Found) -> Answer {
    let reference = match found {
        Found::Default => return Answer::Forward,
        Found::NoMatch => return Answer::NotFound,
        Found::Rule(reference) => reference,
    };
    let Some((rule, matched)) = resolve(reference) else {
        return Answer::BrokenRule("the matched rule is gone".into());
    };
    if let Some(reason) = &rule.broken {
        return Answer::BrokenRule(reason.to_string().into());
    }
    for filter in &rule.filters {
        match filter {
            Filter::Redirect(redirect) => {
                let port = view.destination.port();
                return match redirect::location(redirect, matched, target, view.authority, port) {
                    Some(location) => Answer::Redirect {
                        status: redirect.status,
                        location,
                    },
                    None => Answer::BrokenRule("the redirect has no valid location".into()),
                };
            }
            Filter::Rewrite(change) if !rewrite::is_possible(change.path.as_ref(), matched) => {
                return Answer::BrokenRule(
                    "ReplacePrefixMatch on a rule that matched no prefix".into(),
                );
            }
            Filter::Rewrite(_) | Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => {}
        }
    }
    if rule.backends.is_empty() {
        return Answer::NoBackend;
    }
    Answer::Forward
}

fn resolve(reference: &RuleRef) -> Option<(&HttpRule, &HttpMatch)> {
    Some((reference.rule()?, reference.matched()?))
}

impl Decision<'_> {
    fn early(answer: Answer) -> Self {
        Self {
            target: None,
            found: None,
            verdict: None,
            answer,
        }
    }

    /// Why the answer is what it is, in words, unless it is to forward or a denial (whose reason the
    /// verdict knows).
    pub fn reason(&self) -> Option<Cow<'_, str>> {
        match &self.answer {
            Answer::Forward | Answer::Redirect { .. } | Answer::Deny => None,
            Answer::NotFound => Some("no route of the service matches".into()),
            Answer::BadPath(rejection) => Some(rejection.to_string().into()),
            Answer::BrokenRule(reason) => Some(reason.as_ref().into()),
            Answer::NoBackend => Some("the rule has no backend".into()),
            Answer::Refused(reason) => Some(reason.as_ref().into()),
        }
    }

    /// Envoy's response code details, unless the request is sent on.
    pub fn details(&self) -> Option<Cow<'static, str>> {
        let of_verdict = self
            .verdict
            .as_ref()
            .and_then(Verdict::response_code_details);
        match of_verdict {
            Some(details) => Some(Cow::Owned(details)),
            None => Some(Cow::Borrowed(self.answer.outcome()?.row().details)),
        }
    }

    /// Applies the request filters of the rule in their order, then those of the backend, and returns
    /// path and query to send.
    pub fn change_request(
        &self,
        backend: Option<&Backend>,
        headers: &mut impl Headers,
    ) -> Cow<'_, str> {
        let mut path = self
            .target
            .as_ref()
            .map_or(Cow::Borrowed("/"), Target::path_and_query);
        if let Some((rule, matched)) = self.rule() {
            for filter in rule.filters.iter().chain(backend_filters(backend)) {
                match filter {
                    Filter::RequestHeaders(change) => header_change::apply(change, headers),
                    Filter::Rewrite(change) => {
                        path = rewrite::apply(change, matched, path, headers);
                    }
                    Filter::ResponseHeaders(_) | Filter::Redirect(_) => {}
                }
            }
        }
        path
    }

    /// Applies the response filters of the rule in their order, then those of the backend, to an
    /// answer that came from an endpoint.
    pub fn change_response(&self, backend: Option<&Backend>, headers: &mut impl Headers) {
        let rule_filters = self.rule().map_or(&[][..], |(rule, _)| &rule.filters);
        for filter in rule_filters.iter().chain(backend_filters(backend)) {
            if let Filter::ResponseHeaders(change) = filter {
                header_change::apply(change, headers);
            }
        }
    }

    fn rule(&self) -> Option<(&HttpRule, &HttpMatch)> {
        match &self.found {
            Some(Found::Rule(reference)) => resolve(reference),
            _ => None,
        }
    }
}

fn backend_filters(backend: Option<&Backend>) -> &[Filter] {
    backend.map_or(&[], |b| &b.filters)
}

#[cfg(test)]
mod tests;
