//! Where all collections come together: what is there, what is new, and how each is doing. Asks nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::api::Collection;
use super::named;
use super::refusal::{Reason, Refusal};
use super::{Change, Changes, Health, Objects};
use crate::limits::{NAMED_MAX, NAMED_PER_NAMESPACE_MAX};

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
    health: BTreeMap<Collection, Standing>,
    /// Collections that each object names.
    named: BTreeMap<Arc<str>, Vec<Collection>>,
    /// Something may be told: all was listed once, or was there from the start.
    complete: bool,
    /// Everything was listed, as of the last time that somebody said something.
    synced: bool,
    discovery: Option<Refusal>,
    /// Since when the server can not be reached.
    outage: Option<Instant>,
    /// How many collections are named and not followed.
    left_out: usize,
}

impl State {
    /// Looks whether all is there now; `true` if it was not before.
    fn look(&mut self) -> bool {
        let was_synced = self.synced;
        self.synced = self.health.values().all(Standing::is_settled);
        self.complete |= self.synced;
        self.synced && !was_synced
    }
}

/// How one collection is doing.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// Other objects name it.
    named: bool,
    synced: bool,
    absent: bool,
    connected: bool,
    objects: usize,
    lists: u64,
    errors: [u64; Reason::ALL.len()],
    heard: Option<Instant>,
    refusal: Option<Refusal>,
}

impl Standing {
    /// Nothing waits for it. One that an object names is waited for until the server said no: whoever may write
    /// such an object must not keep a waypoint from becoming ready.
    fn is_settled(&self) -> bool {
        self.synced || self.named && self.refusal.is_some()
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
                health: health.collect(),
                named: BTreeMap::new(),
                complete: false,
                synced: false,
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
        self.take(&mut state, stored);
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

    /// A watch began.
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
        let is_news = !changes.is_empty();
        self.take(&mut state, changes);
        let is_whole = state.look();
        let tells = state.complete && (is_news || is_whole);
        drop(state);
        if tells {
            self.tell();
        }
    }

    fn take(&self, state: &mut State, changes: Vec<Change>) {
        let mut renamed = false;
        for change in changes {
            if let Some(names) = named::collections(&change) {
                renamed = true;
                state.named.insert(change.path.clone(), names);
            } else {
                renamed |= state.named.remove(&change.path).is_some();
            }
            match &mut state.kept {
                Some(kept) => {
                    let kept = Arc::make_mut(kept);
                    match change.text {
                        Some(text) => drop(kept.insert(change.path, text)),
                        None => drop(kept.remove(&change.path)),
                    }
                }
                None => drop(state.pending.insert(change.path.clone(), change)),
            }
        }
        if renamed {
            let (followed, left_out) = named::within_limits(state.named.values().flatten());
            for collection in followed {
                let standing = state.health.entry(collection).or_default();
                standing.named = true;
            }
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

    /// The collections that objects name now, as many as are followed.
    pub fn named(&self) -> Vec<Collection> {
        named::within_limits(self.state().named.values().flatten()).0
    }

    /// A collection is no longer followed, and its object nobody's any more.
    pub fn forget(&self, collection: &Collection, paths: Vec<Arc<str>>) {
        let mut state = self.state();
        state.health.remove(collection);
        let gone = paths.into_iter().map(Change::gone).collect();
        self.take(&mut state, gone);
        let tells = state.complete;
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
        standing.connected = false;
        if let Some(count) = standing.errors.get_mut(refusal.reason as usize) {
            *count += 1;
        }
        let is_known = standing.refusal.as_ref() == Some(&refusal);
        let (reason, kind) = (refusal.reason, collection.kind.0);
        let message = refusal.message.clone();
        standing.refusal = Some(refusal);
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
        let is_whole = state.look();
        drop(state);
        if is_whole {
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
        Changes {
            objects: std::mem::take(&mut state.pending).into_values().collect(),
        }
    }

    /// Whether every kind that is served was listed.
    pub fn synced(&self) -> bool {
        self.state().health.values().all(Standing::is_settled)
    }

    /// What has not been listed yet, and why.
    pub fn waiting(&self) -> Vec<String> {
        let state = self.state();
        let discovery = state
            .discovery
            .iter()
            .map(|r| format!("the kinds there are: {r}"));
        let lists = state.health.iter().filter(|(_, s)| !s.is_settled());
        let lists = lists.filter_map(|(collection, standing)| {
            let kind = collection.kind.0.title();
            match (&standing.refusal, &state.discovery) {
                (Some(refusal), _) => Some(format!("{kind}: {refusal}")),
                (None, Some(_)) if !collection.kind.0.group.is_empty() => None,
                (None, _) => Some(format!("{kind}: not listed yet")),
            }
        });
        discovery.chain(lists).collect()
    }

    /// How each collection is doing.
    pub fn health(&self) -> Vec<Health> {
        let state = self.state();
        let one = |(collection, standing): (&Collection, &Standing)| Health {
            kind: collection.kind.0.title(),
            is_absent: standing.absent,
            is_connected: standing.connected,
            objects: standing.objects,
            relists: standing.lists.saturating_sub(1),
            errors: Reason::ALL.into_iter().zip(standing.errors).collect(),
            quiet_for: standing.heard.map(|at| at.elapsed()),
        };
        state.health.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::KindRef;
    use super::*;
    use crate::kinds::watched_kind;

    #[test]
    fn what_objects_name_keeps_nobody_from_starting_once_it_is_refused() {
        let policies = Collection {
            kind: KindRef(watched_kind("BackendTLSPolicy").unwrap()),
            namespace: None,
            name: None,
        };
        let hub = Hub::new([policies.clone()], false);
        let text = r#"{"metadata":{"namespace":"shop","name":"p"},"spec":{"validation":{"caCertificateRefs":[
            {"kind":"ConfigMap","name":"ca"}]}}}"#;
        let policy = Change::put("kubernetes:BackendTLSPolicy/shop/p".into(), text.into());
        hub.listed(&policies, vec![policy], 1);
        assert!(!hub.synced(), "its certificates are waited for");
        assert_eq!(hub.changes().objects.len(), 0);
        let named = hub.named();
        hub.failed(&named[0], Refusal::malformed("no"));
        assert!(hub.synced());
        assert_eq!(hub.waiting(), [""; 0]);
        assert_eq!(hub.changes().objects.len(), 1);
        // One that is followed from the start is waited for, whatever the server says.
        let hub = Hub::new(named.clone(), false);
        hub.failed(&named[0], Refusal::malformed("no"));
        assert!(!hub.synced());
    }
}
