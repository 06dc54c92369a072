//! CiliumNetworkPolicies as AuthorizationPolicies: one for each Service that leads to the pods they
//! select, with the rules of all of them for its own ports, and one for the pods themselves, whom then
//! the waypoint alone may reach (specs/policies.md 2.1, specs/istio-waypoint.md 4.8).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::cilium_rules::{self, Rule};
use super::cilium_subject::Subject;
use super::closing;
use super::ground::Ground;
use super::groups::{self, Node};
use super::report::{Draft, Outcome, Writing};
use crate::origin::{Kind, ObjectKey};
use crate::snapshot::{
    AppProtocol, Binding, ClusterKey, NetworkAction, NetworkPolicy, NetworkRule, NetworkSubject,
    PortSet, Service, ServicePort, Surface, Workload, World,
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
        for pod in &subject.pods {
            for service in ground.behind.services(&pod.key) {
                links.insert((node.clone(), Node::Service(service.clone())));
            }
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
            reached: RefCell::default(),
        };
        let draft = group.draft(out);
        out.take(draft);
    }
    if out.written() > before {
        REMARKS.iter().for_each(|text| out.remark(text));
    }
}

/// Policies and Services that belong together.
struct Group<'g, 'a> {
    ground: &'g Ground<'a>,
    services: Vec<ObjectKey>,
    subjects: Vec<&'g Subject<'a>>,
    /// Ports of pods that Services lead to, by the policy that was asked about them.
    reached: RefCell<BTreeMap<(Kind, ObjectKey), BTreeSet<u16>>>,
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
        if let Some(why) = &self.ground.unread {
            draft.note_of_all(Outcome::NotTranslated, why);
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
        self.tell_of_unreached(&mut draft);
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

    /// Rules for ports that no Service of the waypoint leads to: nobody is let in there any more.
    fn tell_of_unreached(&self, draft: &mut Draft) {
        let reached = self.reached.borrow();
        for subject in &self.subjects {
            let key = (subject.origin.kind, subject.origin.key.clone());
            let ports = reached.get(&key);
            let leads_to = |set: &PortSet| {
                let mut ports = ports.into_iter().flatten();
                ports.any(|port| holds(set, *port))
            };
            for rule in subject.halves.iter().flat_map(|half| &half.policy.rules) {
                let whole = match &rule.ports {
                    None => ports.is_some(),
                    Some(sets) => sets.iter().all(leads_to),
                };
                if !whole {
                    let why = "it is for a port that no Service of the waypoint leads to, and where nobody is let in any more";
                    draft.note(subject.origin, &*rule.path, Outcome::Narrower, why);
                }
            }
        }
    }

    /// A Service for which a policy is written.
    fn served(&self, key: &ObjectKey, draft: &mut Draft) -> Option<&'a Service> {
        let service = self.ground.snapshot.services.get(key)?;
        if service.binding != Binding::Served {
            let why = format!(
                "the waypoint does not serve Service {key}, which leads to these pods, and whoever uses it would be denied"
            );
            draft.note_of_all(Outcome::NotTranslated, &why);
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
            for rule in self.of_port(service, port, draft) {
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

    fn of_port(&self, service: &Service, port: &ServicePort, draft: &mut Draft) -> Vec<Rule> {
        let is_tcp = port.protocol == AppProtocol::Tcp;
        let port = port.number;
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
                found.push(self.of_subject(&policies, subject.port, is_tcp, draft));
            }
        }
        let Some(first) = found.first() else {
            let why = format!(
                "no policy selects a pod behind port {port} of Service {}",
                service.key
            );
            draft.note_of_all(Outcome::NotTranslated, &why);
            return Vec::new();
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
        is_tcp: bool,
        draft: &mut Draft,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        for policy in policies {
            let key = (policy.origin.kind, policy.origin.key.clone());
            self.reached
                .borrow_mut()
                .entry(key)
                .or_default()
                .extend(port);
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
                let at = &*rule.path;
                for rule in cilium_rules::of_rule(self.ground, &policy.origin, rule, draft) {
                    // Istio drops a rule on HTTP where the port is declared to be none.
                    if is_tcp && rule.asks_for_http() {
                        let why = "the port of the Service is declared TCP, where a rule on HTTP allows nothing";
                        draft.note(&policy.origin, at, Outcome::Narrower, why);
                        continue;
                    }
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
