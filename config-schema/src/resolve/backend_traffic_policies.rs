//! XBackendTrafficPolicies: sessions and retry budgets of Services, whatever routes lead there (GEP-1619,
//! GEP-3388, specs/gateway-api.md 3). Of several for one Service the oldest is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_rules::Settings;
use super::route_traffic::parse_duration;
use super::{Findings, session_persistence, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{ObjectKey, Origin};
use crate::resources::gateway_api::{
    HttpRouteRulesSessionPersistence, XBackendTrafficPolicyRetryConstraint as RetryConstraint,
    XBackendTrafficPolicySpec, XBackendTrafficPolicyTargetRefs as TargetRef,
};
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{
    ClusterKey, ClusterSettings, RetryBudget, RetryWindow, Service, SessionPersistence,
};

type Written = Object<XBackendTrafficPolicySpec>;

/// What a policy says for its Services.
struct Policy<'r> {
    object: &'r Written,
    session: Option<Arc<SessionPersistence>>,
    budget: Option<RetryBudget>,
}

/// Puts sessions and budgets into the settings of service ports, and of their subsets.
pub(super) fn apply(
    resources: &Resources,
    services: &BTreeMap<ObjectKey, Service>,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    let mut in_force: BTreeMap<ObjectKey, Origin> = BTreeMap::new();
    for policy in read(resources, findings) {
        let object = policy.object;
        for (index, target) in object.spec.target_refs.iter().enumerate() {
            let at = format!("spec.targetRefs[{index}]");
            let service = match service_of(object, target, services) {
                Ok(service) => service,
                Err(finding) => {
                    findings.push(object.mark(*finding, &at));
                    continue;
                }
            };
            if let Some(first) = in_force.get(&service.key).filter(|o| **o != object.origin) {
                let message = format!("{first} is for Service {} already", service.key);
                let finding = Diagnostic::error(Code::Conflict, message)
                    .with_effect("the older policy is in force there, this one is not")
                    .with_hint("make one object of them");
                findings.push(object.mark(finding, &at));
                continue;
            }
            in_force.insert(service.key.clone(), object.origin.clone());
            if settle(&policy, service, settings) {
                let message = "a DestinationRule has a retryBudget for this Service";
                let finding = Diagnostic::warning(Code::Conflict, message)
                    .with_effect("the retryBudget is in force, retryConstraint is not");
                findings.push(object.mark(finding, "spec.retryConstraint"));
            }
        }
    }
}

/// Puts a policy in force for a Service. True: a DestinationRule has a budget of its own, which stays.
fn settle(policy: &Policy<'_>, service: &Service, settings: &mut Settings) -> bool {
    for port in &service.ports {
        let key = ClusterKey::new(service.key.clone(), port.number);
        settings.clusters.entry(key).or_default();
    }
    let own = (settings.clusters.iter_mut()).filter(|(key, _)| key.service == service.key);
    let subsets = (settings.subsets.iter_mut()).filter(|(key, _)| key.service == service.key);
    let all = own
        .map(|(_, s)| s)
        .chain(subsets.map(|(_, s)| &mut s.settings));
    let mut contested = false;
    for one in all {
        let one: &mut ClusterSettings = Arc::make_mut(one);
        one.session.clone_from(&policy.session);
        if let Some(budget) = policy.budget {
            match one.retry_budget == RetryBudget::default() {
                true => one.retry_budget = budget,
                false => contested = true,
            }
        }
    }
    contested
}

/// Those that can be read, the oldest first.
fn read<'r>(resources: &'r Resources, findings: &mut Findings) -> Vec<Policy<'r>> {
    let mut policies = Vec::new();
    for loaded in resources.backend_traffic_policies.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => policies.push(Policy {
                object,
                session: session(object, findings),
                budget: (object.spec.retry_constraint.as_ref())
                    .map(|written| budget(written, object, findings)),
            }),
            Loaded::Broken(broken) => findings.push(unreadable(
                broken,
                "Services that it is for have neither its sessions nor its retry budget",
            )),
        }
    }
    policies.sort_by_key(|policy| {
        let created_s = policy.object.meta.created_s;
        (created_s.is_none(), created_s, &policy.object.origin.key)
    });
    policies
}

fn service_of<'s>(
    object: &Written,
    target: &TargetRef,
    services: &'s BTreeMap<ObjectKey, Service>,
) -> Result<&'s Service, Box<Diagnostic>> {
    let (group, kind, name) = (&*target.group, &*target.kind, &*target.name);
    if !matches!((group, kind), ("" | "core", "Service")) {
        let message = format!("a target of kind {kind} (group '{group}') is not supported");
        return Err(Diagnostic::error(Code::Unsupported, message)
            .with_effect("the policy does nothing for it")
            .with_hint("name a Service: {group: \"\", kind: Service, name: ...}")
            .into());
    }
    let key = ObjectKey::new(object.origin.key.namespace.clone(), name);
    services.get(&key).ok_or_else(|| {
        let message = format!("Service {key} does not exist");
        Diagnostic::error(Code::TargetNotFound, message)
            .with_effect("the policy does nothing for it")
            .with_hint("name a Service of the policy's namespace")
            .into()
    })
}

/// Sessions that can not be honoured: a Service without them goes on working, as far as it can.
fn session(object: &Written, findings: &mut Findings) -> Option<Arc<SessionPersistence>> {
    let written = object.spec.session_persistence.as_ref()?;
    let written: HttpRouteRulesSessionPersistence = serde_json::to_value(written)
        .and_then(serde_json::from_value)
        .ok()?;
    match session_persistence::read(&written, &object.origin.to_string()) {
        Ok(session) => Some(Arc::new(session)),
        Err(fault) => {
            let finding = Diagnostic::error(fault.code, fault.message)
                .with_effect("requests to its Services have no sessions by this policy");
            let at = format!("spec.sessionPersistence.{}", fault.field);
            findings.push(object.mark(finding, &at));
            None
        }
    }
}

/// `retryConstraint`; the defaults are the API's.
fn budget(written: &RetryConstraint, object: &Written, findings: &mut Findings) -> RetryBudget {
    let mut bad = |message: String, field: &str| {
        let finding = Diagnostic::error(Code::BadValue, message)
            .with_effect("the default of the field is in force");
        findings.push(object.mark(finding, &format!("spec.retryConstraint.{field}")));
    };
    let mut interval = |text: Option<&String>, field: &str, default_ms: u64| {
        let Some(text) = text else { return default_ms };
        let ms = parse_duration(text).filter(|ms| (1_000..=3_600_000).contains(ms));
        if ms.is_none() {
            let message = format!("'{text}' is not a duration from 1s to 1h");
            bad(message, field);
        }
        ms.unwrap_or(default_ms)
    };
    let (share, least) = (written.budget.as_ref(), written.min_retry_rate.as_ref());
    let window = RetryWindow {
        interval_ms: interval(
            share.and_then(|b| b.interval.as_ref()),
            "budget.interval",
            10_000,
        ),
        least_interval_ms: interval(
            least.and_then(|r| r.interval.as_ref()),
            "minRetryRate.interval",
            1_000,
        ),
        least_count: 0,
    };
    let mut number = |number: Option<i64>, most: u32, default: u32, field: &str| {
        let Some(number) = number else { return default };
        let good = u32::try_from(number).ok().filter(|n| *n <= most);
        if good.is_none() {
            bad(format!("{number} is not between 0 and {most}"), field);
        }
        good.unwrap_or(default)
    };
    let percent = number(share.and_then(|b| b.percent), 100, 20, "budget.percent");
    let count = number(
        least.and_then(|r| r.count),
        1_000_000,
        10,
        "minRetryRate.count",
    );
    RetryBudget {
        basis_points: percent * 100,
        concurrency_min: 0,
        window: Some(RetryWindow {
            least_count: count,
            ..window
        }),
    }
}
