//! Puts together what is in force from what the documents say now and what was in force before.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::contest::Definition;
use super::{FileState, InForce, Store};
use crate::diagnostics::{Code, Diagnostic, Location, Severity};
use crate::origin::Origin;
use crate::parse::{Item, moved};
use crate::resources::{AnyObject, Broken, Resources};

/// The work of one update.
pub(super) struct Assembly<'s> {
    pub(super) before: FxHashMap<Origin, InForce>,
    pub(super) now: FxHashMap<Origin, InForce>,
    /// The files that define an object in different ways, before and now.
    pub(super) contested_before: FxHashMap<Origin, BTreeSet<Arc<str>>>,
    pub(super) contested: FxHashMap<Origin, BTreeSet<Arc<str>>>,
    /// First definitions that are not what is in force: broken or contested ones.
    pub(super) firsts: FxHashMap<Origin, Definition>,
    pub(super) resources: Resources,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) file: &'s Arc<str>,
}

impl Store {
    pub(super) fn assemble(&mut self, order: &[&Arc<str>]) -> (Resources, Vec<Diagnostic>) {
        let Some(first) = order.first() else {
            self.in_force.clear();
            self.contested.clear();
            return Default::default();
        };
        let mut assembly = Assembly {
            now: FxHashMap::with_capacity_and_hasher(self.in_force.len(), Default::default()),
            before: std::mem::take(&mut self.in_force),
            contested_before: std::mem::take(&mut self.contested),
            contested: FxHashMap::default(),
            firsts: FxHashMap::default(),
            resources: Resources::default(),
            diagnostics: Vec::new(),
            file: first,
        };
        for path in order {
            assembly.file = path;
            if let Some(state) = self.files.get(*path) {
                assembly.file(state);
            }
        }
        for path in order {
            assembly.file = path;
            if let Some(state) = self.files.get_mut(*path) {
                assembly.unreadable_parts(state);
            }
        }
        self.in_force = assembly.now;
        self.contested = assembly.contested;
        (assembly.resources, assembly.diagnostics)
    }
}

impl Assembly<'_> {
    /// Everything the documents of a file say.
    fn file(&mut self, state: &FileState) {
        let mut kinds = FxHashSet::default();
        for document in &state.documents {
            let lines_before = document.lines_before;
            for finding in &document.parsed.diagnostics {
                let mut finding = finding.clone();
                finding.location = finding.location.map(|l| moved(&l, lines_before));
                self.diagnostics.push(finding);
            }
            for (kind, location) in &document.parsed.kinds_not_read {
                if kinds.insert(kind) {
                    let message = format!("{kind} is not read by this version");
                    let finding = Diagnostic::new(Severity::Info, Code::UnknownKind, message)
                        .at(Some(moved(location, lines_before)));
                    self.diagnostics.push(finding);
                }
            }
            for item in &document.parsed.items {
                self.item(item, lines_before);
            }
        }
    }

    /// One object of a document.
    fn item(&mut self, item: &Item, lines_before: u32) {
        let origin = item.origin();
        let Entry::Vacant(entry) = self.now.entry(origin.clone()) else {
            return self.defined_again(item, lines_before);
        };
        let file = self.file.clone();
        let broken = match item {
            Item::Good(object) => {
                object.put(&mut self.resources, false);
                let item = item.clone();
                entry.insert(InForce { item, file });
                return;
            }
            Item::Broken(broken) => broken,
        };
        let at = location_of(item, lines_before);
        let item = match self.last_good(origin).cloned() {
            Some(good) => {
                good.put(&mut self.resources, true);
                let message = format!("{origin} is broken; its last good version stays in force");
                self.diagnostics.push(kept(origin, message, at.clone()));
                Item::Good(good)
            }
            None => {
                let broken = Arc::new(Broken {
                    location: at.clone(),
                    ..Broken::clone(broken)
                });
                broken.put(&mut self.resources);
                Item::Broken(broken)
            }
        };
        let first = Definition {
            item: Item::Broken(broken.clone()),
            at,
            file: file.clone(),
        };
        self.firsts.insert(origin.clone(), first);
        self.now.insert(origin.clone(), InForce { item, file });
    }

    /// The version that was in force before.
    pub(super) fn last_good(&self, origin: &Origin) -> Option<&AnyObject> {
        match self.before.get(origin) {
            Some(InForce {
                item: Item::Good(object),
                ..
            }) => Some(object),
            _ => None,
        }
    }

    /// While a part of a file cannot be read, all that the file provided before and does not now
    /// stays in force: it may be in that part. If nothing is missing, the part is something new of
    /// which nothing is known, and the waypoint is told so; but a file that was read before and
    /// can not be opened now is no news.
    fn unreadable_parts(&mut self, state: &mut FileState) {
        let mut parts: Vec<(Arc<str>, Location)> = Vec::new();
        let is_damaged = |s: &FileState| s.documents.iter().any(|d| d.parsed.is_damaged);
        if let Some(reason) = &state.unreadable {
            let message = format!("cannot read {}: {reason}", self.file);
            parts.push((message.into(), self.start()));
        }
        for document in &state.documents {
            let unreadable = document.parsed.unreadable.iter();
            let part = |reason: &str, at| {
                let message = format!("a document could not be identified: {reason}");
                (message.into(), moved(at, document.lines_before))
            };
            parts.extend(unreadable.map(|(reason, at)| part(reason, at)));
        }
        if parts.is_empty() && !is_damaged(state) {
            state.has_unknown_scope = false;
            return;
        }
        let kept = self.keep_contested(state) + self.keep_missing();
        if parts.is_empty() {
            return;
        }
        let is_known = state.unreadable.is_some() && state.was_read;
        state.has_unknown_scope |= kept == 0 && !is_known;
        if !state.has_unknown_scope && state.unreadable.is_some() {
            let findings = parts
                .into_iter()
                .map(|(message, at)| Diagnostic::error(Code::Unreadable, &*message).at(Some(at)));
            self.diagnostics.extend(findings);
        } else if state.has_unknown_scope {
            let parts = parts.into_iter().map(|(reason, at)| (reason, Some(at)));
            self.resources.unreadable.extend(parts);
        }
    }

    /// Keeps in force what the file provided before and no file provides now; says how many.
    fn keep_missing(&mut self) -> usize {
        let is_missing = |(origin, before): &(&Origin, &InForce)| {
            before.file == *self.file && !self.now.contains_key(*origin)
        };
        let missing = self.before.iter().filter(is_missing);
        let mut missing: Vec<_> = missing.map(|(o, b)| (o.clone(), b.item.clone())).collect();
        missing.sort_by(|a, b| (a.0.kind, &a.0.key).cmp(&(b.0.kind, &b.0.key)));
        let count = missing.len();
        for (origin, item) in missing {
            match &item {
                Item::Good(object) => object.put(&mut self.resources, true),
                Item::Broken(broken) => broken.put(&mut self.resources),
            }
            let message = format!(
                "{origin} stays in force: it was in {}, part of which cannot be read now",
                self.file
            );
            let finding = kept(&origin, message, Some(self.start()));
            self.diagnostics.push(finding);
            let file = self.file.clone();
            self.now.insert(origin, InForce { item, file });
        }
        count
    }

    pub(super) fn start(&self) -> Location {
        Location {
            file: self.file.clone(),
            line: 1,
            column: 1,
        }
    }
}

pub(super) fn kept(origin: &Origin, message: String, location: Option<Location>) -> Diagnostic {
    Diagnostic::warning(Code::KeptLastGood, message)
        .with_hint("mend it, or delete it to take it out of force")
        .at(location)
        .of(origin.clone(), "")
}

/// Where an object of a document stands in the file.
pub(super) fn location_of(item: &Item, lines_before: u32) -> Option<Location> {
    match item {
        Item::Good(object) => object.place().locate(""),
        Item::Broken(broken) => {
            let location = broken.location.as_ref();
            location.map(|l| moved(l, lines_before))
        }
    }
}
