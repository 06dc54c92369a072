//! What `cairn status` tells: waypoints, their replicas and what these have in force, who uses them, and what is
//! not enforced and why. Findings are the resolver's and the lints'; nothing is judged here that they do not.

mod ask;
mod replicas;

pub use ask::{Acknowledgements, ready_pods, settled};
pub use replicas::{Acknowledgement, Replica};
pub(crate) use replicas::{any_ready, behind, is_ready, versions};

use std::collections::{BTreeMap, BTreeSet};

use cairn_config_schema::diagnostics::{Diagnostic, Severity};
use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{Binding, Snapshot};
use serde::Serialize;
use serde_json::Value;

use crate::attach::is_programmed;
use crate::cluster::Cluster;
use crate::controller::PROGRAMMED;
use crate::objects::{condition, text};

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every Gateway that is Cairn's.
    pub waypoints: Vec<WaypointStatus>,
    /// L7 policies that nobody enforces as they are written.
    pub not_enforced: Vec<NotEnforced>,
    /// Services whose labels ask for a waypoint that does not serve them.
    pub not_attached: Vec<NotAttached>,
    /// Routes and policies that not every ready replica has in force, as the controller says.
    pub not_programmed: Vec<NotProgrammed>,
    /// Errors and warnings, worst first, each once.
    pub findings: Vec<Diagnostic>,
    /// What could not be read; without it the rest may be wrong.
    pub unread: Vec<String>,
}

/// One waypoint.
#[derive(Clone, Debug, Serialize)]
pub struct WaypointStatus {
    /// The Gateway.
    pub gateway: String,
    /// Its class.
    pub class: String,
    /// Where clients go; none: they go past it.
    pub addresses: Vec<String>,
    /// Whether it is programmed and has an address.
    pub programmed: bool,
    /// The message of the condition, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Why it refuses everything, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuses_everything: Option<String>,
    /// Pods that are ready.
    pub replicas_ready: usize,
    /// Pods that there should be. `None`: its Deployment is not there.
    pub replicas_wanted: Option<u64>,
    /// The pods.
    pub replicas: Vec<Replica>,
    /// Services that it serves.
    pub services: Vec<String>,
}

/// A policy that is not enforced as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotEnforced {
    /// `AuthorizationPolicy/shop/readers`.
    pub policy: String,
    /// In words, after its name.
    pub why: &'static str,
    /// The services that it is for, as far as that is known.
    pub services: Vec<String>,
}

/// A route or policy that a replica does not have in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotProgrammed {
    /// `HTTPRoute/shop/web`.
    pub object: String,
    /// The message of the condition.
    pub why: String,
}

/// A Service that is not served as its labels ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotAttached {
    /// The Service.
    pub service: String,
    /// Why.
    pub why: String,
}

impl Report {
    /// Whether something is not enforced, not served or not known.
    pub fn has_gaps(&self) -> bool {
        let waiting =
            |w: &WaypointStatus| !w.services.is_empty() && (!w.programmed || w.replicas_ready == 0);
        !self.not_enforced.is_empty()
            || !self.not_programmed.is_empty()
            || !self.not_attached.is_empty()
            || !self.unread.is_empty()
            || self.findings.iter().any(|f| f.severity == Severity::Error)
            || self
                .waypoints
                .iter()
                .any(|w| waiting(w) || w.refuses_everything.is_some())
    }
}

/// Makes the report: of one namespace, or of all. `acknowledged` is what pods said, by their key.
pub fn report(
    cluster: &Cluster,
    namespace: Option<&str>,
    acknowledged: &Acknowledgements,
) -> Report {
    let wanted = |key: &ObjectKey| namespace.is_none_or(|n| *key.namespace == *n);
    let gateways = cluster.waypoints();
    let mut report = Report {
        unread: cluster.unread.clone(),
        ..Report::default()
    };
    let mut told = Told::default();
    for key in &gateways {
        let snapshot = cluster.resolve(Some(key));
        told.add(&snapshot, &wanted);
        if wanted(key) {
            let status = waypoint(cluster, key, &snapshot, acknowledged);
            report.waypoints.push(status);
        }
    }
    if gateways.is_empty() {
        told.add(&cluster.resolve(None), &wanted);
    }
    told.into_report(&mut report);
    report.not_programmed = not_programmed(cluster, &wanted);
    report
}

/// What the condition of the controller says of routes and policies, each once.
fn not_programmed(cluster: &Cluster, wanted: &impl Fn(&ObjectKey) -> bool) -> Vec<NotProgrammed> {
    let known = cluster.resources.versions();
    let known = known.filter(|(origin, _)| wanted(&origin.key));
    let mut found = BTreeSet::new();
    for (origin, version) in known {
        let object = cluster.object(origin.kind.bare(), &origin.key);
        let status = object.and_then(|object| object.get("status"));
        let list = |of: &'_ Value, name: &str| -> Vec<Value> {
            let list = of.get(name).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let Some(status) = status else { continue };
        let entries = ["parents", "ancestors"].into_iter();
        let entries = entries.flat_map(|name| list(status, name));
        let of_entries = entries.flat_map(|entry| list(&entry, "conditions"));
        let conditions = of_entries.chain(list(status, "conditions"));
        let failed = conditions.filter(|c| {
            // Of an earlier generation it says nothing of this one.
            text(c, "/type") == Some(PROGRAMMED)
                && text(c, "/status") == Some("False")
                && c.get("observedGeneration").and_then(Value::as_i64) == Some(version.generation)
        });
        found.extend(failed.map(|condition| NotProgrammed {
            object: origin.to_string(),
            why: text(&condition, "/message").unwrap_or("").to_owned(),
        }));
    }
    found.into_iter().collect()
}

/// What the snapshots of all waypoints say, each thing once.
#[derive(Default)]
struct Told {
    not_enforced: BTreeMap<(String, &'static str), BTreeSet<String>>,
    not_attached: BTreeSet<NotAttached>,
    findings: Vec<Diagnostic>,
}

impl Told {
    fn add(&mut self, snapshot: &Snapshot, wanted: &impl Fn(&ObjectKey) -> bool) {
        for policy in &snapshot.unenforced {
            let of_services = policy.services.iter().any(wanted);
            if !of_services
                && !wanted(&policy.origin.key)
                && !policy.origin.key.namespace.is_empty()
            {
                continue;
            }
            let key = (policy.origin.to_string(), policy.reason.words());
            let services = self.not_enforced.entry(key).or_default();
            services.extend(policy.services.iter().map(ToString::to_string));
        }
        for service in snapshot.services.values().filter(|s| wanted(&s.key)) {
            if let Binding::Refused(why) = &service.binding {
                self.not_attached.insert(NotAttached {
                    service: service.key.to_string(),
                    why: why.to_string(),
                });
            }
        }
        let of = |object: &Option<Origin>| {
            let key = object.as_ref().map(|object| &object.key);
            key.is_none_or(|key| key.namespace.is_empty() || wanted(key))
        };
        let matters = |f: &&Diagnostic| f.severity > Severity::Info && of(&f.object);
        self.findings
            .extend(snapshot.diagnostics.iter().filter(matters).cloned());
    }

    fn into_report(mut self, report: &mut Report) {
        cairn_config_schema::resolve::worst_first(&mut self.findings);
        report.findings = self.findings;
        report.not_attached = self.not_attached.into_iter().collect();
        let not_enforced = self.not_enforced.into_iter();
        report.not_enforced = not_enforced
            .map(|((policy, why), services)| NotEnforced {
                policy,
                why,
                services: services.into_iter().collect(),
            })
            .collect();
    }
}

fn waypoint(
    cluster: &Cluster,
    key: &ObjectKey,
    snapshot: &Snapshot,
    acknowledged: &Acknowledgements,
) -> WaypointStatus {
    let null = Value::Null;
    let gateway = cluster.object("Gateway", key).unwrap_or(&null);
    let listed = gateway
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    let addresses: Vec<String> = listed
        .into_iter()
        .flatten()
        .filter_map(|address| text(address, "/value"))
        .map(str::to_owned)
        .collect();
    let programmed = is_programmed(gateway);
    let why_not = (!programmed).then(|| match condition(gateway, "Programmed") {
        Some(("True", _)) => "it has no address".to_owned(),
        Some((_, message)) => message.to_owned(),
        None => "no controller has written its status".to_owned(),
    });
    let replicas = replicas::of(cluster, key, acknowledged);
    let blocked = snapshot.waypoint.as_ref().map(|w| w.blocked.as_deref());
    WaypointStatus {
        gateway: key.to_string(),
        class: text(gateway, "/spec/gatewayClassName")
            .unwrap_or("")
            .to_owned(),
        addresses,
        programmed,
        why_not,
        refuses_everything: match blocked {
            None => Some("it can not be served as it is; see the findings".to_owned()),
            Some(reason) => reason.map(str::to_owned),
        },
        replicas_ready: replicas.iter().filter(|r| r.ready).count(),
        replicas_wanted: replicas::wanted(cluster, key),
        replicas,
        services: snapshot.served().map(|s| s.key.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests;
