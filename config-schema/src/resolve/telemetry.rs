//! What is told of each service, and whom: Telemetry objects by precedence, the mesh's defaults below
//! them (specs/istio-waypoint.md 4.11). What one object says is read in `telemetry_levels`, providers
//! in `telemetry_providers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policy_targets::{Reach, Targets, target_refs};
use super::telemetry_levels::{self, Level};
use super::telemetry_providers::{self, TelemetryProviders};
use super::{Findings, Options, mesh, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::telemetry::TelemetrySpec;
use crate::resources::{Loaded, Object, TargetRef};
use crate::snapshot::{
    AccessLog, Binding, Expression, MetricSettings, Telemetry, TelemetrySettings, TraceSettings,
};

type Written = Object<TelemetrySpec>;

/// Settings of everything that this waypoint serves.
pub(super) fn resolve(
    targets: &Targets<'_>,
    options: &Options,
    findings: &mut Findings,
) -> Telemetry {
    let config = mesh::in_force(targets.resources);
    let providers = &telemetry_providers::resolve(config, options, targets.services, findings);
    let levels = Levels::read(targets, providers, findings);
    let mut telemetry = Telemetry {
        waypoint: Arc::new(levels.merged(None, targets, providers)),
        services: BTreeMap::new(),
    };
    let served = targets.services.values();
    for service in served.filter(|service| service.binding == Binding::Served) {
        if levels.has_own(&service.key, targets) {
            let own = levels.merged(Some(&service.key), targets, providers);
            telemetry
                .services
                .insert(service.key.clone(), Arc::new(own));
        }
    }
    telemetry
}

/// What the objects say, by what they are for.
#[derive(Default)]
struct Levels {
    /// Of whole namespaces, the root namespace among them.
    namespaces: BTreeMap<Arc<str>, Level>,
    /// For everything that the waypoint serves, by targetRef.
    waypoint: Option<Level>,
    services: BTreeMap<ObjectKey, Level>,
}

impl Levels {
    fn read(
        targets: &Targets<'_>,
        providers: &TelemetryProviders,
        findings: &mut Findings,
    ) -> Self {
        let mut levels = Self::default();
        let mut objects = Vec::new();
        for loaded in targets.resources.telemetries.values() {
            match loaded {
                Loaded::Good(object) | Loaded::KeptLastGood(object) => objects.push(object),
                Loaded::Broken(broken) => {
                    findings.push(unreadable(broken, "telemetry is as without it"));
                }
            }
        }
        // Of two for the same place the older one counts; without a date, the first by name.
        objects.sort_by_key(|object| {
            let created_s = object.meta.created_s;
            (created_s.is_none(), created_s, object.origin.key.clone())
        });
        for object in objects {
            levels.add(object, targets, providers, findings);
        }
        levels
    }

    fn add(
        &mut self,
        object: &Written,
        targets: &Targets<'_>,
        providers: &TelemetryProviders,
        findings: &mut Findings,
    ) {
        let spec = &object.spec;
        let refs = target_refs(&spec.target_refs, &spec.target_ref);
        if let Some(selector) = &spec.selector {
            let (severity, code, message) = match refs.is_empty() {
                true => (
                    Severity::Info,
                    Code::NotForWaypoint,
                    "a Telemetry with a selector is not for a waypoint",
                ),
                false => (
                    Severity::Error,
                    Code::Conflict,
                    "a Telemetry has either a selector or targetRefs",
                ),
            };
            if refs.is_empty() && selector.match_labels.is_empty() {
                // An empty selector selects everything, as none does.
            } else {
                let finding = Diagnostic::new(severity, code, message)
                    .with_effect("telemetry of this waypoint is as without it")
                    .with_hint("leave the selector out, for the namespace, or use targetRefs");
                findings.push(object.mark(finding, "spec.selector"));
                return;
            }
        }
        let mut places = Vec::new();
        for (path, target) in &refs {
            let Some(reach) = targets.follow(object, path, target, findings) else {
                continue;
            };
            match part_of_target(target) {
                None => places.push(reach),
                Some(field) => findings.push(no_parts(object, path, field)),
            }
        }
        if !refs.is_empty() && places.is_empty() {
            return;
        }
        let level = telemetry_levels::read(object, providers, findings);
        if refs.is_empty() {
            let namespace = object.origin.key.namespace.clone();
            let taken = self
                .namespaces
                .get(&namespace)
                .map(|l| l.origin.to_string());
            match taken {
                Some(other) => findings.push(second(object, &other)),
                None => drop(self.namespaces.insert(namespace, level)),
            }
            return;
        }
        for reach in places {
            self.attach(object, &reach, &level, findings);
        }
    }

    fn attach(&mut self, object: &Written, reach: &Reach, level: &Level, findings: &mut Findings) {
        if *reach == Reach::Waypoint {
            match &self.waypoint {
                Some(other) if other.origin != object.origin => {
                    findings.push(second(object, &other.origin.to_string()));
                }
                _ => self.waypoint = Some(level.clone()),
            }
        }
        for key in reach.services() {
            match self.services.get(key) {
                Some(other) if other.origin != object.origin => {
                    findings.push(second(object, &other.origin.to_string()));
                }
                _ => drop(self.services.insert(key.clone(), level.clone())),
            }
        }
    }

    /// Whether a service has settings that are not the waypoint's.
    fn has_own(&self, key: &ObjectKey, targets: &Targets<'_>) -> bool {
        let waypoint = targets.waypoint.map(|w| &w.origin.key.namespace);
        let elsewhere = Some(&key.namespace) != waypoint;
        let of_namespace = elsewhere
            && key.namespace != targets.mesh.root_namespace
            && self.namespaces.contains_key(&key.namespace);
        of_namespace || self.services.contains_key(key)
    }

    /// From the widest to the narrowest: root namespace, the waypoint's, the service's, targetRefs.
    fn merged(
        &self,
        key: Option<&ObjectKey>,
        targets: &Targets<'_>,
        providers: &TelemetryProviders,
    ) -> TelemetrySettings {
        let root = &targets.mesh.root_namespace;
        let waypoint = targets.waypoint.map(|w| &w.origin.key.namespace);
        let mut namespaces = vec![root];
        for namespace in waypoint.into_iter().chain(key.map(|key| &key.namespace)) {
            if !namespaces.contains(&namespace) {
                namespaces.push(namespace);
            }
        }
        let of_namespaces = namespaces.iter().filter_map(|n| self.namespaces.get(*n));
        let of_service = key.and_then(|key| self.services.get(key));
        let levels: Vec<&Level> = of_namespaces
            .chain(&self.waypoint)
            .chain(of_service)
            .collect();
        TelemetrySettings {
            tracing: tracing(&levels, providers),
            access_log: access_log(&levels, providers),
            metrics: metrics(&levels, providers),
        }
    }
}

/// The field that names a part of a target. What is said of a part must not hold for the whole: it may be
/// that the part alone is not to be logged.
fn part_of_target(target: &TargetRef) -> Option<&'static str> {
    match target {
        target if target.section_name.is_some() => Some("sectionName"),
        target if target.port.is_some() => Some("port"),
        _ => None,
    }
}

fn no_parts(object: &Written, path: &str, field: &str) -> Diagnostic {
    let message = format!("{field} is not supported for a Telemetry");
    let finding = Diagnostic::error(Code::Unsupported, message)
        .with_effect("telemetry of the target is as without this targetRef")
        .with_hint(format!("leave {field} out, for the whole target"));
    object.mark(finding, &format!("{path}.{field}"))
}

fn second(object: &Written, first: &str) -> Diagnostic {
    let finding = Diagnostic::warning(
        Code::Conflict,
        format!("{first} is for the same, and is older"),
    )
    .with_effect("this one has no effect there")
    .with_hint("put both into one object");
    object.mark(finding, "spec")
}

/// Each setting as the last level that has it says.
fn tracing(levels: &[&Level], providers: &TelemetryProviders) -> TraceSettings {
    let mut settings = TraceSettings {
        to: providers.default_traces.clone(),
        ..TraceSettings::default()
    };
    for level in levels.iter().flat_map(|level| &level.tracing) {
        if let Some(to) = &level.to {
            settings.to = to.clone();
        }
        settings.sampled_ppm = level.sampled_ppm.or(settings.sampled_ppm);
        if let Some(reports) = level.reports {
            settings.reports = reports;
        }
        if let Some(istio_tags) = level.istio_tags {
            settings.istio_tags = istio_tags;
        }
        if let Some(tags) = &level.tags {
            settings.tags = tags.clone();
        }
    }
    settings
}

/// The names that the last level with names lists are in force; what is said of one of them, by
/// itself or by inheriting, holds from then on.
fn access_log(levels: &[&Level], providers: &TelemetryProviders) -> Vec<AccessLog> {
    let mut in_force = providers.default_logs.clone();
    for level in levels {
        let mut named: Vec<Arc<str>> = Vec::new();
        for name in level.logs.iter().flat_map(|log| &log.providers) {
            if !named.contains(name) {
                named.push(name.clone());
            }
        }
        if !named.is_empty() {
            in_force = named;
        }
    }
    let mut parent = providers.default_logs.clone();
    let mut said: BTreeMap<Arc<str>, (bool, Option<Arc<Expression>>)> = BTreeMap::new();
    for log in levels.iter().flat_map(|level| &level.logs) {
        let inherits = log.providers.is_empty();
        if !inherits {
            parent.clone_from(&log.providers);
        }
        for name in &parent {
            let (disabled, filter) = said.entry(name.clone()).or_default();
            *disabled = log.disabled;
            if log.filter.is_some() || !inherits {
                filter.clone_from(&log.filter);
            }
        }
    }
    let logs = in_force.iter().filter_map(|name| {
        let (disabled, filter) = said.get(name).cloned().unwrap_or_default();
        let sink = providers.sink(name).filter(|_| !disabled)?;
        Some(AccessLog {
            provider: name.clone(),
            sink,
            filter,
        })
    });
    logs.collect()
}

/// Overrides add up; a narrower one takes the place of a wider one for the same metric and label.
fn metrics(levels: &[&Level], providers: &TelemetryProviders) -> MetricSettings {
    let mut settings = MetricSettings::default();
    let named = levels.iter().flat_map(|level| &level.metrics);
    let last = named.rev().find(|m| !m.providers.is_empty());
    if let Some(last) = last {
        settings.enabled = last
            .providers
            .iter()
            .any(|name| providers.is_prometheus(name));
    }
    let mut is_ours = true;
    for level in levels.iter().flat_map(|level| &level.metrics) {
        settings.report_interval_ms = level.report_interval_ms.or(settings.report_interval_ms);
        if !level.providers.is_empty() {
            is_ours = level
                .providers
                .iter()
                .any(|name| providers.is_prometheus(name));
        }
        for change in level.overrides.iter().filter(|_| is_ours) {
            for metric in &change.metrics {
                let entry = settings.overrides.entry(*metric).or_default();
                if let Some(disabled) = change.disabled {
                    entry.disabled = disabled;
                }
                let tags = change.tags.iter();
                entry
                    .tags
                    .extend(tags.map(|(label, tag)| (label.clone(), tag.clone())));
            }
        }
    }
    settings
        .overrides
        .retain(|_, change| change.disabled || !change.tags.is_empty());
    settings
}
