//! Route kinds on one port: only one applies, GRPCRoutes before HTTPRoutes before TLSRoutes before
//! TCPRoutes (specs/gateway-api.md 1.4, "Route kinds"). Producers' and consumers' routes are told apart,
//! so that nobody can take the routes of a service away from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::{Loaded, Resources};
use crate::snapshot::{ClusterKey, Service, ServicePort, StreamRoute};

/// The kind that goes first, first.
const BY_RANK: [Kind; 4] = [
    Kind::GRPCRoute,
    Kind::HTTPRoute,
    Kind::TLSRoute,
    Kind::TCPRoute,
];

/// Takes routes off ports that have one of the same namespace whose kind goes first.
pub(super) fn keep_one(
    resources: &Resources,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) {
    for service in services.values_mut() {
        for port in &mut service.ports {
            let at = ClusterKey::new(service.key.clone(), port.number);
            let first = first_kinds(port);
            let mut keeps = |route: &Origin| {
                let winner = first.get(&route.key.namespace).copied();
                let winner = winner.filter(|kind| rank(*kind) < rank(route.kind));
                if let Some(winner) = winner {
                    findings.push(finding(resources, route, winner, &at));
                }
                winner.is_none()
            };
            port.routes.retain(|route| keeps(&route.origin));
            port.stream_routes.retain(|route| keeps(&route.origin));
            report_shadowed(port, &at, resources, findings);
        }
    }
}

/// A TCPRoute matches every connection, so that only the oldest of a namespace has any
/// (specs/istio-waypoint.md 4.4).
fn report_shadowed(
    port: &ServicePort,
    at: &ClusterKey,
    resources: &Resources,
    findings: &mut Findings,
) {
    let age = |route: &StreamRoute| {
        let key = &route.origin.key;
        let name = format!("{}/{}", key.namespace, key.name);
        (route.broken, route.created_s.unwrap_or(i64::MAX), name)
    };
    let of_kind = |route: &&Arc<StreamRoute>| route.origin.kind == Kind::TCPRoute && !route.broken;
    for route in port.stream_routes.iter().filter(of_kind) {
        let namespace = &route.origin.key.namespace;
        let same = |other: &&Arc<StreamRoute>| other.origin.key.namespace == *namespace;
        let others = port.stream_routes.iter().filter(of_kind).filter(same);
        let Some(first) = others.min_by_key(|other| age(other)) else {
            continue;
        };
        if first.origin == route.origin {
            continue;
        }
        let message = format!(
            "{} is older and takes every connection to {at}",
            first.origin
        );
        let finding = Diagnostic::warning(Code::Conflict, message)
            .with_effect(format!("the TCPRoute gets nothing at {at}"))
            .with_hint("put all backendRefs into one TCPRoute, with weights");
        let object = resources.tcp_routes.get(&route.origin.key);
        let marked = mark(object, &finding, "spec.parentRefs");
        findings.push(marked.unwrap_or(finding));
    }
}

/// The kind that goes first, by the namespace of the routes.
fn first_kinds(port: &ServicePort) -> BTreeMap<Arc<str>, Kind> {
    let mut first: BTreeMap<Arc<str>, Kind> = BTreeMap::new();
    let requests = port.routes.iter().map(|route| &route.origin);
    let streams = port.stream_routes.iter().map(|route| &route.origin);
    for origin in requests.chain(streams) {
        let kind = first
            .entry(origin.key.namespace.clone())
            .or_insert(origin.kind);
        if rank(origin.kind) < rank(*kind) {
            *kind = origin.kind;
        }
    }
    first
}

fn rank(kind: Kind) -> usize {
    let found = BY_RANK.iter().position(|other| *other == kind);
    found.unwrap_or(BY_RANK.len())
}

fn finding(resources: &Resources, route: &Origin, winner: Kind, at: &ClusterKey) -> Diagnostic {
    let message = format!("{at} has a {winner}, and only one kind of route applies to a port");
    let finding = Diagnostic::error(Code::Conflict, message)
        .with_effect(format!("the {} applies to nothing at {at}", route.kind))
        .with_hint(match winner {
            Kind::GRPCRoute => "use GRPCRoutes alone there, or another port for what is not gRPC",
            _ => "keep one kind of route on the port, or use another port",
        });
    let (key, path) = (&route.key, "spec.parentRefs");
    let marked = match route.kind {
        Kind::HTTPRoute => mark(resources.http_routes.get(key), &finding, path),
        Kind::TLSRoute => mark(resources.tls_routes.get(key), &finding, path),
        Kind::TCPRoute => mark(resources.tcp_routes.get(key), &finding, path),
        _ => None,
    };
    marked.unwrap_or_else(|| finding.of(route.clone(), ""))
}

fn mark<T>(object: Option<&Loaded<T>>, finding: &Diagnostic, path: &str) -> Option<Diagnostic> {
    let object = object.and_then(Loaded::object)?;
    Some(object.mark(finding.clone(), path))
}
