//! What is open on one worker, and how its owner hears that it is to be closed. Judges nothing.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use cairn_authz::Verdict;
use futures::task::AtomicWaker;
use rustc_hash::FxHashMap;

use super::judge::Kept;
use crate::runtime::Runtime;
use crate::telemetry::counters::CLOSED_BY_POLICY;

/// Why something is closed.
#[derive(Debug)]
pub struct Closure {
    /// Version of the snapshot that denies it.
    pub snapshot: u64,
    /// Its verdict; `None`: it was refused before policy.
    pub verdict: Option<Verdict>,
    /// In one clause.
    pub reason: String,
    /// `response_code_details`.
    pub details: String,
}

/// Where the owner of something open waits for its end. One task waits.
#[derive(Debug, Default)]
pub struct Closing {
    why: OnceLock<Closure>,
    waiting: AtomicWaker,
}

impl Closing {
    /// Why it is to be closed; `None` while it may go on.
    pub fn why(&self) -> Option<&Closure> {
        self.why.get()
    }

    /// Ready once it is to be closed.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<&Closure> {
        if let Some(why) = self.why.get() {
            return Poll::Ready(why);
        }
        self.waiting.register(cx.waker());
        // It may have come between the look and the registration.
        self.why.get().map_or(Poll::Pending, Poll::Ready)
    }

    fn close(&self, closure: Closure) {
        // Only the first reason counts.
        let _ = self.why.set(closure);
        self.waiting.wake();
    }
}

struct Entry {
    kept: Kept,
    /// Version of the snapshot that allowed it last.
    judged: u64,
    closing: Arc<Closing>,
}

/// What is open on one worker. The lock is taken when something is opened or closed and for each slice
/// of a pass, by this worker's thread alone: never while bytes move, and nobody waits for it.
#[derive(Default)]
pub struct Open {
    entries: Mutex<FxHashMap<u64, Entry>>,
    next: AtomicU64,
}

/// Something open, until this is dropped.
pub struct Registered {
    open: Arc<Open>,
    id: u64,
    closing: Arc<Closing>,
}

impl Registered {
    /// Waits until it is to be closed.
    pub async fn closed(&self) -> &Closure {
        poll_fn(|cx| self.closing.poll(cx)).await
    }

    /// Why it is to be closed; `None` while it may go on.
    pub fn why(&self) -> Option<&Closure> {
        self.closing.why()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.open.entries().remove(&self.id);
    }
}

impl Open {
    /// From now on it is judged again when policy changes. `judged` is the version of the snapshot that
    /// allowed it; if `runtime`, the one in force, is another, it is judged at once.
    pub fn register(
        self: &Arc<Self>,
        kept: Kept,
        judged: u64,
        closing: Arc<Closing>,
        runtime: &Runtime,
    ) -> Registered {
        let id = self.next.fetch_add(1, Relaxed);
        let entry = Entry {
            kept,
            judged,
            closing: closing.clone(),
        };
        self.entries().insert(id, entry);
        if judged != runtime.snapshot.version {
            self.judge(&[id], runtime);
        }
        Registered {
            open: self.clone(),
            id,
            closing,
        }
    }

    /// What an older snapshot than `version` allowed.
    pub(super) fn judged_before(&self, version: u64) -> Arc<[u64]> {
        let entries = self.entries();
        let due = entries.iter().filter(|(_, entry)| entry.judged < version);
        due.map(|(id, _)| *id).collect()
    }

    /// Judges these again; what has ended since is left out.
    pub(super) fn judge(&self, ids: &[u64], runtime: &Runtime) {
        let mut entries = self.entries();
        for id in ids {
            let Some(entry) = entries.get_mut(id) else {
                continue;
            };
            entry.judged = runtime.snapshot.version;
            if let Some(closure) = entry.kept.denied_by(runtime) {
                CLOSED_BY_POLICY.inc(entry.kept.kind());
                entry.closing.close(closure);
                entries.remove(id);
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, FxHashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
