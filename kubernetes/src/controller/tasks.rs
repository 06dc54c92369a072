//! The pieces of work: the class, the rights of waypoints, one Gateway, one status. Each can be done again at any time,
//! and writes nothing if nothing is to be written. When and how often is the queue's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::acknowledged::{ask_all, behind, ready_pods};
use super::api::{Api, Failure, Place};
use super::apply::{Applied, Problem, apply, delete_others};
use super::gateways::{Managed, label, text};
use super::objects::{GATEWAY_NAME, MadeKind, Names, make};
use super::owned::Owned;
use super::parameters::{Unusable, overlays};
use super::programmed::Programmed;
use super::queue::Done;
use super::status::entries::{Own, patch};
use super::status::gateway::{Seen, desired};
use super::world::World;
use super::{Settings, class, left, roles};
use crate::kinds::watched_kind;

/// Until a pod that has not acknowledged is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(500);

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// The GatewayClass that users name is there.
    Class,
    /// Waypoints may read.
    Role,
    /// A Gateway has what is made for it, and the status that it merits.
    Gateway(ObjectKey),
    /// The replicas of a Gateway are asked what they have in force.
    Replicas(ObjectKey),
    /// What was made for a Gateway that is another controller's now.
    Left(ObjectKey),
    /// The status of the object of this path.
    Status(Arc<str>),
}

/// What tasks work with.
pub struct Office {
    /// The API server.
    pub api: Api,
    /// As the controller was started.
    pub settings: Arc<Settings>,
    /// What was made.
    pub owned: Owned,
    /// What was applied.
    pub applied: Applied,
    /// What was last said of the rights of waypoints.
    pub role_failure: Mutex<Option<Failure>>,
    /// What replicas have in force.
    pub programmed: Programmed,
    /// Since when Gateways that were ours are served by others.
    pub handed_over: left::HandedOver,
    /// The last state of the cluster.
    pub world: RwLock<Arc<World>>,
}

impl Office {
    pub(super) fn world(&self) -> Arc<World> {
        self.world
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Does it.
    pub async fn work(&self, task: &Task) -> Done {
        let outcome = match task {
            Task::Class => self.class().await,
            Task::Role => self.role().await,
            Task::Gateway(key) => self.gateway(key).await,
            Task::Replicas(key) => Ok(self.replicas(key).await),
            Task::Left(key) => left::remove(self, key).await,
            Task::Status(path) => self.status(path).await,
        };
        match outcome {
            Ok(done) => done,
            // The next state of the cluster is on its way.
            Err(failure) if failure.is_conflict() => {
                tracing::debug!(?task, error = %failure, "somebody else has written");
                Done::Failed
            }
            Err(failure) => {
                tracing::warn!(?task, error = %failure, "it is tried again");
                Done::Failed
            }
        }
    }

    /// The accounts of waypoints, whichever revision's.
    pub fn accounts(&self) -> BTreeSet<ObjectKey> {
        let world = self.world();
        let of_others = world.found.others_owners();
        self.owned.accounts(&world.found.owners, &of_others)
    }

    async fn class(&self) -> Result<Done, Failure> {
        if let Some(name) = &self.settings.class {
            class::ensure(&self.api, name).await?;
        }
        Ok(Done::Well)
    }

    async fn role(&self) -> Result<Done, Failure> {
        let Some(role) = &self.settings.waypoint_role else {
            return Ok(Done::Well);
        };
        let outcome = roles::bind(&self.api, role, &self.accounts()).await;
        let mut last = self
            .role_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = outcome.as_ref().err().cloned();
        drop(last);
        outcome.map(|()| Done::Well)
    }

    async fn status(&self, path: &str) -> Result<Done, Failure> {
        let Some((object, patch)) = self.world().patch(path, &now(), &self.programmed) else {
            return Ok(Done::Well);
        };
        self.write_status(&object, &patch).await
    }

    async fn write_status(&self, object: &Value, patch: &Value) -> Result<Done, Failure> {
        let (Some(api_version), Some(kind), Some(name)) = (
            text(object, "/apiVersion"),
            text(object, "/kind"),
            text(object, "/metadata/name"),
        ) else {
            return Ok(Done::Well);
        };
        let Some(kind) = watched_kind(kind) else {
            return Ok(Done::Well);
        };
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        let namespace = text(object, "/metadata/namespace");
        let place = Place::new(kind.group, version, kind.plural, namespace);
        match self.api.patch_status(&place, name, patch).await {
            Ok(_) => Ok(Done::Well),
            Err(failure) if failure.code == 404 => {
                tracing::debug!(
                    kind = kind.kind,
                    name,
                    "it is gone, or its kind has no status"
                );
                Ok(Done::Well)
            }
            Err(failure) => Err(Failure {
                message: format!("status of {} {name}: {}", kind.kind, failure.message),
                ..failure
            }),
        }
    }

    /// What is new of it is due in `programmed`.
    async fn replicas(&self, key: &ObjectKey) -> Done {
        let world = self.world();
        let gateway = world.found.managed.get(key);
        let Some((applies, gateway)) = world.appliers.of_gateway(key).zip(gateway) else {
            return Done::Well;
        };
        let sets = self.owned.replica_sets(gateway);
        let answers = ask_all(&ready_pods(&world.objects, key, &sets)).await;
        let again = self.programmed.take(key, applies, &answers, Instant::now());
        again.map_or(Done::Well, Done::Again)
    }

    async fn gateway(&self, key: &ObjectKey) -> Result<Done, Failure> {
        let world = self.world();
        let Some(gateway) = world.found.managed.get(key) else {
            return Ok(Done::Well);
        };
        let mut seen = Seen {
            is_manual: gateway.manual_addresses().is_some(),
            ..Seen::default()
        };
        let mut failed = false;
        if !seen.is_manual {
            failed = self.have_made(gateway, &mut seen).await?;
        }
        let pods = match seen.is_manual {
            true => Vec::new(),
            false => ready_pods(&world.objects, key, &self.owned.replica_sets(gateway)),
        };
        seen.ready = pods.len();
        if pods.is_empty() {
            // Why none may become ready is worth more than that none is.
            let role = self
                .role_failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let why = role.as_ref().map(|failure| failure.message.clone());
            seen.failure = seen.failure.take().or(why);
        }
        let version = world.version_of(gateway);
        for (pod, answer) in ask_all(&pods).await {
            let why = behind(&answer, key, version);
            seen.behind.extend(why.map(|why| (pod, why)));
        }
        seen.service = service(&self.owned, gateway);
        let domain = &self.settings.pods.cluster_domain;
        let wanted = desired(gateway, world.of_gateway(key), &seen, domain);
        let own = Own {
            conditions: &["Accepted", "Programmed"],
            removes: true,
            withdrawn: None,
        };
        if let Some(changes) = patch(gateway.object.get("status"), &wanted, own, &now()) {
            let version = gateway.object.pointer("/metadata/resourceVersion");
            let patch = json!({"metadata": {"resourceVersion": version}, "status": changes});
            self.write_status(&gateway.object, &patch).await?;
        }
        Ok(match (failed, seen.behind.is_empty()) {
            (true, _) => Done::Failed,
            (false, false) => Done::Again(ASK_AGAIN),
            (false, true) => Done::Well,
        })
    }

    /// Applies everything; whether any of it is to be tried again.
    async fn have_made(&self, gateway: &Managed, seen: &mut Seen) -> Result<bool, Failure> {
        let settings = &self.settings;
        let overlays = match overlays(&self.api, gateway, &settings.namespace).await {
            Ok(overlays) => overlays,
            Err(Unusable::Unknown(failure)) => return Err(failure),
            Err(Unusable::Invalid(why)) => {
                seen.parameters = Some(why);
                return Ok(false);
            }
        };
        let all = match make(gateway, &settings.pods, &overlays) {
            Ok(all) => all,
            Err(why) => {
                seen.parameters = Some(why);
                return Ok(false);
            }
        };
        for made in &all {
            match apply(&self.api, &self.owned, &self.applied, made).await {
                Ok(()) => {}
                Err(Problem::Clash(what)) => seen.clashes.push(what),
                // No answer: what is said of the Gateway is left as it is.
                Err(Problem::Failed(failure)) if failure.code == 0 => return Err(failure),
                Err(Problem::Failed(failure)) if failure.is_ours() && !overlays.is_empty() => {
                    seen.parameters = Some(format!("{}: {failure}", made.kind.overlay_key()));
                    return Ok(true);
                }
                Err(Problem::Failed(failure)) => {
                    let (_, _, kind, _) = made.kind.resource();
                    seen.failure = Some(format!("{kind} {}: {failure}", made.key));
                    return Ok(true);
                }
            }
        }
        // What can not be made anew is not to be taken away.
        if seen.clashes.is_empty() {
            delete_others(&self.api, &self.owned, gateway, &all).await?;
        }
        // A clash ends when somebody takes the other object away, which nobody tells us.
        Ok(!seen.clashes.is_empty())
    }
}

/// Its Service and addresses, once it is there. One of the name that is another Gateway's is not it.
fn service(owned: &Owned, gateway: &Managed) -> Option<(String, Vec<String>)> {
    let name = Names::of(gateway).name;
    let key = ObjectKey::new(&*gateway.key.namespace, name.as_str());
    let service = owned.get(&(MadeKind::Service, key))?;
    if label(&service, GATEWAY_NAME) != Some(&*gateway.key.name) {
        return None;
    }
    let ips = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    let ips = ips.into_iter().flatten().filter_map(Value::as_str);
    let ips = ips.filter(|ip| *ip != "None").map(str::to_owned);
    Some((name, ips.collect()))
}

/// RFC 3339, to the second, as conditions have it.
fn now() -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::gateways::find;
    use crate::controller::gateways::tests::{class, gateway, objects};
    use cairn_config_schema::status::CONTROLLER;

    #[test]
    fn the_service_of_another_gateway_is_not_this_ones_whatever_its_name() {
        let all = objects(&[class("c", CONTROLLER), gateway("waypoint", "c", json!({}))]);
        let gateway = find(&all, "default").managed.into_values().next().unwrap();
        let of = |name: &str| {
            let owned = Owned::default();
            let object = json!({"metadata": {"labels": {GATEWAY_NAME: name}},
                "spec": {"clusterIPs": ["10.0.0.9", "None"]}});
            owned.put((MadeKind::Service, gateway.key.clone()), object);
            service(&owned, &gateway)
        };
        let its = Some(("waypoint".to_owned(), vec!["10.0.0.9".to_owned()]));
        assert_eq!((of("waypoint"), of("another")), (its, None));
    }

    #[test]
    fn times_are_as_conditions_have_them() {
        let now = now();
        assert_eq!((now.len(), now.ends_with('Z')), (20, true), "{now}");
    }
}
