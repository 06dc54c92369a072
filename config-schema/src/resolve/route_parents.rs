//! parentRefs of routes: which ports of which service each names (specs/istio-waypoint.md 4.3,
//! specs/gateway-api.md 1.4, "Parents" and "Producer/consumer").

use std::collections::BTreeMap;

use super::{Findings, waypoint};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{Kind, ObjectKey};
use crate::resources::gateway_api::{HttpRouteParentRefs, HttpRouteSpec};
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{AppProtocol, Binding, ClusterKey, Service, Waypoint};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

const ISTIO_GROUP: &str = "networking.istio.io";

type Services = BTreeMap<ObjectKey, Service>;

/// Ports of one service that a route is attached to; none if no waypoint serves the service, and
/// then the route is read for its findings alone.
pub(super) struct Place {
    /// The service.
    pub service: ObjectKey,
    /// Service ports.
    pub ports: Vec<u16>,
}

impl Place {
    /// One of its ports.
    pub fn at(&self, port: u16) -> ClusterKey {
        ClusterKey::new(self.service.clone(), port)
    }
}

/// What a route is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// Requests.
    Http,
    /// Connections that carry no HTTP.
    Streams,
}

impl Carries {
    /// Whether a port of this protocol may have some.
    pub fn on(self, protocol: AppProtocol) -> bool {
        match (self, protocol) {
            (_, AppProtocol::Sniff) => true,
            (Self::Http, protocol) => protocol != AppProtocol::Tcp,
            (Self::Streams, protocol) => protocol == AppProtocol::Tcp,
        }
    }
}

/// One entry of `parentRefs`.
pub(super) struct Parent<'a> {
    /// The route.
    pub object: &'a Object<HttpRouteSpec>,
    /// `spec.parentRefs[i]`.
    pub path: String,
    /// As written.
    pub written: &'a HttpRouteParentRefs,
    /// What the route is about.
    pub carries: Carries,
    /// Where findings go.
    pub findings: &'a mut Findings,
}

impl Parent<'_> {
    /// The ports it names, of every host of a ServiceEntry. None: it attaches the route to nothing that
    /// this waypoint knows.
    pub fn places(
        &mut self,
        resources: &Resources,
        waypoint: Option<&Waypoint>,
        services: &Services,
    ) -> Vec<Place> {
        let own_namespace = &self.object.origin.key.namespace;
        let key = ObjectKey {
            namespace: match &self.written.namespace {
                Some(namespace) => namespace.as_str().into(),
                None => own_namespace.clone(),
            },
            name: self.written.name.as_str().into(),
        };
        let found: Vec<&Service> = match self.kind(&key, waypoint) {
            Some(Kind::Service) => self
                .service(&key, resources, services)
                .into_iter()
                .collect(),
            Some(Kind::ServiceEntry) => self.hosts(&key, services),
            _ => Vec::new(),
        };
        found
            .into_iter()
            .filter_map(|service| self.place(service))
            .collect()
    }

    fn place(&mut self, service: &Service) -> Option<Place> {
        let key = service.key.clone();
        let ports = self.ports(service)?;
        if service.binding != Binding::Served {
            self.say_not_served(service);
            if matches!(service.binding, Binding::Other(_)) {
                return None;
            }
            return Some(Place {
                service: key,
                ports: Vec::new(),
            });
        }
        Some(Place {
            service: key,
            ports,
        })
    }

    /// The Service that is meant, if a waypoint can apply routes to it at all.
    fn service<'s>(
        &mut self,
        key: &ObjectKey,
        resources: &Resources,
        services: &'s Services,
    ) -> Option<&'s Service> {
        let Some(service) = services.get(key) else {
            let (what, hint) = match resources.services.get(key) {
                Some(_) => ("can not be read", "mend the Service first"),
                None => ("does not exist", "name a Service of the route's namespace"),
            };
            self.say(
                Diagnostic::error(Code::ParentNotFound, format!("Service {key} {what}"))
                    .with_effect("the route is attached to nothing by this parentRef")
                    .with_hint(hint),
                "name",
            );
            return None;
        };
        let spec = resources.services.get(key).and_then(Loaded::object);
        if let Some(spec) = spec.map(|object| &object.spec)
            && (spec.headless || spec.external_name)
        {
            let what = if spec.headless {
                "headless"
            } else {
                "an ExternalName"
            };
            self.say(
                Diagnostic::error(
                    Code::NotAttached,
                    format!("Service {key} is {what} and has no virtual IP"),
                )
                .with_effect("the route applies to nothing by this parentRef")
                .with_hint("routes need a Service with a clusterIP"),
                "name",
            );
            return None;
        }
        Some(service)
    }

    /// The hosts of a ServiceEntry.
    fn hosts<'s>(&mut self, key: &ObjectKey, services: &'s Services) -> Vec<&'s Service> {
        let found = services
            .values()
            .filter(|s| s.is_entry() && s.origin.key == *key);
        let found: Vec<&Service> = found.collect();
        if found.is_empty() {
            let message =
                format!("ServiceEntry {key} does not exist, or none of its hosts is in force");
            let finding = Diagnostic::error(Code::ParentNotFound, message)
                .with_effect("the route is attached to nothing by this parentRef")
                .with_hint("name a ServiceEntry of the route's namespace");
            self.say(finding, "name");
        }
        found
    }

    /// What it names, if a waypoint can apply routes to it.
    fn kind(&mut self, key: &ObjectKey, waypoint: Option<&Waypoint>) -> Option<Kind> {
        let group = self.written.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = self.written.kind.as_deref().unwrap_or("Gateway");
        match (group, kind) {
            ("" | "core", "Service") => return Some(Kind::Service),
            (ISTIO_GROUP, "ServiceEntry") => return Some(Kind::ServiceEntry),
            (GATEWAY_GROUP, "Gateway") if waypoint::is_this(waypoint, key) => self.say(
                Diagnostic::warning(
                    Code::NotAttached,
                    format!("Gateway {key} is a waypoint, which takes no routes"),
                )
                .with_effect("nothing applies the route by this parentRef")
                .with_hint("attach it to the Service: {group: \"\", kind: Service, name: ...}"),
                "",
            ),
            (GATEWAY_GROUP, "Service") => self.say(
                Diagnostic::error(
                    Code::NotAttached,
                    format!("a Service is of the core group, not of {GATEWAY_GROUP}"),
                )
                .with_effect("nothing applies the route by this parentRef")
                .with_hint("write group: \"\" beside kind: Service, for an absent group is the Gateway API's"),
                "",
            ),
            (group, kind) => self.say(
                Diagnostic::new(
                    Severity::Info,
                    Code::NotForWaypoint,
                    format!("parent {kind} {key} (group '{group}') is not for a waypoint"),
                )
                .with_effect("this waypoint does not apply the route by this parentRef"),
                "",
            ),
        }
        None
    }

    /// The ports of the service that carry what the route is about, and that the parentRef names; all
    /// if it names none.
    fn ports(&mut self, service: &Service) -> Option<Vec<u16>> {
        let (number, name) = (self.written.port, &self.written.section_name);
        let named: Vec<_> = (service.ports.iter())
            .filter(|port| number.is_none_or(|n| n == i32::from(port.number)))
            // For a Service the section name is a port's name.
            .filter(|port| name.as_ref().is_none_or(|n| **n == *port.name))
            .collect();
        let key = &service.key;
        if named.is_empty() {
            let wanted = match (number, name) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => format!("'{name}'"),
                (None, None) => "for TCP at all".to_owned(),
            };
            let field = if number.is_some() {
                "port"
            } else {
                "sectionName"
            };
            let declared: Vec<_> = service.ports.iter().map(|p| p.number.to_string()).collect();
            self.say(
                Diagnostic::error(
                    Code::ParentNotFound,
                    format!("Service {key} has no port {wanted}"),
                )
                .with_effect("the route is attached to nothing by this parentRef")
                .with_hint(format!("it has: {}", declared.join(", "))),
                field,
            );
            return None;
        }
        let fit: Vec<u16> = (named.iter())
            .filter(|port| self.carries.on(port.protocol))
            .map(|port| port.number)
            .collect();
        if fit.is_empty() {
            self.say_wrong_protocol(key);
            return None;
        }
        Some(fit)
    }

    fn say_wrong_protocol(&mut self, service: &ObjectKey) {
        let field = if self.written.port.is_some() {
            "port"
        } else {
            ""
        };
        let kind = self.object.origin.kind;
        let (what, effect, hint) = match self.carries {
            Carries::Http => (
                "HTTP",
                format!("connections are spliced as TCP; no {kind} applies to them"),
                "declare appProtocol: http, http2 or grpc on the Service's port",
            ),
            Carries::Streams => (
                "anything but HTTP",
                format!("requests are served one by one; no {kind} applies to them"),
                "declare appProtocol: tcp or tls on the Service's port, or write an HTTPRoute",
            ),
        };
        let message = format!("no port of Service {service} named here carries {what}");
        let finding = Diagnostic::error(Code::NotAttached, message);
        self.say(finding.with_effect(effect).with_hint(hint), field);
    }

    fn say_not_served(&mut self, service: &Service) {
        self.say(
            not_served(service)
                .with_effect("this waypoint does not apply the route to it")
                .with_hint("label the Service or its namespace istio.io/use-waypoint"),
            "name",
        );
    }

    fn say(&mut self, diagnostic: Diagnostic, field: &str) {
        let path = match field {
            "" => self.path.clone(),
            field => format!("{}.{field}", self.path),
        };
        self.findings.push(self.object.mark(diagnostic, &path));
    }
}

/// Of a Service that this waypoint does not serve: who does, or why nobody does.
pub(super) fn not_served(service: &Service) -> Diagnostic {
    let key = &service.key;
    let (severity, message) = match &service.binding {
        Binding::Other(gateway) => (
            Severity::Info,
            format!("Service {key} is served by another waypoint, {gateway}"),
        ),
        Binding::Refused(reason) => (
            Severity::Warning,
            format!("Service {key} is not served: {reason}"),
        ),
        Binding::Unbound | Binding::Served => (
            Severity::Warning,
            format!("Service {key} is bound to no waypoint"),
        ),
    };
    Diagnostic::new(severity, Code::NotEnforced, message)
}
