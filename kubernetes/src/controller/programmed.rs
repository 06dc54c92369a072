//! Whether every ready replica has a route or a policy in force as it is written: kept for each Gateway from what its
//! pods acknowledged, and said in a condition of the object. Asks nobody and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Version;
use cairn_config_schema::status::Condition;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::acknowledged::Answer;
use crate::versions::{Differs, differs};

/// Type of the condition. The APIs have none of their own for it: `Programmed` is a Gateway's.
pub const PROGRAMMED: &str = "cairn.dev/Programmed";

/// That a replica is behind is said when it has been for so long. A change is in force within a fraction of this, and
/// would otherwise be written about twice.
const SAID_AFTER: Duration = Duration::from_secs(3);

/// Who is behind for long is asked less often: after a quarter of that time, but at least so often.
const ASKED_AT_LEAST: Duration = Duration::from_secs(10);

/// What a Gateway applies: versions by the path of the object.
pub type Applies = BTreeMap<String, Version>;

/// What is known of all Gateways.
#[derive(Debug, Default)]
pub struct Programmed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gateways: BTreeMap<ObjectKey, FxHashMap<String, Known>>,
    /// Pods of each that have answered.
    heard: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// Paths of objects of which something else is to be said than before.
    due: Vec<String>,
}

/// What is known of one object at one Gateway.
#[derive(Clone, Debug)]
struct Known {
    /// The version that was asked for.
    wanted: Version,
    /// Another text of the same generation was asked for before: what stands in the condition may be about that one.
    is_new_text: bool,
    at: At,
    /// Since when it is as it is.
    since: Instant,
    /// It is told.
    is_said: bool,
}

/// How the replicas of a Gateway stand to one version.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// Every ready one has it in force.
    All,
    /// One says that it has not.
    Behind(String),
    /// Of those that answer each has it, and one does not answer.
    Silent(String),
}

impl Programmed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets Gateways that are there no more.
    pub fn retain(&self, is_there: impl Fn(&ObjectKey) -> bool) {
        let mut state = self.state();
        state.gateways.retain(|key, _| is_there(key));
        state.heard.retain(|key, _| is_there(key));
    }

    /// Paths of objects whose condition may have to change, each once.
    pub fn take_due(&self) -> Vec<String> {
        let mut due = std::mem::take(&mut self.state().due);
        due.sort();
        due.dedup();
        due
    }

    /// Takes what the ready pods of a Gateway answered. When they are to be asked again, if they are.
    pub fn take(
        &self,
        gateway: &ObjectKey,
        applies: &Applies,
        answers: &[(String, Result<Answer, String>)],
        now: Instant,
    ) -> Option<Duration> {
        let mut state = self.state();
        let mut before = state.gateways.remove(gateway).unwrap_or_default();
        let mut heard = state.heard.remove(gateway).unwrap_or_default();
        heard.retain(|name| answers.iter().any(|(pod, _)| pod == name));
        let mut known = FxHashMap::default();
        let mut youngest: Option<Duration> = None;
        for (path, wanted) in applies {
            let before = before.remove(path);
            let is_new_text = before.as_ref().is_some_and(|b| b.is_older_text_of(*wanted));
            let before = before.filter(|b| b.wanted == *wanted);
            let was_all = before.as_ref().is_some_and(|b| b.at == At::All);
            let had = if was_all { &heard } else { &BTreeSet::new() };
            let at = at(path, *wanted, &gateway.to_string(), answers, had);
            let mut now_known = Known::after(before, *wanted, at, now);
            // Once all have it, what is written is about it.
            now_known.is_new_text = is_new_text && now_known.at != At::All;
            if now_known.at != At::All {
                let age = now - now_known.since;
                youngest = Some(youngest.map_or(age, |least| least.min(age)));
            }
            if now_known.is_due(now) {
                state.due.push(path.clone());
            }
            let is_said = now_known.is_said || now_known.is_due(now);
            known.insert(
                path.clone(),
                Known {
                    is_said,
                    ..now_known
                },
            );
        }
        let answered = answers.iter().filter(|(_, answer)| answer.is_ok());
        heard.extend(answered.map(|(pod, _)| pod.clone()));
        state.heard.insert(gateway.clone(), heard);
        state.gateways.insert(gateway.clone(), known);
        youngest.map(|age| (age / 4).clamp(super::tasks::ASK_AGAIN, ASKED_AT_LEAST))
    }

    /// The condition of an object of this path and version that these Gateways apply. `there` is that which it has,
    /// and keeps while nothing is known. `None`: none.
    pub fn condition(
        &self,
        path: &str,
        version: Version,
        gateways: &[&ObjectKey],
        there: Option<&Value>,
    ) -> Option<Value> {
        let generation = version.generation;
        let state = self.state();
        let keep = || there.cloned();
        let mut all_known = true;
        for gateway in gateways {
            let known = state.gateways.get(gateway).and_then(|all| all.get(path));
            let Some(known) = known.filter(|known| known.wanted == version && known.is_said) else {
                all_known = false;
                continue;
            };
            match &known.at {
                At::All => {}
                // Silence takes nothing back that was acknowledged.
                At::Silent(_) if holds(there, generation) && !known.is_new_text => {
                    all_known = false;
                }
                At::Behind(why) | At::Silent(why) => {
                    let message = format!(
                        "not every ready replica of {gateway} has acknowledged generation {generation}: {why}"
                    );
                    return Some(said(false, "Pending", message, generation));
                }
            }
        }
        if !all_known || gateways.is_empty() {
            return keep();
        }
        let names: Vec<String> = gateways.iter().map(ToString::to_string).collect();
        let message = format!(
            "every ready replica of {} serves this generation",
            names.join(", ")
        );
        Some(said(true, "Programmed", message, generation))
    }
}

impl Known {
    /// Whether this is of an older text of the same generation, or of one that came after such a text.
    fn is_older_text_of(&self, wanted: Version) -> bool {
        let same = self.wanted.generation == wanted.generation;
        same && (self.is_new_text || self.wanted != wanted)
    }

    /// What was known of the same version is taken further: silence tells nothing new of who was behind.
    fn after(before: Option<Self>, wanted: Version, at: At, now: Instant) -> Self {
        let before = before.filter(|b| (b.at == At::All) == (at == At::All));
        match (before, at) {
            (Some(before), At::Silent(_)) if matches!(before.at, At::Behind(_)) => before,
            (Some(before), at) => Self {
                is_said: before.is_said && before.at == at,
                at,
                ..before
            },
            (None, at) => Self {
                wanted,
                is_new_text: false,
                at,
                since: now,
                is_said: false,
            },
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_said && (self.at == At::All || now - self.since >= SAID_AFTER)
    }
}

/// `had`: pods that had this version when they last answered.
fn at(
    path: &str,
    wanted: Version,
    gateway: &str,
    answers: &[(String, Result<Answer, String>)],
    had: &BTreeSet<String>,
) -> At {
    let name = path.strip_prefix("kubernetes:").unwrap_or(path);
    let mut silent = None;
    for (pod, answer) in answers {
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if had.contains(pod) => continue,
            Err(why) => {
                silent.get_or_insert_with(|| format!("{pod}: {why}"));
                continue;
            }
        };
        if answer.gateway.as_deref() != Some(gateway) {
            return At::Behind(format!("{pod}: it refuses every tunnel"));
        }
        match differs((&answer.objects, &answer.fingerprints), name, wanted) {
            None => {}
            // Not a later one either: that is of an object of the name that was deleted, or will be told of soon.
            Some(Differs::Generation(has)) => {
                return At::Behind(format!("{pod}: it has generation {has}"));
            }
            Some(Differs::Text(has)) => {
                return At::Behind(format!("{pod}: it has another text of generation {has}"));
            }
            Some(Differs::Missing) if answer.left_out > 0 => {
                silent.get_or_insert_with(|| format!("{pod}: it does not tell of so many objects"));
            }
            Some(Differs::Missing) => {
                return At::Behind(format!("{pod}: it does not have it in force"));
            }
        }
    }
    if answers.is_empty() {
        silent = Some("none is ready".to_owned());
    }
    match silent {
        Some(why) => At::Silent(why),
        None => At::All,
    }
}

fn holds(there: Option<&Value>, generation: i64) -> bool {
    let has = |field: &str, value: Value| there.and_then(|c| c.get(field)) == Some(&value);
    has("status", "True".into()) && has("observedGeneration", generation.into())
}

fn said(holds: bool, reason: &'static str, message: String, generation: i64) -> Value {
    json!(Condition::new(
        PROGRAMMED,
        holds,
        reason,
        message,
        Some(generation)
    ))
}

#[cfg(test)]
#[path = "programmed_tests.rs"]
mod tests;
