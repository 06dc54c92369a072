//! The keys in force and how they came to be: read by every request, shown to operators, written by
//! `follow` alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use cairn_authz::jwt::{KeySet, KeySets};
use cairn_config_schema::snapshot::RemoteKeys;
use prometheus::proto::MetricFamily;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::counters::JWKS_FETCHES;
use crate::telemetry::instruments::{family, sample};
use crate::telemetry::names;

/// The keys in force.
#[derive(Debug, Default)]
pub struct Jwks {
    sets: ArcSwap<KeySets>,
    sources: Mutex<BTreeMap<RemoteKeys, Source>>,
}

#[derive(Debug, Default)]
struct Source {
    state: SourceState,
    /// When the keys in force are too old. Outlives the task that fetched them, as they do.
    good_until: Option<Instant>,
    /// Told when a token names a key that is not there.
    asked: Arc<Notify>,
}

/// What is known of one source of keys.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// Keys in force; none: its tokens are refused.
    pub keys: usize,
    /// Keys of the source that can not be used, and why.
    pub left_out: Vec<String>,
    /// When the keys in force were fetched.
    pub fetched: Option<SystemTime>,
    /// When a fetch was last tried.
    pub tried: Option<SystemTime>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
}

impl Jwks {
    /// The keys in force.
    pub fn load(&self) -> Guard<Arc<KeySets>> {
        self.sets.load()
    }

    /// Asks for a source to be fetched again, for a token names a key that is not there. `follow` sees
    /// to it that nobody makes us ask too often. Never waits.
    pub fn ask(&self, source: &RemoteKeys) {
        if let Ok(sources) = self.sources.try_lock()
            && let Some(source) = sources.get(source)
        {
            source.asked.notify_one();
        }
    }

    /// Every source and its state, for operators.
    pub fn states(&self) -> Vec<(RemoteKeys, SourceState)> {
        let sources = self.lock();
        let states = sources.iter();
        states
            .map(|(source, kept)| (source.clone(), kept.state.clone()))
            .collect()
    }

    /// Begins with a source; returns what tells that it is asked for.
    pub(super) fn add(&self, source: &RemoteKeys) -> Arc<Notify> {
        let mut sources = self.lock();
        sources.entry(source.clone()).or_default().asked.clone()
    }

    /// Ends with a source that nobody wants any more.
    pub(super) fn remove(&self, source: &RemoteKeys) {
        self.lock().remove(source);
        self.put(source, None);
    }

    /// When the keys in force of a source are too old. `None`: there are none.
    pub(super) fn good_until(&self, source: &RemoteKeys) -> Option<Instant> {
        self.lock().get(source)?.good_until
    }

    /// Keys were fetched.
    pub(super) fn fetched(&self, source: &RemoteKeys, set: KeySet, good_until: Instant) {
        JWKS_FETCHES.inc("success");
        let now = SystemTime::now();
        if let Some(kept) = self.lock().get_mut(source) {
            kept.good_until = Some(good_until);
            kept.state = SourceState {
                keys: set.keys().len(),
                left_out: set.left_out.clone(),
                fetched: Some(now),
                tried: Some(now),
                error: None,
            };
        }
        self.put(source, Some(Arc::new(set)));
    }

    /// A fetch failed; what was there stays.
    pub(super) fn failed(&self, source: &RemoteKeys, error: String) {
        JWKS_FETCHES.inc("failure");
        if let Some(kept) = self.lock().get_mut(source) {
            kept.state.tried = Some(SystemTime::now());
            kept.state.error = Some(error);
        }
    }

    /// The last good keys are too old.
    pub(super) fn expire(&self, source: &RemoteKeys) {
        if let Some(kept) = self.lock().get_mut(source) {
            kept.good_until = None;
            kept.state.keys = 0;
            kept.state.fetched = None;
        }
        self.put(source, None);
    }

    fn put(&self, source: &RemoteKeys, set: Option<Arc<KeySet>>) {
        self.sets.rcu(|sets| {
            let mut sets = KeySets::clone(sets);
            match &set {
                Some(set) => sets.by_source.insert(source.clone(), set.clone()),
                None => sets.by_source.remove(source),
            };
            sets
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RemoteKeys, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a scrape: keys and age of every source.
    pub fn families(&self) -> Vec<MetricFamily> {
        let states = self.states();
        if states.is_empty() {
            return Vec::new();
        }
        let keys = states
            .iter()
            .map(|(source, state)| sample(&names::JWKS_KEYS, &[&source.url], state.keys as f64));
        let fetched = states.iter().filter_map(|(source, state)| {
            let age = state.fetched?.elapsed().unwrap_or_default();
            Some(sample(&names::JWKS_AGE, &[&source.url], age.as_secs_f64()))
        });
        let mut families = vec![family(&names::JWKS_KEYS, keys.collect())];
        let ages: Vec<_> = fetched.collect();
        if !ages.is_empty() {
            families.push(family(&names::JWKS_AGE, ages));
        }
        families
    }
}
