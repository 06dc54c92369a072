//! `/config_dump`: the snapshot in force as JSON, with what is wrong with the files it came from and
//! which objects are kept as they were before a bad change. Holds no keys or tokens: the snapshot
//! has none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use cairn_config_schema::diagnostics::{Code, Diagnostic};
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Authentications, Mesh, Service, Snapshot, Waypoint, Workload};
use serde::Serialize;

use super::clusters::{self, Cluster};
use super::limits;
use super::state::{AdminState, Reload};
use crate::jwks::Jwks;

#[derive(Serialize)]
struct ConfigDump<'a> {
    version: &'static str,
    snapshot: u64,
    last_reload: Option<ReloadText<'a>>,
    kept_last_good: Vec<&'a Diagnostic>,
    diagnostics: &'a [Diagnostic],
    mesh: &'a Mesh,
    waypoint: Option<&'a Waypoint>,
    services: Vec<&'a Service>,
    workloads: Vec<&'a Workload>,
    clusters: Vec<Cluster<'a>>,
    /// What limits traffic, and what it has counted.
    traffic_policies: Vec<limits::LimiterState>,
    authentications: &'a Authentications,
    keys: Vec<KeysText>,
}

/// A source of keys. The keys themselves are public, and of no use here.
#[derive(Serialize)]
struct KeysText {
    source: String,
    keys: usize,
    fetched: Option<String>,
    tried: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

fn keys(jwks: &Jwks) -> Vec<KeysText> {
    let states = jwks.states().into_iter();
    let text = states.map(|(source, state)| KeysText {
        source: source.to_string(),
        keys: state.keys,
        fetched: state.fetched.map(rfc3339),
        tried: state.tried.map(rfc3339),
        error: state.error,
        left_out: state.left_out,
    });
    text.collect()
}

#[derive(Serialize)]
struct ReloadText<'a> {
    at: String,
    duration_ms: u128,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> ReloadText<'a> {
    fn new(reload: &'a Reload) -> Self {
        Self {
            at: rfc3339(reload.at),
            duration_ms: reload.took.as_millis(),
            result: if reload.outcome.is_ok() {
                "success"
            } else {
                "failure"
            },
            snapshot: reload.outcome.as_ref().ok().copied(),
            error: reload.outcome.as_ref().err().map(String::as_str),
        }
    }
}

fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map(|t| format!("{t:.3}"))
        .unwrap_or_default()
}

/// The dump, indented.
///
/// # Errors
/// When something in the snapshot has no JSON form, which would be a bug.
pub fn render(state: &AdminState) -> Result<Vec<u8>, serde_json::Error> {
    let snapshot = (state.snapshot)().unwrap_or_default();
    let last_reload = state.last_reload.load();
    serde_json::to_vec_pretty(&dump(&snapshot, last_reload.as_deref(), state))
}

fn dump<'a>(
    snapshot: &'a Snapshot,
    last_reload: Option<&'a Reload>,
    state: &AdminState,
) -> ConfigDump<'a> {
    let kept = |d: &&Diagnostic| d.code == Code::KeptLastGood;
    // A workload is in the map once for each of its addresses.
    let workloads: BTreeMap<&ObjectKey, &Arc<Workload>> =
        snapshot.workloads.values().map(|w| (&w.key, w)).collect();
    ConfigDump {
        version: env!("CARGO_PKG_VERSION"),
        snapshot: snapshot.version,
        last_reload: last_reload.map(ReloadText::new),
        kept_last_good: snapshot.diagnostics.iter().filter(kept).collect(),
        diagnostics: &snapshot.diagnostics,
        mesh: &snapshot.mesh,
        waypoint: snapshot.waypoint.as_ref(),
        services: snapshot.services.values().map(|s| &**s).collect(),
        workloads: workloads.into_values().map(|w| &**w).collect(),
        clusters: clusters::list(snapshot, &*state.live_cluster),
        traffic_policies: limits::list(state),
        authentications: &snapshot.authentications,
        keys: keys(&state.jwks),
    }
}
