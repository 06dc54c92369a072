//! The CiliumNetworkPolicies that are translated, each with the pods it selects, and what keeps it from being
//! written: of its own, and beside it. Writes nothing.

use std::sync::Arc;

use super::behind::label_to_come;
use super::cilium_refused::refused;
use super::ground::{Ground, is_cilium_ingress, view};
use super::report::Writing;
use crate::origin::Origin;
use crate::resources::cilium::CiliumRule;
use crate::resources::{Loaded, Meta};
use crate::snapshot::{Binding, Direction, LabelView, Selecting, Truth, Workload};

/// One object, its part for ingress.
pub(super) struct Subject<'a> {
    pub origin: &'a Origin,
    pub halves: Vec<&'a Selecting>,
    pub pods: Vec<&'a Arc<Workload>>,
    /// What can not be translated, and where it stands.
    pub refused: Vec<(String, String)>,
}

impl<'a> Subject<'a> {
    /// Those in force. Of the others it is told at once that they stay.
    pub fn all(ground: &Ground<'a>, out: &mut Writing<'_, '_>) -> Vec<Self> {
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
        let mut broken = Vec::new();
        for loaded in ground.resources.cilium_policies.values() {
            match loaded {
                Loaded::Good(o) | Loaded::KeptLastGood(o) => add(&o.origin, &o.meta, &o.spec.rules),
                Loaded::Broken(unread) => broken.push(unread),
            }
        }
        for loaded in ground.resources.cilium_clusterwide_policies.values() {
            match loaded {
                Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                    add(&o.origin, &o.meta, &o.spec.0.rules);
                }
                Loaded::Broken(unread) => broken.push(unread),
            }
        }
        for unread in broken {
            let why = format!("it can not be read: {}", unread.reason);
            out.leave(&unread.origin, "", why);
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
        let pods = ground.snapshot.workloads.values();
        for pod in pods.filter(|pod| ground.is_pod(pod)) {
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
        subject.refuse_beside(ground);
        subject
    }

    /// What keeps it from being written that is not its own.
    fn refuse_beside(&mut self, ground: &Ground<'a>) {
        let mut refuse = |path: &str, why: String| self.refused.push((path.to_owned(), why));
        let mut all = ground.snapshot.network.all.iter();
        let own = |s: &&Selecting| s.policy.origin == *self.origin;
        if all.any(|s| own(&s) && s.policy.direction != Direction::Ingress) {
            refuse("", "it says what these pods may reach, too".to_owned());
        }
        // United with it by Cilium, and asked after it by a waypoint.
        if let Some(other) = ground.isolating_of_kubernetes(&self.pods) {
            refuse(
                "",
                format!("{other} selects pods of it: Cilium allows what either allows"),
            );
        }
        let selects = |view: &LabelView<'_>| {
            let halves = self.halves.iter().map(|half| half.selects(view));
            Truth::any(halves) != Truth::No
        };
        let mut late = ground.unaddressed();
        if let Some((pod, _)) = late.find(|(_, view)| selects(view)) {
            refuse(
                "",
                format!("Pod {pod} has no address yet: translate once it is ready"),
            );
        }
        for key in ground.behind.without_pods() {
            let served = ground.snapshot.services.get(key);
            let object = ground.resources.services.get(key).and_then(Loaded::object);
            let (Some(Binding::Served), Some(object)) = (served.map(|s| &s.binding), object) else {
                continue;
            };
            let label = |name: &str| label_to_come(&object.spec.selector, &key.namespace, name);
            let halves = self.halves.iter().map(|half| half.selector.holds(&label));
            if Truth::any(halves) != Truth::No {
                let why = "has no pods now, and may have some of it, which would be left open: translate once it has";
                refuse("", format!("Service {key} {why}"));
            }
        }
    }

    /// The paths of its rules.
    pub fn paths(&self) -> Vec<String> {
        let rules = self.halves.iter().flat_map(|half| &half.policy.rules);
        rules.map(|rule| rule.path.to_string()).collect()
    }
}
