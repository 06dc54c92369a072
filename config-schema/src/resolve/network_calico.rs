//! What a NetworkPolicy or GlobalNetworkPolicy of Calico says, staged or not, and in which order (specs/policies.md 2.5). Its rules are read in `calico_rules`; what a staged one does to
//! another in `calico_staged`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::calico_sets::Sets;
use super::network::Selecting;
use super::network_cilium::{Reading, scope, standing};
use super::{Findings, calico_rules, calico_staged, dry_run, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{ObjectKey, Origin};
use crate::resources::calico::{CalicoPolicySpec, CalicoRule};
use crate::resources::{Broken, Loaded, Object, Place, Resources, Selection};
use crate::snapshot::{
    Direction, LabelExpression, NetworkPolicy, NetworkRule, NetworkTier, Standing, Surface,
};

const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const DEFAULT_TIER: &str = "default";
/// Tiers that Calico makes itself: name, order, whether they pass by default.
const BUILT_IN: [(&str, f64, bool); 5] = [
    ("adminnetworkpolicy", 1_000.0, true),
    ("kube-admin", 1_000.0, true),
    (DEFAULT_TIER, 1_000_000.0, false),
    ("kube-baseline", 10_000_000.0, true),
    ("baselineadminnetworkpolicy", 10_000_000.0, true),
];

type Tiers = BTreeMap<String, Arc<NetworkTier>>;

/// Reads every policy, in the order of tiers and of policies in a tier.
pub(super) fn read_all(resources: &Resources, findings: &mut Findings) -> Vec<Selecting> {
    let mut reader = Reader {
        resources,
        sets: Sets::read(resources, findings),
        tiers: tiers(resources, findings),
        read: Vec::new(),
        findings,
    };
    reader.kind(&resources.calico_policies, |spec| spec);
    reader.kind(&resources.calico_global_policies, |spec| &spec.0);
    reader.kind(&resources.calico_staged_policies, |spec| &spec.0);
    reader.kind(&resources.calico_staged_global_policies, |spec| &spec.0.0);
    let mut read = reader.read;
    calico_staged::supersede(resources, &mut read, findings);
    read.sort_by(|(a_order, a), (b_order, b)| {
        let tier = |s: &Selecting| match &s.policy.surface {
            Surface::Calico(tier) => (tier.order.unwrap_or(f64::INFINITY), tier.name.clone()),
            Surface::Cilium => (f64::INFINITY, "".into()),
        };
        let ((a_tier, a_name), (b_tier, b_name)) = (tier(a), tier(b));
        let order = |order: &Option<f64>| order.unwrap_or(f64::INFINITY);
        (a_tier.total_cmp(&b_tier))
            .then_with(|| a_name.cmp(&b_name))
            .then_with(|| order(a_order).total_cmp(&order(b_order)))
            .then_with(|| a.policy.origin.key.name.cmp(&b.policy.origin.key.name))
            .then_with(|| a.policy.origin.key.cmp(&b.policy.origin.key))
    });
    read.into_iter().map(|(_, selecting)| selecting).collect()
}

/// Reads policies kind by kind.
struct Reader<'a> {
    resources: &'a Resources,
    sets: Sets,
    tiers: Tiers,
    /// With their orders.
    read: Vec<(Option<f64>, Selecting)>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn kind<T>(
        &mut self,
        objects: &BTreeMap<ObjectKey, Loaded<T>>,
        spec: impl Fn(&T) -> &CalicoPolicySpec,
    ) {
        for loaded in objects.values() {
            match loaded {
                Loaded::Good(o) | Loaded::KeptLastGood(o) => self.object(o, spec(&o.spec)),
                Loaded::Broken(broken) => self.broken(broken),
            }
        }
    }

    fn object<T>(&mut self, object: &Object<T>, spec: &CalicoPolicySpec) {
        let (origin, place) = (&object.origin, &object.place);
        let is_tried = dry_run::is_tried(origin, &object.meta, place, self.findings);
        let mut reading = Reading {
            resources: self.resources,
            sets: &self.sets,
            origin,
            place,
            is_tried,
            broken: None,
            findings: self.findings,
        };
        if calico_staged::is_to_be_read(spec, &mut reading) {
            let parts = policy(spec, &self.tiers, &mut reading).into_iter();
            self.read.extend(parts.map(|part| (spec.order, part)));
        }
    }

    /// A policy that can not be read denies what it selects, or if that can not be told either, all that
    /// it could select.
    fn broken(&mut self, broken: &Broken) {
        let namespace = &broken.origin.key.namespace;
        let narrowed = self.narrowed(broken);
        let denied = match narrowed {
            Some(_) => "everything that the policy selects is denied".to_owned(),
            None => format!(
                "everything for {} and from them is denied",
                scope(namespace)
            ),
        };
        let effect = dry_run::effect(broken.dry_run, denied);
        self.findings.push(unreadable(broken, effect));
        let standing = standing(broken.dry_run);
        let (directions, selector, namespace_selector) = narrowed.unwrap_or_else(|| {
            let both = vec![Direction::Ingress, Direction::Egress];
            (both, in_namespace(namespace), LabelExpression::everything())
        });
        for direction in directions {
            let reason = broken.reason.clone();
            let policy = deny_all(&broken.origin, direction, standing, reason);
            let part = Selecting {
                namespace_selector: namespace_selector.clone(),
                ..selecting(policy, selector.clone())
            };
            self.read.push((None, part));
        }
    }

    /// What the policy selects, in the directions that it speaks of. `None`: that can not be told.
    fn narrowed(
        &self,
        broken: &Broken,
    ) -> Option<(Vec<Direction>, LabelExpression, LabelExpression)> {
        let Selection::Calico(spec) = broken.selection.as_deref()? else {
            return None;
        };
        let mut reading = Reading {
            resources: self.resources,
            sets: &self.sets,
            origin: &broken.origin,
            place: &Place::default(),
            is_tried: broken.dry_run,
            broken: None,
            // Of the object one error is told.
            findings: &mut Findings::new(),
        };
        // Which rules there are is not known, but for their lists.
        let mut directions = directions(spec, &mut reading);
        if spec.types.as_ref().is_none_or(Vec::is_empty) {
            let there = |direction: &Direction| match direction {
                Direction::Ingress => spec.ingress.is_some() || spec.egress.is_none(),
                Direction::Egress => spec.egress.is_some(),
            };
            directions = vec![Direction::Ingress, Direction::Egress];
            directions.retain(there);
        }
        let (selector, namespaces) = selectors(spec, &mut reading);
        reading
            .broken
            .is_none()
            .then_some((directions, selector, namespaces))
    }
}

fn built_in(name: &str) -> Option<NetworkTier> {
    let (name, order, passes) = BUILT_IN.iter().find(|(n, _, _)| *n == name)?;
    Some(NetworkTier {
        name: (*name).into(),
        order: Some(*order),
        passes_by_default: *passes,
    })
}

/// The tiers that can be read; a policy of any other is broken.
fn tiers(resources: &Resources, findings: &mut Findings) -> Tiers {
    let mut tiers = Tiers::new();
    for loaded in resources.calico_tiers.values() {
        let object = match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => object,
            Loaded::Broken(broken) => {
                findings.push(unreadable(broken, "what its policies select is denied"));
                continue;
            }
        };
        let name = &object.origin.key.name;
        let passes_by_default = match object.spec.default_action.as_deref() {
            None | Some("Deny") => false,
            Some("Pass") => true,
            Some(unknown) => {
                let message = format!("unknown action '{unknown}'");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("what no rule of the tier decides is denied")
                    .with_hint("Deny or Pass");
                findings.push(object.mark(finding, "spec.defaultAction"));
                false
            }
        };
        let tier = NetworkTier {
            name: name.clone(),
            order: object.spec.order.or(built_in(name).and_then(|t| t.order)),
            passes_by_default,
        };
        tiers.insert(name.to_string(), Arc::new(tier));
    }
    for (name, _, _) in BUILT_IN {
        // What the unreadable one of this name says is not known.
        let unreadable =
            |l: &Loaded<_>| matches!(l, Loaded::Broken(b) if &*b.origin.key.name == name);
        if !resources.calico_tiers.values().any(unreadable)
            && let Some(tier) = built_in(name)
        {
            tiers.entry(name.to_owned()).or_insert(Arc::new(tier));
        }
    }
    tiers
}

pub(super) fn in_namespace(namespace: &Arc<str>) -> LabelExpression {
    match &**namespace {
        "" => LabelExpression::everything(),
        _ => LabelExpression::equals(NAMESPACE_LABEL, namespace.clone()),
    }
}

fn deny_all(
    origin: &Origin,
    direction: Direction,
    standing: Standing,
    reason: Arc<str>,
) -> NetworkPolicy {
    NetworkPolicy {
        origin: origin.clone(),
        direction,
        surface: Surface::Calico(Arc::new(NetworkTier {
            name: DEFAULT_TIER.into(),
            order: None,
            passes_by_default: false,
        })),
        standing,
        default_deny: true,
        rules: Vec::new(),
        broken: Some(reason),
    }
}

fn selecting(policy: NetworkPolicy, selector: LabelExpression) -> Selecting {
    Selecting {
        policy: Arc::new(policy),
        selector,
        namespace_selector: LabelExpression::everything(),
    }
}

/// Its parts for each direction of which it says something. Nothing if it is not for workloads.
fn policy(spec: &CalicoPolicySpec, tiers: &Tiers, reading: &mut Reading<'_>) -> Vec<Selecting> {
    let directions = directions(spec, reading);
    if is_for_hosts(spec, reading) {
        return Vec::new();
    }
    let (selector, namespace_selector) = selectors(spec, reading);
    let tier_name = spec.tier.as_deref().filter(|t| !t.is_empty());
    let tier = tiers.get(tier_name.unwrap_or(DEFAULT_TIER));
    if tier.is_none() {
        let message = format!("there is no Tier {}", tier_name.unwrap_or(DEFAULT_TIER));
        reading.refuse(
            "spec.tier",
            message,
            "have the Tier in the configuration, too",
        );
    }
    let in_common = reading.broken.take();
    let part = |direction| {
        reading.broken = in_common.clone();
        let rules = rules(spec, direction, reading);
        let standing = standing(reading.is_tried);
        let policy = match (reading.broken.take(), tier) {
            (None, Some(tier)) => NetworkPolicy {
                origin: reading.origin.clone(),
                direction,
                surface: Surface::Calico(tier.clone()),
                standing,
                default_deny: !tier.passes_by_default,
                rules,
                broken: None,
            },
            (reason, _) => {
                let reason = reason.unwrap_or_default();
                deny_all(reading.origin, direction, standing, reason)
            }
        };
        Selecting {
            namespace_selector: namespace_selector.clone(),
            ..selecting(policy, selector.clone())
        }
    };
    directions.into_iter().map(part).collect()
}

/// What it selects, by labels of workloads and of namespaces.
fn selectors(
    spec: &CalicoPolicySpec,
    reading: &mut Reading<'_>,
) -> (LabelExpression, LabelExpression) {
    let own = in_namespace(&reading.origin.key.namespace);
    let selector = calico_rules::expression(&spec.selector, "spec.selector", reading);
    let namespaces =
        calico_rules::expression(&spec.namespace_selector, "spec.namespaceSelector", reading);
    if spec.namespace_selector.is_some() && !reading.is_clusterwide() {
        let message = "only a GlobalNetworkPolicy has a namespaceSelector";
        reading.refuse("spec.namespaceSelector", message, "remove it");
    }
    if spec
        .service_account_selector
        .as_ref()
        .is_some_and(|s| !s.is_empty())
    {
        let message = "labels of service accounts are not known to a waypoint";
        let hint = "select by labels of the pods";
        reading.refuse("spec.serviceAccountSelector", message, hint);
    }
    let selector =
        LabelExpression::All(vec![own, selector.unwrap_or(LabelExpression::everything())]);
    (
        selector,
        namespaces.unwrap_or(LabelExpression::everything()),
    )
}

/// The rules of one direction.
fn rules(
    spec: &CalicoPolicySpec,
    direction: Direction,
    reading: &mut Reading<'_>,
) -> Vec<NetworkRule> {
    let list = match (direction, &spec.egress_fault) {
        (Direction::Ingress, _) => &spec.ingress,
        (Direction::Egress, None) => &spec.egress,
        // Of a fault an error was told; what is left of the rules would only be told wrongly.
        (Direction::Egress, Some(reason)) => {
            reading.broken.get_or_insert(reason.clone());
            return Vec::new();
        }
    };
    let mut rules = Vec::new();
    for (index, rule) in list.iter().flatten().enumerate() {
        rules.extend(calico_rules::rule(rule, direction, index, reading));
    }
    rules
}

/// Whether it is for host endpoints alone: before connections are tracked or addresses translated
/// there is no workload yet. Calico has that in a GlobalNetworkPolicy only.
fn is_for_hosts(spec: &CalicoPolicySpec, reading: &mut Reading<'_>) -> bool {
    let clusterwide = reading.is_clusterwide();
    let mut for_hosts = false;
    for (asked, field) in [
        (spec.do_not_track, "doNotTrack"),
        (spec.pre_dnat, "preDNAT"),
    ] {
        if asked != Some(true) {
            continue;
        }
        let path = format!("spec.{field}");
        if clusterwide {
            reading.not_here(&path, "a policy for host endpoints is not for a waypoint");
            for_hosts = true;
        } else {
            let message = format!("only a GlobalNetworkPolicy has {field}");
            reading.refuse(&path, message, "remove it");
        }
    }
    if spec.apply_on_forward == Some(true) && !for_hosts {
        tell_of_forwarded(reading);
    }
    for_hosts
}

/// `applyOnForward` adds what host endpoints forward to what a policy is for; workloads have it as without.
fn tell_of_forwarded(reading: &mut Reading<'_>) {
    let path = "spec.applyOnForward";
    if reading.is_clusterwide() {
        let message = "what host endpoints forward is not for a waypoint";
        reading.inform(
            path,
            message,
            "the policy holds for workloads as without it",
        );
    } else {
        let message = "only a GlobalNetworkPolicy has applyOnForward";
        reading.refuse(path, message, "remove it");
    }
}

/// `types`, or what they are when absent: ingress unless there are egress rules alone. A type that is
/// none breaks the policy in both directions.
fn directions(spec: &CalicoPolicySpec, reading: &mut Reading<'_>) -> Vec<Direction> {
    let types = spec.types.as_deref().unwrap_or_default();
    let is_type = |t: &str| matches!(t, "Ingress" | "Egress");
    for (index, unknown) in types.iter().enumerate().filter(|(_, t)| !is_type(t)) {
        let path = format!("spec.types[{index}]");
        let message = format!("unknown type '{unknown}'");
        reading.refuse(&path, message, "Ingress or Egress");
    }
    let has = |rules: &Option<Vec<CalicoRule>>| rules.as_ref().is_some_and(|r| !r.is_empty());
    let says = |name: &str| types.iter().any(|t| t == name || !is_type(t));
    let (ingress, egress) = match types {
        [] => (has(&spec.ingress) || !has(&spec.egress), has(&spec.egress)),
        _ => (says("Ingress"), says("Egress")),
    };
    let asked = [(ingress, Direction::Ingress), (egress, Direction::Egress)];
    let asked = asked.into_iter().filter(|(asked, _)| *asked);
    asked.map(|(_, direction)| direction).collect()
}
