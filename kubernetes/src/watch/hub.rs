//! Where all collections come together: what is there, what is new, and how each is doing. Asks nobody.

mod standing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::api::Collection;
use super::named;
use super::refusal::{Reason, Refusal};
use super::{Change, Changes, Health, Objects, Pending};
use crate::limits::{NAMED_MAX, NAMED_PER_NAMESPACE_MAX};
use standing::Standing;

/// What reflectors report to, and those who use the watch read.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Counts what is new, once all is there.
    pub news: watch::Sender<u64>,
    /// Told when other objects are named than before.
    pub rescope: Notify,
}

#[derive(Debug)]
struct State {
    /// Texts, if they are kept.
    kept: Option<Arc<Objects>>,
    /// What was not taken yet, if texts are not kept; the last of each object.
    pending: BTreeMap<Arc<str>, Change>,
    /// Something of that is not of endpoints.
    has_pending_others: bool,
    /// What waits until everything is followed; the last of each object.
    held: BTreeMap<Arc<str>, Change>,
    /// It was said that something waits.
    is_hold_said: bool,
    health: BTreeMap<Collection, Standing>,
    /// Collections that each object names.
    named: BTreeMap<Arc<str>, Vec<Collection>>,
    /// Something may be told: all was listed once, or was there from the start.
    complete: bool,
    /// All was listed once.
    read: bool,
    /// Everything is followed, so that nothing comes before what belongs to it, as a Service would that comes
    /// before its policy.
    whole: bool,
    discovery: Option<Refusal>,
    /// Since when the server can not be reached.
    outage: Option<Instant>,
    /// How many collections are named and not followed.
    left_out: usize,
}

impl State {
    /// Whether that is to be told. What waits to be taken was told, and endpoints are in no hurry: two hundred of them
    /// a second would wake whoever takes them later two hundred times.
    fn deliver(&mut self, change: Change) -> bool {
        match &mut self.kept {
            Some(kept) => {
                let kept = Arc::make_mut(kept);
                match change.text {
                    Some(text) => drop(kept.insert(change.path, text)),
                    None => drop(kept.remove(&change.path)),
                }
                true
            }
            None => {
                let is_other = !change.is_of_endpoints();
                let is_news = self.pending.is_empty() || is_other && !self.has_pending_others;
                self.has_pending_others |= is_other;
                self.pending.insert(change.path.clone(), change);
                is_news
            }
        }
    }

    /// Looks whether everything is followed now, and gives what waited for that. Whether there is something
    /// to tell because of it.
    fn settle(&mut self) -> bool {
        let was_whole = self.whole;
        self.whole = self.health.values().all(Standing::is_followed);
        if !self.whole || was_whole {
            return false;
        }
        let is_first = !self.read;
        (self.complete, self.read, self.is_hold_said) = (true, true, false);
        let held = std::mem::take(&mut self.held);
        let is_news = !held.is_empty();
        for change in held.into_values() {
            self.deliver(change);
        }
        is_news || is_first
    }

    /// Says once that changes wait, and for what.
    fn say_hold(&mut self) {
        if !self.complete || std::mem::replace(&mut self.is_hold_said, true) {
            return;
        }
        let missing = self.health.iter().filter(|(_, s)| !s.is_followed());
        let kinds: Vec<_> = missing.map(|(c, _)| c.kind.0.title()).collect();
        let kinds = kinds.join(", ");
        tracing::warn!(%kinds, "changes wait until these kinds are followed, all but those of Pods and EndpointSlices");
    }
}

impl Hub {
    /// A hub for these collections, which keeps texts or gives changes.
    pub fn new(collections: impl IntoIterator<Item = Collection>, keeps: bool) -> Self {
        let health = collections.into_iter().map(|c| (c, Standing::default()));
        Self {
            state: Mutex::new(State {
                kept: keeps.then(Arc::default),
                pending: BTreeMap::new(),
                has_pending_others: false,
                held: BTreeMap::new(),
                is_hold_said: false,
                health: health.collect(),
                named: BTreeMap::new(),
                complete: false,
                read: false,
                whole: false,
                discovery: None,
                outage: None,
                left_out: 0,
            }),
            news: watch::Sender::new(0),
            rescope: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was stored earlier as if it had been listed; it may be told at once.
    pub fn restore(&self, stored: Vec<Change>) {
        let mut state = self.state();
        self.follow_named(&mut state, &stored);
        for change in stored {
            state.deliver(change);
        }
        state.complete = true;
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// A whole list came.
    pub fn listed(&self, collection: &Collection, changes: Vec<Change>, objects: usize) {
        self.update(collection, changes, |standing| {
            standing.objects = objects;
            standing.lists += 1;
            standing.synced = true;
            standing.absent = false;
        });
    }

    /// An event came, if only a bookmark.
    pub fn push(&self, collection: &Collection, changes: Vec<Change>, objects: usize) {
        self.update(collection, changes, |standing| standing.objects = objects);
    }

    /// The kind is not served, and that is no fault.
    pub fn absent(&self, collection: &Collection) {
        self.update(collection, Vec::new(), |standing| {
            standing.synced = true;
            standing.absent = true;
            standing.connected = false;
            standing.objects = 0;
        });
    }

    /// A watch began, and what was missed before it was taken.
    pub fn connected(&self, collection: &Collection) {
        self.update(collection, Vec::new(), |standing| standing.connected = true);
        let mut state = self.state();
        let is_back = |s: &Standing| s.connected || s.absent || s.named;
        let all = state.health.values().all(is_back);
        if all && let Some(since) = state.outage.take() {
            let away_s = since.elapsed().as_secs();
            tracing::info!(
                away_s,
                "the API server is back, and all that was missed was read"
            );
        }
    }

    fn update(
        &self,
        collection: &Collection,
        changes: Vec<Change>,
        note: impl FnOnce(&mut Standing),
    ) {
        let mut state = self.state();
        let Some(standing) = state.health.get_mut(collection) else {
            // It is no longer followed.
            return;
        };
        standing.heard = Some(Instant::now());
        standing.refusal = None;
        note(standing);
        // Before, for what comes with the last thing that was waited for comes with what waited.
        let is_released = state.settle();
        let is_news = self.take(&mut state, changes);
        let tells = state.complete && (is_news || is_released);
        drop(state);
        if tells {
            self.tell();
        }
    }

    /// Has what these changes name followed, too.
    fn follow_named(&self, state: &mut State, changes: &[Change]) {
        let mut renamed = false;
        for change in changes {
            if let Some(names) = named::collections(change) {
                renamed = true;
                state.named.insert(change.path.clone(), names);
            } else {
                renamed |= state.named.remove(&change.path).is_some();
            }
        }
        if renamed {
            let (followed, left_out) = named::within_limits(state.named.values().flatten());
            for collection in followed {
                let standing = state.health.entry(collection).or_default();
                standing.named = true;
            }
            state.whole &= state.health.values().all(Standing::is_followed);
            if left_out > 0 && left_out != state.left_out {
                tracing::warn!(
                    left_out,
                    "BackendTLSPolicies name more ConfigMaps than are followed: {NAMED_PER_NAMESPACE_MAX} of a namespace, {NAMED_MAX} in all; the others are as if they were not there"
                );
            }
            state.left_out = left_out;
            self.rescope.notify_one();
        }
    }

    /// Takes what is new, to be given now or once everything is followed. Whether that is to be told.
    fn take(&self, state: &mut State, changes: Vec<Change>) -> bool {
        self.follow_named(state, &changes);
        let mut is_news = false;
        for change in changes {
            if state.whole || change.is_of_endpoints() {
                is_news |= state.deliver(change);
            } else {
                state.held.insert(change.path.clone(), change);
                state.say_hold();
            }
        }
        is_news
    }

    /// The collections that objects name now, as many as are followed.
    pub fn named(&self) -> Vec<Collection> {
        named::within_limits(self.state().named.values().flatten()).0
    }

    /// A collection is no longer followed, and its object nobody's any more.
    pub fn forget(&self, collection: &Collection, paths: Vec<Arc<str>>) {
        let mut state = self.state();
        state.health.remove(collection);
        let gone = paths.into_iter().map(Change::gone).collect();
        let is_news = self.take(&mut state, gone);
        let tells = state.settle() || state.complete && is_news;
        drop(state);
        if tells {
            self.tell();
        }
    }

    /// The server did not give what was asked for. It is said once, until it is something else.
    pub fn failed(&self, collection: &Collection, refusal: Refusal) {
        let mut state = self.state();
        let Some(standing) = state.health.get_mut(collection) else {
            return;
        };
        (standing.connected, standing.absent) = (false, false);
        if let Some(count) = standing.errors.get_mut(refusal.reason as usize) {
            *count += 1;
        }
        let is_known = standing.refusal.as_ref() == Some(&refusal);
        let (reason, kind) = (refusal.reason, collection.kind.0);
        let message = refusal.message.clone();
        standing.refusal = Some(refusal);
        state.whole = false;
        match reason {
            Reason::Unreachable => self.unreachable(&mut state, &message),
            _ if is_known => {}
            Reason::Expired | Reason::Broken => {
                tracing::debug!(kind = %kind.title(), "the watch ended: {message}");
            }
            Reason::Forbidden => {
                let resource = kind.resource();
                tracing::error!(kind = %kind.title(), "{message}; what was there stays; grant list and watch on {resource}");
            }
            _ => {
                tracing::warn!(kind = %kind.title(), reason = reason.as_str(), "{message}; what was there stays");
            }
        }
        let is_released = state.settle();
        drop(state);
        if is_released {
            self.tell();
        }
    }

    fn unreachable(&self, state: &mut State, message: &str) {
        if state.outage.is_none() {
            state.outage = Some(Instant::now());
            match state.complete {
                true => {
                    tracing::warn!(
                        "the API server can not be reached: {message}; the last good state stays in force"
                    );
                }
                false => tracing::warn!("the API server can not be reached: {message}"),
            }
        }
    }

    /// What is served could be asked.
    pub fn discovered(&self) {
        self.state().discovery = None;
    }

    /// What is served could not be asked.
    pub fn not_discovered(&self, refusal: Refusal) {
        let mut state = self.state();
        let is_known = state.discovery.as_ref() == Some(&refusal);
        let message = refusal.message.clone();
        match refusal.reason {
            Reason::Unreachable => self.unreachable(&mut state, &message),
            _ if is_known => {}
            _ => tracing::warn!("can not ask the API server which kinds it has: {message}"),
        }
        state.discovery = Some(refusal);
    }

    /// Whether anything may be told: all was listed once, or is known from earlier.
    pub fn is_complete(&self) -> bool {
        self.state().complete
    }

    /// All objects, if they are kept and all were listed.
    pub fn objects(&self) -> Arc<Objects> {
        let state = self.state();
        match (&state.kept, state.complete) {
            (Some(kept), true) => kept.clone(),
            _ => Arc::default(),
        }
    }

    /// What is new since the last time, if texts are not kept.
    pub fn changes(&self) -> Changes {
        let mut state = self.state();
        if !state.complete {
            return Changes::default();
        }
        state.has_pending_others = false;
        Changes {
            objects: std::mem::take(&mut state.pending).into_values().collect(),
        }
    }

    /// What kind of thing is new since then.
    pub fn pending(&self) -> Pending {
        let state = self.state();
        match state.complete && !state.pending.is_empty() {
            false => Pending::Nothing,
            true if state.has_pending_others => Pending::Others,
            true => Pending::Endpoints,
        }
    }

    /// Whether every kind that is served was listed, and that is told.
    pub fn synced(&self) -> bool {
        let state = self.state();
        state.read && state.health.values().all(Standing::is_settled)
    }

    /// What has not been listed yet, and why.
    pub fn waiting(&self) -> Vec<String> {
        let state = self.state();
        let discovery = state
            .discovery
            .iter()
            .map(|r| format!("the kinds there are: {r}"));
        let lists = state.health.iter();
        let lists = lists.filter(|(_, s)| !s.is_settled() || !state.read && !s.is_followed());
        let lists = lists.filter_map(|(collection, standing)| {
            let kind = collection.kind.0.title();
            match (&standing.refusal, &state.discovery) {
                (Some(refusal), _) => Some(format!("{kind}: {refusal}")),
                (None, Some(_)) if !collection.kind.0.group.is_empty() && !standing.synced => None,
                (None, _) if standing.synced => Some(format!("{kind}: not watched yet")),
                (None, _) => Some(format!("{kind}: not listed yet")),
            }
        });
        discovery.chain(lists).collect()
    }

    /// How each collection is doing.
    pub fn health(&self) -> Vec<Health> {
        let state = self.state();
        let all = state.health.iter();
        all.map(|(collection, standing)| standing.health(collection))
            .collect()
    }
}

#[cfg(test)]
mod tests;
