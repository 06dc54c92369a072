//! HTTPRoutes and GRPCRoutes on the ports of services (specs/istio-waypoint.md 4.3, specs/gateway-api.md 1.4). Which
//! ports a parentRef names is in `route_parents`, what a rule says in `route_rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::route_backends::Backends;
use super::route_parents::{Carries, Parent, Place};
use super::route_rules::Rules;
use super::{Findings, grpc_routes, route_consumers, route_kinds, stream_routes, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::gateway_api::{GrpcRouteSpec, HttpRouteSpec};
use crate::resources::{Broken, Loaded, Object, Resources, TargetRef};
use crate::snapshot::{
    AppProtocol, Binding, HttpMatch, HttpRoute, HttpRule, Mesh, PathMatch, RuleTraffic, Service,
    ServicePort, Waypoint,
};

type Services = BTreeMap<ObjectKey, Service>;

/// Attaches every HTTPRoute to the ports of the services it names.
pub(super) fn attach(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &mut Services,
    findings: &mut Findings,
) {
    for loaded in resources.http_routes.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                attach_route(object, None, resources, mesh, waypoint, services, findings);
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
    for loaded in resources.grpc_routes.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let grpc = Some(&object.spec);
                match grpc_routes::as_http(object) {
                    Ok(object) => {
                        attach_route(&object, grpc, resources, mesh, waypoint, services, findings);
                    }
                    Err(error) => attach_broken(&broken(object, &error), services, findings),
                }
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
    stream_routes::attach(resources, waypoint, services, findings);
    route_kinds::keep_one(resources, services, findings);
}

/// A GRPCRoute that has no counterpart among HTTPRoutes: as if it could not be read.
fn broken(object: &Object<GrpcRouteSpec>, error: &serde_json::Error) -> Broken {
    Broken {
        dry_run: false,
        selection: None,
        uid: object.meta.uid,
        origin: object.origin.clone(),
        location: object.place.locate(""),
        reason: error.to_string().into(),
        targets: None,
        pod_ips: Vec::new(),
    }
}

fn attach_route(
    object: &Object<HttpRouteSpec>,
    grpc: Option<&GrpcRouteSpec>,
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &mut Services,
    findings: &mut Findings,
) {
    let mut places = Vec::new();
    for (index, parent) in object.spec.parent_refs.iter().flatten().enumerate() {
        let mut parent = Parent {
            object,
            path: format!("spec.parentRefs[{index}]"),
            written: parent,
            carries: Carries::Http,
            findings: &mut *findings,
        };
        places.extend(parent.places(resources, waypoint, services));
    }
    warn_of_unused_fields(object, &places, findings);
    if places.is_empty() {
        return;
    }
    let scope = scope(&places, services);
    let rules = Rules {
        object,
        grpc,
        scope: &scope,
        backends: Backends::new(resources, services),
        path_normalization: mesh.path_normalization,
    };
    let rules = rules.read(findings);
    if rules.is_empty() {
        let finding = Diagnostic::warning(Code::MissingField, "the route has no rules")
            .with_effect(format!("requests to {scope} are answered 404"));
        findings.push(object.mark(finding, "spec.rules"));
    }
    let route = Arc::new(HttpRoute {
        origin: object.origin.clone(),
        created_s: object.meta.created_s,
        rules,
        broken: false,
    });
    say_left_out(&route, object, &places, findings);
    push(&route, &places, services);
}

fn push(route: &Arc<HttpRoute>, places: &[Place], services: &mut Services) {
    for place in places {
        let Some(service) = services.get_mut(&place.service) else {
            continue;
        };
        for port in &mut service.ports {
            // Two parentRefs may name the same port.
            let there = |last: &Arc<HttpRoute>| last.origin == route.origin;
            if !place.ports.contains(&port.number) || port.routes.last().is_some_and(there) {
                continue;
            }
            let consumers = route.origin.key.namespace != place.service.namespace;
            port.routes.push(match consumers {
                true => Arc::new(route_consumers::restricted(route, &place.at(port.number))),
                false => route.clone(),
            });
        }
    }
}

/// What a consumer's route may not do where it is attached.
fn say_left_out(
    route: &HttpRoute,
    object: &Object<HttpRouteSpec>,
    places: &[Place],
    findings: &mut Findings,
) {
    let foreign = places
        .iter()
        .filter(|place| place.service.namespace != route.origin.key.namespace);
    for place in foreign {
        for port in &place.ports {
            for (path, reason) in route_consumers::left_out(route, &place.at(*port)) {
                let finding = Diagnostic::error(Code::AttachmentDenied, reason)
                    .with_effect("its share of the requests there is answered 500; a mirror gets nothing")
                    .with_hint("lead to Services of the route's own namespace, or unchanged to the port it is attached to");
                findings.push(object.mark(finding, &path));
            }
        }
    }
}

fn warn_of_unused_fields(
    object: &Object<HttpRouteSpec>,
    places: &[Place],
    findings: &mut Findings,
) {
    let spec = &object.spec;
    if !places.is_empty() && spec.hostnames.as_ref().is_some_and(|h| !h.is_empty()) {
        let finding = Diagnostic::warning(
            Code::Unsupported,
            "hostnames mean nothing on a route whose parent is a Service",
        )
        .with_effect("the route applies whatever Host a request has")
        .with_hint("match the header Host instead");
        findings.push(object.mark(finding, "spec.hostnames"));
    }
    if spec.use_default_gateways.is_some() {
        warn_of_default_gateways(object, findings);
    }
}

/// `useDefaultGateways` is for Gateways that let clients in.
pub(super) fn warn_of_default_gateways(object: &Object<HttpRouteSpec>, findings: &mut Findings) {
    let message = "useDefaultGateways means nothing to a waypoint";
    let finding = Diagnostic::warning(Code::Unsupported, message)
        .with_effect("the route is attached by its parentRefs only");
    findings.push(object.mark(finding, "spec.useDefaultGateways"));
}

/// Where a route applies, in words for findings.
pub(super) fn scope(places: &[Place], services: &Services) -> String {
    let mut words: Vec<String> = Vec::new();
    for place in places {
        let count = services.get(&place.service).map_or(0, |s| s.ports.len());
        if place.ports.is_empty() {
            words.push(format!("{} (not served here)", place.service));
        } else if place.ports.len() == count {
            words.push(place.service.to_string());
        } else {
            let with_port = |port| format!("{}:{port}", place.service);
            words.extend(place.ports.iter().map(with_port));
        }
    }
    words.join(", ")
}

/// A route that can not be read takes the requests that no other route takes and answers 500, on
/// every service it may have been meant for.
fn attach_broken(broken: &Broken, services: &mut Services, findings: &mut Findings) {
    let namespace = &broken.origin.key.namespace;
    let places: Vec<Place> = services
        .values()
        .filter(|service| service.binding == Binding::Served)
        .filter_map(|service| {
            let ports: Vec<u16> = (service.ports.iter())
                .filter(|port| port.protocol != AppProtocol::Tcp)
                .filter(|port| named_by(broken, namespace, service, port))
                .map(|port| port.number)
                .collect();
            let service = service.key.clone();
            (!ports.is_empty()).then_some(Place { service, ports })
        })
        .collect();
    let effect = match places.as_slice() {
        [] => "no service of this waypoint is named by it".to_owned(),
        places => format!(
            "requests to {} that no other route matches are answered 500",
            scope(places, services)
        ),
    };
    findings.push(unreadable(broken, effect));
    let route = broken_route(broken);
    push(&route, &places, services);
}

/// The route of an object that can not be read: it takes what no other one takes, and answers 500.
pub(super) fn broken_route(broken: &Broken) -> Arc<HttpRoute> {
    Arc::new(HttpRoute {
        origin: broken.origin.clone(),
        created_s: None,
        rules: vec![HttpRule {
            name: None,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix("".into()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
                more: None,
            }],
            filters: Vec::new(),
            backends: Vec::new(),
            traffic: RuleTraffic::default(),
            broken: Some(broken.reason.clone()),
        }],
        broken: true,
    })
}

/// Whether it may have been meant for a port. Of a route of which nothing is known, those of the
/// services of its own namespace; of a consumer's, those it names.
pub(super) fn named_by(broken: &Broken, own: &str, service: &Service, port: &ServicePort) -> bool {
    let names = |target: &TargetRef| {
        let is_kind = match service.is_entry() {
            true => (&*target.group, &*target.kind) == ("networking.istio.io", "ServiceEntry"),
            false => target.kind == "Service" && matches!(target.group.as_str(), "" | "core"),
        };
        is_kind
            && target.name == *service.origin.key.name
            && target.namespace.as_deref().unwrap_or(own) == &*service.key.namespace
            && target.port.is_none_or(|number| number == port.number)
            && (target.section_name.as_deref()).is_none_or(|name| name == &*port.name)
    };
    match &broken.targets {
        Some(targets) => targets.iter().any(names),
        None => own == &*service.key.namespace,
    }
}
