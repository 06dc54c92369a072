//! What we made, as it is now: followed by the label that says that it is ours. ConfigMaps are only told of, for any
//! may be an overlay. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use cairn_config_schema::origin::ObjectKey;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_client::{Api, Client};

use kube_core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta, ResourceExt};
use kube_runtime::watcher::{Config, Event};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::objects::{GATEWAY_NAME, MANAGED, MANAGED_BY, MadeKind};

/// Kind, namespace and name of an object that was made.
pub type OwnedKey = (MadeKind, ObjectKey);

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// An object of this Gateway.
    Gateway(ObjectKey),
    /// This ConfigMap.
    ConfigMap(ObjectKey),
    /// A kind was listed.
    Listed,
    /// A ServiceAccount of ours is there, is there no more, or is another.
    Account,
}

/// Objects with our label.
#[derive(Debug, Default)]
pub struct Owned(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<OwnedKey, Value>,
    listed: Vec<MadeKind>,
}

impl Owned {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them.
    pub fn get(&self, key: &OwnedKey) -> Option<Value> {
        self.state().objects.get(key).cloned()
    }

    /// Whether every kind was listed.
    pub fn is_complete(&self) -> bool {
        self.state().listed.len() == MadeKind::ALL.len()
    }

    /// Takes what the API server answered to a write, which the watch tells later.
    pub fn put(&self, key: OwnedKey, object: Value) {
        self.state().objects.insert(key, object);
    }

    /// Those that a Gateway owns, by its uid.
    pub fn of_gateway(&self, uid: &str) -> Vec<(OwnedKey, Value)> {
        let state = self.state();
        let its = state.objects.iter().filter(|(_, object)| {
            let owners = object.pointer("/metadata/ownerReferences");
            let owners = owners.and_then(Value::as_array).into_iter().flatten();
            let mut uids = owners.filter_map(|owner| owner.get("uid").and_then(Value::as_str));
            uids.any(|owner| owner == uid)
        });
        its.map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// ServiceAccounts that a controller of this kind made for one of these Gateways, by namespace and uid. The label
    /// alone makes none: who may make accounts is not to let them read everything.
    /// Of `of_others`, Gateways of other controllers' classes, those whose Deployment of ours is still there count, too:
    /// it serves, and must see the policies that come.
    pub fn accounts(
        &self,
        gateways: &BTreeSet<(Box<str>, String)>,
        of_others: &BTreeSet<(Box<str>, String)>,
    ) -> BTreeSet<ObjectKey> {
        let owners = |key: &ObjectKey, object: &Value| -> Vec<(Box<str>, String)> {
            let owners = object.pointer("/metadata/ownerReferences");
            let owners = owners.and_then(Value::as_array).into_iter().flatten();
            let uids = owners.filter_map(|owner| owner.get("uid").and_then(Value::as_str));
            uids.map(|uid| ((&*key.namespace).into(), uid.to_owned()))
                .collect()
        };
        let state = self.state();
        let deployments = (state.objects.iter())
            .filter(|((kind, _), _)| *kind == MadeKind::Deployment)
            .flat_map(|((_, key), deployment)| owners(key, deployment));
        let serving: BTreeSet<_> = deployments.filter(|o| of_others.contains(o)).collect();
        let is_for_one = |key: &ObjectKey, account: &Value| {
            let owners = owners(key, account);
            owners
                .iter()
                .any(|o| gateways.contains(o) || serving.contains(o))
        };
        let accounts = (state.objects.iter())
            .filter(|((kind, _), _)| *kind == MadeKind::ServiceAccount)
            .filter(|((_, key), account)| is_for_one(key, account));
        accounts.map(|((_, key), _)| key.clone()).collect()
    }

    /// Follows one kind for as long as it is polled.
    pub async fn follow(&self, client: Client, kind: MadeKind, news: UnboundedSender<News>) {
        let (group, version, name, plural) = kind.resource();
        let gvk = GroupVersionKind::gvk(group, version, name);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let config = Config::default().labels(&format!("{MANAGED}={MANAGED_BY}"));
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut fresh: BTreeMap<OwnedKey, Value> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(object)) => {
                    if let Some((key, _, object)) = taken(kind, &object) {
                        fresh.insert(key, object);
                    }
                }
                Ok(Event::InitDone) => {
                    self.listed(kind, std::mem::take(&mut fresh));
                    let _ = news.send(News::Listed);
                }
                Ok(Event::Apply(object)) => {
                    if let Some((key, gateway, object)) = taken(kind, &object) {
                        self.put(key, object);
                        tell(kind, gateway, &news);
                    }
                }
                Ok(Event::Delete(object)) => {
                    if let Some((key, gateway, _)) = taken(kind, &object) {
                        self.state().objects.remove(&key);
                        tell(kind, gateway, &news);
                    }
                }
                Err(error) => tracing::warn!(kind = name, %error, "what was made is not followed"),
            }
        }
    }

    fn listed(&self, kind: MadeKind, fresh: BTreeMap<OwnedKey, Value>) {
        let mut state = self.state();
        state.objects.retain(|(of, _), _| *of != kind);
        state.objects.extend(fresh);
        if !state.listed.contains(&kind) {
            state.listed.push(kind);
        }
    }
}

fn tell(kind: MadeKind, gateway: ObjectKey, news: &UnboundedSender<News>) {
    let _ = news.send(News::Gateway(gateway));
    if kind == MadeKind::ServiceAccount {
        let _ = news.send(News::Account);
    }
}

/// Its key, the Gateway it is for, and it as JSON.
fn taken(kind: MadeKind, object: &DynamicObject) -> Option<(OwnedKey, ObjectKey, Value)> {
    let namespace = object.namespace()?;
    let gateway = object.labels().get(GATEWAY_NAME)?;
    let gateway = ObjectKey::new(&*namespace, gateway.as_str());
    let key = (kind, ObjectKey::new(&*namespace, object.name_any()));
    let mut object = serde_json::to_value(object).ok()?;
    if let Some(metadata) = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
    Some((key, gateway, object))
}

/// Tells of ConfigMaps that change, without their contents.
pub async fn follow_config_maps(client: Client, news: UnboundedSender<News>) {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(map) | Event::InitApply(map) | Event::Delete(map)) => {
                let namespace = map.namespace().unwrap_or_default();
                let key = ObjectKey::new(&*namespace, map.name_any());
                let _ = news.send(News::ConfigMap(key));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "ConfigMaps are not followed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::gateways::find;
    use crate::controller::gateways::tests::{class, gateway, objects};
    use cairn_config_schema::status::CONTROLLER;
    use serde_json::json;

    fn account(owned: &Owned, namespace: &str, name: &str, uid: &str) {
        let key = (MadeKind::ServiceAccount, ObjectKey::new(namespace, name));
        let owners = json!([{"kind": "Gateway", "uid": uid}]);
        owned.put(key, json!({"metadata": {"ownerReferences": owners}}));
    }

    /// Who may write a Gateway or an account gives no account of their choice the right to read the cluster.
    #[test]
    fn waypoints_accounts_are_those_that_were_made_for_a_gateway() {
        let mut chosen = gateway("waypoint", "mine", json!({}));
        // There already, without our label: it is not made, and so not among what is owned.
        chosen["metadata"]["annotations"] = json!({"gateway.istio.io/service-account": "default"});
        let mut canary = gateway("canary", "mine", json!({"istio.io/rev": "canary"}));
        canary["metadata"]["uid"] = json!("u-2");
        let mut theirs = gateway("theirs", "other", json!({}));
        theirs["metadata"]["uid"] = json!("u-3");
        let mut all = vec![
            class("mine", CONTROLLER),
            class("other", "other.example/x"),
            chosen,
            canary,
            theirs,
        ];
        let owned = Owned::default();
        let of = |all: &[Value]| -> Vec<String> {
            let found = find(&objects(all), "default");
            let accounts = owned.accounts(&found.owners, &found.others_owners());
            accounts.iter().map(ToString::to_string).collect()
        };
        assert_eq!(of(&all), [""; 0]);
        account(&owned, "shop", "waypoint", "u-1");
        account(&owned, "shop", "canary", "u-2");
        account(&owned, "shop", "of-another-class", "u-3");
        account(&owned, "shop", "forged", "u-9");
        account(&owned, "elsewhere", "forged", "u-1");
        assert_eq!(of(&all), ["shop/canary", "shop/waypoint"]);
        // It was ours, and what was made for it serves on.
        let left = (MadeKind::Deployment, ObjectKey::new("shop", "theirs"));
        let owners = json!([{"kind": "Gateway", "uid": "u-3"}]);
        owned.put(
            left.clone(),
            json!({"metadata": {"ownerReferences": owners}}),
        );
        assert_eq!(
            of(&all),
            ["shop/canary", "shop/of-another-class", "shop/waypoint"]
        );
        owned.state().objects.remove(&left);
        // The class is gone for a moment; the waypoints are not.
        all.remove(0);
        assert_eq!(of(&all), ["shop/canary", "shop/waypoint"]);
    }
}
