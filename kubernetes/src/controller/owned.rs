//! What we made, as it is now: followed by the label that says that it is ours. Of ReplicaSets, by which Deployments make
//! pods, only whose they are is kept; ConfigMaps are only told of, for any may be an overlay. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use cairn_config_schema::origin::ObjectKey;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_client::{Api, Client};

use kube_core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta, ResourceExt};
use kube_runtime::watcher::{Config, Event};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::gateways::{Managed, text};
use super::objects::{GATEWAY_NAME, MANAGED, MANAGED_BY, MadeKind, Names};
use crate::objects::is_owned_by;

/// Kind, namespace and name of an object that was made.
pub type OwnedKey = (MadeKind, ObjectKey);

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// An object of this Gateway.
    Gateway(ObjectKey),
    /// A ReplicaSet for this Gateway: other pods may be its replicas.
    Replicas(ObjectKey),
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
    /// `None`: they were not listed.
    replica_sets: Option<BTreeMap<ObjectKey, SetOf>>,
}

/// A ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SetOf {
    /// For which Gateway it says that it is.
    gateway: Option<ObjectKey>,
    uid: String,
    /// `uid` of its Deployment.
    deployment: String,
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
        let state = self.state();
        state.listed.len() == MadeKind::ALL.len() && state.replica_sets.is_some()
    }

    /// Takes what the API server answered to a write, which the watch tells later.
    pub fn put(&self, key: OwnedKey, object: Value) {
        self.state().objects.insert(key, object);
    }

    /// Those that a Gateway owns, by its uid.
    pub fn of_gateway(&self, uid: &str) -> Vec<(OwnedKey, Value)> {
        let state = self.state();
        let its = (state.objects.iter()).filter(|(_, object)| is_owned_by(object, uid));
        its.map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// `uid`s of the ReplicaSets of a Gateway's Deployment, which make its pods. Labels and names are no proof of that:
    /// whoever makes pods sets them. Who gives a pod an owner that did not make it has it counted and removed by that one.
    pub fn replica_sets(&self, gateway: &Managed) -> BTreeSet<String> {
        let name = Names::of(gateway).name;
        let key = (
            MadeKind::Deployment,
            ObjectKey::new(&*gateway.key.namespace, name),
        );
        let state = self.state();
        let deployment = state.objects.get(&key);
        let deployment = deployment.filter(|d| is_owned_by(d, &gateway.uid));
        let Some(uid) = deployment.and_then(|d| text(d, "/metadata/uid")) else {
            return BTreeSet::new();
        };
        let sets = state.replica_sets.iter().flatten();
        let sets =
            sets.filter(|(set, of)| set.namespace == gateway.key.namespace && of.deployment == uid);
        sets.map(|(_, of)| of.uid.clone()).collect()
    }

    /// Follows ReplicaSets for as long as it is polled.
    pub async fn follow_replica_sets(&self, client: Client, news: UnboundedSender<News>) {
        let api: Api<PartialObjectMeta<ReplicaSet>> = Api::all(client);
        let config = Config::default().labels(&format!("{MANAGED}={MANAGED_BY}"));
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut fresh = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(set)) => fresh.extend(set_of(&set)),
                Ok(Event::InitDone) => {
                    for gateway in self.listed_sets(std::mem::take(&mut fresh)) {
                        let _ = news.send(News::Replicas(gateway));
                    }
                    let _ = news.send(News::Listed);
                }
                Ok(Event::Apply(set)) => {
                    self.put_replica_set(&set);
                    tell_of_set(&set, &news);
                }
                Ok(Event::Delete(set)) => {
                    let key = key_of(&set);
                    if let Some(sets) = &mut self.state().replica_sets {
                        sets.remove(&key);
                    }
                    tell_of_set(&set, &news);
                }
                Err(error) => {
                    tracing::warn!(kind = "ReplicaSet", %error, "what was made is not followed")
                }
            }
        }
    }

    /// Takes all that there are. Gateways of those that were not so: what happened between two watches is told by nothing
    /// else.
    fn listed_sets(&self, fresh: BTreeMap<ObjectKey, SetOf>) -> BTreeSet<ObjectKey> {
        let mut state = self.state();
        let before = state.replica_sets.take().unwrap_or_default();
        let gone = before
            .iter()
            .filter(|(key, of)| fresh.get(*key) != Some(*of));
        let come = fresh
            .iter()
            .filter(|(key, of)| before.get(*key) != Some(*of));
        let gateways = gone.chain(come).filter_map(|(_, of)| of.gateway.clone());
        let gateways = gateways.collect();
        state.replica_sets = Some(fresh);
        gateways
    }

    fn put_replica_set(&self, set: &PartialObjectMeta<ReplicaSet>) {
        let mut state = self.state();
        let sets = state.replica_sets.get_or_insert_default();
        match set_of(set) {
            Some((key, of)) => drop(sets.insert(key, of)),
            None => drop(sets.remove(&key_of(set))),
        }
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

fn key_of(set: &PartialObjectMeta<ReplicaSet>) -> ObjectKey {
    ObjectKey::new(&*set.namespace().unwrap_or_default(), set.name_any())
}

/// A ReplicaSet with a Deployment.
fn set_of(set: &PartialObjectMeta<ReplicaSet>) -> Option<(ObjectKey, SetOf)> {
    let mut owners = set.owner_references().iter();
    let deployment = owners.find(|owner| owner.controller == Some(true))?;
    let of = SetOf {
        gateway: gateway_of(set),
        uid: set.uid()?,
        deployment: deployment.uid.clone(),
    };
    Some((key_of(set), of))
}

fn gateway_of(set: &PartialObjectMeta<ReplicaSet>) -> Option<ObjectKey> {
    let gateway = set.labels().get(GATEWAY_NAME)?;
    let namespace = set.namespace().unwrap_or_default();
    Some(ObjectKey::new(&*namespace, gateway.as_str()))
}

fn tell_of_set(set: &PartialObjectMeta<ReplicaSet>, news: &UnboundedSender<News>) {
    if let Some(gateway) = gateway_of(set) {
        let _ = news.send(News::Replicas(gateway));
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

    fn set(name: &str, uid: &str, deployment: &str) -> PartialObjectMeta<ReplicaSet> {
        let owners = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": deployment, "controller": true}]);
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "shop", "uid": uid,
            "labels": {GATEWAY_NAME: "waypoint"}, "ownerReferences": owners}}),
        )
        .unwrap()
    }

    #[test]
    fn replicas_are_made_by_the_sets_of_the_gateways_own_deployment() {
        let all = objects(&[class("c", CONTROLLER), gateway("waypoint", "c", json!({}))]);
        let gateway = find(&all, "default").managed.into_values().next().unwrap();
        let deployment = |name: &str, uid: &str, of: &str| {
            let key = (MadeKind::Deployment, ObjectKey::new("shop", name));
            let owners = json!([{"kind": "Gateway", "uid": of, "controller": true}]);
            (
                key,
                json!({"metadata": {"uid": uid, "ownerReferences": owners}}),
            )
        };
        let owned = Owned::default();
        owned.put_replica_set(&set("waypoint-1", "s-1", "d-1"));
        owned.put_replica_set(&set("waypoint-2", "s-2", "d-1"));
        owned.put_replica_set(&set("theirs", "s-3", "d-2"));
        assert_eq!(
            owned.replica_sets(&gateway),
            BTreeSet::new(),
            "it is not there"
        );
        let (key, made) = deployment("waypoint", "d-1", "u-1");
        owned.put(key.clone(), made);
        // Somebody's, with our labels and owner.
        let (other, forged) = deployment("theirs", "d-2", "u-1");
        owned.put(other, forged);
        let its = ["s-1", "s-2"].map(str::to_owned);
        assert_eq!(owned.replica_sets(&gateway), BTreeSet::from(its));
        let (_, of_another) = deployment("waypoint", "d-1", "u-9");
        owned.put(key, of_another);
        assert_eq!(owned.replica_sets(&gateway), BTreeSet::new());
    }

    #[test]
    fn a_list_tells_of_the_gateways_whose_sets_changed_meanwhile() {
        let owned = Owned::default();
        let of = |sets: &[(&str, &str)]| {
            let sets = sets.iter().map(|(name, uid)| set(name, uid, "d-1"));
            let of: Vec<_> = sets.filter_map(|set| set_of(&set)).collect();
            of.into_iter().collect::<BTreeMap<_, _>>()
        };
        let waypoint = BTreeSet::from([ObjectKey::new("shop", "waypoint")]);
        let none = BTreeSet::new();
        for (sets, expected) in [
            (&[("a", "1")][..], &waypoint),
            (&[("a", "1")], &none),
            (&[("a", "2")], &waypoint),
            (&[("a", "2"), ("b", "3")], &waypoint),
            (&[("a", "2")], &waypoint),
            (&[("a", "2")], &none),
        ] {
            assert_eq!(owned.listed_sets(of(sets)), *expected, "{sets:?}");
        }
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
