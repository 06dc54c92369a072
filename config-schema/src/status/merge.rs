//! One status out of those that several waypoints give the same object: a route of two Services, a policy for a
//! whole class. What is wrong at one of them is told; what is right at all of them is told once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AncestorStatus, Condition, ObjectStatus, ParentStatus, Status};

/// Waypoints that one message names.
const SENTENCES_MAX: usize = 8;

/// Merges the statuses that several waypoints give; sorted as each of them is.
pub fn merge(of_waypoints: impl IntoIterator<Item = Vec<ObjectStatus>>) -> Vec<ObjectStatus> {
    let mut merged: BTreeMap<_, ObjectStatus> = BTreeMap::new();
    for statuses in of_waypoints {
        for status in statuses {
            let key = (
                status.kind,
                status.namespace.clone(),
                status.name.clone(),
                status.object,
            );
            match merged.get_mut(&key) {
                Some(one) => one.status.add(status.status),
                None => {
                    merged.insert(key, status);
                }
            }
        }
    }
    merged.into_values().collect()
}

impl Status {
    fn add(&mut self, other: Status) {
        for entry in other.parents {
            let mut own = self.parents.iter_mut();
            match own.find(|own| own.parent_ref == entry.parent_ref) {
                Some(own) => own.take_if_worse(entry),
                None => self.parents.push(entry),
            }
        }
        for entry in other.ancestors {
            let mut own = self.ancestors.iter_mut();
            match own.find(|own| own.ancestor_ref == entry.ancestor_ref) {
                Some(own) => own.take_if_worse(entry),
                None => self.ancestors.push(entry),
            }
        }
        for condition in other.conditions {
            let mut own = self.conditions.iter_mut();
            match own.find(|own| own.kind == condition.kind) {
                Some(own) => own.join(condition),
                None => self.conditions.push(condition),
            }
        }
        // Of a Gateway, which one waypoint serves.
        if self.listeners.is_empty() {
            self.listeners = other.listeners;
        }
    }
}

/// How much is wrong, by the conditions of an entry.
fn faults(conditions: &[Condition]) -> usize {
    conditions.iter().filter(|c| c.status != "True").count()
}

impl ParentStatus {
    fn take_if_worse(&mut self, other: Self) {
        if faults(&other.conditions) > faults(&self.conditions) {
            *self = other;
        }
    }
}

impl AncestorStatus {
    fn take_if_worse(&mut self, other: Self) {
        if faults(&other.conditions) > faults(&self.conditions) {
            *self = other;
        }
    }
}

impl Condition {
    /// Accepted somewhere and not elsewhere is accepted in part.
    fn join(&mut self, other: Self) {
        if *self == other {
            return;
        }
        let is_mixed = self.status != other.status;
        let both_hold = self.status == "True" && other.status == "True";
        if !self.message.split("; ").any(|said| said == other.message) {
            let said = self.message.matches("; ").count() + 1;
            match said {
                n if n < SENTENCES_MAX => self.message += &format!("; {}", other.message),
                SENTENCES_MAX => self.message += "; and more",
                _ => {}
            }
        }
        if is_mixed {
            self.status = "True";
            self.reason = "PartiallyInvalid";
        } else if both_hold && self.reason == "Accepted" {
            self.reason = other.reason;
        }
        self.observed_generation = self.observed_generation.max(other.observed_generation);
    }
}

/// Whether an entry of `status` is ours to write.
pub fn is_ours(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(super::CONTROLLER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Kind;
    use crate::status::{CONTROLLER, POLICY_ACCEPTED};
    use serde_json::json;

    fn policy(holds: bool, reason: &'static str, message: &str) -> Vec<ObjectStatus> {
        let condition = Condition::new(POLICY_ACCEPTED, holds, reason, message, Some(2));
        vec![ObjectStatus {
            object: Kind::AuthorizationPolicy,
            kind: "AuthorizationPolicy",
            namespace: "shop".into(),
            name: "p".into(),
            status: Status {
                conditions: vec![condition],
                ..Status::default()
            },
        }]
    }

    #[track_caller]
    fn only_condition(merged: Vec<ObjectStatus>) -> (&'static str, &'static str, String) {
        let [object] = <[_; 1]>::try_from(merged).unwrap_or_else(|all| panic!("{all:?}"));
        let condition = object
            .status
            .conditions
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!());
        (condition.status, condition.reason, condition.message)
    }

    #[test]
    fn a_policy_of_two_waypoints_is_bound_to_both() {
        let merged = merge([
            policy(true, "Accepted", "bound to shop/a"),
            policy(true, "Accepted", "bound to shop/b"),
        ]);
        let message = "bound to shop/a; bound to shop/b".to_owned();
        assert_eq!(only_condition(merged), ("True", "Accepted", message));
    }

    #[test]
    fn what_is_wrong_at_one_of_them_is_told() {
        let merged = merge([
            policy(true, "Accepted", "bound to shop/a"),
            policy(false, "Invalid", "Service shop/x is headless"),
        ]);
        let (status, reason, message) = only_condition(merged);
        assert_eq!((status, reason), ("True", "PartiallyInvalid"));
        assert!(message.contains("headless"), "{message}");
    }

    #[test]
    fn a_message_does_not_grow_with_the_number_of_waypoints() {
        let all = (0..100).map(|n| policy(true, "Accepted", &format!("bound to shop/w{n}")));
        let (_, _, message) = only_condition(merge(all));
        assert!(message.ends_with("w7; and more"), "{message}");
    }

    #[test]
    fn parents_of_other_waypoints_stand_side_by_side_and_the_same_once() {
        let route = |parent: &str, holds| {
            let accepted = Condition::new("Accepted", holds, "Accepted", "", Some(1));
            vec![ObjectStatus {
                object: Kind::HTTPRoute,
                kind: "HTTPRoute",
                namespace: "shop".into(),
                name: "r".into(),
                status: Status {
                    parents: vec![ParentStatus {
                        parent_ref: json!({"name": parent}),
                        controller_name: CONTROLLER,
                        conditions: vec![accepted],
                    }],
                    ..Status::default()
                },
            }]
        };
        let merged = merge([route("a", true), route("b", true), route("a", false)]);
        let parents = merged.first().map(|object| &object.status.parents);
        let told: Vec<_> = parents.into_iter().flatten().collect();
        let told = told
            .iter()
            .map(|p| (&p.parent_ref["name"], faults(&p.conditions)));
        let told: Vec<_> = told.map(|(name, n)| (name.as_str(), n)).collect();
        assert_eq!(told, [(Some("a"), 1), (Some("b"), 0)]);
    }
}
