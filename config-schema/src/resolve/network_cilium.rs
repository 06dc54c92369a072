//! What a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy says, and of whom
//! (specs/policies.md 2.1). Its rules are read in `cilium_rules`.

use std::sync::Arc;

use super::calico_sets::Sets;
use super::network::Selecting;
use super::{Findings, cilium_peers, cilium_rules, dry_run, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::Origin;
use crate::resources::cilium::{CiliumPolicySpec, CiliumRule};
use crate::resources::{Broken, Loaded, Object, Place, Resources, Selection};
use crate::snapshot::{Direction, LabelExpression, NetworkPolicy, Standing, Surface};

const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// Reads every policy. One that is broken denies what it selects.
pub(super) fn read_all(resources: &Resources, findings: &mut Findings) -> Vec<Selecting> {
    let mut read = Vec::new();
    for loaded in resources.cilium_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                policy(resources, o, &o.spec, &mut read, findings);
            }
            Loaded::Broken(broken) => read.extend(deny_all(resources, broken, findings)),
        }
    }
    for loaded in resources.cilium_clusterwide_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                policy(resources, o, &o.spec.0, &mut read, findings);
            }
            Loaded::Broken(broken) => read.extend(deny_all(resources, broken, findings)),
        }
    }
    read
}

/// A policy that can not be read denies what it selects, or if that can not be told either, all that it
/// could select.
fn deny_all(resources: &Resources, broken: &Broken, findings: &mut Findings) -> Vec<Selecting> {
    let standing = standing(broken.dry_run);
    if let Some(parts) = narrowed(resources, broken, standing) {
        let denied = "everything that the policy selects is denied".to_owned();
        let effect = dry_run::effect(broken.dry_run, denied);
        findings.push(unreadable(broken, effect));
        return parts;
    }
    let namespace = &broken.origin.key.namespace;
    let denied = format!(
        "everything for {} and from them is denied",
        scope(namespace)
    );
    let effect = dry_run::effect(broken.dry_run, denied);
    findings.push(unreadable(broken, effect));
    let all = [Direction::Ingress, Direction::Egress].into_iter();
    let all = all.map(|direction| Selecting {
        policy: broken_policy(broken, direction, standing),
        selector: in_namespace(namespace),
        namespace_selector: LabelExpression::everything(),
    });
    all.collect()
}

/// What the policy selects, in the directions that it speaks of. `None`: that can not be told.
fn narrowed(resources: &Resources, broken: &Broken, standing: Standing) -> Option<Vec<Selecting>> {
    let Selection::Cilium(rules) = broken.selection.as_deref()? else {
        return None;
    };
    let mut reading = Reading {
        resources,
        sets: &Sets::default(),
        origin: &broken.origin,
        place: &Place::default(),
        is_tried: broken.dry_run,
        broken: None,
        // Of the object one error is told.
        findings: &mut Findings::new(),
    };
    let own = in_namespace(&broken.origin.key.namespace);
    let mut parts = Vec::new();
    for (path, rule) in rules {
        let labels = rule.endpoint_selector.as_ref()?;
        let labels = cilium_peers::subject(labels, path, &mut reading)?;
        let directions = [
            (rule.ingress.is_some(), Direction::Ingress),
            (rule.egress.is_some(), Direction::Egress),
        ];
        for (_, direction) in directions.into_iter().filter(|(there, _)| *there) {
            parts.push(Selecting {
                policy: broken_policy(broken, direction, standing),
                selector: LabelExpression::All(vec![own.clone(), labels.clone()]),
                namespace_selector: LabelExpression::everything(),
            });
        }
    }
    reading.broken.is_none().then_some(parts)
}

/// What a policy could select.
pub(super) fn scope(namespace: &str) -> String {
    match namespace {
        "" => "every workload".to_owned(),
        namespace => format!("workloads of {namespace}"),
    }
}

/// How a policy stands that is only tried, or not.
pub(super) fn standing(is_tried: bool) -> Standing {
    match is_tried {
        true => Standing::Tried,
        false => Standing::InForce,
    }
}

fn broken_policy(broken: &Broken, direction: Direction, standing: Standing) -> Arc<NetworkPolicy> {
    let reason = broken.reason.clone();
    Arc::new(denying(&broken.origin, direction, standing, reason))
}

/// A policy that denies what it selects, for this reason.
fn denying(
    origin: &Origin,
    direction: Direction,
    standing: Standing,
    reason: Arc<str>,
) -> NetworkPolicy {
    NetworkPolicy {
        origin: origin.clone(),
        direction,
        surface: Surface::Cilium,
        standing,
        default_deny: true,
        rules: Vec::new(),
        broken: Some(reason),
    }
}

/// Every workload of a namespace; of all namespaces if it is empty.
fn in_namespace(namespace: &Arc<str>) -> LabelExpression {
    match &**namespace {
        "" => LabelExpression::everything(),
        _ => LabelExpression::equals(NAMESPACE_LABEL, namespace.clone()),
    }
}

/// What reading one rule of a policy needs.
pub(super) struct Reading<'a> {
    /// What there is beside the policy.
    pub resources: &'a Resources,
    /// Network sets of Calico; for Cilium there are none.
    pub sets: &'a Sets,
    /// The policy.
    pub origin: &'a Origin,
    /// Where its parts stand.
    pub place: &'a Place,
    /// Whether it is only tried.
    pub is_tried: bool,
    /// The first error, for which the policy denies what it selects.
    pub broken: Option<Arc<str>>,
    /// What there is to say.
    pub findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Whether the policy is in no namespace.
    pub fn is_clusterwide(&self) -> bool {
        self.origin.key.namespace.is_empty()
    }

    /// An error: the policy is broken.
    pub fn refuse(&mut self, path: &str, message: impl Into<String>, hint: &str) {
        let message = message.into();
        let denied = "everything that the policy selects is denied".to_owned();
        let finding = Diagnostic::error(Code::BadValue, message.clone())
            .with_effect(dry_run::effect(self.is_tried, denied))
            .with_hint(hint);
        self.say(finding, path);
        self.broken.get_or_insert(message.into());
    }

    /// A part that means something else than it seems to, or nothing here.
    pub fn warn(&mut self, code: Code, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(code, message).with_effect(effect);
        self.say(finding, path);
    }

    /// A part that is right and yet nothing for a waypoint.
    pub fn not_here(&mut self, path: &str, message: &str) {
        self.inform(path, message, "nothing of it is enforced here");
    }

    /// A part that is right, and of which a waypoint enforces some.
    pub fn inform(&mut self, path: &str, message: &str, effect: &str) {
        let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message);
        self.say(finding.with_effect(effect), path);
    }

    fn say(&mut self, finding: Diagnostic, path: &str) {
        let located = finding.at(self.place.locate(path));
        self.findings.push(located.of(self.origin.clone(), path));
    }
}

fn policy<T>(
    resources: &Resources,
    object: &Object<T>,
    spec: &CiliumPolicySpec,
    read: &mut Vec<Selecting>,
    findings: &mut Findings,
) {
    let (origin, place) = (&object.origin, &object.place);
    let is_tried = dry_run::is_tried(origin, &object.meta, place, findings);
    for (path, rule) in &spec.rules {
        let mut reading = Reading {
            resources,
            sets: &Sets::default(),
            origin,
            place,
            is_tried,
            broken: None,
            findings: &mut *findings,
        };
        read.extend(selecting(rule, path, &mut reading));
    }
}

/// Its parts for each direction of which it says something. Nothing if it selects no workloads, but
/// nodes.
fn selecting(rule: &CiliumRule, path: &str, reading: &mut Reading<'_>) -> Vec<Selecting> {
    let Some(selector) = subject(rule, path, reading) else {
        return Vec::new();
    };
    let speaks = Directions::of(rule);
    if !speaks.ingress && !speaks.egress {
        // Cilium counts what is in the lists: `ingress: []` is none (specs/policies.md 2.1.3).
        let message = "a rule must have at least one of ingress, ingressDeny, egress, egressDeny";
        let hint = "to deny everything write ingress: [{}]";
        reading.refuse(path, message, hint);
    }
    let in_common = reading.broken.take();
    let asked = rule.enable_default_deny.as_ref();
    let of_direction = [
        (
            Direction::Ingress,
            speaks.ingress || !speaks.egress,
            asked.and_then(|d| d.ingress),
        ),
        (
            Direction::Egress,
            speaks.egress,
            asked.and_then(|d| d.egress),
        ),
    ];
    let parts = of_direction
        .into_iter()
        .filter_map(|(direction, speaks, asked)| {
            reading.broken = in_common.clone();
            let policy = part(rule, direction, (speaks, asked), path, reading)?;
            Some(Selecting {
                policy: Arc::new(policy),
                selector: selector.clone(),
                namespace_selector: LabelExpression::everything(),
            })
        });
    parts.collect()
}

/// Whom it selects. `None`: nodes.
fn subject(rule: &CiliumRule, path: &str, reading: &mut Reading<'_>) -> Option<LabelExpression> {
    let own = in_namespace(&reading.origin.key.namespace);
    match (&rule.endpoint_selector, &rule.node_selector) {
        (Some(labels), None) => {
            let path = format!("{path}.endpointSelector");
            if let Some(labels) = cilium_peers::subject(labels, &path, reading) {
                return Some(LabelExpression::All(vec![own, labels]));
            }
        }
        (None, Some(_)) if reading.is_clusterwide() => {
            reading.not_here(path, "a policy for nodes is not for a waypoint");
            return None;
        }
        (None, Some(_)) => {
            let message = "only a CiliumClusterwideNetworkPolicy has a nodeSelector";
            let path = format!("{path}.nodeSelector");
            reading.refuse(&path, message, "select workloads with endpointSelector");
        }
        (Some(_), Some(_)) => {
            let message = "a rule has either an endpointSelector or a nodeSelector";
            reading.refuse(&format!("{path}.nodeSelector"), message, "remove one");
        }
        (None, None) => {
            let message = "`endpointSelector` is missing";
            reading.refuse(path, message, "endpointSelector: {} selects everything");
        }
    }
    Some(own)
}

/// What it says of one direction: whether it speaks of it, and what `enableDefaultDeny` asks for. `None`:
/// nothing.
fn part(
    rule: &CiliumRule,
    direction: Direction,
    (speaks, asked): (bool, Option<bool>),
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<NetworkPolicy> {
    let rules = cilium_rules::rules(rule, direction, path, reading);
    let standing = standing(reading.is_tried);
    let policy = match reading.broken.take() {
        Some(_) if !speaks && asked != Some(true) => return None,
        Some(reason) => denying(reading.origin, direction, standing, reason),
        None => NetworkPolicy {
            origin: reading.origin.clone(),
            direction,
            surface: Surface::Cilium,
            standing,
            default_deny: asked.unwrap_or(speaks),
            rules,
            broken: None,
        },
    };
    // A part without rules that denies nothing either says nothing.
    let says = policy.default_deny || !policy.rules.is_empty() || policy.broken.is_some();
    says.then_some(policy)
}

/// In which directions a rule has something in its lists.
struct Directions {
    ingress: bool,
    egress: bool,
}

impl Directions {
    fn of(rule: &CiliumRule) -> Self {
        Self {
            ingress: !is_empty(&rule.ingress) || !is_empty(&rule.ingress_deny),
            egress: !is_empty(&rule.egress) || !is_empty(&rule.egress_deny),
        }
    }
}

/// Whether a list is absent, or nothing is in it.
pub(super) fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}
