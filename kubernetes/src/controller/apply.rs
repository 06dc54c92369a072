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

/// Deletes what was made for a Gateway and is not among `all` any more. What runs under an earlier name stays until
/// what takes its place runs.
///
/// # Errors
/// When the API server did not do it.
pub async fn delete_others(
    api: &Api,
    owned: &Owned,
    gateway: &Managed,
    all: &[Made],
) -> Result<(), Failure> {
    for ((kind, key), live) in others(owned, gateway, all) {
        let uid = text(&live, "/metadata/uid").unwrap_or_default();
        tracing::info!(?kind, object = %key, "it is made no more for this Gateway, and is deleted");
        let place = place(kind, &key.namespace);
        api.delete(&place, &key.name, uid).await?;
    }
    Ok(())
}

/// What `delete_others` deletes.
fn others(owned: &Owned, gateway: &Managed, all: &[Made]) -> Vec<(OwnedKey, Value)> {
    let deployment = all.iter().find(|made| made.kind == MadeKind::Deployment);
    let has_come = deployment.is_none_or(|made| {
        let live = owned.get(&(made.kind, made.key.clone()));
        live.is_some_and(|live| is_ours(&live, &made.object) && has_rolled_out(&live))
    });
    let mut others = owned.of_gateway(&gateway.uid);
    others.retain(|((kind, key), live)| {
        let is_made = all
            .iter()
            .any(|made| made.kind == *kind && made.key == *key);
        let is_going = live.pointer("/metadata/deletionTimestamp").is_some();
        // An autoscaler or budget that an overlay takes away is nobody's way to the waypoint.
        let is_in_place = deployment.is_some_and(|made| made.key == *key)
            && matches!(
                kind,
                MadeKind::HorizontalPodAutoscaler | MadeKind::PodDisruptionBudget
            );
        !is_made && !is_going && (has_come || is_in_place)
    });
    others
}

/// Every replica of this Deployment is of its present template and ready.
fn has_rolled_out(live: &Value) -> bool {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let has = |field: &str| number(&format!("/status/{field}")).unwrap_or(0);
    number("/status/observedGeneration") >= number("/metadata/generation")
        && has("updatedReplicas") >= wanted
        && has("readyReplicas") >= wanted
        && has("replicas") == has("updatedReplicas")
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
    use crate::controller::gateways::find;
    use crate::controller::gateways::tests::{class, gateway, objects};
    use cairn_config_schema::origin::ObjectKey;
    use cairn_config_schema::status::CONTROLLER;
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

    const GOING: (MadeKind, &str) = (MadeKind::Deployment, "waypoint");

    /// The Gateway `shop/waypoint`, what is made for it under the name `edge`, and what stands under both.
    fn renamed() -> (Managed, Vec<Made>, Owned) {
        let all = objects(&[class("c", CONTROLLER), gateway("waypoint", "c", json!({}))]);
        let gateway = find(&all, "default").managed.into_values().next().unwrap();
        let object = |name: &str| {
            json!({"metadata": {"name": name, "namespace": "shop", "generation": 2,
                "labels": {MANAGED: MANAGED_BY, GATEWAY_NAME: "waypoint"},
                "ownerReferences": [{"kind": "Gateway", "uid": "u-1"}]}})
        };
        let owned = Owned::default();
        let mut made = Vec::new();
        for kind in MadeKind::ALL {
            for name in ["waypoint", "edge"] {
                owned.put((kind, ObjectKey::new("shop", name)), object(name));
            }
            made.push(Made {
                kind,
                key: ObjectKey::new("shop", "edge"),
                object: object("edge"),
            });
        }
        (gateway, made, owned)
    }

    fn names(others: &[(OwnedKey, Value)]) -> Vec<(MadeKind, &str)> {
        let names = others.iter().map(|((kind, key), _)| (*kind, &*key.name));
        names.collect()
    }

    #[test]
    fn what_runs_under_the_earlier_name_goes_when_what_takes_its_place_is_ready() {
        let (gateway, made, owned) = renamed();
        let key = (MadeKind::Deployment, ObjectKey::new("shop", "edge"));
        let status = |observed: u64, all: u64, updated: u64, ready: u64| {
            json!({"observedGeneration": observed, "replicas": all, "updatedReplicas": updated,
                "readyReplicas": ready})
        };
        for (status, goes) in [
            (json!({}), false),
            (status(2, 2, 2, 1), false),
            (status(1, 2, 2, 2), false),
            (status(2, 3, 2, 3), false),
            (status(2, 2, 2, 2), true),
        ] {
            let mut live = owned.get(&key).unwrap();
            live["spec"] = json!({"replicas": 2});
            live["status"] = status.clone();
            owned.put(key.clone(), live);
            let others = others(&owned, &gateway, &made);
            assert_eq!(names(&others).contains(&GOING), goes, "{status}");
            assert_eq!(others.len(), if goes { MadeKind::ALL.len() } else { 0 });
        }
    }

    #[test]
    fn what_runs_stays_while_somebody_elses_deployment_has_the_name() {
        let (gateway, made, owned) = renamed();
        let key = (MadeKind::Deployment, ObjectKey::new("shop", "edge"));
        let mut theirs = owned.get(&key).unwrap();
        theirs["metadata"]["labels"][GATEWAY_NAME] = json!("another");
        theirs["metadata"]["ownerReferences"] = json!([]);
        theirs["status"] = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
        owned.put(key, theirs);
        assert_eq!(names(&others(&owned, &gateway, &made)), []);
    }

    #[test]
    fn an_autoscaler_that_an_overlay_takes_away_waits_for_nothing() {
        let (gateway, mut made, owned) = renamed();
        made.retain(|made| made.kind != MadeKind::HorizontalPodAutoscaler);
        let others = others(&owned, &gateway, &made);
        assert_eq!(
            names(&others),
            [(MadeKind::HorizontalPodAutoscaler, "edge")]
        );
    }
}
