//! Which L7 policies are not enforced as they are written, and strict mode: the services they are for
//! refuse traffic in place of going on without them (issue 4 item 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use super::policy_rules;
use super::policy_targets::Targets;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{ObjectKey, Origin};
use crate::resources::{Loaded, Object, Resources, TargetRef};
use crate::snapshot::{
    Action, Authentications, Binding, ClusterKey, Endpoint, LabelExpression, LabelView, Mesh,
    NetworkPolicies, Policy, Service, Truth, Unenforced, UnenforcedReason, Waypoint,
};

const DRY_RUN: &str = "istio.io/dry-run";

type Services = BTreeMap<ObjectKey, Service>;

/// What policies were attached to.
pub(super) struct Attached<'a> {
    pub resources: &'a Resources,
    pub mesh: &'a Mesh,
    pub waypoint: Option<&'a Waypoint>,
    pub services: &'a Services,
    pub clusters: &'a BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    pub authentications: &'a Authentications,
    pub network: &'a NetworkPolicies,
}

impl Attached<'_> {
    /// Every policy that is not enforced as it is written, each with each reason once.
    pub fn policies(&self) -> Vec<Unenforced> {
        let mut found = Vec::new();
        for loaded in self.resources.authorization_policies.values() {
            self.loaded(loaded, &mut found);
            let Some(object) = loaded.object() else {
                continue;
            };
            let spec = &object.spec;
            let targets = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            self.targets(object, targets, &mut found);
            let no_target = spec.target_ref.is_none()
                && spec.target_refs.as_ref().is_none_or(|refs| refs.is_empty());
            let dry_run = object.meta.annotations.get(DRY_RUN);
            let enforced = dry_run.is_none_or(|value| **value != *"true");
            if no_target && enforced && policy_rules::uses_http(spec) {
                let labels = spec.selector.iter().flat_map(|s| &s.match_labels);
                found.push(self.by_selector(object, labels));
            }
        }
        for loaded in self.resources.request_authentications.values() {
            self.loaded(loaded, &mut found);
            let Some(object) = loaded.object() else {
                continue;
            };
            let spec = &object.spec;
            let targets = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            self.targets(object, targets, &mut found);
            let no_target = spec.target_ref.is_none()
                && spec.target_refs.as_ref().is_none_or(|refs| refs.is_empty());
            if no_target {
                let labels = spec.selector.iter().flat_map(|s| &s.match_labels);
                found.push(self.by_selector(object, labels));
            }
        }
        for loaded in self.resources.cilium_policies.values() {
            self.loaded(loaded, &mut found);
        }
        for loaded in self.resources.cilium_clusterwide_policies.values() {
            self.loaded(loaded, &mut found);
        }
        for loaded in self.resources.calico_policies.values() {
            self.loaded(loaded, &mut found);
        }
        for loaded in self.resources.calico_global_policies.values() {
            self.loaded(loaded, &mut found);
        }
        found.dedup_by(|a, b| a.origin == b.origin && a.reason == b.reason);
        found
    }

    /// What can not be read.
    fn loaded<T>(&self, loaded: &Loaded<T>, found: &mut Vec<Unenforced>) {
        let (origin, location, reason) = match loaded {
            Loaded::Good(_) => return,
            Loaded::KeptLastGood(object) => (
                &object.origin,
                object.place.locate(""),
                UnenforcedReason::KeptLastGood,
            ),
            Loaded::Broken(broken) => (
                &broken.origin,
                broken.location.clone(),
                UnenforcedReason::Unreadable,
            ),
        };
        found.push(Unenforced {
            origin: origin.clone(),
            location,
            reason,
            services: self.with(origin),
        });
    }

    /// The served services that have a policy.
    fn with(&self, origin: &Origin) -> Vec<ObjectKey> {
        let has = |service: &&Service| {
            let tokens = self.authentications.of_service(&service.key);
            service.policies.iter().any(|p| p.origin == *origin)
                || tokens.iter().any(|a| a.origin == *origin)
                || service.ports.iter().any(|port| {
                    let key = ClusterKey::new(service.key.clone(), port.number);
                    let subjects = self.network.clusters.get(&key);
                    let mut subjects = subjects.iter().flat_map(|s| s.iter());
                    subjects.any(|s| s.policies.iter().any(|p| p.origin == *origin))
                })
        };
        self.served().filter(has).map(|s| s.key.clone()).collect()
    }

    fn served(&self) -> impl Iterator<Item = &Service> {
        let served = |service: &&Service| service.binding == Binding::Served;
        self.services.values().filter(served)
    }

    /// Targets that lead to nothing here, for a reason that is nobody else's business.
    fn targets<'t, T>(
        &self,
        object: &Object<T>,
        targets: impl Iterator<Item = &'t TargetRef>,
        found: &mut Vec<Unenforced>,
    ) {
        let places = Targets {
            resources: self.resources,
            mesh: self.mesh,
            waypoint: self.waypoint,
            services: self.services,
        };
        for target in targets {
            // What is wrong was told when the policy was attached.
            let mut told = Findings::new();
            if places.follow(object, "", target, &mut told).is_some() {
                continue;
            }
            let reason = match told.first().map(|finding| finding.code) {
                Some(Code::TargetNotFound) => UnenforcedReason::TargetNotFound,
                Some(Code::NotEnforced) => UnenforcedReason::NoWaypoint,
                Some(Code::NotAttached) => UnenforcedReason::WrongNamespace,
                Some(Code::Unsupported) => UnenforcedReason::Unsupported,
                // Another waypoint's.
                _ => continue,
            };
            found.push(Unenforced {
                origin: object.origin.clone(),
                location: object.place.locate(""),
                reason,
                services: Vec::new(),
            });
        }
    }

    /// A policy on HTTP that selects pods: for the services they are behind. Of an endpoint without a
    /// known pod it counts as selected.
    fn by_selector<'l, T>(
        &self,
        object: &Object<T>,
        labels: impl Iterator<Item = (&'l String, &'l String)>,
    ) -> Unenforced {
        let labels = labels.map(|(k, v)| LabelExpression::equals(k.as_str(), v.as_str()));
        let selector = LabelExpression::All(labels.collect());
        let namespace = &object.origin.key.namespace;
        let of_mesh = *namespace == self.mesh.root_namespace;
        let selects = |endpoint: &Endpoint| {
            let workload = endpoint.workload.as_ref();
            let view = LabelView {
                pod: workload.map(|w| &*w.labels),
                ..LabelView::default()
            };
            selector.holds(&|key| view.of_pod(key)) != Truth::No
        };
        let is_for = |service: &&Service| {
            (of_mesh || service.key.namespace == *namespace)
                && service.ports.iter().any(|port| {
                    let key = ClusterKey::new(service.key.clone(), port.number);
                    let endpoints = self.clusters.get(&key);
                    endpoints.is_some_and(|endpoints| endpoints.iter().any(selects))
                })
        };
        let services = self.served().filter(is_for).map(|s| s.key.clone());
        Unenforced {
            origin: object.origin.clone(),
            location: object.place.locate(""),
            reason: UnenforcedReason::NotForWaypoint,
            services: services.collect(),
        }
    }
}

/// Strict mode: what a policy that is not enforced is for refuses everything.
pub(super) fn refuse(unenforced: &[Unenforced], services: &mut Services, findings: &mut Findings) {
    for policy in unenforced.iter().filter(|p| !p.services.is_empty()) {
        let Unenforced { origin, reason, .. } = policy;
        let message = format!("strict mode: {origin} {}", reason.words());
        let refusing = Arc::new(Policy {
            origin: origin.clone(),
            action: Action::Deny,
            dry_run: false,
            rules: Vec::new(),
            broken: Some(message.as_str().into()),
            provider: None,
        });
        for key in &policy.services {
            if let Some(service) = services.get_mut(key) {
                service.policies.push(refusing.clone());
            }
        }
        let names: Vec<String> = policy.services.iter().map(ToString::to_string).collect();
        let finding = Diagnostic::error(Code::NotEnforced, message)
            .with_effect(format!("everything for {} is refused", names.join(", ")))
            .with_hint("mend or remove the policy")
            .at(policy.location.clone())
            .of(origin.clone(), "");
        findings.push(finding);
    }
}
