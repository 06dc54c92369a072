//! Plans where a request goes that policy allows: the cluster of the chosen backend, its version, key and
//! session. Decides nothing about who may send it.

use std::net::IpAddr;
use std::sync::Arc;

use cairn_config_schema::snapshot::ClusterKey;
use cairn_filters::chain::{Authenticated, Decision, Destination, Failure};
use cairn_filters::outcome::Outcome;
use cairn_routing::{Cluster, Found, RuleRef};
use http::HeaderMap;
use pingora_proxy::Session;

use super::balance::{self, HashKey, Keyed};
use super::context::Plan;
use super::external::{Asked, Subject};
use super::judge::Judged;
use super::refusal::redirected;
use super::{attempt, persistence, throttle};
use crate::recheck::UpgradeRequest;
use crate::runtime::{Runtime, Target};
use crate::telemetry::exchange::{Exchange, HttpExchange};

/// Where a request is sent that goes on: where its session is held, or by the weights.
pub(super) fn chosen<'d>(
    session: &Session,
    subject: Subject<'d>,
    decision: &'d Decision<'_>,
) -> Result<Destination<'d>, Failure> {
    let headers = &session.req_header().headers;
    let chain = &subject.target.chain;
    match persistence::held(decision, subject.runtime, headers) {
        Some(index) => chain.backend_at(decision, index),
        None => chain.backend(decision, fastrand::u64(..)),
    }
}

/// Where a request goes, and what is done to its response.
///
/// # Errors
/// The answer of one that goes nowhere after all: its backend redirects, is not there, or has no room.
pub(super) fn planned(
    session: &Session,
    exchange: &mut Exchange,
    subject: Subject<'_>,
    decision: &Decision<'_>,
    destination: Destination<'_>,
) -> Result<Plan, Judged> {
    let Subject {
        http,
        target,
        runtime,
    } = subject;
    let backend = destination.backend();
    let port = target.destination.port();
    if let Some(answer) = decision.backend_redirect(backend, &http.authority, port) {
        return Err(redirected(answer));
    }
    let Some(cluster) = cluster_of(destination, runtime, target) else {
        return Err(Judged::Answer(Outcome::InvalidBackend));
    };
    note_destination(exchange, runtime, destination);
    let headers = &session.req_header().headers;
    let rule = rule_of(decision);
    let route = rule.map(|rule| &rule.route.origin);
    let places = throttle::admit(subject, route, headers, exchange)?;
    let upgrade = is_upgrade(headers);
    let http2 = session.is_http2() && !upgrade;
    let source_ip = exchange.origin.peer.address.ip();
    let mirrors = decision.mirrors(backend, || fastrand::u64(..));
    Ok(Plan {
        mirrors: clusters(mirrors, runtime),
        rule: rule.cloned(),
        response_changes: decision.response_changes(backend),
        external_headers: Vec::new(),
        host: None,
        _places: places,
        version: attempt::version(runtime, destination, target, http2, upgrade),
        key: key_of(&cluster, http, headers, source_ip),
        sticky: persistence::sticky(rule, &cluster, runtime, headers),
        cluster,
        upgrade: None,
    })
}

/// Whether it asks for an upgrade.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::UPGRADE)
}

/// The cluster that a request goes to.
fn cluster_of(
    destination: Destination<'_>,
    runtime: &Runtime,
    target: &Target,
) -> Option<Arc<Cluster>> {
    match destination {
        Destination::Cluster {
            key,
            backend: Some(_),
        } => runtime.cluster(key).cloned(),
        // The service's own: for one without listed endpoints it is the address that was dialled.
        Destination::Cluster { backend: None, .. } | Destination::Dialled => {
            Some(target.cluster.clone())
        }
    }
}

/// What the request is balanced by.
fn key_of(
    cluster: &Cluster,
    http: &HttpExchange,
    headers: &HeaderMap,
    source_ip: IpAddr,
) -> HashKey {
    let query = http.path.split_once('?').map(|(_, query)| query);
    let request = Keyed {
        headers,
        query,
        source_ip,
    };
    balance::hash_key(cluster, &request)
}

/// What is judged again when policy changes, should the endpoint agree to the upgrade.
pub(super) fn upgrade_request(
    http: &HttpExchange,
    target: &str,
    asked: &Asked,
    headers: &HeaderMap,
    login: &Option<Authenticated>,
) -> UpgradeRequest {
    UpgradeRequest {
        method: http.method.clone(),
        target: target.to_owned(),
        authority: http.authority.clone(),
        headers: headers.clone(),
        login: login.clone(),
        allowed_by: asked.allowed_by.clone(),
        cluster: None,
    }
}

/// Where the chosen backend leads, for telemetry.
fn note_destination(exchange: &mut Exchange, runtime: &Runtime, destination: Destination<'_>) {
    if let Destination::Cluster {
        key,
        backend: Some(_),
    } = destination
    {
        let service = runtime.snapshot.services.get(&key.service);
        exchange.service = service.cloned().or(exchange.service.take());
        exchange.service_port = key.port;
    }
}

fn clusters<'k>(
    keys: impl Iterator<Item = &'k ClusterKey>,
    runtime: &Runtime,
) -> Vec<Arc<Cluster>> {
    keys.filter_map(|key| runtime.cluster(key).cloned())
        .collect()
}

fn rule_of<'d>(decision: &'d Decision<'_>) -> Option<&'d RuleRef> {
    match &decision.found {
        Some(Found::Rule(rule)) => Some(rule),
        _ => None,
    }
}
