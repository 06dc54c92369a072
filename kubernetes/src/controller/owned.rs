//! What we made, as it is now: followed by the label that says that it is ours. ConfigMaps are only told of, for any
//! may be an overlay. Changes nothing.

use std::collections::BTreeMap;
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
    /// A kind was listed for the first time.
    Listed,
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
                        let _ = news.send(News::Gateway(gateway));
                    }
                }
                Ok(Event::Delete(object)) => {
                    if let Some((key, gateway, _)) = taken(kind, &object) {
                        self.state().objects.remove(&key);
                        let _ = news.send(News::Gateway(gateway));
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
