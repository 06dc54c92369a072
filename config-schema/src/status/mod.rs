//! Status conditions, as a controller of ours writes them (specs/gateway-api.md 1.4, "Status"; specs/istio-waypoint.md
//! 1.4): what the resolver said of an object, in the words of its API. Resolves nothing by itself, and knows neither
//! transition times nor what others wrote there.

mod gateways;
mod merge;
mod policies;
mod routes;
mod services;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::Value;

pub use merge::{is_ours, merge};

use crate::diagnostics::Diagnostic;
use crate::origin::{Kind, ObjectKey, Origin};
use crate::resources::Resources;
use crate::snapshot::Snapshot;

/// `controllerName` of everything that is ours.
pub const CONTROLLER: &str = "cairn.dev/waypoint-controller";

/// On Services and ServiceEntries: who serves them, or why not. Not `istio.io/WaypointBound`, and below not
/// `WaypointAccepted`: where istiod runs it writes these for waypoints of every class, as it sees them, and two
/// writers of one condition would change it for ever (specs/istio-waypoint.md 1.4).
pub const BOUND: &str = "cairn.dev/WaypointBound";

/// On Istio's policies and ours: whether a waypoint enforces them.
pub const POLICY_ACCEPTED: &str = "cairn.dev/WaypointAccepted";

/// One object and the status it gets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectStatus {
    /// Kind of the object, by which it is told from others of the same name.
    #[serde(skip)]
    pub object: Kind,
    /// Kind of the object, as written.
    pub kind: &'static str,
    /// Its namespace; absent when cluster-scoped.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// What is written to `status`, for our part.
    pub status: Status,
}

/// The parts of `status` that are ours; each kind has some of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of routes: one for each parentRef that is ours to judge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentStatus>,
    /// Of policies of the Gateway API: one for each target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<AncestorStatus>,
    /// Of Gateways, GatewayClasses and Istio's policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Of Gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

/// One entry of `parents`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parentRef, as it is written.
    pub parent_ref: Value,
    /// [`CONTROLLER`].
    pub controller_name: &'static str,
    /// Sorted by type.
    pub conditions: Vec<Condition>,
}

/// One entry of `ancestors`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The target.
    pub ancestor_ref: Value,
    /// [`CONTROLLER`].
    pub controller_name: &'static str,
    /// Sorted by type.
    pub conditions: Vec<Condition>,
}

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: Box<str>,
    /// None: routes are attached to Services.
    pub supported_kinds: [(); 0],
    /// Always 0, for the same reason.
    pub attached_routes: u32,
    /// Sorted by type.
    pub conditions: Vec<Condition>,
}

/// A condition, without the time of its last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// Sentences.
    pub message: String,
    /// The generation that was looked at. Absent in files that do not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The findings on each object.
type ByObject<'f> = FxHashMap<&'f Origin, Vec<&'f Diagnostic>>;

/// What statuses are made from.
struct Facts<'a> {
    resources: &'a Resources,
    snapshot: &'a Snapshot,
    /// The Gateway that is or was to be served.
    gateway: Option<&'a ObjectKey>,
    findings: ByObject<'a>,
}

/// The status of every object that is ours to judge, sorted by kind, namespace and name. `findings` are all
/// there are, before any are left out for their number; `wanted` is the Gateway that was asked for.
pub fn statuses(
    resources: &Resources,
    snapshot: &Snapshot,
    findings: &[Diagnostic],
    wanted: Option<&ObjectKey>,
) -> Vec<ObjectStatus> {
    let mut by_object = ByObject::default();
    for finding in findings {
        if let Some(object) = &finding.object {
            by_object.entry(object).or_default().push(finding);
        }
    }
    let served = snapshot.waypoint.as_ref();
    let facts = Facts {
        resources,
        snapshot,
        gateway: served.map(|waypoint| &waypoint.origin.key).or(wanted),
        findings: by_object,
    };
    let mut all = BTreeMap::new();
    let found = gateways::statuses(&facts);
    let found = found.into_iter().chain(routes::statuses(&facts));
    let found = found.chain(services::statuses(&facts));
    for (origin, status) in found.chain(policies::statuses(&facts)) {
        let key = (origin.kind.bare(), origin.key, origin.kind);
        all.insert(key, status);
    }
    let named = all
        .into_iter()
        .map(|((kind, key, object), status)| ObjectStatus {
            object,
            kind,
            namespace: (&*key.namespace).into(),
            name: (&*key.name).into(),
            status,
        });
    named.collect()
}

impl<'a> Facts<'a> {
    /// What was said of an object.
    fn of(&self, origin: &Origin) -> &[&'a Diagnostic] {
        self.findings.get(origin).map_or(&[], Vec::as_slice)
    }

    /// What was said of a field of an object, or of what is in it.
    fn at<'f>(
        &'f self,
        origin: &Origin,
        path: &'f str,
    ) -> impl Iterator<Item = &'a Diagnostic> + 'f {
        let within = move |finding: &&Diagnostic| {
            let rest = finding.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.of(origin).iter().copied().filter(within)
    }
}

impl Condition {
    /// One that holds, or does not.
    pub fn new(
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
        observed_generation: Option<i64>,
    ) -> Self {
        Self {
            kind,
            status: if holds { "True" } else { "False" },
            reason,
            message: message.into(),
            observed_generation,
        }
    }
}

/// Several findings in one message.
fn sentences<'f>(findings: impl Iterator<Item = &'f Diagnostic>) -> String {
    let texts: Vec<&str> = findings.map(|f| f.message.as_str()).collect();
    texts.join("; ")
}
