//! Where a request may go: every backend with its share, what it would be sent, its endpoints. Which of
//! them it is would be the business of a random number.

use std::sync::Arc;

use cairn_config_schema::snapshot::{
    self, BackendTarget, Filter, HttpRule, NetworkGateway, SessionCarrier, SessionPersistence,
    StreamRule,
};
use cairn_filters::chain::Decision;
use cairn_filters::outcome::Outcome;
use cairn_routing::{Cluster, Found};
use http::HeaderMap;
use http::header::HeaderValue;

use super::judge::name_of;
use super::report::{Answer, Backend, Endpoint};
use crate::names::answer::DNS;
use crate::runtime::{Runtime, Target};

/// Why nothing is sent to endpoints that have none.
const NO_TUNNEL: &str =
    "no endpoint has a tunnel (HBONE), and tls.mode ISTIO_MUTUAL allows nothing else";

/// Every backend a request may go to that was decided to be forwarded.
pub(super) fn backends(
    decision: &Decision<'_>,
    runtime: &Runtime,
    target: &Target,
    headers: &HeaderMap,
    grpc: bool,
) -> Vec<Backend> {
    let Some(Found::Rule(reference)) = &decision.found else {
        let mut backend = Backend::new(name_of(target), 1, 100.0);
        backend.change(decision, None, headers);
        backend.fill(Some(&target.cluster), grpc);
        return vec![backend];
    };
    let backends = reference.rule().map_or(&[][..], |r| &r.backends);
    let sum: f64 = backends.iter().map(|b| f64::from(b.weight)).sum();
    let describe = |written: &snapshot::Backend| {
        // Without any weight there is nothing to have a share of.
        let share = f64::from(written.weight) * 100.0 / sum.max(1.0);
        match &written.target {
            BackendTarget::Invalid(reason) => {
                Backend::nowhere(written.weight, share, reason, Outcome::InvalidBackend, grpc)
            }
            BackendTarget::Unknown(reason) => {
                let outcome = Outcome::UnknownDestination;
                Backend::nowhere(written.weight, share, reason, outcome, grpc)
            }
            BackendTarget::Cluster(key) => {
                let mut backend = Backend::new(key.to_string(), written.weight, share);
                backend.change(decision, Some(written), headers);
                backend.fill(runtime.cluster(key), grpc);
                let redirects = |f: &Filter| matches!(f, Filter::Redirect(_));
                if written.filters.iter().any(redirects) {
                    // A redirect is a redirect, to gRPC too.
                    backend.answer = Some(Answer::of(Outcome::Redirected, false));
                }
                backend
            }
        }
    };
    backends.iter().map(describe).collect()
}

/// Every backend that a connection may go to by a rule.
pub(super) fn of_streams(rule: &StreamRule, runtime: &Runtime) -> Vec<Backend> {
    let sum: f64 = rule.backends.iter().map(|b| f64::from(b.weight)).sum();
    let describe = |written: &snapshot::Backend| {
        let share = f64::from(written.weight) * 100.0 / sum;
        let (reason, outcome) = match &written.target {
            BackendTarget::Invalid(reason) => (reason, Outcome::InvalidBackend),
            BackendTarget::Unknown(reason) => (reason, Outcome::UnknownDestination),
            BackendTarget::Cluster(key) => {
                let mut backend = Backend::new(key.to_string(), written.weight, share);
                backend.fill(runtime.cluster(key), false);
                return backend;
            }
        };
        Backend::nowhere(written.weight, share, reason, outcome, false)
    };
    rule.backends.iter().map(describe).collect()
}

impl Backend {
    /// A target that could not be resolved.
    fn nowhere(weight: u32, share: f64, reason: &str, outcome: Outcome, grpc: bool) -> Self {
        let mut backend = Self::new("invalid".to_owned(), weight, share);
        backend.answer = Some(Answer {
            reason: Some(reason.to_owned()),
            ..Answer::of(outcome, grpc)
        });
        backend
    }

    pub(super) fn new(name: String, weight: u32, share_percent: f64) -> Self {
        Self {
            name,
            weight,
            share_percent,
            answer: None,
            path: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            endpoints: Vec::new(),
            session: None,
            looked_up: None,
        }
    }

    /// What the rule's filters and the backend's own make of the request.
    fn change(
        &mut self,
        decision: &Decision<'_>,
        written: Option<&snapshot::Backend>,
        headers: &HeaderMap,
    ) {
        let mut changed = headers.clone();
        let path = decision.change_request(written, &mut changed);
        self.path = Some(path.into_owned());
        let of_rule = rule_of(decision).and_then(|r| r.traffic.session.as_deref());
        self.session = of_rule.map(session_words);
        self.request_headers = difference(headers, &changed);
        let of_rule = rule_of(decision).map_or(&[][..], |r| &r.filters);
        let of_backend = written.map_or(&[][..], |b| &b.filters);
        for filter in of_rule.iter().chain(of_backend) {
            if let Filter::ResponseHeaders(change) = filter {
                let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
                let set = change
                    .set
                    .iter()
                    .map(|(n, v)| format!("set {n}: {}", text(v)));
                let add = change
                    .add
                    .iter()
                    .map(|(n, v)| format!("add {n}: {}", text(v)));
                let remove = change.remove.iter().map(|n| format!("remove {n}"));
                self.response_headers.extend(set.chain(add).chain(remove));
            }
        }
    }

    pub(super) fn fill(&mut self, cluster: Option<&Arc<Cluster>>, grpc: bool) {
        self.endpoints = cluster.map(|c| endpoints(c)).unwrap_or_default();
        let settings = cluster.map(|c| c.settings());
        let refused = settings.as_ref().and_then(|s| s.refused.as_deref());
        let of_cluster = settings.as_ref().and_then(|s| s.session.as_deref());
        self.session = self.session.take().or(of_cluster.map(session_words));
        let tunnel_only = settings.as_ref().is_some_and(|s| s.tunnel_only);
        let plain = tunnel_only && self.endpoints.iter().all(|e| e.hbone.is_none());
        // Only while requests are served is a name looked up: here none has an address.
        let absence = cluster.and_then(|c| c.absence());
        self.looked_up = absence
            .filter(|why| why.starts_with(DNS))
            .map(|why| why.to_string());
        let missing = match cluster {
            None => Some(Outcome::InvalidBackend),
            Some(_) if refused.is_some() => Some(Outcome::NotServed),
            Some(_) if self.looked_up.is_some() => None,
            Some(_) if self.endpoints.is_empty() => Some(Outcome::NoEndpoint),
            Some(_) if plain => Some(Outcome::ConnectFailed),
            Some(_) => None,
        };
        let reason = match missing {
            Some(Outcome::ConnectFailed) => Some(NO_TUNNEL),
            _ => refused,
        };
        self.answer = missing.map(|outcome| Answer {
            reason: reason.map(str::to_owned),
            ..Answer::of(outcome, grpc)
        });
    }
}

fn rule_of<'d>(decision: &'d Decision<'_>) -> Option<&'d HttpRule> {
    match &decision.found {
        Some(Found::Rule(reference)) => reference.rule(),
        _ => None,
    }
}

fn session_words(session: &SessionPersistence) -> String {
    match &session.carrier {
        SessionCarrier::Cookie { name, .. } => format!("cookie {name}"),
        SessionCarrier::Header(name) => format!("header {name}"),
    }
}

pub(super) fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    let live = cluster.endpoints();
    let settings = cluster.settings();
    let tls = settings.tls.as_ref().map(|tls| tls.server_name.as_deref());
    let tls = tls.map(|name| name.unwrap_or("the host of the request").to_owned());
    live.iter()
        .map(|live| Endpoint {
            address: live.endpoint.address,
            hbone: live.endpoint.hbone_identity().cloned(),
            behind: live.endpoint.gateway.as_deref().map(behind),
            tls: tls.clone(),
            pod: live.endpoint.workload.as_ref().map(|w| w.key.to_string()),
        })
        .collect()
}

/// What a gateway of another network leads to.
fn behind(gateway: &NetworkGateway) -> String {
    let identities: Vec<&str> = gateway.identities.iter().map(|id| id.uri()).collect();
    let network = match &*gateway.network {
        "" => "the default network",
        name => name,
    };
    format!(
        "{} in {network}, by HBONE to {} inside",
        gateway.authority,
        identities.join(" or ")
    )
}

/// What is in one map and not in the other.
fn difference(before: &HeaderMap, after: &HeaderMap) -> Vec<String> {
    let words = |mark: char, name: &http::HeaderName, value: &HeaderValue| {
        format!(
            "{mark} {name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        )
    };
    let lacks =
        |map: &HeaderMap, name, value: &HeaderValue| !map.get_all(name).iter().any(|v| v == value);
    let gone = before
        .iter()
        .filter(|(n, v)| lacks(after, *n, v))
        .map(|(n, v)| words('-', n, v));
    let new = after
        .iter()
        .filter(|(n, v)| lacks(before, *n, v))
        .map(|(n, v)| words('+', n, v));
    gone.chain(new).collect()
}
