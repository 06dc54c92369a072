//! DestinationRules: which one holds for which service port (specs/istio-waypoint.md 4.7). What its
//! traffic policy says is read in `traffic_policy`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_hosts::{Host, Unusable, host_named};
use super::traffic_policy::{self, ReadPolicy};
use super::{Findings, client_tls, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::destination_rule::DestinationRuleSpec;
use crate::resources::{Broken, Loaded, Object, Resources, TargetRef};
use crate::snapshot::{
    ClusterKey, ClusterSettings, Discovery, Endpoint, Labels, Mesh, Service, ServicePort, Waypoint,
};

type Written = Object<DestinationRuleSpec>;

/// A rule, read.
struct Rule<'r> {
    object: &'r Written,
    host: Host,
    policy: ReadPolicy,
}

/// A rule that can not be read and may have asked for TLS: plain text must not take its place.
struct Unknown {
    namespace: Arc<str>,
    /// `None`: any.
    host: Option<Host>,
    reason: Arc<str>,
    origin: Origin,
}

/// What is in force for a service.
enum InForce<'u> {
    Rule(usize),
    Unknown(&'u Unknown),
}

/// What DestinationRules say of service ports.
#[derive(Default)]
pub(super) struct Settings {
    /// Of the ports that one is for.
    pub clusters: BTreeMap<ClusterKey, Arc<ClusterSettings>>,
    /// Of its subsets, by a key that names one.
    pub subsets: BTreeMap<ClusterKey, Subset>,
}

impl Settings {
    /// Adds how endpoints of the subsets in use are found.
    pub(super) fn discover(
        &self,
        clusters: &BTreeMap<ClusterKey, Arc<[Endpoint]>>,
        discoveries: &mut BTreeMap<ClusterKey, Arc<Discovery>>,
    ) {
        for key in clusters.keys() {
            let whole = ClusterKey::new(key.service.clone(), key.port);
            let (Some(subset), Some(all)) = (self.subsets.get(key), discoveries.get(&whole)) else {
                continue;
            };
            if let Some(own) = subset.discovery(all) {
                discoveries.insert(key.clone(), Arc::new(own));
            }
        }
    }
}

/// Some of the endpoints of a service port.
pub(super) struct Subset {
    /// What the pods have.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What holds for them.
    pub settings: Arc<ClusterSettings>,
}

impl Subset {
    /// Whether all its labels are among these.
    fn has(&self, labels: &Labels) -> bool {
        let mut wanted = self.labels.iter();
        wanted.all(|(key, value)| labels.get(key) == Some(value))
    }

    /// How endpoints of it are found.
    pub(super) fn discovery(&self, all: &Discovery) -> Option<Discovery> {
        let Discovery::Names { names, first_only } = all else {
            return self.labels.is_empty().then(|| all.clone());
        };
        let own = names.iter().filter(|named| self.has(&named.labels));
        let names: Vec<_> = own.cloned().collect();
        (!names.is_empty()).then_some(Discovery::Names {
            names,
            first_only: *first_only,
        })
    }

    /// Those of the endpoints of the service that belong to it.
    pub(super) fn of(&self, endpoints: &[Endpoint]) -> Arc<[Endpoint]> {
        let belongs = |endpoint: &&Endpoint| {
            let of_workload = endpoint.workload.as_ref();
            let of_workload = of_workload.and_then(|w| w.labels.as_ref());
            match endpoint.labels.as_ref().or(of_workload) {
                Some(labels) => self.has(labels),
                None => self.labels.is_empty(),
            }
        };
        endpoints.iter().filter(belongs).cloned().collect()
    }
}

/// Settings of the service ports that a DestinationRule is for.
pub(super) fn resolve(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> Settings {
    let Some(waypoint) = waypoint else {
        return Settings::default();
    };
    let from = &waypoint.origin.key.namespace;
    let (rules, unknown) = read(resources, mesh, from, findings);
    let mut settings = Settings::default();
    let mut used = vec![false; rules.len()];
    for service in services.values() {
        let namespaces = [from, &service.key.namespace, &mesh.root_namespace];
        let in_force = |namespace: &Arc<str>| {
            let mut unknown = unknown.iter().filter(|u| u.namespace == *namespace);
            match unknown.find(|u| u.may_be_for(&service.hostname)) {
                Some(unknown) => Some(InForce::Unknown(unknown)),
                None => best(&rules, namespace, &service.hostname).map(InForce::Rule),
            }
        };
        let at = match namespaces.into_iter().find_map(in_force) {
            None => continue,
            Some(InForce::Rule(at)) => at,
            Some(InForce::Unknown(unknown)) => {
                let refused = Arc::new(unknown.refusal());
                let of_port = |port: &ServicePort| {
                    let key = ClusterKey::new(service.key.clone(), port.number);
                    (key, refused.clone())
                };
                settings.clusters.extend(service.ports.iter().map(of_port));
                continue;
            }
        };
        let Some(rule) = rules.get(at) else { continue };
        if let Some(used) = used.get_mut(at) {
            *used = true;
        }
        for port in &service.ports {
            let key = ClusterKey::new(service.key.clone(), port.number);
            for (name, subset) in rule.policy.subsets() {
                let of_subset = Subset {
                    labels: subset.labels.clone(),
                    settings: client_tls::of_service(subset.of_port(port.number), service),
                };
                let key = key.clone().with_subset(name.clone());
                settings.subsets.insert(key, of_subset);
            }
            let of_port = client_tls::of_service(rule.policy.of_port(port.number), service);
            settings.clusters.insert(key, of_port);
        }
    }
    for (rule, used) in rules.iter().zip(used) {
        if !used {
            findings.push(idle(rule, services));
        }
    }
    settings
}

/// The rules that the waypoint sees, those that come first in a dispute before the others.
fn read<'r>(
    resources: &'r Resources,
    mesh: &Mesh,
    from: &str,
    findings: &mut Findings,
) -> (Vec<Rule<'r>>, Vec<Unknown>) {
    let (mut rules, mut unknown) = (Vec::new(), Vec::new());
    for loaded in resources.destination_rules.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                if !is_visible(object, from, findings) {
                    continue;
                }
                let policy = traffic_policy::read(object, findings);
                match host_named(&object.spec.host, &object.origin.key.namespace, mesh) {
                    Ok(host) => rules.push(Rule {
                        object,
                        host,
                        policy,
                    }),
                    Err(unusable) => unknown.extend(close(object, unusable, &policy, findings)),
                }
            }
            Loaded::Broken(broken) => unknown.extend(read_broken(broken, mesh, findings)),
        }
    }
    rules.sort_by_key(|rule| {
        let created_s = rule.object.meta.created_s;
        (created_s.is_none(), created_s, &rule.object.origin.key)
    });
    report_twins(&rules, findings);
    (rules, unknown)
}

/// What a rule that can not be read closes: the host it names, if it may have asked for TLS; any host, if
/// not even that can be told.
fn read_broken(broken: &Broken, mesh: &Mesh, findings: &mut Findings) -> Vec<Unknown> {
    let namespace = &broken.origin.key.namespace;
    let unknown = |host| Unknown {
        namespace: namespace.clone(),
        host,
        reason: format!("{} can not be read, and may ask for TLS", broken.origin).into(),
        origin: broken.origin.clone(),
    };
    let (found, effect) = match broken.targets.as_deref() {
        Some([]) => (
            Vec::new(),
            "services that it is for are balanced as if it were not there".to_owned(),
        ),
        Some(hosts) => {
            let could_be = |host: &TargetRef| match host_named(&host.name, namespace, mesh) {
                Ok(host) => Some(host),
                Err(unusable) => unusable.could_be,
            };
            let hosts = hosts.iter().map(could_be);
            let named: Vec<&str> = broken.targets.iter().flatten().map(|h| &*h.name).collect();
            let effect = format!(
                "it may ask for TLS: nothing is sent to {}, requests are answered 503",
                named.join(", ")
            );
            (hosts.map(unknown).collect(), effect)
        }
        None => (
            vec![unknown(None)],
            "it may ask for TLS, and its host is not known: requests to all services that it could be for are answered 503".to_owned(),
        ),
    };
    findings.push(unreadable(broken, effect));
    found
}

impl Unknown {
    fn may_be_for(&self, hostname: &str) -> bool {
        let host = self.host.as_ref();
        host.is_none_or(|host| host.fit(hostname).is_some())
    }

    fn refusal(&self) -> ClusterSettings {
        ClusterSettings {
            refused: Some(self.reason.clone()),
            origin: Some(self.origin.clone()),
            ..ClusterSettings::default()
        }
    }
}

/// Whether the rule is exported to the namespace of the waypoint, which is the client here.
fn is_visible(object: &Written, from: &str, findings: &mut Findings) -> bool {
    if object.spec.workload_selector.is_some() {
        let message = "a DestinationRule with a workloadSelector is for those workloads alone";
        let finding = Diagnostic::warning(Code::NotForWaypoint, message)
            .with_effect("this waypoint does not obey it");
        findings.push(object.mark(finding, "spec.workloadSelector"));
        return false;
    }
    let own = &object.origin.key.namespace;
    is_exported(object.spec.export_to.as_deref(), own, from)
}

/// Whether `exportTo` of an object of namespace `own` names the namespace `from`.
pub(super) fn is_exported(export_to: Option<&[String]>, own: &str, from: &str) -> bool {
    let Some(namespaces) = export_to.filter(|n| !n.is_empty()) else {
        return true;
    };
    namespaces
        .iter()
        .any(|n| n == "*" || n == from || n == "." && own == from)
}

/// A rule whose host is none. It may have asked for TLS: what it could be for is closed then.
fn close(
    object: &Written,
    unusable: Unusable,
    policy: &ReadPolicy,
    findings: &mut Findings,
) -> Option<Unknown> {
    let Unusable {
        code,
        message,
        could_be,
    } = unusable;
    let closes = policy.guards();
    let effect = match (closes, &could_be) {
        (false, _) => "it does nothing".to_owned(),
        (true, Some(Host::Suffix(suffix))) => format!(
            "it asks for TLS: nothing is sent to hosts that end in '{suffix}', requests are answered 503"
        ),
        (true, _) => {
            "it asks for TLS: requests to all services that it could be for are answered 503"
                .to_owned()
        }
    };
    let origin = object.origin.clone();
    let reason = format!("{origin} asks for TLS, and its host is none: {message}").into();
    let finding = Diagnostic::error(code, message)
        .with_effect(effect)
        .with_hint("host: web.shop.svc.cluster.local");
    findings.push(object.mark(finding, "spec.host"));
    closes.then(|| Unknown {
        namespace: origin.key.namespace.clone(),
        host: could_be,
        reason,
        origin,
    })
}

/// The rule of a namespace for a host: the exact one, else the longest pattern; of several the oldest.
fn best(rules: &[Rule<'_>], namespace: &str, hostname: &str) -> Option<usize> {
    let of_namespace = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| &*rule.object.origin.key.namespace == namespace);
    // The first of the best: `max_by_key` would give the last.
    let fits = of_namespace.filter_map(|(at, rule)| Some((rule.host.fit(hostname)?, at)));
    fits.min_by_key(|(fit, at)| (std::cmp::Reverse(*fit), *at))
        .map(|(_, at)| at)
}

/// Two rules of one namespace for one host: Istio takes the first, and adds the subsets of the others.
fn report_twins(rules: &[Rule<'_>], findings: &mut Findings) {
    let mut first: BTreeMap<(&str, &Host), &Rule<'_>> = BTreeMap::new();
    for rule in rules {
        let namespace = &*rule.object.origin.key.namespace;
        let earlier = *first.entry((namespace, &rule.host)).or_insert(rule);
        if std::ptr::eq(earlier, rule) {
            continue;
        }
        let message = format!("{} is for the same host", earlier.object.origin);
        let finding = Diagnostic::warning(Code::Conflict, message)
            .with_effect("the older one is in force, this one is not")
            .with_hint("make one object of them");
        findings.push(rule.object.mark(finding, "spec.host"));
    }
}

/// A rule that is for nothing here: a slip of the pen, or another waypoint's.
fn idle(rule: &Rule<'_>, services: &BTreeMap<ObjectKey, Service>) -> Diagnostic {
    let fits = services
        .values()
        .any(|service| rule.host.fit(&service.hostname).is_some());
    let (message, effect) = if fits {
        (
            format!(
                "host '{}' is in force by another rule",
                rule.object.spec.host
            ),
            "a rule of the waypoint's namespace, then of the service's, then of the root namespace holds",
        )
    } else {
        (
            format!("no Service has the host '{}'", rule.object.spec.host),
            "it does nothing here",
        )
    };
    let finding =
        Diagnostic::new(Severity::Warning, Code::TargetNotFound, message).with_effect(effect);
    rule.object.mark(finding, "spec.host")
}
