//! What is the same in the spans of many requests: a request's answer, route, verdict, service and endpoint, and an attempt's
//! endpoint. Requests with the same key say the same of all that; what else they say is in `spans`.

use std::net::SocketAddr;
use std::sync::Arc;

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::{HttpRoute, Policy, Workload};

use super::conventions::method;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::trace::recording::Attempt;

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

/// The objects that a key has the places of.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    _service: Option<Arc<str>>,
    _destination: Option<Arc<Workload>>,
    _route: Option<Arc<HttpRoute>>,
    _policy: Option<Arc<Policy>>,
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
