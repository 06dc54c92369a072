//! Which Gateways of ours apply which routes and policies, by what the resolver says at each of them; and the condition
//! on those that says whether their replicas have them in force. Asks nobody.

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
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
}

impl Appliers {
    /// Takes the statuses that a Gateway's waypoint gives.
    pub fn add(&mut self, gateway: &ObjectKey, statuses: &[ObjectStatus]) {
        let applies = self.by_gateway.entry(gateway.clone()).or_default();
        for of in statuses {
            let parents = of.status.parents.iter();
            let ancestors = of.status.ancestors.iter();
            let entries = parents.map(|p| (&p.parent_ref, &p.conditions));
            let entries = entries.chain(ancestors.map(|a| (&a.ancestor_ref, &a.conditions)));
            let mut generation = None;
            let mut references = Vec::new();
            for (reference, conditions) in entries {
                if let Some(accepted) = accepted(conditions, "Accepted") {
                    generation = Some(accepted);
                    references.push(reference.clone());
                }
            }
            let one = accepted(&of.status.conditions, POLICY_ACCEPTED);
            let Some((path, generation)) = path_of(of).zip(generation.or(one)) else {
                continue;
            };
            applies.insert(path.clone(), generation);
            self.by_path.entry(path).or_default().push(Applier {
                gateway: gateway.clone(),
                references,
                in_one: one.is_some(),
            });
        }
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
                let generation = holds(conditions, "Accepted").filter(|_| !here.is_empty());
                conditions
                    .extend(generation.and_then(|n| programmed.condition(path, n, &here, there)));
            }
        }
        let Some(generation) = in_one.and_then(|kind| holds(&desired.conditions, kind)) else {
            return;
        };
        let here = appliers.iter().filter(|applier| applier.in_one);
        let here: Vec<&ObjectKey> = here.map(|applier| &applier.gateway).collect();
        let all = current.and_then(|status| status.get("conditions")?.as_array());
        let there = all.and_then(|all| all.iter().find(|c| is(c, PROGRAMMED)));
        let condition = programmed.condition(path, generation, &here, there);
        desired.conditions.extend(condition);
    }
}

/// The generation that is accepted, by the conditions of an entry.
fn accepted(conditions: &[Condition], kind: &str) -> Option<i64> {
    let mut conditions = conditions.iter();
    let accepted = conditions.find(|c| c.kind == kind && c.status == "True")?;
    accepted.observed_generation
}

/// The same as JSON.
fn holds(conditions: &[Value], kind: &str) -> Option<i64> {
    let accepted = conditions.iter().find(|c| is(c, kind))?;
    let holds = accepted.get("status").and_then(Value::as_str) == Some("True");
    accepted
        .get("observedGeneration")
        .and_then(Value::as_i64)
        .filter(|_| holds)
}

fn is(condition: &Value, kind: &str) -> bool {
    condition.get("type").and_then(Value::as_str) == Some(kind)
}
