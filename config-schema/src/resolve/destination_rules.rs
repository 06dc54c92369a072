//! DestinationRules: which one holds for which service port (specs/istio-waypoint.md 4.7). What its
//! traffic policy says is read in `traffic_policy`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::traffic_policy::{self, ReadPolicy};
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::destination_rule::DestinationRuleSpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{ClusterKey, ClusterSettings, Mesh, Service, Waypoint};

type Written = Object<DestinationRuleSpec>;

/// A rule, read.
struct Rule<'r> {
    object: &'r Written,
    host: Host,
    policy: ReadPolicy,
}

/// `spec.host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// One service.
    Exact(String),
    /// Every host that ends so; the suffix begins with a dot, or is empty.
    Suffix(String),
}

/// Settings of the service ports that a DestinationRule is for.
pub(super) fn resolve(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> BTreeMap<ClusterKey, Arc<ClusterSettings>> {
    let Some(waypoint) = waypoint else {
        return BTreeMap::new();
    };
    let from = &waypoint.origin.key.namespace;
    let rules = read(resources, mesh, from, findings);
    let mut settings = BTreeMap::new();
    let mut used = vec![false; rules.len()];
    for service in services.values() {
        let namespaces = [from, &service.key.namespace, &mesh.root_namespace];
        let Some(at) = namespaces
            .into_iter()
            .find_map(|namespace| best(&rules, namespace, &service.hostname))
        else {
            continue;
        };
        let Some(rule) = rules.get(at) else { continue };
        if let Some(used) = used.get_mut(at) {
            *used = true;
        }
        for port in &service.ports {
            let key = ClusterKey {
                service: service.key.clone(),
                port: port.number,
            };
            settings.insert(key, rule.policy.of_port(port.number).clone());
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
) -> Vec<Rule<'r>> {
    let mut rules = Vec::new();
    for loaded in resources.destination_rules.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                if !is_visible(object, from, findings) {
                    continue;
                }
                let Some(host) = host(object, mesh, findings) else {
                    continue;
                };
                let policy = traffic_policy::read(object, findings);
                rules.push(Rule {
                    object,
                    host,
                    policy,
                });
            }
            Loaded::Broken(broken) => findings.push(unreadable(
                broken,
                "services that it is for are balanced as if it were not there",
            )),
        }
    }
    rules.sort_by_key(|rule| {
        let created_s = rule.object.meta.created_s;
        (created_s.is_none(), created_s, &rule.object.origin.key)
    });
    report_twins(&rules, findings);
    rules
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
    let Some(namespaces) = object.spec.export_to.as_deref().filter(|n| !n.is_empty()) else {
        return true;
    };
    let own = &object.origin.key.namespace;
    namespaces
        .iter()
        .any(|n| n == "*" || n == from || n == "." && &**own == from)
}

fn host(object: &Written, mesh: &Mesh, findings: &mut Findings) -> Option<Host> {
    let written = object.spec.host.trim_end_matches('.').to_ascii_lowercase();
    if written.is_empty() {
        let finding = Diagnostic::error(Code::MissingField, "a DestinationRule needs a host")
            .with_effect("it does nothing")
            .with_hint("host: web.shop.svc.cluster.local");
        findings.push(object.mark(finding, "spec.host"));
        return None;
    }
    match written.strip_prefix('*') {
        Some(suffix) if suffix.is_empty() || suffix.starts_with('.') => {
            Some(Host::Suffix(suffix.to_owned()))
        }
        Some(_) => {
            let message = format!("'{written}' is no host: after the star comes a dot");
            let finding = Diagnostic::error(Code::BadValue, message).with_effect("it does nothing");
            findings.push(object.mark(finding, "spec.host"));
            None
        }
        // A name without a dot is one of the rule's own namespace.
        None if !written.contains('.') => {
            let namespace = &object.origin.key.namespace;
            let domain = &mesh.cluster_domain;
            Some(Host::Exact(format!("{written}.{namespace}.svc.{domain}")))
        }
        None => Some(Host::Exact(written)),
    }
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

impl Host {
    /// How well it fits. `None`: not.
    fn fit(&self, hostname: &str) -> Option<usize> {
        match self {
            Self::Exact(host) => (host == hostname).then_some(usize::MAX),
            Self::Suffix(suffix) => hostname.ends_with(suffix).then_some(suffix.len()),
        }
    }
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
