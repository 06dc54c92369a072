//! CiliumEnvoyConfigs and CiliumClusterwideEnvoyConfigs: the routes they have for services
//! (specs/policies.md 2.2). An object with anything in it that Cairn does not know is rejected as a whole,
//! with the list of what that is: the services it takes over are answered 500.

mod actions;
mod clusters;
mod matches;
mod message;
mod resources;
mod routes;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::clusters::{Clusters, Listed};
use self::message::{Message, Wrong, Wrongs};
use self::resources::Sorted;
use self::routes::{Context, Lost};
use super::destination_rules::Settings;
use super::route_parents::Carries;
use super::{Findings, routes as gateway_routes, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::cilium_envoy::{CiliumEnvoyConfigSpec, EnvoyService};
use crate::resources::{Broken, Clusterwide, Loaded, Object, Place, Resources};
use crate::snapshot::{
    Binding, ClusterKey, ClusterSettings, Endpoint, HttpMatch, HttpRoute, HttpRule, Mesh,
    PathMatch, RuleTraffic, Service, ServicePort,
};

type Services = BTreeMap<ObjectKey, Service>;
/// What each port gets.
type Routes = Vec<(ClusterKey, Arc<HttpRoute>)>;

/// Namespace of the services that a cluster-wide object names without one.
const DEFAULT_NAMESPACE: &str = "default";

/// What becomes of requests when an object is rejected.
const REJECTED: &str =
    "the object is rejected: requests to the services it takes over are answered 500";

/// Attaches every object to the ports of the services it takes over, unless they have routes already.
/// Clusters with settings of their own become subsets.
pub(super) fn attach(
    resources: &Resources,
    mesh: &Mesh,
    services: &mut Services,
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    for loaded in resources.envoy_configs.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let config = Config::of(object, &object.spec);
                config.attach(mesh, services, clusters, settings, findings);
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
    for loaded in resources.envoy_clusterwide_configs.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let Clusterwide(spec) = &object.spec;
                let config = Config::of(object, spec);
                config.attach(mesh, services, clusters, settings, findings);
            }
            Loaded::Broken(broken) => attach_broken(broken, services, findings),
        }
    }
}

/// One object of either kind.
struct Config<'a> {
    origin: &'a Origin,
    created_s: Option<i64>,
    place: &'a Place,
    spec: &'a CiliumEnvoyConfigSpec,
}

/// What the routes of an object are read with.
struct Read<'a> {
    sorted: &'a Sorted<'a>,
    clusters: &'a Clusters<'a>,
    mesh: &'a Mesh,
}

impl<'a> Config<'a> {
    fn of<T>(object: &'a Object<T>, spec: &'a CiliumEnvoyConfigSpec) -> Self {
        Self {
            origin: &object.origin,
            created_s: object.meta.created_s,
            place: &object.place,
            spec,
        }
    }

    fn mark(&self, finding: Diagnostic, path: &str) -> Diagnostic {
        finding
            .at(self.place.locate(path))
            .of(self.origin.clone(), path)
    }

    /// The service that is named: in the namespace of the object, whatever is written; one that is
    /// cluster-wide may name any.
    fn key(&self, name: &str, written: Option<&str>) -> ObjectKey {
        let namespace = match self.origin.kind {
            Kind::CiliumClusterwideEnvoyConfig => written.unwrap_or(DEFAULT_NAMESPACE),
            _ => &self.origin.key.namespace,
        };
        ObjectKey::new(namespace, name)
    }

    fn listed(&self) -> Vec<Listed> {
        let taken = self.spec.services.iter().flatten().map(|service| Listed {
            key: self.key(&service.name, service.namespace.as_deref()),
            ports: Vec::new(),
        });
        let backends = self.spec.backend_services.iter().flatten();
        let backends = backends.map(|service| Listed {
            key: self.key(&service.name, service.namespace.as_deref()),
            ports: service.number.clone().unwrap_or_default(),
        });
        // What is said of a backend goes first: it may name ports.
        backends.chain(taken).collect()
    }

    fn attach(
        &self,
        mesh: &Mesh,
        services: &mut Services,
        endpoints: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
        settings: &mut Settings,
        findings: &mut Findings,
    ) {
        let wrongs = Wrongs::default();
        let resources = self.spec.resources.as_deref().unwrap_or_default();
        if resources.is_empty() {
            let finding = Diagnostic::warning(Code::MissingField, "it has no resources")
                .with_effect("it has no effect on the services it names");
            findings.push(self.mark(finding, "spec"));
            return;
        }
        let mut sorted = resources::sort(resources, &wrongs);
        if self.spec.node_selector.is_some() {
            let message = "nodeSelector is not supported: a waypoint is on no node of its own";
            wrongs.say(Code::Unsupported, "spec.nodeSelector", message);
        }
        self.report_namespaces(findings);
        let clusters = Clusters {
            services: &*services,
            listed: self.listed(),
            declared: std::mem::take(&mut sorted.clusters),
            prefix: prefix(&self.origin.key),
            namespace: self.key("", None).namespace,
        };
        let read = Read {
            sorted: &sorted,
            clusters: &clusters,
            mesh,
        };
        let (mut found, used, lost) = self.routes(&read, &wrongs, findings);
        let wrongs = wrongs.all();
        if !wrongs.is_empty() {
            let route = self.rejected(&wrongs, findings);
            found.iter_mut().for_each(|(_, own)| *own = route.clone());
        } else {
            self.report_lost(&lost, findings);
        }
        let own: Vec<(ClusterKey, Arc<ClusterSettings>)> = (used.iter())
            .filter(|key| key.subset.is_some())
            .map(|key| {
                let whole = ClusterKey::new(key.service.clone(), key.port);
                let of_service = settings.clusters.get(&whole).cloned().unwrap_or_default();
                (key.clone(), Arc::new(clusters.settings(key, &of_service)))
            })
            .collect();
        for (key, own) in own {
            let whole = ClusterKey::new(key.service.clone(), key.port);
            if let Some(all) = endpoints.get(&whole).cloned() {
                endpoints.insert(key.clone(), all);
                settings.clusters.insert(key, own);
            }
        }
        self.push(found, services, findings);
    }

    /// The routes for every port of the services it takes over, the clusters they lead to, and what leads
    /// nowhere.
    fn routes(
        &self,
        read: &Read<'_>,
        wrongs: &Wrongs,
        findings: &mut Findings,
    ) -> (Routes, BTreeSet<ClusterKey>, Vec<Lost>) {
        let (mut found, mut used, mut lost) = (Vec::new(), BTreeSet::new(), Vec::new());
        let taken = self.spec.services.iter().flatten().enumerate();
        for (at, taken) in taken {
            let path = format!("spec.services[{at}]");
            for port in self.ports(taken, &path, read.clusters.services, findings) {
                let context = Context {
                    clusters: read.clusters,
                    mode: read.mesh.path_normalization,
                    port: port.port,
                    used: RefCell::default(),
                    lost: RefCell::default(),
                };
                let listener = taken.listener.as_deref();
                let rules = match read.sorted.routes_of(listener, &read.clusters.prefix) {
                    Ok(at) => Message::of(at.value, at.path, wrongs)
                        .map_or_else(Vec::new, |written| routes::read(written, &context)),
                    Err(reason) => {
                        wrongs.say(Code::MissingField, format!("{path}.listener"), reason);
                        Vec::new()
                    }
                };
                used.extend(context.used.into_inner());
                lost.extend(context.lost.into_inner());
                let route = HttpRoute {
                    origin: self.origin.clone(),
                    created_s: self.created_s,
                    rules,
                    broken: false,
                };
                found.push((port, Arc::new(route)));
            }
            if read.sorted.has_no_listener() {
                let message =
                    "without a Listener its routes are in force for the service all the same";
                let finding = Diagnostic::warning(Code::MissingField, message)
                    .with_effect("at Cilium they would not be");
                findings.push(self.mark(finding, "spec.resources"));
            }
        }
        (found, used, lost)
    }

    /// The ports of a service that it takes over and that this waypoint serves.
    fn ports(
        &self,
        taken: &EnvoyService,
        path: &str,
        services: &Services,
        findings: &mut Findings,
    ) -> Vec<ClusterKey> {
        let key = self.key(&taken.name, taken.namespace.as_deref());
        let mut say = |severity, code, message: String| {
            let finding = Diagnostic::new(severity, code, message)
                .with_effect("its routes are not in force there");
            findings.push(self.mark(finding, path));
        };
        let Some(service) = services.get(&key) else {
            let message = format!("there is no Service {key}");
            say(Severity::Warning, Code::TargetNotFound, message);
            return Vec::new();
        };
        if service.binding != Binding::Served {
            let message = format!("Service {key} is not served by this waypoint");
            say(Severity::Info, Code::NotEnforced, message);
            return Vec::new();
        }
        let wanted = |p: &&ServicePort| {
            let ports = taken.ports.as_deref().unwrap_or_default();
            ports.is_empty() || ports.contains(&p.number)
        };
        let ports = service.ports.iter().filter(wanted);
        let ports: Vec<ClusterKey> = ports
            .filter(|p| Carries::Http.on(p.protocol))
            .map(|p| ClusterKey::new(key.clone(), p.number))
            .collect();
        if ports.is_empty() {
            let message = format!("no such port of Service {key} carries HTTP");
            say(Severity::Warning, Code::NotAttached, message);
        }
        ports
    }

    fn report_namespaces(&self, findings: &mut Findings) {
        if self.origin.kind == Kind::CiliumClusterwideEnvoyConfig {
            return;
        }
        let own = &self.origin.key.namespace;
        let services = self.spec.services.iter().flatten();
        let services = services
            .enumerate()
            .map(|(at, s)| ("services", at, &s.namespace));
        let backends = self.spec.backend_services.iter().flatten();
        let backends = backends.enumerate();
        let backends = backends.map(|(at, s)| ("backendServices", at, &s.namespace));
        for (list, at, namespace) in services.chain(backends) {
            if namespace.as_deref().is_some_and(|n| *n != **own) {
                let message =
                    format!("a CiliumEnvoyConfig names services of its own namespace, {own}");
                let finding = Diagnostic::warning(Code::BadValue, message)
                    .with_effect("the namespace is ignored, as at Cilium")
                    .with_hint("a CiliumClusterwideEnvoyConfig may name others");
                findings.push(self.mark(finding, &format!("spec.{list}[{at}].namespace")));
            }
        }
    }

    /// Says all that is wrong; the route that takes the place of what was written.
    fn rejected(&self, wrongs: &[Wrong], findings: &mut Findings) -> Arc<HttpRoute> {
        let mut reasons: Vec<&str> = Vec::new();
        for wrong in wrongs {
            let finding =
                Diagnostic::error(wrong.code, wrong.message.clone()).with_effect(REJECTED);
            findings.push(self.mark(finding, &wrong.path));
            if !reasons.contains(&wrong.message.as_str()) {
                reasons.push(&wrong.message);
            }
        }
        let rule = HttpRule {
            name: None,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix("".into()),
                ..HttpMatch::default()
            }],
            filters: Vec::new(),
            backends: Vec::new(),
            traffic: RuleTraffic::default(),
            broken: Some(reasons.join("; ").into()),
        };
        Arc::new(HttpRoute {
            origin: self.origin.clone(),
            created_s: self.created_s,
            rules: vec![rule],
            broken: true,
        })
    }

    fn report_lost(&self, lost: &[Lost], findings: &mut Findings) {
        for (path, nowhere) in lost {
            let finding = Diagnostic::error(Code::BackendNotFound, nowhere.reason.clone())
                .with_effect("its share of the requests is answered 503; copies are not made")
                .with_hint(nowhere.hint.clone());
            findings.push(self.mark(finding, path));
        }
    }

    /// Gives the ports their routes. One that has routes of the Gateway API or of Istio keeps those.
    fn push(&self, found: Routes, services: &mut Services, findings: &mut Findings) {
        for (at, route) in found {
            let Some(service) = services.get_mut(&at.service) else {
                continue;
            };
            let namespace = &at.service.namespace;
            for port in service.ports.iter_mut().filter(|p| p.number == at.port) {
                let own = |other: &&Arc<HttpRoute>| is_of_service(&other.origin, namespace);
                match port.routes.iter().find(own) {
                    None => port.routes.push(route.clone()),
                    Some(other) => {
                        let message = format!("{} applies to {at}", other.origin);
                        let finding = Diagnostic::error(Code::Conflict, message)
                            .with_effect(format!("this object does not apply to {at}"))
                            .with_hint("routes of the Gateway API and of Istio go first; keep one of the two");
                        findings.push(self.mark(finding, "spec.services"));
                    }
                }
            }
        }
    }
}

/// What may stand in front of the names of an object's resources.
pub(crate) fn prefix(key: &ObjectKey) -> String {
    match key.namespace.is_empty() {
        true => format!("{}/", key.name),
        false => format!("{}/{}/", key.namespace, key.name),
    }
}

/// Whether a route is one of the service's own, and not of those who call it.
fn is_of_service(route: &Origin, namespace: &str) -> bool {
    *route.key.namespace == *namespace || route.key.namespace.is_empty()
}

/// One that can not be read answers 500 on the services that it may have been meant for.
fn attach_broken(broken: &Broken, services: &mut Services, findings: &mut Findings) {
    let own = &broken.origin.key.namespace;
    let is_clusterwide = broken.origin.kind == Kind::CiliumClusterwideEnvoyConfig;
    let named = |key: &ObjectKey| match &broken.targets {
        None => is_clusterwide || key.namespace == *own,
        Some(targets) => targets.iter().any(|target| {
            let namespace = match is_clusterwide {
                true => target.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
                false => own,
            };
            *key.name == *target.name && *key.namespace == *namespace
        }),
    };
    let route = gateway_routes::broken_route(broken);
    let mut reached = false;
    for service in services.values_mut() {
        if service.binding != Binding::Served || !named(&service.key) {
            continue;
        }
        for port in &mut service.ports {
            let namespace = &service.key.namespace;
            let own = |other: &Arc<HttpRoute>| is_of_service(&other.origin, namespace);
            if Carries::Http.on(port.protocol) && !port.routes.iter().any(own) {
                port.routes.push(route.clone());
                reached = true;
            }
        }
    }
    let effect = match reached {
        true => REJECTED,
        false => "this waypoint serves nothing that it is for",
    };
    findings.push(unreadable(broken, effect));
}
