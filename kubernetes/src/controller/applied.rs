//! Which Gateways of ours apply which routes and policies, by what the resolver says at each of them; and the condition
//! on those that says whether their replicas have them in force. Asks nobody.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Version;
use cairn_config_schema::status::{Condition, ObjectStatus, POLICY_ACCEPTED};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::programmed::{Applies, PROGRAMMED, Programmed};
use super::status::entries::{Desired, told};
use super::world::path_of;

/// Lists of entries in a status, and the reference that each entry has.
const LISTS: [(&str, &str); 2] = [("parents", "parentRef"), ("ancestors", "ancestorRef")];

/// Who applies what.
#[derive(Debug, Default)]
pub struct Appliers {
    by_gateway: BTreeMap<ObjectKey, Applies>,
    by_path: FxHashMap<String, Vec<Applier>>,
}

/// One Gateway that applies an object.
#[derive(Debug)]
struct Applier {
    gateway: ObjectKey,
    /// By these parentRefs or targets.
    references: Vec<Value>,
    /// By what is told in one condition.
    in_one: bool,
    /// What was looked at.
    version: Version,
}

impl Appliers {
    /// Takes the statuses that a Gateway's waypoint gives. `versions`: of the objects, by their paths.
    pub fn add(
        &mut self,
        gateway: &ObjectKey,
        statuses: &[ObjectStatus],
        versions: &FxHashMap<String, Version>,
    ) {
        let applies = self.by_gateway.entry(gateway.clone()).or_default();
        for of in statuses {
            let parents = of.status.parents.iter();
            let ancestors = of.status.ancestors.iter();
            let entries = parents.map(|p| (&p.parent_ref, &p.conditions));
            let entries = entries.chain(ancestors.map(|a| (&a.ancestor_ref, &a.conditions)));
            let its = entries.filter(|(_, conditions)| is_accepted(conditions, "Accepted"));
            let references: Vec<Value> = its.map(|(reference, _)| reference.clone()).collect();
            let in_one = is_accepted(&of.status.conditions, POLICY_ACCEPTED);
            if references.is_empty() && !in_one {
                continue;
            }
            let known = path_of(of).and_then(|path| Some((*versions.get(&path)?, path)));
            let Some((version, path)) = known else {
                continue;
            };
            applies.insert(path.clone(), version);
            self.by_path.entry(path).or_default().push(Applier {
                gateway: gateway.clone(),
                references,
                in_one,
                version,
            });
        }
    }

    /// Paths of objects that have one condition for all Gateways.
    pub fn told_in_one(&self) -> impl Iterator<Item = &str> {
        let by_path = self.by_path.iter();
        let told = by_path.filter(|(_, appliers)| appliers.iter().any(|applier| applier.in_one));
        told.map(|(path, _)| &**path)
    }

    /// What a Gateway applies. `None`: nothing.
    pub fn of_gateway(&self, gateway: &ObjectKey) -> Option<&Applies> {
        let applies = self.by_gateway.get(gateway)?;
        (!applies.is_empty()).then_some(applies)
    }

    /// Adds the condition wherever the object of this path is accepted. `current` is its status as it is; `in_one` the
    /// condition that stands for all Gateways, if it is to be spoken of.
    pub fn complete(
        &self,
        desired: &mut Desired,
        path: &str,
        current: Option<&Value>,
        in_one: Option<&str>,
        programmed: &Programmed,
    ) {
        let Some(appliers) = self.by_path.get(path) else {
            return;
        };
        // Of one state of the cluster: it is the same for all of them.
        let Some(version) = appliers.first().map(|applier| applier.version) else {
            return;
        };
        for (list, reference) in LISTS {
            let entries = desired.entries.get_mut(list).and_then(Value::as_array_mut);
            for entry in entries.into_iter().flatten() {
                let Some(of) = entry.get(reference).cloned() else {
                    continue;
                };
                let Some(conditions) = entry.get_mut("conditions").and_then(Value::as_array_mut)
                else {
                    continue;
                };
                let here = appliers.iter().filter(|a| a.references.contains(&of));
                let here: Vec<&ObjectKey> = here.map(|applier| &applier.gateway).collect();
                let there = told(current, (list, reference), &of, PROGRAMMED);
                if holds(conditions, "Accepted") && !here.is_empty() {
                    conditions.extend(programmed.condition(path, version, &here, there));
                }
            }
        }
        if !in_one.is_some_and(|kind| holds(&desired.conditions, kind)) {
            return;
        }
        let here = appliers.iter().filter(|applier| applier.in_one);
        let here: Vec<&ObjectKey> = here.map(|applier| &applier.gateway).collect();
        let all = current.and_then(|status| status.get("conditions")?.as_array());
        let there = all.and_then(|all| all.iter().find(|c| is(c, PROGRAMMED)));
        let condition = programmed.condition(path, version, &here, there);
        desired.conditions.extend(condition);
    }
}

/// Whether it is accepted, by the conditions of an entry.
fn is_accepted(conditions: &[Condition], kind: &str) -> bool {
    let mut conditions = conditions.iter();
    conditions.any(|c| c.kind == kind && c.status == "True")
}

/// The same as JSON.
fn holds(conditions: &[Value], kind: &str) -> bool {
    let accepted = conditions.iter().find(|c| is(c, kind));
    accepted.is_some_and(|c| c.get("status").and_then(Value::as_str) == Some("True"))
}

fn is(condition: &Value, kind: &str) -> bool {
    condition.get("type").and_then(Value::as_str) == Some(kind)
}
