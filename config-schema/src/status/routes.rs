//! `status.parents` of routes: one entry for each parentRef to a Service or ServiceEntry that this waypoint is to
//! serve, with the reasons of specs/gateway-api.md 1.4. Parents of other controllers get none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CONTROLLER, Condition, Facts, ParentStatus, Status, sentences};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resolve::grpc_routes;
use crate::resolve::stream_routes::http_parents;
use crate::resources::gateway_api::HttpRouteParentRefs;
use crate::resources::{Loaded, Meta, Object, TargetRef};
use crate::snapshot::{Binding, Service};

const ISTIO_GROUP: &str = "networking.istio.io";

/// A route of any kind.
struct Route<'a> {
    origin: &'a Origin,
    meta: &'a Meta,
    parents: Vec<HttpRouteParentRefs>,
    rules: usize,
    /// It is about connections, not requests.
    streams: bool,
}

impl<'a> Route<'a> {
    /// `rules`: how many are written. `None`: the list is absent, which stands for one.
    fn of<T>(
        object: &'a Object<T>,
        parents: Vec<HttpRouteParentRefs>,
        rules: Option<usize>,
        streams: bool,
    ) -> Self {
        Self {
            origin: &object.origin,
            meta: &object.meta,
            parents,
            rules: rules.unwrap_or(1),
            streams,
        }
    }
}

pub(super) fn statuses(facts: &Facts<'_>) -> Vec<(Origin, Status)> {
    let resources = facts.resources;
    let http = resources.http_routes.values().filter_map(Loaded::object);
    let http = http.map(|object| {
        let spec = &object.spec;
        let parents = spec.parent_refs.clone().unwrap_or_default();
        Route::of(object, parents, spec.rules.as_ref().map(Vec::len), false)
    });
    let grpc = resources.grpc_routes.values().filter_map(Loaded::object);
    let grpc = grpc.map(|object| {
        let spec = &object.spec;
        let parents = grpc_routes::http_parents(spec).unwrap_or_default();
        Route::of(object, parents, spec.rules.as_ref().map(Vec::len), false)
    });
    let of_streams = |parents: Option<&[_]>| parents.map(http_parents).unwrap_or_default();
    let tcp = resources.tcp_routes.values().filter_map(Loaded::object);
    let tcp = tcp.map(|object| {
        let parents = of_streams(object.spec.parent_refs.as_deref());
        Route::of(object, parents, Some(object.spec.rules.len()), true)
    });
    let tls = resources.tls_routes.values().filter_map(Loaded::object);
    let tls = tls.map(|object| {
        let parents = of_streams(object.spec.parent_refs.as_deref());
        Route::of(object, parents, Some(object.spec.rules.len()), true)
    });
    let with_status = http
        .chain(grpc)
        .chain(tcp)
        .chain(tls)
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
        let services = match (&*target.group, &*target.kind) {
            ("" | "core", "Service") => self.services(&target, false, facts),
            (ISTIO_GROUP, "ServiceEntry") => self.services(&target, true, facts),
            // A Gateway of ours takes no routes; other parents are others' business.
            _ => return said("NotAllowedByListeners", refused.filter(|f| f.path == path)?),
        };
        let is_others = |s: &&Service| matches!(s.binding, Binding::Other(_) | Binding::Unbound);
        if !services.is_empty() && services.iter().all(is_others) {
            return None;
        }
        if let Some(refused) = refused {
            return said(reason_of(refused), refused);
        }
        let mut services = services.into_iter();
        if !services.any(|service| self.is_attached(service, target.port)) {
            let finding = facts
                .of(self.origin)
                .iter()
                .find(|f| f.code == Code::Conflict)?;
            return said("Conflicted", finding);
        }
        if let Some(finding) = facts.at(self.origin, "spec.hostnames").find(is_error) {
            return said("UnsupportedValue", finding);
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

    /// The Service that a parentRef names, or the hosts of its ServiceEntry.
    fn services<'s>(
        &self,
        target: &TargetRef,
        is_entry: bool,
        facts: &Facts<'s>,
    ) -> Vec<&'s Service> {
        let own = || self.origin.key.namespace.to_string();
        let key = ObjectKey::new(
            target.namespace.clone().unwrap_or_else(own),
            target.name.as_str(),
        );
        let all = facts.snapshot.services.values().map(|service| &**service);
        let named = all.filter(|s| s.is_entry() == is_entry && s.origin.key == key);
        named.collect()
    }

    fn is_attached(&self, service: &Service, port: Option<u16>) -> bool {
        let mut ports = service
            .ports
            .iter()
            .filter(|p| port.is_none_or(|n| n == p.number));
        ports.any(|port| match self.streams {
            true => (port.stream_routes.iter()).any(|route| route.origin == *self.origin),
            false => port.routes.iter().any(|route| route.origin == *self.origin),
        })
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

fn is_error(finding: &&Diagnostic) -> bool {
    finding.severity == Severity::Error
}

/// Filters that can not be together, or not with this match.
fn is_incompatible(finding: &Diagnostic) -> bool {
    finding.code == Code::Conflict && finding.path.contains(".filters")
}
