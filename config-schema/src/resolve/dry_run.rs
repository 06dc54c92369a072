//! Which policies are only tried, and what is to be said of annotations that do not say it clearly.
//! What trying means is `cairn-authz`'s business.

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::Origin;
use crate::resources::dry_run::{self, Asked, CAIRN, ISTIO};
use crate::resources::{Meta, Place};

/// Whether a policy is only tried. An annotation that can not be taken for a clear yes leaves it in
/// force.
pub(super) fn is_tried(
    origin: &Origin,
    meta: &Meta,
    place: &Place,
    findings: &mut Findings,
) -> bool {
    let (name, message) = match dry_run::asked(origin.kind, meta) {
        Asked::Yes => return true,
        Asked::No => return false,
        Asked::Unclear(name) => {
            let value = meta.annotations.get(name).map_or("", |value| &**value);
            let message = format!("annotation {name} is '{value}', neither \"true\" nor \"false\"");
            (name, message)
        }
        Asked::Foreign => (ISTIO, format!("{ISTIO} is nothing for a {}", origin.kind)),
        Asked::Contradiction => (CAIRN, format!("{CAIRN} contradicts {ISTIO}")),
    };
    let path = format!("metadata.annotations[{name}]");
    let finding = Diagnostic::warning(Code::BadValue, message)
        .with_effect("the policy is enforced")
        .with_hint(format!("to try it: {CAIRN}: \"true\""));
    findings.push(finding.at(place.locate(&path)).of(origin.clone(), path));
    false
}

/// The effect of something broken: `denied` in force, and what would be in a dry run.
pub(super) fn effect(is_tried: bool, denied: String) -> String {
    match is_tried {
        true => format!("in the dry run {denied}"),
        false => denied,
    }
}
