//! What was made for a Gateway that has another controller's class now. It stays, and serves, until that controller
//! has the Gateway programmed at addresses of its own; then it is removed. Until then its removal would refuse every
//! connection, for ztunnels go on to the addresses that stand there.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use rustc_hash::FxHasher;
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Failure, Place};
use super::apply::place;
use super::gateways::{label, text};
use super::objects::{GATEWAY_NAME, MadeKind};
use super::owned::OwnedKey;
use super::queue::Done;
use super::tasks::Office;
use super::world::World;

/// How long another controller has to have served a Gateway before what we made for it goes: its clients are told of
/// the new addresses meanwhile.
const HAND_OVER: Duration = Duration::from_secs(10);

/// Since when Gateways are served by others.
pub type HandedOver = Mutex<BTreeMap<ObjectKey, Instant>>;

fn served_since(office: &Office, key: &ObjectKey) -> Instant {
    let all = office.handed_over.lock();
    let mut all = all.unwrap_or_else(PoisonError::into_inner);
    *all.entry(key.clone()).or_insert_with(Instant::now)
}

fn forget(office: &Office, key: &ObjectKey) {
    let all = office.handed_over.lock();
    all.unwrap_or_else(PoisonError::into_inner).remove(key);
}

/// Fingerprints of Gateways of other controllers' classes, which change with the Gateway.
pub fn prints(world: &World) -> BTreeMap<ObjectKey, u64> {
    let print = |key: &ObjectKey| {
        let mut hasher = FxHasher::default();
        let object = world.objects.get(&*format!("kubernetes:Gateway/{key}"));
        object.hash(&mut hasher);
        hasher.finish()
    };
    let keys = world.found.of_others.keys();
    keys.map(|key| (key.clone(), print(key))).collect()
}

/// Removes what was made for it, if another controller serves it by now.
///
/// # Errors
/// When the API server did not do it.
pub async fn remove(office: &Office, key: &ObjectKey) -> Result<Done, Failure> {
    let world = office.world();
    let Some(uid) = world.found.of_others.get(key) else {
        return Ok(Done::Well);
    };
    let made = made_for(office.owned.of_gateway(uid), key);
    if made.is_empty() {
        return Ok(Done::Well);
    }
    // As it is at this moment: what was watched may be older, and it may be ours again.
    let gateways = Place::new(
        "gateway.networking.k8s.io",
        "v1",
        "gateways",
        Some(&key.namespace),
    );
    let Some(gateway) = office.api.get(&gateways, &key.name).await? else {
        return Ok(Done::Well);
    };
    let class = text(&gateway, "/spec/gatewayClassName").unwrap_or_default();
    let is_theirs = world.found.of_others_class(class);
    if !is_theirs || text(&gateway, "/metadata/uid") != Some(&**uid) {
        return Ok(Done::Well);
    }
    if !is_served_elsewhere(&gateway, &made) {
        forget(office, key);
        tracing::info!(
            gateway = %key,
            class,
            "it is another controller's now; what was made for it stays until that one has it programmed at other addresses"
        );
        return Ok(Done::Well);
    }
    // Clients hear of the new addresses from their control plane, and go to ours until then.
    let waits = HAND_OVER.saturating_sub(served_since(office, key).elapsed());
    if !waits.is_zero() {
        return Ok(Done::Again(waits));
    }
    forget(office, key);
    for ((kind, object), live) in made {
        tracing::info!(?kind, %object, class, "another controller serves its Gateway, and it is deleted");
        let uid = text(&live, "/metadata/uid").unwrap_or_default();
        let place = place(kind, &object.namespace);
        office.api.delete(&place, &object.name, uid).await?;
    }
    Ok(Done::Well)
}

/// Of what the Gateway owns and has our label, what is for it by its name as well, and is not going already.
fn made_for(owned: Vec<(OwnedKey, Value)>, gateway: &ObjectKey) -> Vec<(OwnedKey, Value)> {
    let mut made = owned;
    made.retain(|((_, key), live)| {
        key.namespace == gateway.namespace
            && label(live, GATEWAY_NAME) == Some(&*gateway.name)
            && live.pointer("/metadata/deletionTimestamp").is_none()
    });
    made
}

/// Whether somebody else has written that this generation is programmed, at addresses of which none is that of a
/// Service that we made. Our own condition is of an earlier generation: the class was changed since.
fn is_served_elsewhere(gateway: &Value, made: &[(OwnedKey, Value)]) -> bool {
    let generation = gateway.pointer("/metadata/generation");
    let list = |path: &str| {
        let list = gateway.pointer(path).and_then(Value::as_array);
        list.map_or(&[][..], Vec::as_slice)
    };
    let is_programmed = list("/status/conditions").iter().any(|c| {
        text(c, "/type") == Some("Programmed")
            && text(c, "/status") == Some("True")
            && c.get("observedGeneration") == generation
    });
    let addresses = list("/status/addresses");
    let addresses: Vec<&str> = addresses.iter().filter_map(|a| text(a, "/value")).collect();
    let services = made
        .iter()
        .filter(|((kind, _), _)| *kind == MadeKind::Service);
    let mut ours = services.flat_map(|((_, key), live)| {
        let ips = live.pointer("/spec/clusterIPs").and_then(Value::as_array);
        let ips = ips.into_iter().flatten().filter_map(Value::as_str);
        let name = format!("{}.{}.svc.", key.name, key.namespace);
        ips.map(str::to_owned).chain([name]).collect::<Vec<_>>()
    });
    let is_at = |own: &str| {
        addresses
            .iter()
            .any(|a| *a == own || own.ends_with('.') && a.starts_with(own))
    };
    is_programmed && !addresses.is_empty() && !ours.any(|own| is_at(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> (OwnedKey, Value) {
        let key = (MadeKind::Service, ObjectKey::new("shop", "waypoint"));
        let labels = json!({GATEWAY_NAME: "waypoint"});
        let live = json!({"metadata": {"name": "waypoint", "namespace": "shop", "uid": "s-1", "labels": labels},
            "spec": {"clusterIPs": ["10.0.0.9"]}});
        (key, live)
    }

    fn gateway(programmed: &str, observed: i64, addresses: &[&str]) -> Value {
        let addresses: Vec<Value> = addresses.iter().map(|a| json!({"value": a})).collect();
        json!({"metadata": {"generation": 3}, "status": {"addresses": addresses,
            "conditions": [{"type": "Programmed", "status": programmed, "observedGeneration": observed}]}})
    }

    #[test]
    fn what_serves_stays_until_another_serves_at_other_addresses() {
        let made = [service()];
        for (gateway, is_elsewhere) in [
            (gateway("True", 3, &["edge.shop.svc.cluster.local"]), true),
            (gateway("True", 3, &["10.0.0.77"]), true),
            // Our own word, of before the class was changed.
            (gateway("True", 2, &["edge.shop.svc.cluster.local"]), false),
            (gateway("False", 3, &["10.0.0.77"]), false),
            // Its new controller has kept our addresses.
            (
                gateway("True", 3, &["waypoint.shop.svc.cluster.local"]),
                false,
            ),
            (gateway("True", 3, &["10.0.0.77", "10.0.0.9"]), false),
            (gateway("True", 3, &[]), false),
        ] {
            assert_eq!(
                is_served_elsewhere(&gateway, &made),
                is_elsewhere,
                "{gateway}"
            );
        }
    }

    #[test]
    fn what_is_for_another_gateway_or_ends_is_not_removed() {
        let key = ObjectKey::new("shop", "waypoint");
        assert_eq!(made_for(vec![service()], &key).len(), 1);
        let mut other = service();
        other.1["metadata"]["labels"][GATEWAY_NAME] = json!("edge");
        let mut going = service();
        going.1["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
        assert_eq!(made_for(vec![other, going], &key), []);
    }
}
