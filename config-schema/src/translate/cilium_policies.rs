//! CiliumNetworkPolicies as AuthorizationPolicies: one for each Service that leads to the pods they
//! select, with the rules of all of them for its own ports, and one for the pods themselves, whom then
//! the waypoint alone may reach (specs/policies.md 2.1, specs/istio-waypoint.md 4.8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::cilium_refused::refused;
use super::cilium_rules::{self, Rule};
use super::closing;
use super::ground::{Ground, is_cilium_ingress, view};
use super::groups::{self, Node};
use super::report::{Draft, Outcome, Writing};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::cilium::CiliumRule;
use crate::resources::{Loaded, Meta};
use crate::snapshot::{
    Binding, ClusterKey, NetworkAction, NetworkPolicy, NetworkRule, NetworkSubject, PortSet,
    Selecting, Service, Surface, Truth, Workload, World,
};

/// What holds of all that is written.
const REMARKS: [&str; 3] = [
    "a pod lets in the waypoint alone, so that calls to its own address, and those of Services and gateways that do not use the waypoint, are denied",
    "UDP, SCTP and ICMP, which Cilium denies by default, are not the mesh's business: keep a policy of the CNI for them",
    "a Service or namespace that comes later is not among those for which this was written: translate again before it leads to these pods",
];

/// Writes every policy that can be written.
pub(super) fn translate(ground: &Ground<'_>, out: &mut Writing<'_, '_>) {
    let before = out.written();
    let mut links = BTreeSet::new();
    let mut subjects = BTreeMap::new();
    for subject in Subject::all(ground, out) {
        let node = Node::Policy(subject.origin.kind, subject.origin.key.clone());
        let ways = subject.pods.iter().flat_map(|pod| ground.ways(&pod.key));
        for service in ways.map(|way| way.service.clone()) {
            links.insert((node.clone(), Node::Service(service)));
        }
        // One that leads to nothing is alone.
        links.insert((node.clone(), node.clone()));
        subjects.insert(node, subject);
    }
    for group in groups::together(&links) {
        let services = group.iter().filter_map(|node| match node {
            Node::Service(key) => Some(key.clone()),
            Node::Policy(..) => None,
        });
        let subjects = group.iter().filter_map(|node| subjects.get(node));
        let group = Group {
            ground,
            services: services.collect(),
            subjects: subjects.collect(),
        };
        let draft = group.draft(out);
        out.take(draft);
    }
    if out.written() > before {
        REMARKS.iter().for_each(|text| out.remark(text));
    }
}

/// One object, its part for ingress.
struct Subject<'a> {
    origin: &'a Origin,
    halves: Vec<&'a Selecting>,
    pods: Vec<&'a Arc<Workload>>,
    /// What can not be translated, and where it stands.
    refused: Vec<(String, String)>,
}

impl<'a> Subject<'a> {
    /// Those in force. Of the others it is told at once that they stay.
    fn all(ground: &Ground<'a>, out: &mut Writing<'_, '_>) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |origin: &'a Origin, meta: &Meta, rules: &[(String, CiliumRule)]| {
            let asked = crate::resources::dry_run::asked(origin.kind, meta);
            if asked == crate::resources::dry_run::Asked::Yes {
                return out.leave(
                    origin,
                    "metadata.annotations",
                    "it is only tried: translate it once it is in force",
                );
            }
            all.push(Self::new(ground, origin, rules));
        };
        for loaded in ground.resources.cilium_policies.values() {
            if let Loaded::Good(o) | Loaded::KeptLastGood(o) = loaded {
                add(&o.origin, &o.meta, &o.spec.rules);
            }
        }
        for loaded in ground.resources.cilium_clusterwide_policies.values() {
            if let Loaded::Good(o) | Loaded::KeptLastGood(o) = loaded {
                add(&o.origin, &o.meta, &o.spec.0.rules);
            }
        }
        all
    }

    fn new(ground: &Ground<'a>, origin: &'a Origin, rules: &[(String, CiliumRule)]) -> Self {
        let all = ground.snapshot.network.all.iter();
        let halves = all.filter(|s| s.policy.origin == *origin && is_cilium_ingress(s));
        let mut subject = Self {
            origin,
            halves: halves.collect(),
            pods: Vec::new(),
            refused: rules
                .iter()
                .flat_map(|(at, rule)| refused(rule, at))
                .collect(),
        };
        for pod in ground.snapshot.workloads.values() {
            let selects = subject.halves.iter().map(|half| half.selects(&view(pod)));
            match selects.max() {
                Some(Truth::Yes) if !pod.host_network => subject.pods.push(pod),
                Some(Truth::Unknown) => {
                    let why = format!("it is not known whether it selects Pod {}", pod.key);
                    subject.refused.push((String::new(), why));
                }
                _ => {}
            }
        }
        subject.pods.sort_by(|a, b| a.key.cmp(&b.key));
        subject.pods.dedup_by(|a, b| a.key == b.key);
        if let Some(why) = subject.halves.iter().find_map(|h| h.policy.broken.as_ref()) {
            subject
                .refused
                .push((String::new(), format!("it is in error: {why}")));
        }
        if subject.halves.iter().any(|half| !half.policy.default_deny) {
            let why = "an AuthorizationPolicy that allows something denies all else".to_owned();
            subject.refused.push(("spec.enableDefaultDeny".into(), why));
        }
        if subject.pods.is_empty() {
            subject
                .refused
                .push((String::new(), "it selects no Pod of the input".into()));
        }
        subject
    }

    /// The paths of its rules.
    fn paths(&self) -> Vec<String> {
        let rules = self.halves.iter().flat_map(|half| &half.policy.rules);
        rules.map(|rule| rule.path.to_string()).collect()
    }
}

/// Policies and Services that belong together.
struct Group<'g, 'a> {
    ground: &'g Ground<'a>,
    services: Vec<ObjectKey>,
    subjects: Vec<&'g Subject<'a>>,
}

impl<'a> Group<'_, 'a> {
    fn draft(&self, out: &mut Writing<'_, '_>) -> Draft {
        let mut draft = Draft::of(
            self.subjects
                .iter()
                .map(|s| (s.origin.clone(), s.paths()))
                .collect(),
        );
        for subject in &self.subjects {
            for (path, why) in &subject.refused {
                draft.note(
                    subject.origin,
                    path.as_str(),
                    Outcome::NotTranslated,
                    why.as_str(),
                );
            }
        }
        let served: Vec<&'a Service> = self
            .services
            .iter()
            .filter_map(|key| self.served(key, &mut draft))
            .collect();
        if served.is_empty() {
            draft.note_of_all(
                Outcome::NotTranslated,
                "no Service that the waypoint serves leads to the pods it selects",
            );
        }
        for service in served {
            let policy = self.of_service(service, &mut draft, out);
            draft.objects.push(policy);
        }
        for subject in &self.subjects {
            closing::close(
                self.ground,
                subject.origin,
                &subject.halves,
                &subject.pods,
                &mut draft,
                out,
            );
        }
        draft
    }

    /// A Service for which a policy is written.
    fn served(&self, key: &ObjectKey, draft: &mut Draft) -> Option<&'a Service> {
        let service = self.ground.snapshot.services.get(key)?;
        if service.binding != Binding::Served {
            let why = format!(
                "the waypoint does not serve Service {key}, which leads to these pods, and whoever uses it would be denied"
            );
            draft.note_of_all(Outcome::Narrower, &why);
            return None;
        }
        if let Some(why) = self.ground.unusable(key) {
            draft.note_of_all(Outcome::NotTranslated, &why);
        }
        if let Some(policy) = self.ground.allowing(service) {
            let why = format!(
                "{} allows requests to Service {key}: one more ALLOW policy would allow what either of them does",
                policy.origin
            );
            draft.note_of_all(Outcome::NotTranslated, &why);
        }
        Some(service)
    }

    /// The policy of one Service: what all policies of its pods say of its ports.
    fn of_service(&self, service: &Service, draft: &mut Draft, out: &mut Writing<'_, '_>) -> Value {
        let mut rules: Vec<(Rule, BTreeSet<u16>)> = Vec::new();
        for port in &service.ports {
            for rule in self.of_port(service, port.number, draft) {
                match rules.iter_mut().find(|(there, _)| *there == rule) {
                    Some((_, ports)) => drop(ports.insert(port.number)),
                    None => rules.push((rule, BTreeSet::from([port.number]))),
                }
            }
        }
        let (namespace, name) = (&service.key.namespace, &service.key.name);
        let mut spec = Map::new();
        let target = json!({"group": "", "kind": "Service", "name": name});
        spec.insert("targetRefs".into(), json!([target]));
        spec.insert("action".into(), json!("ALLOW"));
        // Without rules it allows nothing.
        if !rules.is_empty() {
            let rules: Vec<Value> = rules
                .into_iter()
                .map(|(rule, ports)| rule.written(&ports))
                .collect();
            spec.insert("rules".into(), json!(rules));
        }
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {
                "name": out.fresh_name(Kind::AuthorizationPolicy, namespace, name),
                "namespace": namespace,
            },
            "spec": spec,
        })
    }

    fn of_port(&self, service: &Service, port: u16, draft: &mut Draft) -> Vec<Rule> {
        let key = ClusterKey::new(service.key.clone(), port);
        let subjects = self.ground.snapshot.network.clusters.get(&key);
        let subjects = subjects.map_or(&[][..], |subjects| &subjects[..]);
        let mut found: Vec<Vec<Rule>> = Vec::new();
        for subject in subjects {
            if let Some(why) = &subject.unknown {
                draft.note_of_all(Outcome::NotTranslated, why);
            }
            let policies = policies(subject);
            if !policies.is_empty() {
                found.push(self.of_subject(&policies, subject.port, draft));
            }
        }
        let Some(first) = found.first() else {
            // None of the pods is selected: everybody may call this port.
            return vec![Rule::default()];
        };
        if found.iter().any(|other| other != first) {
            let why = format!(
                "the pods behind port {port} of Service {} have different policies, and a Service has one",
                service.key
            );
            draft.note_of_all(Outcome::NotTranslated, &why);
        }
        let endpoints = self.ground.endpoints(&service.key, port).iter();
        let mut pods = endpoints.filter_map(|endpoint| endpoint.workload.as_ref());
        let selected = |pod: &&Arc<Workload>| {
            let mut subjects = self.subjects.iter();
            subjects.any(|s| s.pods.iter().any(|p| p.key == pod.key))
        };
        if let Some(pod) = pods.find(|pod| !selected(pod)) {
            let why = format!(
                "Pod {} behind Service {} is selected by no policy, and would be restricted as the others are",
                pod.key, service.key
            );
            draft.note_of_all(Outcome::Narrower, &why);
        }
        first.clone()
    }

    /// What policies say of a port of the pods.
    fn of_subject(
        &self,
        policies: &[&Arc<NetworkPolicy>],
        port: Option<u16>,
        draft: &mut Draft,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        for policy in policies {
            if let Some(why) = &policy.broken {
                let why = format!("{} is in error: {why}", policy.origin);
                draft.note_of_all(Outcome::NotTranslated, &why);
            }
            let for_port = |rule: &&NetworkRule| match (&rule.ports, port) {
                (None, _) => true,
                (Some(sets), Some(port)) => sets.iter().any(|set| holds(set, port)),
                (Some(_), None) => false,
            };
            let allows = |rule: &&NetworkRule| rule.action == NetworkAction::Allow;
            for rule in policy.rules.iter().filter(allows).filter(for_port) {
                for rule in cilium_rules::of_rule(self.ground, &policy.origin, rule, draft) {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
        }
        rules
    }
}

/// Cilium's policies of a subject that are in force.
fn policies(subject: &NetworkSubject) -> Vec<&Arc<NetworkPolicy>> {
    let policies = subject.policies.iter();
    let own = policies.filter(|p| p.surface == Surface::Cilium && p.standing.is_in(World::InForce));
    own.collect()
}

fn holds(set: &PortSet, port: u16) -> bool {
    match set {
        PortSet::Range(first, last) => (*first..=*last).contains(&port),
        // Names were replaced by numbers when the pod was known.
        PortSet::Named(_) => false,
        PortSet::Not(sets) => !sets.iter().any(|set| holds(set, port)),
    }
}
