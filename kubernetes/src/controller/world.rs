//! What there is, and what is to be said of it: the same parser and resolver that waypoints use, once for each of our
//! Gateways. Writes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use cairn_config_schema::origin::{Kind, ObjectKey};
use cairn_config_schema::resolve::{Options, resolve_with_statuses};
use cairn_config_schema::resources::{Resources, Version};
use cairn_config_schema::status::{self, BOUND, Condition, ObjectStatus, POLICY_ACCEPTED, Status};
use cairn_config_schema::store::{SourceFile, Store};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use serde_json::{Value, json};

use super::acknowledged::labelled_pods;
use super::applied::Appliers;
use super::class;
use super::gateways::{self, Found, Managed, text, with_prefix};
use super::objects::MANAGED_BY;
use super::programmed::{PROGRAMMED, Programmed};
use super::status::entries::{Desired, Own, patch};
use crate::kinds::watched_kind;
use crate::versions::Written;
use crate::watch::Objects;

/// Kinds whose status is written, but for Gateways, of which more is to be said.
pub const WITH_STATUS: [Kind; 12] = [
    Kind::GatewayClass,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
    Kind::TLSRoute,
    Kind::TCPRoute,
    Kind::BackendTLSPolicy,
    Kind::XBackendTrafficPolicy,
    Kind::AuthorizationPolicy,
    Kind::RequestAuthentication,
    Kind::TrafficPolicy,
    Kind::Service,
    Kind::ServiceEntry,
];

/// Of these, those with one condition for all waypoints: each revision's controller says of all what the others say,
/// or they would change it for ever.
const IN_ONE_CONDITION: [Kind; 3] = [
    Kind::AuthorizationPolicy,
    Kind::RequestAuthentication,
    Kind::TrafficPolicy,
];

/// In every entry of ours, by its `controllerName` or the type of its condition.
const OUR_MARK: &str = "cairn.dev/";

/// One state of the cluster.
#[derive(Debug, Default)]
pub struct World {
    /// All objects.
    pub objects: Arc<Objects>,
    /// Gateways.
    pub found: Found,
    /// What their statuses are to say, by path; objects that have none are not to be spoken of.
    statuses: FxHashMap<String, Status>,
    /// Which of our Gateways apply which objects.
    pub appliers: Appliers,
    /// Fingerprints of Gateways, with the generation that they are of.
    gateway_versions: FxHashMap<ObjectKey, Version>,
    /// Paths of objects whose status says something else, and that changed since the last state, or are to say what
    /// they were not to say then. What was told once is the queue's to try again.
    pub outdated: Vec<Arc<str>>,
}

/// Reads states of the cluster, one after the other.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    /// What waypoints are resolved with.
    options: Options,
    revision: String,
    /// Whether two controllers had Gateways.
    was_divided: bool,
    /// What was compared: text and status.
    compared: FxHashMap<Arc<str>, (Arc<str>, Option<Status>)>,
    /// What replicas have in force is told when they say so, and no reason to write before.
    nothing_known: Programmed,
    version: u64,
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(options: Options, revision: String) -> Self {
        Self {
            store: Store::default(),
            options,
            revision,
            was_divided: false,
            compared: FxHashMap::default(),
            nothing_known: Programmed::default(),
            version: 0,
        }
    }

    /// Reads one.
    pub fn read(&mut self, objects: Arc<Objects>) -> World {
        self.version += 1;
        let files = objects.iter().map(|(path, text)| SourceFile {
            path: path.clone(),
            content: Ok(Cow::Borrowed(text.as_bytes())),
        });
        let files: Vec<SourceFile<'_>> = files.collect();
        let resources = self.store.update(&files).resources;
        drop(files);
        let found = gateways::find(&objects, &self.revision);
        // Without a Gateway of ours there are classes to accept, and Services that ask for a Gateway that is not there.
        let nobody = ObjectKey::new("", "");
        let others = found.of_other_revisions.iter().map(|key| (key, false));
        let mut keys: BTreeMap<&ObjectKey, bool> = others.collect();
        keys.extend(found.managed.keys().map(|key| (key, true)));
        if found.managed.is_empty() {
            keys.insert(&nobody, true);
        }
        let mut appliers = Appliers::default();
        let versions = by_path(&resources);
        let of_each = keys.into_iter().map(|(key, is_ours)| {
            let options = Options {
                gateway: Some(key.clone()),
                version: self.version,
                ..self.options.clone()
            };
            let mut statuses = resolve_with_statuses(&resources, &options).1;
            statuses.retain(|of| is_ours || IN_ONE_CONDITION.contains(&of.object));
            // Of pods that are not ours nothing is known.
            let ours = found.managed.get(key);
            if let Some(gateway) = ours.filter(|gateway| !gateway.has_addresses()) {
                unbind(&mut statuses, gateway);
            }
            if ours.is_some_and(|gateway| gateway.manual_addresses().is_none()) {
                appliers.add(key, &statuses, &versions);
            }
            statuses
        });
        let merged = status::merge(of_each);
        let by_path = merged
            .into_iter()
            .filter_map(|of| Some((path_of(&of)?, of.status)));
        let gateways = resources.gateway_versions();
        let gateways = gateways.map(|(origin, version)| (origin.key.clone(), version));
        let mut world = World {
            statuses: by_path.collect(),
            appliers,
            gateway_versions: gateways.collect(),
            objects,
            found,
            outdated: Vec::new(),
        };
        world.outdated = self.outdated(&world);
        world
    }

    /// Compares what changed since the last time.
    fn outdated(&mut self, world: &World) -> Vec<Arc<str>> {
        let mut outdated = Vec::new();
        let was_divided = std::mem::replace(&mut self.was_divided, world.is_divided());
        if was_divided != self.was_divided {
            self.compared.clear();
        }
        let mut compared = FxHashMap::default();
        for kind in WITH_STATUS {
            for (path, text) in with_prefix(&world.objects, format!("kubernetes:{kind}/")) {
                let wanted = world.statuses.get(&**path);
                if wanted.is_none() && !text.contains(OUR_MARK) {
                    continue;
                }
                let before = self.compared.remove(path);
                let same = |(seen, status): &(Arc<str>, Option<Status>)| {
                    (Arc::ptr_eq(seen, text) || seen == text) && status.as_ref() == wanted
                };
                let before = before.filter(same);
                if before.is_none() && world.patch(path, "", &self.nothing_known).is_some() {
                    outdated.push(path.clone());
                }
                let now = || (text.clone(), wanted.cloned());
                compared.insert(path.clone(), before.unwrap_or_else(now));
            }
        }
        self.compared = compared;
        if was_divided && !self.was_divided {
            // What was withdrawn comes back, by what is known of the replicas.
            let told: FxHashSet<Arc<str>> = outdated.iter().cloned().collect();
            let again = world.appliers.told_in_one().map(Arc::from);
            outdated.extend(again.filter(|path| !told.contains(path)));
        }
        outdated
    }
}

impl World {
    /// What the resolver says of a Gateway.
    pub fn of_gateway(&self, key: &ObjectKey) -> Option<&Status> {
        self.statuses.get(&format!("kubernetes:Gateway/{key}"))
    }

    /// Whether two controllers have Gateways. Neither can say then what the replicas of both have in force, and what
    /// either said before is true no longer; both see that, so that neither takes from the other.
    fn is_divided(&self) -> bool {
        !self.found.managed.is_empty() && !self.found.of_other_revisions.is_empty()
    }

    /// The version of a Gateway of ours, as it is written. Of one that is broken, whose last good text may be known, the
    /// generation alone.
    pub fn version_of(&self, gateway: &Managed) -> Written {
        let known = self.gateway_versions.get(&gateway.key);
        let known = known.filter(|known| known.generation == gateway.generation);
        Written {
            generation: gateway.generation,
            fingerprint: known.map(|known| known.fingerprint),
        }
    }

    /// An object and the patch for its status. `None`: there is nothing to write.
    pub fn patch(&self, path: &str, now: &str, programmed: &Programmed) -> Option<(Value, Value)> {
        let object: Value = serde_json::from_str(self.objects.get(path)?).ok()?;
        let kind = text(&object, "/kind")?;
        let wanted = self.statuses.get(path);
        let conditions: &[&str] = match kind {
            "Service" | "ServiceEntry" => &[BOUND],
            // Those of other controllers' classes are not ours to take away.
            "GatewayClass" if wanted.is_some() => &["Accepted"],
            "GatewayClass" => return None,
            _ => &[POLICY_ACCEPTED, PROGRAMMED],
        };
        let own = Own {
            conditions,
            // Entries do not say of which revision's controller they are.
            removes: self.found.of_other_revisions.is_empty(),
            withdrawn: self.is_divided().then_some(PROGRAMMED),
        };
        let mut desired = wanted.map(desired).unwrap_or_default();
        // Whether the replicas of another revision's controller have it is that one's to ask, and one condition is
        // for all of them.
        let in_one = own.removes.then_some(POLICY_ACCEPTED);
        self.appliers
            .complete(&mut desired, path, object.get("status"), in_one, programmed);
        if kind == "GatewayClass" {
            desired
                .whole
                .insert("supportedFeatures".to_owned(), class::features());
        }
        let changes = patch(object.get("status"), &desired, own, now)?;
        let version = object.pointer("/metadata/resourceVersion").cloned();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": changes});
        Some((object, patch))
    }

    /// Changes when anything does that a Gateway's objects or status depend on.
    pub fn fingerprint(&self, key: &ObjectKey) -> u64 {
        let mut hasher = FxHasher::default();
        self.objects
            .get(&*format!("kubernetes:Gateway/{key}"))
            .hash(&mut hasher);
        let pods = with_prefix(&self.objects, format!("kubernetes:Pod/{}/", key.namespace));
        for (_, pod) in pods.filter(|(_, pod)| pod.contains(MANAGED_BY)) {
            pod.hash(&mut hasher);
        }
        let status = self.of_gateway(key).map(|status| json!(status).to_string());
        status.hash(&mut hasher);
        hasher.finish()
    }

    /// Changes when the replicas of a Gateway are to be asked what they have in force: with who is ready, and with what
    /// it applies.
    pub fn applied_print(&self, key: &ObjectKey) -> Option<u64> {
        let applies = self.appliers.of_gateway(key)?;
        let mut hasher = FxHasher::default();
        applies.hash(&mut hasher);
        for (pod, made_by) in labelled_pods(&self.objects, key) {
            (pod.name, pod.address, made_by).hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    /// Gateways with the fingerprints they have now.
    pub fn fingerprints(&self) -> BTreeMap<ObjectKey, u64> {
        let keys = self.found.managed.keys();
        keys.map(|key| (key.clone(), self.fingerprint(key)))
            .collect()
    }
}

/// What a Gateway serves is not bound before its clients are led to it.
fn unbind(statuses: &mut [ObjectStatus], gateway: &Managed) {
    let conditions = statuses
        .iter_mut()
        .flat_map(|of| &mut of.status.conditions)
        .filter(|condition| condition.kind == BOUND && condition.status == "True");
    for condition in conditions {
        let message = format!(
            "waypoint {} has no address yet, and so its clients reach it directly, past every policy and route of a waypoint; \
             the condition Programmed of that Gateway says what it waits for",
            gateway.key
        );
        let generation = condition.observed_generation;
        *condition = Condition::new(BOUND, false, "AddressNotAssigned", message, generation);
    }
}

/// Where the object is that a status is for.
pub(super) fn path_of(of: &ObjectStatus) -> Option<String> {
    let kind = watched_kind(of.object.as_str())?;
    Some(kind.path(&of.namespace, &of.name))
}

/// Versions of routes and policies by the paths of their objects.
fn by_path(resources: &Resources) -> FxHashMap<String, Version> {
    let versions = resources.versions().filter_map(|(origin, version)| {
        let kind = watched_kind(origin.kind.as_str())?;
        Some((kind.path(&origin.key.namespace, &origin.key.name), version))
    });
    versions.collect()
}

fn desired(status: &Status) -> Desired {
    let mut desired = Desired::default();
    for (list, entries) in [
        ("parents", json!(status.parents)),
        ("ancestors", json!(status.ancestors)),
    ] {
        desired.entries.insert(list.to_owned(), entries);
    }
    desired.conditions = status.conditions.iter().map(|c| json!(c)).collect();
    desired
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
