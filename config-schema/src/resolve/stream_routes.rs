//! TLSRoutes and TCPRoutes on the ports of services (specs/istio-waypoint.md 4.4, specs/gateway-api.md
//! 1.4). Their parentRefs and backendRefs are those of an HTTPRoute and read by the same code; rules of
//! VirtualServices are read in `virtual_streams`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::route_backends::{Backends, Reference, WEIGHT_MAX};
use super::route_parents::{Carries, Parent, Place};
use super::{Findings, route_consumers, routes, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey};
use crate::resources::gateway_api::{
    HttpRouteParentRefs, HttpRouteSpec, TcpRouteParentRefs, TcpRouteRules,
    TcpRouteRulesBackendRefs as BackendRef,
};
use crate::resources::{Broken, Loaded, Object, Resources};
use crate::snapshot::{
    AppProtocol, Backend, BackendTarget, Binding, HostPattern, ServerNames, Service, StreamMatch,
    StreamRoute, StreamRule, Waypoint,
};

type Services = BTreeMap<ObjectKey, Service>;

/// Attaches every TLSRoute and TCPRoute to the ports of the services it names.
pub(super) fn attach(
    resources: &Resources,
    waypoint: Option<&Waypoint>,
    services: &mut Services,
    findings: &mut Findings,
) {
    for loaded in resources.tls_routes.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let spec = &object.spec;
                let written = Written {
                    object: parents_of(object, spec.parent_refs.as_deref()),
                    server_names: Some(spec.hostnames.as_deref().unwrap_or_default()),
                    rules: &spec.rules,
                    default_gateways: spec.use_default_gateways.is_some(),
                };
                written.attach(resources, waypoint, services, findings);
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
    for loaded in resources.tcp_routes.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let spec = &object.spec;
                let written = Written {
                    object: parents_of(object, spec.parent_refs.as_deref()),
                    server_names: None,
                    rules: &spec.rules,
                    default_gateways: spec.use_default_gateways.is_some(),
                };
                written.attach(resources, waypoint, services, findings);
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
}

/// The object as an HTTPRoute that has nothing but its parentRefs, which are read as such.
fn parents_of<T>(
    object: &Object<T>,
    parents: Option<&[TcpRouteParentRefs]>,
) -> Object<HttpRouteSpec> {
    Object {
        origin: object.origin.clone(),
        meta: object.meta.clone(),
        place: object.place.clone(),
        spec: HttpRouteSpec {
            parent_refs: parents.map(http_parents),
            ..HttpRouteSpec::default()
        },
    }
}

/// parentRefs as those of an HTTPRoute.
pub(crate) fn http_parents(written: &[TcpRouteParentRefs]) -> Vec<HttpRouteParentRefs> {
    let parents = written.iter().map(|parent| HttpRouteParentRefs {
        group: parent.group.clone(),
        kind: parent.kind.clone(),
        name: parent.name.clone(),
        namespace: parent.namespace.clone(),
        port: parent.port,
        section_name: parent.section_name.clone(),
    });
    parents.collect()
}

/// A TLSRoute or TCPRoute.
struct Written<'a> {
    object: Object<HttpRouteSpec>,
    /// `hostnames` of a TLSRoute; `None`: a TCPRoute.
    server_names: Option<&'a [String]>,
    rules: &'a [TcpRouteRules],
    default_gateways: bool,
}

impl Written<'_> {
    fn attach(
        &self,
        resources: &Resources,
        waypoint: Option<&Waypoint>,
        services: &mut Services,
        findings: &mut Findings,
    ) {
        let mut places = Vec::new();
        let parents = self.object.spec.parent_refs.iter().flatten();
        for (index, parent) in parents.enumerate() {
            let mut parent = Parent {
                object: &self.object,
                path: format!("spec.parentRefs[{index}]"),
                written: parent,
                carries: Carries::Streams,
                findings: &mut *findings,
            };
            places.extend(parent.places(resources, waypoint, services));
        }
        self.warn_of_unused_fields(findings);
        if places.is_empty() {
            return;
        }
        let scope = routes::scope(&places, services);
        let route = Arc::new(StreamRoute {
            origin: self.object.origin.clone(),
            created_s: self.object.meta.created_s,
            rules: self.rules(&scope, &Backends::new(resources, services), findings),
            broken: false,
        });
        self.say_left_out(&route, &places, findings);
        self.say_undeclared(&places, services, findings);
        push(&route, &places, services);
    }

    /// Every rule of a route matches the same connections: those of its server names.
    fn rules(
        &self,
        scope: &str,
        backends: &Backends<'_>,
        findings: &mut Findings,
    ) -> Vec<StreamRule> {
        let (matches, broken) = self.matches(scope, findings);
        let kind = self.object.origin.kind;
        if let [_, _, ..] = self.rules {
            let message = format!("only the first rule of a {kind} ever applies");
            let finding = Diagnostic::warning(Code::Conflict, message)
                .with_effect("its rules have no matches, so that the others get nothing")
                .with_hint("put all backendRefs into one rule, with weights");
            findings.push(self.object.mark(finding, "spec.rules[1]"));
        }
        let mut rules = Vec::with_capacity(self.rules.len().max(1));
        for (index, written) in self.rules.iter().enumerate() {
            let at = format!("spec.rules[{index}].backendRefs");
            rules.push(StreamRule {
                name: written.name.as_deref().map(Arc::from),
                matches: matches.clone(),
                backends: self.backends(&written.backend_refs, &at, scope, backends, findings),
                broken: broken.clone(),
            });
        }
        if rules.is_empty() {
            let finding = Diagnostic::warning(Code::MissingField, "the route has no rules")
                .with_effect(format!("connections to {scope} that it is for are refused"));
            findings.push(self.object.mark(finding, "spec.rules"));
            rules.push(StreamRule {
                name: None,
                matches,
                backends: Vec::new(),
                broken,
            });
        }
        rules
    }

    /// A match for each server name of a TLSRoute, because the most specific name goes first; and why
    /// they can not be read: then the route takes every name and refuses it, for nobody knows which were
    /// meant.
    fn matches(
        &self,
        scope: &str,
        findings: &mut Findings,
    ) -> (Vec<StreamMatch>, Option<Arc<str>>) {
        let matched = |names: Option<ServerNames>| StreamMatch {
            server_names: names,
            ..StreamMatch::default()
        };
        let Some(written) = self.server_names else {
            return (vec![matched(None)], None);
        };
        let mut matches = Vec::with_capacity(written.len());
        for (index, name) in written.iter().enumerate() {
            let Some(pattern) = server_name(name) else {
                let message = format!("'{name}' is not a host name, nor one after '*.'");
                let broken = Some(message.as_str().into());
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect(format!("TLS connections to {scope} are refused"));
                findings.push(
                    self.object
                        .mark(finding, &format!("spec.hostnames[{index}]")),
                );
                return (vec![matched(Some(ServerNames::Any))], broken);
            };
            matches.push(matched(Some(ServerNames::Of(vec![pattern]))));
        }
        if matches.is_empty() {
            matches.push(matched(Some(ServerNames::Any)));
        }
        (matches, None)
    }

    /// The weighted targets of a rule. One that can not be resolved keeps its share.
    fn backends(
        &self,
        written: &[BackendRef],
        at: &str,
        scope: &str,
        backends: &Backends<'_>,
        findings: &mut Findings,
    ) -> Vec<Backend> {
        let mut found = Vec::with_capacity(written.len());
        let mut say = |path: String, code: Code, message: &str, effect: String, hint: &str| {
            let finding = Diagnostic::error(code, message).with_effect(effect);
            let finding = match hint {
                "" => finding,
                hint => finding.with_hint(hint),
            };
            findings.push(self.object.mark(finding, &path));
        };
        for (index, reference) in written.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let weight = reference.weight.unwrap_or(1);
            // Weight 0 takes no traffic, so that it does not matter where it leads (1.4).
            if weight == 0 {
                continue;
            }
            let target = match self.target(reference, backends) {
                _ if !(1..=WEIGHT_MAX).contains(&weight) => {
                    let message = format!("weight {weight} is not between 0 and {WEIGHT_MAX}");
                    let effect = format!("connections to {scope} are refused");
                    say(format!("{at}.weight"), Code::BadValue, &message, effect, "");
                    // Which share was meant is not known: all of it.
                    return vec![nowhere(message)];
                }
                Ok(target) => target,
                Err(unresolved) => {
                    let effect = format!("its share of the connections to {scope} is refused");
                    let path = format!("{at}.{}", unresolved.field);
                    let code = Code::BackendNotFound;
                    say(path, code, &unresolved.reason, effect, &unresolved.hint);
                    BackendTarget::Invalid(unresolved.reason.into())
                }
            };
            found.push(Backend {
                weight: weight.unsigned_abs(),
                target,
                filters: Vec::new(),
            });
        }
        if found.is_empty() {
            let message = match written {
                [] => "the rule has no backendRefs",
                _ => "every backendRef of the rule has weight 0",
            };
            let finding = Diagnostic::warning(Code::MissingField, message)
                .with_effect(format!("connections to {scope} that it is for are refused"));
            findings.push(self.object.mark(finding, at));
        }
        found
    }

    fn target(
        &self,
        reference: &BackendRef,
        backends: &Backends<'_>,
    ) -> Result<BackendTarget, super::route_backends::Unresolved> {
        let own = &self.object.origin.key.namespace;
        let reference = Reference {
            group: reference.group.as_deref(),
            kind: reference.kind.as_deref(),
            namespace: reference.namespace.as_deref().unwrap_or(own),
            name: &reference.name,
            port: reference.port,
        };
        backends.target(&reference).map(BackendTarget::Cluster)
    }

    /// What a consumer's route may not do where it is attached.
    fn say_left_out(&self, route: &StreamRoute, places: &[Place], findings: &mut Findings) {
        let own = &route.origin.key.namespace;
        for place in places.iter().filter(|p| p.service.namespace != *own) {
            for port in &place.ports {
                for (path, reason) in route_consumers::streams_left_out(route, &place.at(*port)) {
                    let finding = Diagnostic::error(Code::AttachmentDenied, reason)
                        .with_effect("its share of the connections there is refused")
                        .with_hint("lead to Services of the route's own namespace, or to the port it is attached to");
                    findings.push(self.object.mark(finding, &path));
                }
            }
        }
    }

    /// A port that declares nothing may carry HTTP, which is judged request by request.
    fn say_undeclared(&self, places: &[Place], services: &Services, findings: &mut Findings) {
        if self.server_names.is_some() {
            return;
        }
        for place in places {
            let ports = services.get(&place.service).map(|s| s.ports.as_slice());
            for port in ports.unwrap_or_default() {
                if place.ports.contains(&port.number) && port.protocol == AppProtocol::Sniff {
                    let at = place.at(port.number);
                    let message = format!("{at} declares no protocol");
                    let finding = Diagnostic::warning(Code::Unsupported, message)
                        .with_effect("clients that speak HTTP there go to the service itself")
                        .with_hint("declare appProtocol: tcp on the Service's port");
                    findings.push(self.object.mark(finding, "spec.parentRefs"));
                }
            }
        }
    }

    fn warn_of_unused_fields(&self, findings: &mut Findings) {
        if self.default_gateways {
            routes::warn_of_default_gateways(&self.object, findings);
        }
    }
}

/// A target that stands for the whole of a rule that can not be understood.
fn nowhere(reason: String) -> Backend {
    Backend {
        weight: 1,
        target: BackendTarget::Invalid(reason.into()),
        filters: Vec::new(),
    }
}

/// A host name, perhaps with `*.` in front for one label or more.
pub(super) fn server_name(written: &str) -> Option<HostPattern> {
    let name = written.to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
    if host.len() > 253 || !host.split('.').all(label) {
        return None;
    }
    Some(match name.strip_prefix('*') {
        Some(end) => HostPattern::EndsWith(end.into()),
        None => HostPattern::Exact(name.into()),
    })
}

fn push(route: &Arc<StreamRoute>, places: &[Place], services: &mut Services) {
    for place in places {
        let Some(service) = services.get_mut(&place.service) else {
            continue;
        };
        for port in &mut service.ports {
            // Two parentRefs may name the same port.
            let there = |last: &Arc<StreamRoute>| last.origin == route.origin;
            let again = port.stream_routes.last().is_some_and(there);
            if !place.ports.contains(&port.number) || again {
                continue;
            }
            let consumers = route.origin.key.namespace != place.service.namespace;
            let at = place.at(port.number);
            port.stream_routes.push(match consumers {
                true => Arc::new(route_consumers::restricted_streams(route, &at)),
                false => route.clone(),
            });
        }
    }
}

/// A route that can not be read takes the connections that no other route takes and refuses them, on
/// every service it may have been meant for.
fn attach_broken(broken: &Broken, services: &mut Services, findings: &mut Findings) {
    let namespace = &broken.origin.key.namespace;
    let served = (services.values()).filter(|service| service.binding == Binding::Served);
    let places = served.filter_map(|service| {
        let ports: Vec<u16> = (service.ports.iter())
            .filter(|port| Carries::Streams.on(port.protocol))
            .filter(|port| routes::named_by(broken, namespace, service, port))
            .map(|port| port.number)
            .collect();
        let service = service.key.clone();
        (!ports.is_empty()).then_some(Place { service, ports })
    });
    let places: Vec<Place> = places.collect();
    let what = match broken.origin.kind {
        Kind::TLSRoute => "TLS connections",
        _ => "connections",
    };
    let effect = match places.as_slice() {
        [] => "no service of this waypoint is named by it".to_owned(),
        places => format!(
            "{what} to {} that no other route takes are refused",
            routes::scope(places, services)
        ),
    };
    findings.push(unreadable(broken, effect));
    push(&broken_route(broken), &places, services);
}

/// The route of an object that can not be read: it takes what no other one takes, and refuses it.
pub(super) fn broken_route(broken: &Broken) -> Arc<StreamRoute> {
    let matched = StreamMatch {
        server_names: (broken.origin.kind == Kind::TLSRoute).then_some(ServerNames::Any),
        ..StreamMatch::default()
    };
    Arc::new(StreamRoute {
        origin: broken.origin.clone(),
        created_s: None,
        rules: vec![StreamRule {
            name: None,
            matches: vec![matched],
            backends: Vec::new(),
            broken: Some(broken.reason.clone()),
        }],
        broken: true,
    })
}
