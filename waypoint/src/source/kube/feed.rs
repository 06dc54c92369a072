//! From the watch to the publisher: sees that something is new, puts it in force when it is due, and has it kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_kubernetes::watch::{Pending, Watch};
use tokio::time::Instant;

use super::keep::Keeper;
use super::pace::{Done, Pace};
use crate::admin::{NotReady, Readiness};
use crate::publish::Publisher;
use crate::source::SourceFile;
use crate::telemetry;

/// Feeds the publisher.
pub(super) struct Feed {
    watch: Watch,
    publisher: Arc<Mutex<Publisher>>,
    readiness: Arc<Readiness>,
    keeper: Keeper,
    pace: Pace,
    waiting: Waiting,
    /// What is in force was stored earlier, at least in part.
    is_from_earlier: bool,
}

/// What is new and not in force yet. The watch keeps it until then.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    has_others: bool,
}

impl Waiting {
    /// Notes that something waits; `is_of_endpoints`: nothing else does.
    fn note(&mut self, is_of_endpoints: bool) {
        self.since.get_or_insert_with(Instant::now);
        self.has_others |= !is_of_endpoints;
    }
}

impl Feed {
    pub fn new(
        watch: Watch,
        publisher: Arc<Mutex<Publisher>>,
        readiness: Arc<Readiness>,
        keeper: Keeper,
        is_from_earlier: bool,
    ) -> Self {
        Self {
            watch,
            publisher,
            readiness,
            keeper,
            pace: Pace::default(),
            waiting: Waiting::default(),
            is_from_earlier,
        }
    }

    /// Feeds until it is dropped.
    pub async fn run(mut self) {
        loop {
            let due = self.waiting.since.map(|since| {
                let of_endpoints = !self.waiting.has_others;
                self.pace.due(since, of_endpoints)
            });
            tokio::select! {
                () = self.watch.changed() => {
                    match self.watch.pending() {
                        Pending::Nothing => {}
                        Pending::Endpoints => self.waiting.note(true),
                        Pending::Others => self.waiting.note(false),
                    }
                    self.note_sync();
                }
                () = until(due), if due.is_some() => self.publish(),
                () = self.keeper.due() => self.keeper.keep(),
            }
        }
    }

    /// Everything there is counts from now on, even if it is nothing.
    fn note_sync(&mut self) {
        self.keeper.add(BTreeMap::new(), self.watch.synced());
        if self.is_from_earlier && self.watch.synced() {
            self.is_from_earlier = false;
            telemetry::kubernetes::state_of(None);
            tracing::info!("the API server was read: what was stored earlier is out of force");
        }
        if self.waiting.since.is_none() && self.readiness.reasons().contains(&NotReady::NotSynced) {
            self.waiting.note(false);
        }
    }

    fn publish(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(since) = waiting.since else { return };
        let (mut files, mut gone) = (Vec::new(), Vec::new());
        let mut changes = BTreeMap::new();
        let mut is_of_endpoints = !waiting.has_others;
        for change in self.watch.changes().objects {
            is_of_endpoints &= change.is_of_endpoints();
            changes.insert(change.path, change.text);
        }
        for (path, text) in &changes {
            match text {
                Some(text) => files.push(SourceFile {
                    path: path.clone(),
                    text: Ok(text.clone()),
                }),
                None => gone.push(path.clone()),
            }
        }
        let began = Instant::now();
        let callers_count = {
            let publisher = self.publisher.lock();
            let mut publisher = publisher.unwrap_or_else(PoisonError::into_inner);
            publisher.change(&files, &gone, since.into_std());
            // Under the lock: whoever finds it there next must publish what he has.
            self.readiness.remove(NotReady::NotSynced);
            publisher.callers_count()
        };
        let done = Done {
            took: began.elapsed(),
            is_of_endpoints,
            callers_count,
        };
        self.pace.done(Instant::now(), done);
        telemetry::kubernetes::paced(self.pace.pause(true));
        // What is stored must not hide that something was never read.
        self.keeper.add(changes, self.watch.synced());
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
