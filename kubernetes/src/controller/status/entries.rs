//! Our entries in an object's `status`, put beside those of others (specs/gateway-api.md 1.4, "Status"): one for each
//! parentRef, others' as they are, compared as sets, times of change kept while nothing changes, ours taken away
//! with the parentRef. Writes nothing by itself.

use cairn_config_schema::status::{CONTROLLER, is_ours};
use serde_json::{Map, Value, json};

use crate::limits::{ANCESTORS_MAX, PARENTS_MAX};

/// Longest message of a condition, in bytes; the API takes 32,768.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What the status is to have of ours, as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Lists of entries with `controllerName`: `parents`, `ancestors`.
    pub entries: Map<String, Value>,
    /// `conditions`.
    pub conditions: Vec<Value>,
    /// Fields that are ours as a whole: `listeners`, `addresses`, `supportedFeatures`.
    pub whole: Map<String, Value>,
}

/// Which conditions of an object are ours, and what becomes of entries that nothing asks for any more.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Types of conditions.
    pub conditions: &'a [&'a str],
    /// Entries and conditions that are not desired are taken away.
    pub removes: bool,
    /// Of the types of conditions one that is taken away all the same if it is not desired.
    pub withdrawn: Option<&'a str>,
}

/// The changes that make `current` have what is desired, as a merge patch of `status`. `None`: it has it already.
/// `now` is RFC 3339.
pub fn patch(current: Option<&Value>, desired: &Desired, own: Own<'_>, now: &str) -> Option<Value> {
    let empty = Value::Null;
    let current = current.unwrap_or(&empty);
    let mut changes = Map::new();
    for (list, reference, most) in [
        ("parents", "parentRef", PARENTS_MAX),
        ("ancestors", "ancestorRef", ANCESTORS_MAX),
    ] {
        let wanted = desired.entries.get(list).and_then(Value::as_array);
        let there = items(current, list);
        let mut merged = entries(
            there,
            wanted.map_or(&[], Vec::as_slice),
            reference,
            own.removes,
            now,
        );
        cut(&mut merged, most);
        if !same(there, &merged) {
            changes.insert(list.to_owned(), Value::Array(merged));
        }
    }
    let there = items(current, "conditions");
    let mut merged = conditions(there, &desired.conditions, own.conditions, own.removes, now);
    if let Some(withdrawn) = own.withdrawn {
        let is_desired = desired
            .conditions
            .iter()
            .any(|c| kind(c) == Some(withdrawn));
        merged.retain(|c| is_desired || kind(c) != Some(withdrawn));
    }
    if !same(there, &merged) {
        changes.insert("conditions".to_owned(), Value::Array(merged));
    }
    for (field, value) in &desired.whole {
        let there = current.get(field);
        let value = match field.as_str() {
            "listeners" => listeners(items(current, field), value, now),
            _ => value.clone(),
        };
        let is_same = match (there.and_then(Value::as_array), value.as_array()) {
            // Of listeners and features the order says nothing; that of addresses does.
            (Some(there), Some(value)) if field != "addresses" => same(there, value),
            _ => there == Some(&value),
        };
        if !is_same {
            changes.insert(field.clone(), value);
        }
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// A condition of our entry for this reference, as it is there.
pub fn told<'v>(
    current: Option<&'v Value>,
    (list, reference): (&str, &str),
    of: &Value,
    of_kind: &str,
) -> Option<&'v Value> {
    let entries = items(current?, list).iter().filter(|entry| is_ours(entry));
    let mut entries =
        entries.filter(|entry| normal(entry.get(reference).unwrap_or(&Value::Null)) == normal(of));
    let conditions = items(entries.next()?, "conditions");
    conditions.iter().find(|c| kind(c) == Some(of_kind))
}

fn items<'v>(of: &'v Value, list: &str) -> &'v [Value] {
    let list = of.get(list).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// As sets: another order is no change (linkerd2#13327).
fn same(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().all(|item| b.contains(item))
}

fn entries(
    there: &[Value],
    wanted: &[Value],
    reference: &str,
    removes: bool,
    now: &str,
) -> Vec<Value> {
    let id = |entry: &Value| normal(entry.get(reference).unwrap_or(&Value::Null));
    let mut merged = Vec::new();
    let mut told = Vec::new();
    for entry in there {
        if !is_ours(entry) {
            merged.push(entry.clone());
            continue;
        }
        let own = id(entry);
        let is_first = !told.contains(&own);
        match wanted.iter().find(|wanted| id(wanted) == own) {
            Some(wanted) if is_first => {
                merged.push(entry_of(wanted, Some(entry), reference, now));
                told.push(own);
            }
            // Twice the same, which only an accident can make.
            Some(_) => {}
            None if removes => {}
            None => merged.push(entry.clone()),
        }
    }
    for wanted in wanted {
        if !told.contains(&id(wanted)) {
            merged.push(entry_of(wanted, None, reference, now));
            told.push(id(wanted));
        }
    }
    merged
}

/// Leaves out the last of ours for which the API has no room; others' are theirs.
fn cut(merged: &mut Vec<Value>, most: usize) {
    let others = merged.iter().filter(|entry| !is_ours(entry)).count();
    let mut room = most.saturating_sub(others);
    merged.retain(|entry| {
        let stays = !is_ours(entry) || room > 0;
        room = room.saturating_sub(usize::from(is_ours(entry)));
        stays
    });
}

fn entry_of(wanted: &Value, there: Option<&Value>, reference: &str, now: &str) -> Value {
    let old = there.map_or(&[][..], |there| items(there, "conditions"));
    let new = items(wanted, "conditions");
    let kinds: Vec<&str> = new.iter().filter_map(kind).collect();
    // All conditions of an entry of ours are ours: what is no longer said goes.
    let old: Vec<Value> = old
        .iter()
        .filter(|c| kind(c).is_some_and(|k| kinds.contains(&k)))
        .cloned()
        .collect();
    // As the server keeps it, if it is the same: it fills in defaults.
    let reference_kept = there.unwrap_or(wanted).get(reference).cloned();
    json!({
        reference: reference_kept.unwrap_or(Value::Null),
        "controllerName": CONTROLLER,
        "conditions": conditions(&old, new, &kinds, true, now),
    })
}

/// A reference with what the API fills in.
fn normal(reference: &Value) -> Value {
    let mut reference = reference.clone();
    if let Some(fields) = reference.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        for (key, default) in [("group", "gateway.networking.k8s.io"), ("kind", "Gateway")] {
            fields.entry(key).or_insert_with(|| default.into());
        }
    }
    reference
}

fn kind(condition: &Value) -> Option<&str> {
    condition.get("type")?.as_str()
}

fn listeners(there: &[Value], wanted: &Value, now: &str) -> Value {
    let wanted = wanted.as_array().cloned().unwrap_or_default();
    let with_times = wanted.into_iter().map(|mut listener| {
        let same_name = |other: &&Value| other.get("name") == listener.get("name");
        let old = there.iter().find(same_name);
        let old = old.map_or(&[][..], |old| items(old, "conditions"));
        let new = items(&listener, "conditions");
        let kinds: Vec<&str> = new.iter().filter_map(kind).collect();
        let merged = conditions(old, new, &kinds, true, now);
        if let Some(fields) = listener.as_object_mut() {
            fields.insert("conditions".to_owned(), Value::Array(merged));
        }
        listener
    });
    Value::Array(with_times.collect())
}

/// Conditions of types that are ours as wanted, all others as they are.
fn conditions(
    there: &[Value],
    wanted: &[Value],
    ours: &[&str],
    removes: bool,
    now: &str,
) -> Vec<Value> {
    let mut merged = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for old in there {
        let Some(own) = kind(old).filter(|kind| ours.contains(kind)) else {
            merged.push(old.clone());
            continue;
        };
        match wanted.iter().find(|wanted| kind(wanted) == Some(own)) {
            Some(wanted) if !told.contains(&own) => {
                merged.push(condition(wanted, Some(old), now));
                told.push(own);
            }
            // Twice the same, which only an accident can make.
            Some(_) => {}
            None if removes => {}
            None => merged.push(old.clone()),
        }
    }
    for wanted in wanted {
        if kind(wanted).is_some_and(|kind| !told.contains(&kind)) {
            merged.push(condition(wanted, None, now));
        }
    }
    merged
}

/// The time of change is that of `status`, not of the words.
fn condition(wanted: &Value, old: Option<&Value>, now: &str) -> Value {
    let mut condition = wanted.clone();
    let unchanged = old.filter(|old| old.get("status") == wanted.get("status"));
    let since = unchanged
        .and_then(|old| old.get("lastTransitionTime"))
        .cloned();
    if let Some(fields) = condition.as_object_mut() {
        if let Some(Value::String(message)) = fields.get_mut("message") {
            shorten(message);
        }
        let since = since.unwrap_or_else(|| now.into());
        fields.insert("lastTransitionTime".to_owned(), since);
    }
    condition
}

fn shorten(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        let mut ends = (0..=MESSAGE_BYTES_MAX).rev();
        let end = ends.find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Own<'static> = Own {
        conditions: &["cairn.dev/WaypointBound"],
        removes: true,
        withdrawn: None,
    };

    fn accepted(status: &str, message: &str) -> Value {
        json!({"type": "Accepted", "status": status, "reason": "Accepted", "message": message, "observedGeneration": 2})
    }

    fn route(parents: &[(&str, Value)]) -> Desired {
        let parents = parents.iter().map(|(name, condition)| {
            json!({"parentRef": {"group": "", "kind": "Service", "name": name}, "controllerName": CONTROLLER,
                "conditions": [condition]})
        });
        Desired {
            entries: [("parents".to_owned(), parents.collect())]
                .into_iter()
                .collect(),
            ..Desired::default()
        }
    }

    /// What the server has after a merge patch.
    fn after(current: &Value, changes: &Value) -> Value {
        let mut current = current.as_object().cloned().unwrap_or_default();
        current.extend(changes.as_object().cloned().unwrap_or_default());
        Value::Object(current)
    }

    fn theirs() -> Value {
        json!({"parentRef": {"name": "edge"}, "controllerName": "other.example/x", "conditions": [
            {"type": "Accepted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]})
    }

    #[test]
    fn others_entries_stay_as_they_are_and_where_they_are() {
        let current = json!({"parents": [theirs()]});
        let desired = route(&[("web", accepted("True", ""))]);
        let changes = patch(Some(&current), &desired, OWN, "T1").unwrap();
        assert_eq!(changes["parents"][0], theirs());
        assert_eq!(changes["parents"][1]["parentRef"]["name"], "web");
        // And ours goes with its parentRef, while theirs stays.
        let current = after(&current, &changes);
        let gone = patch(Some(&current), &Desired::default(), OWN, "T2").unwrap();
        assert_eq!(gone, json!({"parents": [theirs()]}));
    }

    #[test]
    fn the_time_of_change_is_that_of_the_status_and_not_of_the_words() {
        let first = patch(None, &route(&[("web", accepted("True", "a"))]), OWN, "T1").unwrap();
        let time =
            |status: &Value| status["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
        let words = patch(
            Some(&first),
            &route(&[("web", accepted("True", "b"))]),
            OWN,
            "T2",
        )
        .unwrap();
        assert_eq!(time(&words), "T1");
        let other = patch(
            Some(&words),
            &route(&[("web", accepted("False", "b"))]),
            OWN,
            "T3",
        )
        .unwrap();
        assert_eq!(time(&other), "T3");
    }

    /// linkerd2#13327: a controller that took another order for a change, and wrote for ever.
    #[test]
    fn another_order_is_no_change() {
        let desired = route(&[("a", accepted("True", "")), ("b", accepted("True", ""))]);
        let mut current = patch(None, &desired, OWN, "T1").unwrap();
        current["parents"].as_array_mut().unwrap().reverse();
        assert_eq!(patch(Some(&current), &desired, OWN, "T2"), None);
    }

    #[test]
    fn what_the_server_fills_in_is_no_change() {
        let mut desired = route(&[("a", accepted("True", ""))]);
        desired.entries["parents"][0]["parentRef"] = json!({"name": "gw", "port": null});
        let mut current = patch(None, &desired, OWN, "T1").unwrap();
        current["parents"][0]["parentRef"] =
            json!({"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway"});
        assert_eq!(patch(Some(&current), &desired, OWN, "T2"), None);
    }

    #[test]
    fn a_condition_on_a_service_goes_when_no_waypoint_is_asked_for_any_more() {
        let others = json!({"type": "istio.io/WaypointBound", "status": "True"});
        let desired = Desired {
            conditions: vec![
                json!({"type": "cairn.dev/WaypointBound", "status": "True", "reason": "WaypointAccepted"}),
            ],
            ..Desired::default()
        };
        let current = json!({"loadBalancer": {}, "conditions": [others]});
        let changes = patch(Some(&current), &desired, OWN, "T1").unwrap();
        let current = after(&current, &changes);
        assert_eq!(current["conditions"].as_array().unwrap().len(), 2);
        let gone = patch(Some(&current), &Desired::default(), OWN, "T2").unwrap();
        assert_eq!(gone, json!({"conditions": [others]}));
    }

    #[test]
    fn while_another_revision_has_gateways_its_entries_are_not_taken_away() {
        let desired = route(&[("web", accepted("True", ""))]);
        let current = patch(None, &desired, OWN, "T1").unwrap();
        let own = Own {
            removes: false,
            ..OWN
        };
        assert_eq!(patch(Some(&current), &Desired::default(), own, "T2"), None);
    }

    #[test]
    fn a_message_fits_into_the_field() {
        let desired = route(&[("web", accepted("False", &"ä".repeat(40_000)))]);
        let status = patch(None, &desired, OWN, "T1").unwrap();
        let message = status["parents"][0]["conditions"][0]["message"]
            .as_str()
            .unwrap();
        assert!(message.len() <= MESSAGE_BYTES_MAX + 3, "{}", message.len());
        assert_eq!(patch(Some(&status), &desired, OWN, "T2"), None);
    }

    /// The API server refuses a longer list whole.
    #[test]
    fn of_our_entries_there_are_no_more_than_the_api_has_room_for() {
        for (list, reference, most) in [
            ("parents", "parentRef", PARENTS_MAX),
            ("ancestors", "ancestorRef", ANCESTORS_MAX),
        ] {
            let entry = |controller: &str, n: usize| {
                json!({reference: {"group": "", "kind": "Service", "name": format!("s{n}")},
                    "controllerName": controller, "conditions": []})
            };
            let wanted: Vec<Value> = (0..40).map(|n| entry(CONTROLLER, n)).collect();
            let desired = Desired {
                entries: [(list.to_owned(), json!(wanted))].into_iter().collect(),
                ..Desired::default()
            };
            for theirs in [0, 3, most] {
                let others = |status: &Value| {
                    let all = status[list].as_array().unwrap();
                    (all.len(), all.iter().filter(|e| !is_ours(e)).count())
                };
                let there: Vec<Value> = (0..theirs).map(|n| entry("other.example/x", n)).collect();
                let current = json!({list: there});
                let changes = patch(Some(&current), &desired, OWN, "T1").unwrap_or_default();
                let after = after(&current, &changes);
                assert_eq!(others(&after), (most, theirs));
                assert_eq!(patch(Some(&after), &desired, OWN, "T2"), None);
            }
        }
    }

    proptest! {
        /// No churn: whatever stands there and whatever is wanted, what was written is not written again, and
        /// what others wrote is all there.
        #[test]
        fn applying_twice_writes_once(
            there in prop::collection::vec((any::<bool>(), "[a-d]", any::<bool>()), 0..5),
            wanted in prop::collection::btree_map("[a-d]", (any::<bool>(), "[xy]"), 0..4),
            removes: bool,
        ) {
            let there: Vec<Value> = there.into_iter().map(|(ours, name, holds)| {
                let controller = if ours { CONTROLLER } else { "other.example/x" };
                json!({"parentRef": {"group": "", "kind": "Service", "name": name}, "controllerName": controller,
                    "conditions": [{"type": "Accepted", "status": holds.to_string(), "lastTransitionTime": "T0"}]})
            }).collect();
            let current = json!({"parents": there});
            let wanted: Vec<(String, Value)> = wanted.into_iter()
                .map(|(name, (holds, words))| (name, accepted(&holds.to_string(), &words))).collect();
            let wanted: Vec<(&str, Value)> = wanted.iter().map(|(n, c)| (n.as_str(), c.clone())).collect();
            let desired = route(&wanted);
            let own = Own { removes, ..OWN };
            let changes = patch(Some(&current), &desired, own, "T1");
            let after = after(&current, &changes.unwrap_or(Value::Null));
            prop_assert_eq!(patch(Some(&after), &desired, own, "T2"), None);
            let others = |status: &Value| -> Vec<Value> {
                status["parents"].as_array().unwrap().iter().filter(|e| !is_ours(e)).cloned().collect()
            };
            prop_assert_eq!(others(&after), others(&current));
        }
    }
}
