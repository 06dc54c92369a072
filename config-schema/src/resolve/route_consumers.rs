//! What a consumer's route may do: a route of another namespace than its Service's is written by
//! somebody who may not have the Service's policies changed, and runs with the waypoint's identity.
//!
//! So it leads to Services of its own namespace, or to the very port it is attached to, whose policies
//! were asked; and what it sends there is what those policies saw. Without this, whoever may write
//! routes anywhere could have the waypoint take his requests to any Service, under another path.

use std::sync::Arc;

use crate::snapshot::{
    Backend, BackendTarget, ClusterKey, Filter, HttpRoute, HttpRule, StreamRoute,
};

/// The route as it is attached to a port of another namespace's service.
pub(super) fn restricted(route: &HttpRoute, at: &ClusterKey) -> HttpRoute {
    let own = &route.origin.key.namespace;
    let rules = route
        .rules
        .iter()
        .map(|rule| restricted_rule(rule, own, at));
    HttpRoute {
        rules: rules.collect(),
        ..route.clone()
    }
}

fn restricted_rule(rule: &HttpRule, own: &str, at: &ClusterKey) -> HttpRule {
    let mut rule = rule.clone();
    let changes = rule.filters.iter().any(changes_request);
    for backend in &mut rule.backends {
        if let Some(reason) = forbidden(backend, changes, own, at) {
            backend.target = BackendTarget::Invalid(reason);
        }
        if let Some(reason) = asks_elsewhere(&backend.filters, own) {
            backend.target = BackendTarget::Invalid(reason);
        }
        keep_own_mirrors(&mut backend.filters, own);
    }
    keep_own_mirrors(&mut rule.filters, own);
    if let Some(reason) = asks_elsewhere(&rule.filters, own) {
        rule.broken.get_or_insert(reason);
    }
    rule
}

/// The same of a route of connections.
pub(super) fn restricted_streams(route: &StreamRoute, at: &ClusterKey) -> StreamRoute {
    let own = &route.origin.key.namespace;
    let mut route = route.clone();
    for backend in route.rules.iter_mut().flat_map(|rule| &mut rule.backends) {
        if let Some(reason) = forbidden(backend, false, own, at) {
            backend.target = BackendTarget::Invalid(reason);
        }
    }
    route
}

/// What is left out of such a route at this port, in words, each with where it stands.
pub(super) fn streams_left_out(route: &StreamRoute, at: &ClusterKey) -> Vec<(String, String)> {
    let own = &route.origin.key.namespace;
    let mut found = Vec::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let reasons = (rule.backends.iter()).filter_map(|b| forbidden(b, false, own, at));
        found.extend(reasons.map(|r| (format!("spec.rules[{index}].backendRefs"), r.to_string())));
    }
    found
}

/// Why a backend is not for this route; `None`: it is.
fn forbidden(backend: &Backend, changes: bool, own: &str, at: &ClusterKey) -> Option<Arc<str>> {
    let BackendTarget::Cluster(key) = &backend.target else {
        return None;
    };
    if *key.service.namespace == *own {
        return None;
    }
    if key != at {
        let reason = format!(
            "a route of namespace {own} may not lead from {at} to {key}, whose policies are not asked"
        );
        return Some(reason.into());
    }
    (changes || backend.filters.iter().any(changes_request)).then(|| {
        format!("a route of namespace {own} may not change requests to {at} after its policies")
            .into()
    })
}

fn changes_request(filter: &Filter) -> bool {
    match filter {
        // An authorization service may write headers.
        Filter::RequestHeaders(_) | Filter::Rewrite(_) | Filter::ExternalAuth(_) => true,
        Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Mirror(_)
        | Filter::Cors(_)
        | Filter::Respond(_) => false,
    }
}

fn keep_own_mirrors(filters: &mut Vec<Filter>, own: &str) {
    filters.retain(|filter| match filter {
        Filter::Mirror(mirror) => *mirror.target.service.namespace == *own,
        _ => true,
    });
}

/// Why a rule or backend may not have an authorization service asked.
fn asks_elsewhere(filters: &[Filter], own: &str) -> Option<Arc<str>> {
    let asked = filters.iter().find_map(|filter| match filter {
        Filter::ExternalAuth(provider) => Some(&provider.cluster),
        _ => None,
    })?;
    (*asked.service.namespace != *own).then(|| {
        format!(
            "a route of namespace {own} may not have {asked} asked, whose policies are not asked"
        )
        .into()
    })
}

/// What is left out of the route at this port, in words, each with where it stands.
pub(super) fn left_out(route: &HttpRoute, at: &ClusterKey) -> Vec<(String, String)> {
    let own = &route.origin.key.namespace;
    let mut found = Vec::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let changes = rule.filters.iter().any(changes_request);
        let path = format!("spec.rules[{index}]");
        for backend in &rule.backends {
            let reason = forbidden(backend, changes, own, at);
            let reason = reason.or_else(|| asks_elsewhere(&backend.filters, own));
            found.extend(reason.map(|r| (format!("{path}.backendRefs"), r.to_string())));
        }
        let reason = asks_elsewhere(&rule.filters, own);
        found.extend(reason.map(|r| (format!("{path}.filters"), r.to_string())));
        let backends = rule.backends.iter().flat_map(|b| &b.filters);
        for filter in rule.filters.iter().chain(backends) {
            if let Filter::Mirror(mirror) = filter
                && mirror.target.service.namespace != *own
            {
                let reason = format!(
                    "a route of namespace {own} may not mirror to {}, whose policies are not asked",
                    mirror.target
                );
                found.push((format!("{path}.filters"), reason));
            }
        }
    }
    found
}
