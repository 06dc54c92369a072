//! What Calico's staged policies do to the policies they are staged for (specs/policies.md 2.5): Set
//! would take the place of the policy of the same name, Delete would make it go. What they say is
//! read as that of any other policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use super::network::Selecting;
use super::network_cilium::Reading;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::calico::CalicoPolicySpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{NetworkPolicy, Standing, Surface};

/// Whether what the policy says counts: not that of one that deletes another, or is set aside.
pub(super) fn is_to_be_read(spec: &CalicoPolicySpec, reading: &mut Reading<'_>) -> bool {
    let path = "spec.stagedAction";
    if !reading.origin.kind.is_staged() {
        if spec.staged_action.is_some() {
            let message = "only a staged policy has stagedAction";
            reading.refuse(path, message, "remove it");
        }
        return true;
    }
    match spec.staged_action.as_deref() {
        None | Some("Set") => true,
        Some("Delete") => false,
        Some("Ignore" | "Learn") => {
            let message = "a staged policy to be ignored, or that is still learning, is not tried";
            reading.not_here(path, message);
            false
        }
        Some(unknown) => {
            let message = format!("unknown action '{unknown}'");
            reading.refuse(path, message, "Set or Delete");
            true
        }
    }
}

/// Marks the policies that staged ones would replace or delete, and adds the latter to what is
/// reported on.
pub(super) fn supersede(
    resources: &Resources,
    read: &mut Vec<(Option<f64>, Selecting)>,
    findings: &mut Findings,
) {
    mark(&resources.calico_staged_policies, |s| &s.0, read, findings);
    let global = &resources.calico_staged_global_policies;
    mark(global, |s| &s.0.0, read, findings);
}

fn mark<T>(
    staged: &BTreeMap<ObjectKey, Loaded<T>>,
    spec: impl Fn(&T) -> &CalicoPolicySpec,
    read: &mut Vec<(Option<f64>, Selecting)>,
    findings: &mut Findings,
) {
    for object in staged.values().filter_map(Loaded::object) {
        let deletes = match spec(&object.spec).staged_action.as_deref() {
            Some("Ignore" | "Learn") => continue,
            action => action == Some("Delete"),
        };
        let of = Origin {
            kind: match object.origin.kind {
                Kind::StagedGlobalNetworkPolicy => Kind::GlobalNetworkPolicy,
                _ => Kind::NetworkPolicy,
            },
            key: object.origin.key.clone(),
        };
        let mut removals = Vec::new();
        let mut is_there = false;
        // Both directions of it.
        for (order, selecting) in read.iter_mut().filter(|(_, s)| s.policy.origin == of) {
            is_there = true;
            removals.push((*order, removal(&object.origin, selecting)));
            let policy = Arc::make_mut(&mut selecting.policy);
            if policy.standing == Standing::InForce {
                policy.standing = Standing::Superseded;
            }
        }
        match (deletes, is_there) {
            (true, true) => read.extend(removals),
            (true, false) => findings.push(nothing_to_delete(object, &of)),
            (false, _) => {}
        }
    }
}

/// A policy without rules, for whatever is selected by the one that it would delete.
fn removal(origin: &Origin, of: &Selecting) -> Selecting {
    let policy = NetworkPolicy {
        origin: origin.clone(),
        direction: of.policy.direction,
        surface: match &of.policy.surface {
            Surface::Calico(tier) => Surface::Calico(tier.clone()),
            Surface::Cilium => Surface::Cilium,
        },
        standing: Standing::Removal,
        default_deny: false,
        rules: Vec::new(),
        broken: None,
    };
    Selecting {
        policy: Arc::new(policy),
        selector: of.selector.clone(),
        namespace_selector: of.namespace_selector.clone(),
    }
}

fn nothing_to_delete<T>(object: &Object<T>, of: &Origin) -> Diagnostic {
    let message = format!("there is no {of} to delete");
    let finding = Diagnostic::warning(Code::TargetNotFound, message)
        .with_effect("nothing is tried by it")
        .with_hint("have the policy in the configuration, too");
    object.mark(finding, "spec.stagedAction")
}
