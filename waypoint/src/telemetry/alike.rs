//! What many requests have in common: answer, route, verdict, service and endpoint. Those with the same key say the same of
//! it, in spans and in the access log; a worker that has written it once copies it. Writes nothing itself.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{HttpRoute, Policy, Workload};
use http::Method;

use super::exchange::{Exchange, HttpExchange};
use super::labels::source_workload;
use super::trace::recording::Attempt;

/// Where the policy is, its rule, and whether it allowed.
pub(super) type VerdictKey = (Option<usize>, Option<usize>, bool);

/// The verdict's; `None`: it has more to say than a policy and its rule.
pub(super) fn verdict_key(verdict: &Verdict) -> Option<VerdictKey> {
    if verdict.dry_run.is_some() || verdict.network.is_some() {
        return None;
    }
    let policy = verdict.policy.as_ref().map(place);
    Some((policy, verdict.rule, verdict.allowed))
}

/// Where an object is, which is a key of it as long as it is held.
pub(super) fn place<T: ?Sized>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}

/// A method of RFC 9110 or PATCH; others are for clients to make up, and would make names of spans.
pub(super) fn method(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => return None,
    })
}

/// A text of the program: where it is and how long.
type Word = (usize, usize);

fn word(text: &'static str) -> Word {
    (text.as_ptr().addr(), text.len())
}

/// The service, by its name, and its port.
type ServiceKey = Option<(usize, u16)>;

fn service(exchange: &Exchange) -> ServiceKey {
    let service = exchange.service.as_ref()?;
    Some((place(&service.hostname), exchange.service_port))
}

fn destination(workload: Option<&Arc<Workload>>) -> Option<usize> {
    workload.map(place)
}

/// Of the span of a request. Its client is not part of it: there are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    method: Word,
    protocol: Word,
    flags: Word,
    retry_denied: Option<Word>,
    status: u16,
    attempts: u32,
    snapshot: u64,
    istio_tags: bool,
    service: ServiceKey,
    destination: Option<usize>,
    route: Option<(usize, usize)>,
    verdict: Option<VerdictKey>,
}

impl RequestKey {
    /// `None`: there is something about it that few others have.
    pub(super) fn of(exchange: &Exchange, http: &HttpExchange, istio_tags: bool) -> Option<Self> {
        let verdict = match &exchange.verdict {
            Some(verdict) => Some(verdict_key(verdict)?),
            None => None,
        };
        let endpoint = exchange.endpoint.as_ref();
        let route = exchange.route.as_ref();
        Some(Self {
            method: word(method(&http.method)?),
            protocol: word(http.protocol),
            flags: word(exchange.flags),
            retry_denied: exchange.retry_denied.map(word),
            status: http.status?.as_u16(),
            attempts: exchange.attempts,
            snapshot: exchange.snapshot,
            istio_tags,
            service: service(exchange),
            destination: destination(endpoint.and_then(|e| e.workload.as_ref())),
            route: route.map(|(route, rule)| (place(route), *rule)),
            verdict,
        })
    }
}

/// Of the span of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AttemptKey {
    method: Word,
    istio_tags: bool,
    service: ServiceKey,
    endpoint: SocketAddr,
    destination: Option<usize>,
}

impl AttemptKey {
    /// `None`: as for [`RequestKey`].
    pub(super) fn of(
        exchange: &Exchange,
        http: &HttpExchange,
        attempt: &Attempt,
        istio_tags: bool,
    ) -> Option<Self> {
        Some(Self {
            method: word(method(&http.method)?),
            istio_tags,
            service: service(exchange),
            endpoint: attempt.endpoint.address,
            destination: destination(attempt.endpoint.workload.as_ref()),
        })
    }
}

/// Of the line of a request in the access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LineKey {
    request: RequestKey,
    details: Word,
    source: Option<usize>,
    endpoint: Option<SocketAddr>,
}

impl LineKey {
    /// `None`: as for [`RequestKey`], or it has no path.
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        let http = exchange.http.as_ref()?;
        let audited = exchange
            .verdict
            .as_ref()
            .is_some_and(|v| !v.audit.is_empty());
        let failed = exchange.reason.is_some() || exchange.upstream_failure.is_some();
        if audited || failed || http.path.is_empty() || exchange.server_name.is_some() {
            return None;
        }
        let Cow::Borrowed(details) = exchange.details else {
            return None;
        };
        Some(Self {
            request: RequestKey::of(exchange, http, false)?,
            details: word(details),
            source: source_workload(exchange).map(place),
            endpoint: exchange.endpoint.as_ref().map(|endpoint| endpoint.address),
        })
    }
}

/// The objects that a key has the places of.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    _service: Option<Arc<str>>,
    _destination: Option<Arc<Workload>>,
    _route: Option<Arc<HttpRoute>>,
    _policy: Option<Arc<Policy>>,
    _source: Option<Arc<Workload>>,
}

impl Objects {
    pub(super) fn of_request(exchange: &Exchange) -> Self {
        let endpoint = exchange.endpoint.as_ref();
        let verdict = exchange.verdict.as_ref();
        Self {
            _service: hostname(exchange),
            _destination: endpoint.and_then(|endpoint| endpoint.workload.clone()),
            _route: exchange.route.as_ref().map(|(route, _)| route.clone()),
            _policy: verdict.and_then(|verdict| verdict.policy.clone()),
            _source: None,
        }
    }

    pub(super) fn of_line(exchange: &Exchange) -> Self {
        Self {
            _source: source_workload(exchange).cloned(),
            ..Self::of_request(exchange)
        }
    }

    pub(super) fn of_attempt(exchange: &Exchange, attempt: &Attempt) -> Self {
        Self {
            _service: hostname(exchange),
            _destination: attempt.endpoint.workload.clone(),
            ..Self::default()
        }
    }
}

fn hostname(exchange: &Exchange) -> Option<Arc<str>> {
    let service = exchange.service.as_ref();
    service.map(|service| service.hostname.clone())
}
