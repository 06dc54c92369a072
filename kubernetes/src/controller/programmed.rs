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
                return At::Behind(format!("{pod}: it has an earlier text of generation {has}"));
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
mod tests {
    use super::*;

    const PATH: &str = "kubernetes:HTTPRoute/shop/web";

    fn gateway() -> ObjectKey {
        ObjectKey::new("shop", "waypoint")
    }

    fn applies(generation: i64) -> Applies {
        Applies::from([(PATH.to_owned(), version(generation, 0))])
    }

    fn version(generation: i64, fingerprint: u64) -> Version {
        Version {
            generation,
            fingerprint,
        }
    }

    fn pod(name: &str, has: Option<i64>) -> (String, Result<Answer, String>) {
        let objects = has.map(|n| ("HTTPRoute/shop/web".to_owned(), n));
        let answer = Answer {
            gateway: Some("shop/waypoint".to_owned()),
            objects: objects.into_iter().collect(),
            ..Answer::default()
        };
        (name.to_owned(), Ok(answer))
    }

    /// One that has generation 2 with this fingerprint.
    fn with(name: &str, fingerprint: u64) -> (String, Result<Answer, String>) {
        let (name, mut answer) = pod(name, Some(2));
        if let Ok(answer) = &mut answer {
            answer.fingerprints = [("HTTPRoute/shop/web".to_owned(), fingerprint)].into();
        }
        (name, answer)
    }

    fn silent(name: &str) -> (String, Result<Answer, String>) {
        (name.to_owned(), Err("it gave no answer".to_owned()))
    }

    /// Status and message of the condition.
    fn told(programmed: &Programmed, generation: i64, there: Option<&Value>) -> Option<Value> {
        programmed.condition(PATH, version(generation, 0), &[&gateway()], there)
    }

    #[test]
    fn it_is_programmed_when_every_ready_replica_says_so_and_not_before() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let answers = [pod("a", Some(2)), pod("b", Some(1))];
        let again = programmed.take(&gateway(), &applies(2), &answers, now);
        assert!(again.is_some());
        assert_eq!(programmed.take_due(), [""; 0], "it is given time");
        assert_eq!(told(&programmed, 2, None), None);
        let both = [pod("a", Some(2)), pod("b", Some(2))];
        assert_eq!(programmed.take(&gateway(), &applies(2), &both, now), None);
        assert_eq!(programmed.take_due(), [PATH]);
        let condition = told(&programmed, 2, None).unwrap();
        assert_eq!(
            (&condition["status"], &condition["observedGeneration"]),
            (&json!("True"), &json!(2))
        );
        // Asked again, nothing is new.
        programmed.take(&gateway(), &applies(2), &both, now);
        assert_eq!(programmed.take_due(), [""; 0]);
    }

    #[test]
    fn a_replica_that_stays_behind_is_named_once() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let answers = [pod("a", Some(2)), pod("b", Some(1))];
        let mut due = Vec::new();
        for second in 0..20 {
            let then = now + Duration::from_secs(second);
            programmed.take(&gateway(), &applies(2), &answers, then);
            due.push(programmed.take_due().len());
        }
        assert_eq!(due.iter().sum::<usize>(), 1, "{due:?}");
        assert_eq!(due[3], 1);
        let condition = told(&programmed, 2, None).unwrap();
        assert_eq!(condition["status"], "False");
        let message = condition["message"].as_str().unwrap();
        assert!(
            message.ends_with("generation 2: b: it has generation 1"),
            "{message}"
        );
    }

    #[test]
    fn who_was_behind_and_is_silent_is_behind() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let mut due = 0;
        for second in 0..20 {
            let answer = match second % 2 {
                0 => pod("b", Some(1)),
                _ => silent("b"),
            };
            let then = now + Duration::from_secs(second);
            programmed.take(&gateway(), &applies(2), &[pod("a", Some(2)), answer], then);
            due += programmed.take_due().len();
        }
        assert_eq!(due, 1, "told once");
    }

    /// One that can not be reached for a while is no reason to write about every route there is.
    #[test]
    fn silence_takes_nothing_back() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let both = [pod("a", Some(2)), pod("b", Some(2))];
        programmed.take(&gateway(), &applies(2), &both, now);
        programmed.take_due();
        let there = told(&programmed, 2, None).unwrap();
        for second in 0..10 {
            let then = now + Duration::from_secs(second);
            let one = [pod("a", Some(2)), silent("b")];
            programmed.take(&gateway(), &applies(2), &one, then);
            assert_eq!(programmed.take_due(), [""; 0]);
        }
        // One that has never answered is waited for, and what stands there stays.
        for second in [11, 20] {
            let three = [pod("a", Some(2)), silent("b"), silent("c")];
            let then = now + Duration::from_secs(second);
            assert!(
                programmed
                    .take(&gateway(), &applies(2), &three, then)
                    .is_some()
            );
            assert_eq!(told(&programmed, 2, Some(&there)), Some(there.clone()));
        }
        // A controller that begins anew knows what stands there.
        let anew = Programmed::default();
        for second in [0, 5] {
            let one = [pod("a", Some(2)), silent("b")];
            anew.take(
                &gateway(),
                &applies(2),
                &one,
                now + Duration::from_secs(second),
            );
        }
        let said = told(&anew, 2, Some(&there)).unwrap();
        assert_eq!(said["status"], "True");
        // Of the next generation nobody has said anything.
        for second in [0, 5] {
            let one = [pod("a", Some(3)), silent("b")];
            anew.take(
                &gateway(),
                &applies(3),
                &one,
                now + Duration::from_secs(second),
            );
        }
        let said = told(&anew, 3, Some(&there)).unwrap();
        assert_eq!(said["status"], "False");
        assert!(
            said["message"]
                .as_str()
                .unwrap()
                .contains("b: it gave no answer")
        );
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        let programmed = Programmed::default();
        assert_eq!(told(&programmed, 2, None), None);
        let there = json!({"type": PROGRAMMED, "status": "True", "observedGeneration": 1});
        assert_eq!(told(&programmed, 2, Some(&there)), Some(there.clone()));
    }

    /// An annotation makes no generation: who has the text before it has not what is written.
    #[test]
    fn of_one_generation_the_text_that_is_written_counts() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let wanted = |fingerprint| Applies::from([(PATH.to_owned(), version(2, fingerprint))]);
        let said = |fingerprint, there: Option<&Value>| {
            let condition =
                programmed.condition(PATH, version(2, fingerprint), &[&gateway()], there);
            let text = |c: &Value, field: &str| c[field].as_str().unwrap().to_owned();
            condition.map(|c| (text(&c, "status"), text(&c, "message"), c.clone()))
        };
        programmed.take(&gateway(), &wanted(1), &[with("a", 1)], now);
        let (status, _, there) = said(1, None).unwrap();
        assert_eq!(status, "True");
        programmed.take_due();

        // The text before is no reason to say it of this one; it is asked again, and told when it lasts.
        let again = programmed.take(&gateway(), &wanted(2), &[with("a", 1)], now);
        assert!(again.is_some());
        let later = now + SAID_AFTER;
        programmed.take(&gateway(), &wanted(2), &[with("a", 1)], later);
        assert_eq!(programmed.take_due(), [PATH]);
        let (status, message, _) = said(2, Some(&there)).unwrap();
        assert_eq!(status, "False");
        assert!(
            message.ends_with("a: it has an earlier text of generation 2"),
            "{message}"
        );
        // What is asked of a text that is not the one any more says nothing of this one.
        assert_eq!(said(3, None), None);

        // Silence keeps what was acknowledged, but of the text before nothing is kept.
        programmed.take(&gateway(), &wanted(3), &[silent("a")], later);
        programmed.take(&gateway(), &wanted(3), &[silent("a")], later + SAID_AFTER);
        assert_eq!(said(3, Some(&there)).unwrap().0, "False");
        programmed.take(&gateway(), &wanted(3), &[with("a", 3)], later + SAID_AFTER);
        assert_eq!(said(3, Some(&there)).unwrap().0, "True");
    }

    #[test]
    fn of_two_gateways_both_have_to_have_it() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let other = ObjectKey::new("bank", "waypoint");
        let here = gateway();
        let both = [&here, &other];
        let of_both = || programmed.condition(PATH, version(2, 0), &both, None);
        programmed.take(&here, &applies(2), &[pod("a", Some(2))], now);
        assert_eq!(of_both(), None);
        let mut theirs = pod("z", Some(2));
        if let Ok(answer) = &mut theirs.1 {
            answer.gateway = Some(other.to_string());
        }
        // A pod that serves another Gateway says nothing of this one.
        programmed.take(&other, &applies(2), &[pod("z", Some(2))], now);
        assert_eq!(of_both(), None);
        programmed.take(&other, &applies(2), &[theirs], now);
        assert_eq!(of_both().unwrap()["status"], "True");
        programmed.retain(|key| *key == here);
        assert_eq!(of_both(), None);
    }

    #[test]
    fn who_is_behind_for_long_is_asked_less_often() {
        let (programmed, now) = (Programmed::default(), Instant::now());
        let again = |seconds: u64| {
            let then = now + Duration::from_secs(seconds);
            programmed.take(&gateway(), &applies(2), &[pod("a", None)], then)
        };
        assert_eq!(again(0), Some(Duration::from_millis(500)));
        assert_eq!(again(20), Some(Duration::from_secs(5)));
        assert_eq!(again(600), Some(Duration::from_secs(10)));
    }
}
