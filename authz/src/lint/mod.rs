//! Lints: what is legal in every object by itself, and yet can hardly be meant (docs/lints.md). Each is
//! a file here; those that need nothing but one object are told where it is resolved. Pure, and
//! bounded: `cairn check` runs them, a waypoint does not.

mod budget;
mod cover;
mod dns;
mod dns_rules;
mod ground;
mod probe;
mod probe_network;
mod reach;
mod shadow;
mod unmatched;
mod ztunnel;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::Snapshot;

use ground::Ground;

/// Everything that the lints find in a configuration.
pub fn lint(resources: &Resources, snapshot: &Snapshot) -> Vec<Diagnostic> {
    let ground = Ground::new(resources, snapshot);
    let mut findings = Vec::new();
    waypoint_not_ready(&ground, &mut findings);
    unmatched::lint(&ground, &mut findings);
    shadow::lint(&ground, &mut findings);
    ztunnel::lint(&ground, &mut findings);
    dns::lint(&ground, &mut findings);
    reach::lint(&ground, &mut findings);
    probe::lint(&ground, &mut findings);
    findings
}

/// A Gateway that serves somebody and has no address leaves them without a waypoint: istiod takes it
/// for none, and clients go past it (specs/istio-waypoint.md 0, 8 #1).
fn waypoint_not_ready(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let snapshot = ground.snapshot;
    let Some(waypoint) = &snapshot.waypoint else {
        return;
    };
    let gateway = ground.resources.gateways.get(&waypoint.origin.key);
    let Some(gateway) = gateway.and_then(|loaded| loaded.object()) else {
        return;
    };
    let with_policy = snapshot.served().filter(|s| !s.policies.is_empty()).count();
    if gateway.meta.programmed == Some(false) && with_policy > 0 {
        let message = format!("{} is not programmed", gateway.origin);
        let finding = Diagnostic::warning(Code::WaypointNotReady, message)
            .with_effect(format!(
                "until it has an address clients go to its services directly, {with_policy} of them past their policies"
            ))
            .with_hint("see the conditions in its status, and whether its pods run");
        findings.push(gateway.mark(finding, ""));
    }
}
