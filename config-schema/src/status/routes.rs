//! `status.parents` of routes: one entry for each parentRef to a Service that this waypoint is to serve, with the
//! reasons of specs/gateway-api.md 1.4. Parents of other controllers get none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CONTROLLER, Condition, Facts, ParentStatus, Status, sentences};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resolve::grpc_routes::http_parents;
use crate::resources::gateway_api::HttpRouteParentRefs;
use crate::resources::{Loaded, Meta, TargetRef};
use crate::snapshot::{Binding, Service};

/// A route of any kind.
struct Route<'a> {
    origin: &'a Origin,
    meta: &'a Meta,
    parents: Vec<HttpRouteParentRefs>,
    rules: usize,
}

pub(super) fn statuses(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    let mut routes: Vec<Route<'_>> = Vec::new();
    for object in facts
        .resources
        .http_routes
        .values()
        .filter_map(Loaded::object)
    {
        routes.push(Route {
            origin: &object.origin,
            meta: &object.meta,
            parents: object.spec.parent_refs.clone().unwrap_or_default(),
            rules: object.spec.rules.as_ref().map_or(1, Vec::len),
        });
    }
    for object in facts
        .resources
        .grpc_routes
        .values()
        .filter_map(Loaded::object)
    {
        routes.push(Route {
            origin: &object.origin,
            meta: &object.meta,
            parents: http_parents(&object.spec).unwrap_or_default(),
            rules: object.spec.rules.as_ref().map_or(1, Vec::len),
        });
    }
    let with_status = routes
        .iter()
        .map(|route| (route.origin.clone(), route.status(facts)));
    with_status
        .filter(|(_, status)| !status.parents.is_empty())
        .collect()
}

impl Route<'_> {
    fn status(&self, facts: &Facts<'_>) -> Status {
        let parents = self.parents.iter().enumerate();
        let entries = parents.filter_map(|(index, parent)| {
            let accepted = self.accepted(index, parent, facts)?;
            let mut conditions = vec![accepted];
            conditions.extend(self.partly_invalid(facts));
            conditions.push(self.resolved_refs(facts));
            Some(ParentStatus {
                parent_ref: serde_json::to_value(parent).unwrap_or(Value::Null),
                controller_name: CONTROLLER,
                conditions,
            })
        });
        Status {
            parents: entries.collect(),
            ..Status::default()
        }
    }

    fn condition(
        &self,
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Condition {
        Condition::new(kind, holds, reason, message, self.meta.generation)
    }

    /// Whether the route applies by this parentRef. `None`: that is not for us to say.
    fn accepted(
        &self,
        index: usize,
        parent: &HttpRouteParentRefs,
        facts: &Facts<'_>,
    ) -> Option<Condition> {
        let said = |reason: &'static str, finding: &Diagnostic| {
            Some(self.condition("Accepted", false, reason, finding.message.clone()))
        };
        // Without a Gateway nothing is ours.
        let waypoint = facts.snapshot.waypoint.as_ref()?;
        let path = format!("spec.parentRefs[{index}]");
        let refused = facts.at(self.origin, &path).find(|finding| {
            let codes = [Code::ParentNotFound, Code::NotAttached, Code::NotEnforced];
            codes.contains(&finding.code) && finding.severity > Severity::Info
        });
        let target = TargetRef::from(parent);
        if target.kind != "Service" || !matches!(&*target.group, "" | "core") {
            // A Gateway of ours takes no routes; other parents are others' business.
            return said("NotAllowedByListeners", refused.filter(|f| f.path == path)?);
        }
        let own = || self.origin.key.namespace.to_string();
        let key = ObjectKey::new(target.namespace.unwrap_or_else(own), target.name);
        let service = facts.snapshot.services.get(&key);
        match service.map(|service| &service.binding) {
            Some(Binding::Other(_) | Binding::Unbound) => return None,
            Some(Binding::Refused(_) | Binding::Served) | None => {}
        }
        if let Some(refused) = refused {
            return said(reason_of(refused), refused);
        }
        if !service.is_some_and(|service| self.is_attached(service, target.port)) {
            let finding = facts
                .of(self.origin)
                .iter()
                .find(|f| f.code == Code::Conflict)?;
            return said("Conflicted", finding);
        }
        let broken = self.broken_rules(facts);
        if !broken.is_empty() && broken.len() >= self.rules {
            let all = || broken.values().flatten().copied();
            let reason = match all().any(is_incompatible) {
                true => "IncompatibleFilters",
                false => "UnsupportedValue",
            };
            return Some(self.condition("Accepted", false, reason, sentences(all())));
        }
        let message = format!("applied by waypoint {}", waypoint.origin.key);
        Some(self.condition("Accepted", true, "Accepted", message))
    }

    fn is_attached(&self, service: &Service, port: Option<u16>) -> bool {
        let ports = service
            .ports
            .iter()
            .filter(|p| port.is_none_or(|n| n == p.number));
        let mut routes = ports.flat_map(|port| &port.routes);
        routes.any(|route| route.origin == *self.origin)
    }

    /// Whether it is attached to anything, or was but for a route of another kind.
    fn was_read(&self, facts: &Facts<'_>) -> bool {
        let mut services = facts.snapshot.services.values();
        let mut parents = facts.at(self.origin, "spec.parentRefs");
        services.any(|service| self.is_attached(service, None))
            || parents.any(|f| matches!(f.code, Code::Conflict | Code::NotEnforced))
    }

    /// Some rules work, others answer 500.
    fn partly_invalid(&self, facts: &Facts<'_>) -> Option<Condition> {
        let broken = self.broken_rules(facts);
        if broken.is_empty() || broken.len() >= self.rules {
            return None;
        }
        let rules = broken.iter().map(|(rule, findings)| {
            // The words of the API; requests that the rule matches are answered 500.
            format!(
                "Dropped Rule {rule}: {}",
                sentences(findings.iter().copied())
            )
        });
        let message = rules.collect::<Vec<_>>().join(". ");
        Some(self.condition("PartiallyInvalid", true, "UnsupportedValue", message))
    }

    /// What breaks rules, by number.
    fn broken_rules<'f>(&self, facts: &Facts<'f>) -> BTreeMap<usize, Vec<&'f Diagnostic>> {
        let mut broken: BTreeMap<usize, Vec<&Diagnostic>> = BTreeMap::new();
        let errors = facts.at(self.origin, "spec.rules").filter(|f| {
            f.severity == Severity::Error
                && !matches!(f.code, Code::BackendNotFound | Code::AttachmentDenied)
        });
        for finding in errors {
            let rest = finding.path.strip_prefix("spec.rules[").unwrap_or_default();
            let number = rest
                .split(']')
                .next()
                .and_then(|number| number.parse().ok());
            if let Some(number) = number {
                broken.entry(number).or_default().push(finding);
            }
        }
        broken
    }

    fn resolved_refs(&self, facts: &Facts<'_>) -> Condition {
        let unresolved: Vec<&Diagnostic> = facts
            .at(self.origin, "spec.rules")
            .filter(|f| matches!(f.code, Code::BackendNotFound | Code::AttachmentDenied))
            .collect();
        let Some(first) = unresolved.first() else {
            if !self.was_read(facts) {
                // Both conditions are always there; nobody has looked.
                let message = "its references are not looked at while it is attached to nothing";
                let unknown = self.condition("ResolvedRefs", false, "Pending", message);
                return Condition {
                    status: "Unknown",
                    ..unknown
                };
            }
            let message = "every reference leads to a Service port";
            return self.condition("ResolvedRefs", true, "ResolvedRefs", message);
        };
        let reason = match first.code {
            Code::AttachmentDenied => "RefNotPermitted",
            _ if first.path.ends_with(".kind") => "InvalidKind",
            _ => "BackendNotFound",
        };
        let message = sentences(unresolved.iter().copied());
        self.condition("ResolvedRefs", false, reason, message)
    }
}

/// Why a parentRef to a Service that would be ours attaches nothing.
fn reason_of(finding: &Diagnostic) -> &'static str {
    match finding.code {
        Code::ParentNotFound => "NoMatchingParent",
        // Headless, or an ExternalName.
        Code::NotAttached if finding.path.ends_with(".name") => "UnsupportedValue",
        _ => "NotAllowedByListeners",
    }
}

/// Filters that can not be together, or not with this match.
fn is_incompatible(finding: &Diagnostic) -> bool {
    finding.code == Code::Conflict && finding.path.contains(".filters")
}
