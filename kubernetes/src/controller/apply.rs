//! Brings what is made into the cluster, by server-side apply, and takes away what is made no more. Objects that are
//! not ours are left alone (specs/istio-waypoint.md 1.5), and nothing is sent that would change nothing.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHasher;
use serde_json::Value;

use super::api::{Api, Failure, Place};
use super::gateways::{Managed, label, text};
use super::objects::{GATEWAY_NAME, MANAGED, MANAGED_BY, Made, MadeKind};
use super::owned::{Owned, OwnedKey};
use crate::objects::put;

/// What was applied last, and what came of it.
#[derive(Debug, Default)]
pub struct Applied(Mutex<HashMap<OwnedKey, (u64, u64)>>);

/// Why an object is not as it is to be.
#[derive(Debug)]
pub enum Problem {
    /// One of its name is there and not ours.
    Clash(String),
    /// The API server said no, or nothing.
    Failed(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where objects of a kind are.
pub fn place(kind: MadeKind, namespace: &str) -> Place {
    let (group, version, _, plural) = kind.resource();
    Place::new(group, version, plural, Some(namespace))
}

/// Applies one object, unless it is as it was left.
///
/// # Errors
/// See [`Problem`].
pub async fn apply(
    api: &Api,
    owned: &Owned,
    applied: &Applied,
    made: &Made,
) -> Result<(), Problem> {
    let key = (made.kind, made.key.clone());
    let place = place(made.kind, &made.key.namespace);
    let wanted = hash(&made.object);
    let live = match owned.get(&key) {
        Some(live) => Some(live),
        // Perhaps somebody else's, which is not followed.
        None => api.get(&place, &made.key.name).await?,
    };
    let mut object = made.object.clone();
    if let Some(live) = &live {
        if !is_ours(live, &made.object) {
            return Err(Problem::Clash(named(made)));
        }
        if applied.get(&key) == Some((wanted, substance(live))) {
            return Ok(());
        }
        // This very one, and not a later one of the name, whose it may be.
        let uid = live.pointer("/metadata/uid").cloned().unwrap_or_default();
        put(&mut object, "/metadata", "uid", uid);
    }
    // Nothing is there: if somebody makes one meanwhile, it is not forced from them.
    let now = api
        .apply(&place, &made.key.name, &object, live.is_some())
        .await?;
    applied.put(key.clone(), (wanted, substance(&now)));
    owned.put(key, now);
    Ok(())
}

/// Deletes what was made for a Gateway and is not among `all` any more.
///
/// # Errors
/// When the API server did not do it.
pub async fn delete_others(
    api: &Api,
    owned: &Owned,
    gateway: &Managed,
    all: &[Made],
) -> Result<(), Failure> {
    for ((kind, key), live) in owned.of_gateway(&gateway.uid) {
        let is_made = |made: &&Made| made.kind == kind && made.key == key;
        let is_going = live.pointer("/metadata/deletionTimestamp").is_some();
        if is_going || all.iter().any(|made| is_made(&made)) {
            continue;
        }
        let uid = text(&live, "/metadata/uid").unwrap_or_default();
        tracing::info!(?kind, object = %key, "it is made no more for this Gateway, and is deleted");
        let place = place(kind, &key.namespace);
        api.delete(&place, &key.name, uid).await?;
    }
    Ok(())
}

/// It has our label, and is for the same Gateway.
fn is_ours(live: &Value, wanted: &Value) -> bool {
    label(live, MANAGED) == Some(MANAGED_BY)
        && label(live, GATEWAY_NAME) == label(wanted, GATEWAY_NAME)
}

fn named(made: &Made) -> String {
    let (_, _, kind, _) = made.kind.resource();
    format!("{kind} {}", made.key)
}

impl Applied {
    fn get(&self, key: &OwnedKey) -> Option<(u64, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).copied()
    }

    fn put(&self, key: OwnedKey, hashes: (u64, u64)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, hashes);
    }
}

/// Of an object that is there: all but what changes by itself.
fn substance(live: &Value) -> u64 {
    let mut live = live.clone();
    if let Some(fields) = live.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = live.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for key in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(key);
        }
    }
    hash(&live)
}

fn hash(value: &Value) -> u64 {
    let mut hasher = FxHasher::default();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changes_by_itself_is_no_reason_to_apply_again() {
        let live = |version: &str, ready: u64, image: &str| {
            substance(
                &json!({"metadata": {"name": "w", "resourceVersion": version, "generation": ready},
                "spec": {"image": image}, "status": {"readyReplicas": ready}}),
            )
        };
        assert_eq!(live("1", 0, "a"), live("2", 2, "a"));
        assert_ne!(live("1", 0, "a"), live("1", 0, "b"));
    }

    /// specs/istio-waypoint.md 1.5: objects that do not carry the label are never touched.
    #[test]
    fn an_object_is_ours_by_our_label_and_our_gateway() {
        let object = |managed: &str, gateway: &str| json!({"metadata": {"labels": {MANAGED: managed, GATEWAY_NAME: gateway}}});
        let wanted = object(MANAGED_BY, "w");
        assert!(is_ours(&object(MANAGED_BY, "w"), &wanted));
        assert!(!is_ours(&object(MANAGED_BY, "other"), &wanted));
        assert!(!is_ours(&object("istio.io-mesh-controller", "w"), &wanted));
        assert!(!is_ours(&json!({"metadata": {}}), &wanted));
    }
}
