//! AuthorizationPolicies for Services as CiliumNetworkPolicies of the pods behind them, one for each
//! Service, with the rules of all policies that apply to it (specs/istio-waypoint.md 4.8, specs/policies.md 2.1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ground::{Ground, in_force};
use super::groups::{self, Node};
use super::isolating::{self, OnPort, on_port};
use super::istio_beside::{self, sharing};
use super::istio_rules::{self, Said};
use super::lost_with_the_mesh;
use super::report::{Draft, Outcome, Writing};
use crate::origin::{ObjectKey, Origin};
use crate::resources::istio::AuthorizationPolicySpec;
use crate::resources::{Loaded, Object, TargetRef};
use crate::snapshot::{Action, Policy, Service, Workload};

/// What holds of all that is written.
const REMARKS: [&str; 3] = [
    "Cilium denies whatever else comes to these pods, which policies of Services do not look at: calls to their own addresses, other ports, UDP, ICMP, and HBONE (15008), so that the pods have to leave the mesh first",
    "Cilium takes a client for its pod by the address, and not by a certificate; its labels know no trust domain",
    "a Service that comes later, and leads to these pods, is restricted as they are",
];

/// Writes every policy that can be written.
pub(super) fn translate(ground: &Ground<'_>, out: &mut Writing<'_, '_>) {
    let before = out.written();
    let mut links = BTreeSet::new();
    let mut objects = BTreeMap::new();
    for loaded in ground.resources.authorization_policies.values() {
        let Some(object) = loaded.object() else {
            if let Loaded::Broken(broken) = loaded {
                out.leave(
                    &broken.origin,
                    "",
                    format!("it can not be read: {}", broken.reason),
                );
            }
            continue;
        };
        if let Some((path, why)) = stays(ground, object) {
            out.leave(&object.origin, path, why);
            continue;
        }
        let node = Node::Policy(object.origin.kind, object.origin.key.clone());
        links.insert((node.clone(), node.clone()));
        objects.insert(node, object.clone());
    }
    for service in ground.snapshot.served() {
        for policy in in_force(service) {
            let node = Node::Policy(policy.origin.kind, policy.origin.key.clone());
            links.insert((node, Node::Service(service.key.clone())));
        }
        // Policies of Services with the same pods are united by Cilium.
        for other in sharing(ground, service).filter(|other| in_force(other).next().is_some()) {
            if in_force(service).next().is_some() {
                let (one, other) = (service.key.clone(), other.key.clone());
                links.insert((Node::Service(one), Node::Service(other)));
            }
        }
    }
    for group in groups::together(&links) {
        let services = group.iter().filter_map(|node| match node {
            Node::Service(key) => ground.snapshot.services.get(key),
            Node::Policy(..) => None,
        });
        let policies = group.iter().filter_map(|node| objects.get(node));
        let group = Group {
            ground,
            services: services.map(|service| &**service).collect(),
            objects: policies.collect(),
        };
        let draft = group.draft(out);
        out.take(draft);
    }
    if out.written() > before {
        REMARKS.iter().for_each(|text| out.remark(text));
    }
}

/// Why a policy stays by itself, without a say for others.
fn stays(
    ground: &Ground<'_>,
    object: &Object<AuthorizationPolicySpec>,
) -> Option<(&'static str, &'static str)> {
    let spec = &object.spec;
    let asked = crate::resources::dry_run::asked(object.origin.kind, &object.meta);
    if asked == crate::resources::dry_run::Asked::Yes {
        return Some((
            "metadata.annotations",
            "it is only tried: translate it once it is in force",
        ));
    }
    if spec.action.as_deref() == Some("AUDIT") {
        return Some(("spec.action", "Cilium has no policy that only records"));
    }
    let of_ztunnel = ztunnel(ground, &object.origin);
    (of_ztunnel || targets(spec).next().is_none()).then_some((
        "spec",
        "it is for ztunnel, and about connections to pods: it has no targetRefs",
    ))
}

fn ztunnel(ground: &Ground<'_>, origin: &Origin) -> bool {
    let mut policies = ground.snapshot.ztunnel.iter();
    policies.any(|policy| policy.policy.origin == *origin)
}

fn targets(spec: &AuthorizationPolicySpec) -> impl Iterator<Item = (String, &TargetRef)> {
    let several = spec.target_refs.iter().flatten().enumerate();
    let several = several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    let one = spec
        .target_ref
        .iter()
        .map(|target| ("spec.targetRef".to_owned(), target));
    several.chain(one)
}

/// Policies and Services that belong together.
struct Group<'g, 'a> {
    ground: &'g Ground<'a>,
    services: Vec<&'a Service>,
    objects: Vec<&'g Arc<Object<AuthorizationPolicySpec>>>,
}

/// Where a rule stands: its policy and its path there.
type Written = (ObjectKey, String);

impl<'a> Group<'_, 'a> {
    fn draft(&self, out: &mut Writing<'_, '_>) -> Draft {
        let paths = |spec: &AuthorizationPolicySpec| {
            let rules = spec.rules.iter().flatten().enumerate();
            rules
                .map(|(index, _)| format!("spec.rules[{index}]"))
                .collect()
        };
        let objects = self.objects.iter();
        let sources = objects.map(|o| (o.origin.clone(), paths(&o.spec)));
        let mut draft = Draft::of(sources.collect());
        for object in &self.objects {
            self.check_targets(object, &mut draft);
        }
        if let Some(why) = &self.ground.unread {
            draft.note_of_all(Outcome::NotTranslated, why);
        }
        let mut asked = BTreeSet::new();
        let mut on_pods: BTreeMap<(ObjectKey, u16), (ObjectKey, OnPort)> = BTreeMap::new();
        for service in &self.services {
            let said = self.of_service(service, &mut asked, &mut draft);
            for (pod_port, on_port) in &said {
                for pod in self.ground.pods_of(service) {
                    let place = (pod.key.clone(), *pod_port);
                    match on_pods.get(&place) {
                        Some((_, there)) if there == on_port => {}
                        Some((other, _)) => {
                            let why = format!(
                                "Services {other} and {} lead to port {pod_port} of Pod {} with different policies, which Cilium would unite",
                                service.key, pod.key
                            );
                            draft.note_of_all(Outcome::NotTranslated, &why);
                        }
                        None => drop(on_pods.insert(place, (service.key.clone(), on_port.clone()))),
                    }
                }
            }
            if let Some(selector) = self.selector(service) {
                let policy = isolating::written(service, selector, &said, out);
                draft.objects.push(policy);
            }
        }
        self.tell_of_unasked(&asked, &mut draft);
        draft
    }

    /// Rules for ports that no Service has, and on HTTP where none is spoken: they say nothing there, and
    /// nothing is written for them.
    fn tell_of_unasked(&self, asked: &BTreeSet<(ObjectKey, String)>, draft: &mut Draft) {
        for object in &self.objects {
            for (index, _) in object.spec.rules.iter().flatten().enumerate() {
                let at = format!("spec.rules[{index}]");
                let place = (object.origin.key.clone(), at);
                if !asked.contains(&place) && !draft.has_note(&object.origin, &place.1) {
                    let why = "it is for no port of these Services, or on HTTP for one that is declared TCP: it says nothing, and nothing is written for it";
                    draft.note(&object.origin, place.1, Outcome::Narrower, why);
                }
            }
        }
    }

    /// Every target must be one for which something is written.
    fn check_targets(&self, object: &Object<AuthorizationPolicySpec>, draft: &mut Draft) {
        let origin = &object.origin;
        for (path, target) in targets(&object.spec) {
            let namespace = target.namespace.as_deref().unwrap_or(&origin.key.namespace);
            let key = ObjectKey::new(namespace, target.name.as_str());
            let why = match &*target.kind {
                "Service" => {
                    let service = self.services.iter().find(|service| service.key == key);
                    let applies = service.is_some_and(|s| in_force(s).any(|p| p.origin == *origin));
                    (!applies).then(|| format!("it does not apply to Service {key}: the waypoint does not serve it, or it is not in the input"))
                }
                "Gateway" => {
                    let waypoint = self.ground.snapshot.waypoint.as_ref();
                    match waypoint.filter(|waypoint| waypoint.origin.key == key) {
                        None => Some(format!(
                            "Gateway {key} is not the waypoint that the input is read for"
                        )),
                        Some(waypoint) if waypoint.serves_workloads => Some(
                            "it is for addresses of pods, too, which belong to no Service"
                                .to_owned(),
                        ),
                        Some(_) => None,
                    }
                }
                kind => Some(format!("a target of kind {kind} has no pods of its own")),
            };
            if let Some(why) = why {
                draft.note(origin, path, Outcome::NotTranslated, why);
            }
        }
        if self.services.is_empty() {
            draft.note(
                origin,
                "",
                Outcome::NotTranslated,
                "it applies to no Service that the waypoint serves",
            );
        }
    }

    /// What the policies of a Service say of each port of its pods.
    fn of_service(
        &self,
        service: &'a Service,
        asked: &mut BTreeSet<(ObjectKey, String)>,
        draft: &mut Draft,
    ) -> BTreeMap<u16, OnPort> {
        if let Some(why) = self.ground.unusable(&service.key) {
            draft.note_of_all(Outcome::NotTranslated, &why);
            return BTreeMap::new();
        }
        let pods = self.ground.pods_of(service);
        if let Some(why) = self.not_selected(service, &pods) {
            draft.note_of_all(Outcome::NotTranslated, &why);
        }
        if let Some(other) = self.ground.isolating(&pods) {
            let why = format!(
                "{other} selects pods of Service {}: what it allows and what this allows would be united",
                service.key
            );
            draft.note_of_all(Outcome::NotTranslated, &why);
        }
        lost_with_the_mesh::tell(self.ground, service, &pods, draft);
        let policies: Vec<&Arc<Policy>> = in_force(service).collect();
        let (rules, places) = self.rules(&policies, draft);
        let isolates = policies.iter().any(|policy| policy.action == Action::Allow);
        istio_beside::others(self.ground, service, isolates, draft);
        let mut said: BTreeMap<u16, OnPort> = BTreeMap::new();
        for port in &service.ports {
            let endpoints = self.ground.endpoints(&service.key, port.number).iter();
            let pod_ports: BTreeSet<u16> = endpoints.map(|e| e.address.port()).collect();
            let mut pod_ports = pod_ports.into_iter();
            let (Some(pod_port), None) = (pod_ports.next(), pod_ports.next()) else {
                let why = format!(
                    "port {} of Service {} leads to no port of its pods, or to several",
                    port.number, service.key
                );
                draft.note_of_all(Outcome::NotTranslated, &why);
                continue;
            };
            let on_port = on_port(&rules, port, isolates);
            let said_here = rules.iter().zip(&places);
            let said_here = said_here.filter(|((_, said), _)| said.on(port).is_some());
            asked.extend(said_here.map(|(_, place)| place.clone()));
            match said.get(&pod_port) {
                Some(there) if *there != on_port => {
                    let why = format!(
                        "two ports of Service {} lead to port {pod_port} of its pods with different rules, which Cilium would unite",
                        service.key
                    );
                    draft.note_of_all(Outcome::NotTranslated, &why);
                }
                _ => drop(said.insert(pod_port, on_port)),
            }
        }
        said
    }

    /// The rules of all policies, with what they mean, and where each stands.
    fn rules(
        &self,
        policies: &[&Arc<Policy>],
        draft: &mut Draft,
    ) -> (Vec<(Action, Said)>, Vec<Written>) {
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for policy in policies {
            let origin = &policy.origin;
            if let Some(why) = &policy.broken {
                draft.note(
                    origin,
                    "",
                    Outcome::NotTranslated,
                    format!("it is in error: {why}"),
                );
            }
            if policy.action == Action::Custom {
                draft.note(
                    origin,
                    "spec.action",
                    Outcome::NotTranslated,
                    "Cilium asks no provider",
                );
            }
            for (index, rule) in policy.rules.iter().enumerate() {
                let at = format!("spec.rules[{index}]");
                if let Some(why) = &rule.broken {
                    draft.note(
                        origin,
                        at.as_str(),
                        Outcome::NotTranslated,
                        format!("it is in error: {why}"),
                    );
                }
                let mut notes = Vec::new();
                let said = istio_rules::read(rule, &self.ground.snapshot.mesh, &mut notes);
                let denies = policy.action == Action::Deny;
                if denies && !said.is_of_connections() {
                    let why = "Cilium denies connections, and no requests";
                    draft.note(origin, at.as_str(), Outcome::NotTranslated, why);
                }
                for (path, outcome, why) in notes {
                    let path = [at.as_str(), &path].join(if path.is_empty() { "" } else { "." });
                    // To leave out something of a denial allows it.
                    let outcome = if denies {
                        Outcome::NotTranslated
                    } else {
                        outcome
                    };
                    draft.note(origin, path, outcome, why);
                }
                istio_beside::strangers(self.ground, origin, &at, &said, denies, draft);
                all.push((policy.action, said));
                places.push((origin.key.clone(), at));
            }
        }
        (all, places)
    }

    /// Why the Service's selector does not select just the pods behind it.
    fn not_selected(&self, service: &Service, pods: &[&Arc<Workload>]) -> Option<String> {
        let key = &service.key;
        let Some(selector) = self.selector(service) else {
            return Some(format!(
                "Service {key} has no selector, and a policy needs one"
            ));
        };
        let selected = |pod: &&&Arc<Workload>| {
            pod.key.namespace == key.namespace
                && selector.iter().all(|(k, v)| pod.label(k) == Some(v))
        };
        let other = pods.iter().find(|pod| !selected(pod))?;
        Some(format!(
            "Pod {} behind Service {key} is not selected by the Service's selector",
            other.key
        ))
    }

    fn selector(&self, service: &Service) -> Option<&'a [(Arc<str>, Arc<str>)]> {
        let written = self.ground.resources.services.get(&service.key)?.object()?;
        written
            .spec
            .has_selector()
            .then_some(&*written.spec.selector)
    }
}
