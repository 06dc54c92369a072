//! Route kinds on one port: only one applies, GRPCRoutes before HTTPRoutes (specs/gateway-api.md 1.4,
//! "Route kinds"). Producers' and consumers' routes are told apart, so that nobody can take the routes of
//! a service away from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey};
use crate::resources::{Loaded, Resources};
use crate::snapshot::{ClusterKey, HttpRoute, Service};

/// Takes HTTPRoutes off ports that have a GRPCRoute of the same namespace.
pub(super) fn keep_one(
    resources: &Resources,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) {
    for service in services.values_mut() {
        for port in &mut service.ports {
            let of_kind = |route: &&Arc<HttpRoute>| route.origin.kind == Kind::GRPCRoute;
            let namespaces: Vec<Arc<str>> = (port.routes.iter().filter(of_kind))
                .map(|route| route.origin.key.namespace.clone())
                .collect();
            if namespaces.is_empty() {
                continue;
            }
            let at = ClusterKey {
                service: service.key.clone(),
                port: port.number,
            };
            port.routes.retain(|route| {
                let loses = route.origin.kind == Kind::HTTPRoute
                    && namespaces.contains(&route.origin.key.namespace);
                if loses {
                    findings.push(finding(resources, &route.origin.key, &at));
                }
                !loses
            });
        }
    }
}

fn finding(resources: &Resources, route: &ObjectKey, at: &ClusterKey) -> Diagnostic {
    let finding = Diagnostic::error(
        Code::Conflict,
        format!("{at} has a GRPCRoute, and only one kind of route applies to a port"),
    )
    .with_effect(format!("the HTTPRoute applies to nothing at {at}"))
    .with_hint("use GRPCRoutes alone there, or another port for what is not gRPC");
    match resources.http_routes.get(route).and_then(Loaded::object) {
        Some(object) => object.mark(finding, "spec.parentRefs"),
        None => finding,
    }
}
