//! TrafficPolicies: what they are for here, and their values checked. One with anything wrong refuses
//! what it is for: a limit that was asked for is not to be missing in silence.

mod service;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::values::Reading;
use super::policy_targets::{Reach, Targets};
use super::route_backends::Backends;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::cairn::TrafficPolicySpec;
use crate::resources::{Broken, Loaded, Object, Place, Resources, TargetRef};
use crate::snapshot::{LimitTarget, Mesh, RateLimit, Service, TrafficLimits, Waypoint};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

type Written = Object<TrafficPolicySpec>;
type Services = BTreeMap<ObjectKey, Service>;

/// Every TrafficPolicy that is for something here.
pub(super) fn resolve(
    resources: &Resources,
    mesh: &Mesh,
    waypoint: Option<&Waypoint>,
    services: &Services,
    findings: &mut Findings,
) -> Vec<Arc<TrafficLimits>> {
    let targets = Targets {
        resources,
        mesh,
        waypoint,
        services,
    };
    let mut limits = Vec::new();
    for loaded in resources.traffic_policies.values() {
        let resolved = match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                whole(object, &targets, findings)
            }
            Loaded::Broken(broken) => of_broken(broken, &targets, findings),
        };
        limits.extend(resolved.map(Arc::new));
    }
    limits
}

fn whole(
    object: &Written,
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Option<TrafficLimits> {
    let spec = &object.spec;
    if spec.target_refs.is_empty() {
        let finding = Diagnostic::error(Code::MissingField, "a TrafficPolicy needs targetRefs")
            .with_effect("it limits nothing")
            .with_hint("targetRefs: [{group: \"\", kind: Service, name: ...}]");
        findings.push(object.mark(finding, "spec.targetRefs"));
        return None;
    }
    let refs: Vec<TargetRef> = spec.target_refs.iter().map(TargetRef::from).collect();
    let reached = reached(object, &refs, targets, findings);
    if reached.is_empty() {
        return None;
    }
    let mut reading = Reading {
        object,
        broken: None,
        findings,
    };
    let rates = spec.rate_limits.iter().enumerate();
    let rates: Vec<RateLimit> = rates
        .filter_map(|(at, rate)| reading.rate(rate, &format!("spec.rateLimits[{at}]")))
        .collect();
    let global = spec.global_rate_limit.as_ref();
    let backends = Backends::new(targets.resources, targets.services);
    let global = global.and_then(|global| service::read(global, &backends, &mut reading));
    let concurrency = spec.concurrency.as_ref();
    let concurrency = concurrency.and_then(|limit| reading.concurrency(limit, &reached));
    if rates.is_empty() && global.is_none() && concurrency.is_none() && reading.broken.is_none() {
        let finding = Diagnostic::warning(Code::MissingField, "the policy has no limit")
            .with_effect("it limits nothing")
            .with_hint("add rateLimits, globalRateLimit or concurrency");
        findings.push(object.mark(finding, "spec"));
        return None;
    }
    let broken = reading.broken.take();
    Some(TrafficLimits {
        origin: object.origin.clone(),
        targets: reached,
        rates,
        global,
        concurrency,
        broken,
    })
}

/// One that can not be read refuses what it is for; what that is may have to be guessed.
fn of_broken(
    broken: &Broken,
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Option<TrafficLimits> {
    let object = Object {
        origin: broken.origin.clone(),
        meta: Default::default(),
        spec: TrafficPolicySpec::default(),
        place: broken
            .location
            .as_ref()
            .map_or_else(Place::default, Place::of),
    };
    let reached = match &broken.targets {
        Some(refs) => reached(&object, refs, targets, findings),
        None => {
            let all = targets.all_of_namespace(&broken.origin.key.namespace);
            let routes = routes_of(&broken.origin.key.namespace, targets.resources);
            all.into_iter().flat_map(limited).chain(routes).collect()
        }
    };
    let effect = match reached.is_empty() {
        true => "this waypoint serves nothing that it is for",
        false => "every HTTP request that it is for is answered 500",
    };
    findings.push(unreadable(broken, effect));
    (!reached.is_empty()).then(|| TrafficLimits {
        origin: broken.origin.clone(),
        targets: reached,
        rates: Vec::new(),
        global: None,
        concurrency: None,
        broken: Some(broken.reason.clone()),
    })
}

/// Every route of a namespace.
fn routes_of(namespace: &str, resources: &Resources) -> Vec<LimitTarget> {
    let http = resources
        .http_routes
        .keys()
        .map(|key| (Kind::HTTPRoute, key));
    let grpc = resources
        .grpc_routes
        .keys()
        .map(|key| (Kind::GRPCRoute, key));
    let own = http
        .chain(grpc)
        .filter(|(_, key)| *key.namespace == *namespace);
    own.map(|(kind, key)| {
        LimitTarget::Route(Origin {
            kind,
            key: key.clone(),
        })
    })
    .collect()
}

fn limited(reach: Reach) -> Vec<LimitTarget> {
    match reach {
        Reach::Waypoint => vec![LimitTarget::Waypoint],
        Reach::Service(_) | Reach::Entry(..) => {
            let services = reach.services().iter().cloned();
            services.map(LimitTarget::Service).collect()
        }
    }
}

fn reached(
    object: &Written,
    refs: &[TargetRef],
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Vec<LimitTarget> {
    let mut reached: Vec<LimitTarget> = Vec::new();
    for (at, target) in refs.iter().enumerate() {
        let path = format!("spec.targetRefs[{at}]");
        let found = match (target.group.as_str(), route_kind(&target.kind)) {
            (GATEWAY_GROUP, Some(kind)) => {
                let route = route(object, kind, target, &path, targets, findings);
                route.into_iter().collect()
            }
            _ => {
                let reach = targets.follow(object, &path, target, findings);
                reach.map_or_else(Vec::new, limited)
            }
        };
        for found in found {
            if !reached.contains(&found) {
                reached.push(found);
            }
        }
    }
    reached
}

fn route_kind(kind: &str) -> Option<Kind> {
    match kind {
        "HTTPRoute" => Some(Kind::HTTPRoute),
        "GRPCRoute" => Some(Kind::GRPCRoute),
        _ => None,
    }
}

fn route(
    object: &Written,
    kind: Kind,
    target: &TargetRef,
    path: &str,
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Option<LimitTarget> {
    let key = ObjectKey {
        namespace: object.origin.key.namespace.clone(),
        name: target.name.as_str().into(),
    };
    let known = match kind {
        Kind::GRPCRoute => targets.resources.grpc_routes.contains_key(&key),
        _ => targets.resources.http_routes.contains_key(&key),
    };
    if !known {
        let message = format!("there is no {kind} {key}");
        let finding = Diagnostic::error(Code::TargetNotFound, message)
            .with_effect("the policy is not enforced by this targetRef")
            .with_hint("a policy is in the namespace of the route it targets");
        findings.push(object.mark(finding, path));
        return None;
    }
    Some(LimitTarget::Route(Origin { kind, key }))
}
