//! AuthorizationPolicies that are not for a waypoint and meet one: at a pod behind it ztunnel sees the
//! waypoint as the client, and a policy at the client's side keeps nobody from anything.

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::resources::Object;
use cairn_config_schema::resources::istio::AuthorizationPolicySpec;
use cairn_config_schema::snapshot::{Action, Truth, Workload, ZtunnelPolicy};
use rustc_hash::FxHashSet;

use super::budget::Budget;
use super::ground::Ground;
use crate::waypoint;
use crate::ztunnel::{self, Arrival};

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    client_behind_waypoint(ground, findings);
    policy_at_client(ground, findings);
}

/// Policies that let no waypoint to pods that are reached through one (specs/istio-waypoint.md 0, 5).
fn client_behind_waypoint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let snapshot = ground.snapshot;
    let Some(identity) = waypoint::identity(snapshot).filter(|_| !snapshot.ztunnel.is_empty())
    else {
        return;
    };
    let pods = waypoint::pods(snapshot);
    let address = pods.first().and_then(|pod| pod.addresses.first().copied());
    let mut budget = Budget::new("client-behind-waypoint");
    let mut seen: FxHashSet<(*const Workload, u16)> = FxHashSet::default();
    let mut told: FxHashSet<*const ZtunnelPolicy> = FxHashSet::default();
    for (endpoint, workload) in ground.endpoints() {
        let port = endpoint.address.port();
        if !workload.hbone || !seen.insert((std::sync::Arc::as_ptr(workload), port)) {
            continue;
        }
        if !budget.take(snapshot.ztunnel.len()) {
            findings.push(budget.exhausted());
            return;
        }
        let arrival = Arrival {
            peer: &identity,
            source: address,
            destination: endpoint.address,
        };
        let policies: Vec<&ZtunnelPolicy> = ztunnel::of_pod(&snapshot.ztunnel, workload).collect();
        let arrived = ztunnel::judge(&policies, &arrival);
        if arrived.passes != Truth::No {
            continue;
        }
        // The DENY that matched, or every ALLOW, of which none did.
        let refusing = policies.into_iter().filter(|p| match &arrived.policy {
            Some(denied) => p.policy.origin == *denied,
            None => p.policy.action == Action::Allow,
        });
        for policy in refusing {
            if told.insert(std::ptr::from_ref(policy)) {
                findings.push(finding(ground, policy, workload, &identity));
            }
        }
    }
}

fn finding(
    ground: &Ground<'_>,
    policy: &ZtunnelPolicy,
    workload: &Workload,
    identity: &Identity,
) -> Diagnostic {
    let who = identity.to_string();
    let principal = who.strip_prefix("spiffe://").unwrap_or(&who);
    let message = format!(
        "Pod {} is reached through the waypoint: ztunnel sees {principal} there, and no client",
        workload.key
    );
    let effect = "ztunnel refuses what the waypoint sends to the pod, whoever asked";
    let hint = match policy.policy.action {
        Action::Allow => format!(
            "allow principals: [{principal}], and say at the waypoint who may do what (targetRefs)"
        ),
        Action::Deny | Action::Custom | Action::Audit => {
            "say at the waypoint who may not (targetRefs in place of the selector)".to_owned()
        }
    };
    let finding = Diagnostic::warning(Code::ClientBehindWaypoint, message)
        .with_effect(effect)
        .with_hint(hint);
    mark(ground, policy, finding, "spec.rules")
}

fn mark(
    ground: &Ground<'_>,
    policy: &ZtunnelPolicy,
    finding: Diagnostic,
    path: &str,
) -> Diagnostic {
    let origin = &policy.policy.origin;
    let object = ground.resources.authorization_policies.get(&origin.key);
    match object.and_then(|loaded| loaded.object()) {
        Some(object) => object.mark(finding, path),
        None => finding.of(origin.clone(), path),
    }
}

/// A policy that selects pods and allows them hosts of others: it binds where requests arrive, so that
/// it says who may call these pods (specs/policies.md 1.7, Y3).
fn policy_at_client(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    let services = &ground.snapshot.services;
    let own_hosts: FxHashSet<String> = services
        .values()
        .flat_map(|service| {
            let (name, namespace) = (&service.key.name, &service.key.namespace);
            [
                name.to_string(),
                format!("{name}.{namespace}"),
                format!("{name}.{namespace}.svc"),
                service.hostname.to_string(),
            ]
        })
        .collect();
    for policy in &ground.snapshot.ztunnel {
        let object = ground
            .resources
            .authorization_policies
            .get(&policy.policy.origin.key);
        let Some(object) = object.and_then(|loaded| loaded.object()) else {
            continue;
        };
        if policy.policy.action != Action::Allow {
            continue;
        }
        if let Some((path, host)) = foreign_host(object, &own_hosts) {
            let message = format!(
                "'{host}' is no Service here: the policy does not say where its pods may go, but what may come to them"
            );
            let finding = Diagnostic::warning(Code::PolicyAtClient, message)
                .with_effect("everything that is sent to the pods it selects is denied")
                .with_hint(
                    "for what leaves the pods use an egress policy of the CNI, or a ServiceEntry with an egress waypoint and a policy on it",
                );
            findings.push(object.mark(finding, &path));
        }
    }
}

/// The first host that is no name of a Service.
fn foreign_host(
    object: &Object<AuthorizationPolicySpec>,
    own: &FxHashSet<String>,
) -> Option<(String, String)> {
    for (at, rule) in object.spec.rules.iter().flatten().enumerate() {
        for (to, item) in rule.iter().flat_map(|r| &r.to).flatten().enumerate() {
            let hosts = item.operation.iter().flat_map(|o| &o.hosts).flatten();
            for (index, host) in hosts.enumerate() {
                let bare = host.split(':').next().unwrap_or_default();
                let is_name = bare.contains('.') && !bare.contains('*');
                if is_name && !own.contains(&bare.to_ascii_lowercase()) {
                    let path = format!("spec.rules[{at}].to[{to}].operation.hosts[{index}]");
                    return Some((path, host.clone()));
                }
            }
        }
    }
    None
}
