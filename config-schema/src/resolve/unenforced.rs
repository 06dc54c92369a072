//! Which L7 policies are not enforced as they are written, and strict mode: the services they are for
//! refuse traffic in place of going on without them (issue 4 item 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::Findings;
use super::policy_rules;
use super::policy_targets::Targets;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::dry_run::{Asked, asked};
use crate::resources::{Loaded, Object, Resources, TargetRef};
use crate::snapshot::{
    Action, Authentications, Binding, ClusterKey, Endpoint, LabelExpression, LabelView, Mesh,
    NetworkPolicies, NetworkPolicy, Policy, Service, Standing, Truth, Unenforced, UnenforcedReason,
    Waypoint, World,
};

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
    /// Every policy that is not enforced as it is written, each with each reason once. One that is only
    /// tried is not to be enforced.
    pub fn policies(&self) -> Vec<Unenforced> {
        let mut found = Vec::new();
        for loaded in self.resources.authorization_policies.values() {
            if is_tried(loaded, self.resources) {
                continue;
            }
            self.loaded(loaded, &mut found);
            let Some(object) = loaded.object() else {
                continue;
            };
            let spec = &object.spec;
            let targets = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            self.targets(object, targets, &mut found);
            let no_target = spec.target_ref.is_none()
                && spec.target_refs.as_ref().is_none_or(|refs| refs.is_empty());
            // AUDIT changes no answer, whoever takes it.
            let refuses = spec.action.as_deref() != Some("AUDIT");
            if no_target && refuses && policy_rules::uses_http(spec) {
                let labels = spec.selector.iter().flat_map(|s| &s.match_labels);
                found.push(self.by_selector(object, labels));
            }
        }
        for loaded in self.resources.request_authentications.values() {
            if is_tried(loaded, self.resources) {
                continue;
            }
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
        self.network(&self.resources.cilium_policies, &mut found);
        self.network(&self.resources.cilium_clusterwide_policies, &mut found);
        self.network(&self.resources.calico_policies, &mut found);
        self.network(&self.resources.calico_global_policies, &mut found);
        self.broken_network(&mut found);
        found.dedup_by(|a, b| a.origin == b.origin && a.reason == b.reason);
        found
    }

    /// Network policies of which a part can not be read or means nothing: what the part is for is denied,
    /// at either end.
    fn broken_network(&self, found: &mut Vec<Unenforced>) {
        let behind = self.network.clusters.values().flat_map(|s| s.iter());
        let clients = self.network.egress.subjects().map(|subject| &**subject);
        let all = behind.chain(self.network.workloads.values()).chain(clients);
        let mut broken: BTreeMap<(Kind, &ObjectKey), &NetworkPolicy> = BTreeMap::new();
        for policy in all.flat_map(|subject| &subject.policies) {
            if policy.broken.is_some() && policy.standing.is_in(World::InForce) {
                let origin = &policy.origin;
                broken.insert((origin.kind, &origin.key), policy);
            }
        }
        for policy in broken.into_values() {
            if !found.iter().any(|there| there.origin == policy.origin) {
                found.push(Unenforced {
                    origin: policy.origin.clone(),
                    location: None,
                    reason: UnenforcedReason::Unreadable,
                    services: self.with(&policy.origin),
                });
            }
        }
    }

    /// Network policies that can not be read.
    fn network<T>(&self, kind: &BTreeMap<ObjectKey, Loaded<T>>, found: &mut Vec<Unenforced>) {
        for loaded in kind.values().filter(|l| !is_tried(l, self.resources)) {
            self.loaded(loaded, found);
        }
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
                pod: workload.and_then(|w| w.labels.as_deref()),
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

/// Whether a policy is only to be tried, as its present text says. Where that can not be read whole its
/// annotation may still say so.
fn is_tried<T>(loaded: &Loaded<T>, resources: &Resources) -> bool {
    match loaded {
        Loaded::Good(object) => asked(object.origin.kind, &object.meta) == Asked::Yes,
        Loaded::KeptLastGood(object) => resources.kept_to_be_tried.contains(&object.origin),
        Loaded::Broken(broken) => broken.dry_run,
    }
}

/// Network policies that are in force in another version than is written.
#[derive(Default)]
pub(super) struct Outdated(FxHashSet<Origin>);

impl Outdated {
    /// Those that are to be refused: all of them in strict mode, else none.
    pub fn refused(resources: &Resources, strict: bool) -> Self {
        let mut outdated = Self::default();
        if !strict {
            return outdated;
        }
        outdated.add(&resources.cilium_policies, resources);
        outdated.add(&resources.cilium_clusterwide_policies, resources);
        outdated.add(&resources.calico_policies, resources);
        outdated.add(&resources.calico_global_policies, resources);
        outdated
    }

    fn add<T>(&mut self, kind: &BTreeMap<ObjectKey, Loaded<T>>, resources: &Resources) {
        let kept = kind.values().filter(|l| !is_tried(l, resources));
        self.0.extend(kept.filter_map(|loaded| match loaded {
            Loaded::KeptLastGood(object) => Some(object.origin.clone()),
            _ => None,
        }));
    }

    /// Strict mode: such a policy denies whatever it selects, at either end (specs/policies.md 2.4), and
    /// so it can not be done by what a service has.
    pub fn refuse(&self, policy: &mut Arc<NetworkPolicy>) {
        if self.0.contains(&policy.origin) {
            let message = message(&policy.origin, UnenforcedReason::KeptLastGood);
            let policy = Arc::make_mut(policy);
            // What was tried may be in force by what is written.
            policy.standing = Standing::InForce;
            policy.default_deny = true;
            policy.broken = Some(message.into());
        }
    }
}

fn message(origin: &Origin, reason: UnenforcedReason) -> String {
    format!("strict mode: {origin} {}", reason.words())
}

/// Strict mode: what a policy that is not enforced is for refuses everything.
pub(super) fn refuse(unenforced: &[Unenforced], services: &mut Services, findings: &mut Findings) {
    for policy in unenforced {
        let effect = match (is_of_network(policy), policy.reason) {
            // Of one that can not be read that was told.
            (true, UnenforcedReason::KeptLastGood) => {
                "everything for the workloads that it selects and from them is refused".to_owned()
            }
            (true, _) => continue,
            (false, _) if policy.services.is_empty() => continue,
            (false, _) => {
                refuse_services(policy, services);
                let names: Vec<String> = policy.services.iter().map(ToString::to_string).collect();
                format!("everything for {} is refused", names.join(", "))
            }
        };
        let text = message(&policy.origin, policy.reason);
        let finding = Diagnostic::error(Code::NotEnforced, text)
            .with_effect(effect)
            .with_hint("mend or remove the policy")
            .at(policy.location.clone())
            .of(policy.origin.clone(), "");
        findings.push(finding);
    }
}

fn is_of_network(policy: &Unenforced) -> bool {
    !matches!(
        policy.origin.kind,
        Kind::AuthorizationPolicy | Kind::RequestAuthentication
    )
}

fn refuse_services(policy: &Unenforced, services: &mut Services) {
    let refusing = Arc::new(Policy {
        origin: policy.origin.clone(),
        action: Action::Deny,
        dry_run: false,
        rules: Vec::new(),
        broken: Some(message(&policy.origin, policy.reason).into()),
        provider: None,
    });
    for key in &policy.services {
        if let Some(service) = services.get_mut(key) {
            service.policies.push(refusing.clone());
        }
    }
}
