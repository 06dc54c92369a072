//! The answers in force, by name. Written by `follow`; read when a configuration comes into force and by
//! requests for a name inside of a wildcard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};

use super::answer::Answer;
use crate::clock::now_ms;
use crate::limits::DNS_QUESTIONS_WAITING_MAX;

/// Why a name is not looked up.
pub(super) const TOO_MANY: &str = "too many names are being looked up";

/// One name.
#[derive(Debug)]
pub(super) struct Entry {
    pub answer: watch::Sender<Option<Arc<Answer>>>,
    /// When a request last asked for it.
    pub used_ms: AtomicU64,
}

impl Entry {
    pub fn used(&self) {
        self.used_ms.store(now_ms(), Ordering::Relaxed);
    }
}

/// What is known of names.
#[derive(Debug)]
pub struct Names {
    table: ArcSwap<FxHashMap<Arc<str>, Arc<Entry>>>,
    applying: Mutex<()>,
    questions: mpsc::Sender<Arc<str>>,
    asked: Mutex<Option<mpsc::Receiver<Arc<str>>>>,
}

impl Default for Names {
    fn default() -> Self {
        let (questions, asked) = mpsc::channel(DNS_QUESTIONS_WAITING_MAX);
        Self {
            table: ArcSwap::default(),
            applying: Mutex::default(),
            questions,
            asked: Mutex::new(Some(asked)),
        }
    }
}

impl Names {
    /// What is known of a name.
    pub fn known(&self, name: &str) -> Option<Arc<Answer>> {
        self.table.load().get(name)?.answer.borrow().clone()
    }

    /// The answer for a name that a request asks for; waits for the first one.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn requested(&self, name: &str, within: Duration) -> Result<Arc<Answer>, String> {
        if let Some(entry) = self.table.load().get(name) {
            entry.used();
            if let Some(answer) = entry.answer.borrow().clone() {
                return Ok(answer);
            }
        }
        let waited = tokio::time::timeout(within, self.first(name)).await;
        waited.unwrap_or_else(|_| Err(format!("no answer within {} ms", within.as_millis())))
    }

    async fn first(&self, name: &str) -> Result<Arc<Answer>, String> {
        // Without a question nobody would ever forget the name.
        let Ok(question) = self.questions.try_reserve() else {
            return Err(TOO_MANY.to_owned());
        };
        let entry = self.entry(name);
        entry.used();
        let mut answer = entry.answer.subscribe();
        question.send(name.into());
        let answer = answer.wait_for(Option::is_some).await;
        let answer = answer
            .map_err(|_| "it is no longer asked for".to_owned())?
            .clone();
        answer.ok_or_else(|| "there is no answer".to_owned())
    }

    /// Nobody changes clusters by answers as long as this is held: a configuration comes into force.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.applying)
    }

    /// The names that requests ask for; to be taken once.
    pub(super) fn asked(&self) -> Option<mpsc::Receiver<Arc<str>>> {
        lock(&self.asked).take()
    }

    /// The place of a name's answer, made if there is none.
    pub(super) fn entry(&self, name: &str) -> Arc<Entry> {
        if let Some(entry) = self.table.load().get(name) {
            return entry.clone();
        }
        let new = Arc::new(Entry {
            answer: watch::Sender::new(None),
            used_ms: AtomicU64::new(now_ms()),
        });
        self.table.rcu(|table| {
            let mut table = FxHashMap::clone(table);
            table.entry(name.into()).or_insert_with(|| new.clone());
            table
        });
        self.table.load().get(name).cloned().unwrap_or(new)
    }

    pub(super) fn forget(&self, name: &str) {
        self.table.rcu(|table| {
            let mut table = FxHashMap::clone(table);
            table.remove(name);
            table
        });
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.table.load().len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that asks for ever new names must not fill the table with names that nobody looks up.
    #[tokio::test]
    async fn a_question_that_finds_no_room_leaves_nothing_behind() {
        let names = Names::default();
        let soon = Duration::from_millis(1);
        for n in 0..DNS_QUESTIONS_WAITING_MAX + 10 {
            let name = format!("n{n}.example.org");
            // Nobody looks them up here: those that find room wait for nothing.
            let within = if n < DNS_QUESTIONS_WAITING_MAX {
                Duration::ZERO
            } else {
                soon
            };
            let refused = names.requested(&name, within).await.unwrap_err();
            let no_room = n >= DNS_QUESTIONS_WAITING_MAX;
            assert_eq!(refused == TOO_MANY, no_room, "{n}: {refused}");
        }
        assert_eq!(names.len(), DNS_QUESTIONS_WAITING_MAX);
    }
}
