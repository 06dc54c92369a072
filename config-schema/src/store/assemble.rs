//! Puts together what is in force from what the documents say now and what was in force before.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{FileState, Store};
use crate::diagnostics::{Code, Diagnostic, Location, Severity};
use crate::origin::Origin;
use crate::parse::{Item, moved};
use crate::resources::{Broken, Resources};

/// The work of one update.
struct Assembly<'s> {
    before: FxHashMap<Origin, (Item, Arc<str>)>,
    now: FxHashMap<Origin, (Item, Arc<str>)>,
    /// Where objects that are broken now stand; good ones say so themselves.
    places: FxHashMap<Origin, Location>,
    resources: Resources,
    diagnostics: Vec<Diagnostic>,
    file: &'s Arc<str>,
}

impl Store {
    pub(super) fn assemble(&mut self, order: &[&Arc<str>]) -> (Resources, Vec<Diagnostic>) {
        let Some(first) = order.first() else {
            self.in_force.clear();
            return Default::default();
        };
        let mut assembly = Assembly {
            now: FxHashMap::with_capacity_and_hasher(self.in_force.len(), Default::default()),
            before: std::mem::take(&mut self.in_force),
            places: FxHashMap::default(),
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
        (assembly.resources, assembly.diagnostics)
    }
}

impl Assembly<'_> {
    /// Everything the documents of a file say.
    fn file(&mut self, state: &FileState) {
        if let Some(reason) = &state.unreadable {
            let message = format!("cannot read {}: {reason}", self.file);
            let finding = Diagnostic::error(Code::Unreadable, message);
            self.diagnostics.push(finding.at(Some(self.start())));
        }
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

    /// One object of a document: the first with its name is in force.
    fn item(&mut self, item: &Item, lines_before: u32) {
        let origin = match item {
            Item::Good(object) => object.origin(),
            Item::Broken(broken) => &broken.origin,
        };
        let entry = match self.now.entry(origin.clone()) {
            Entry::Vacant(entry) => entry,
            Entry::Occupied(first) => {
                let is_same = match (&first.get().0, item) {
                    (Item::Good(a), Item::Good(b)) => a.says_the_same_as(b),
                    _ => false,
                };
                if !is_same {
                    let first = match (&first.get().0, self.places.get(origin)) {
                        (_, Some(place)) => Some(place.clone()),
                        (Item::Good(object), None) => object.place().locate(""),
                        (Item::Broken(broken), None) => broken.location.clone(),
                    };
                    self.duplicate(origin, first, location_of(item, lines_before));
                }
                return;
            }
        };
        let item = match item {
            Item::Good(object) => {
                object.put(&mut self.resources, false);
                item.clone()
            }
            Item::Broken(broken) => {
                let location = location_of(item, lines_before);
                if let Some(location) = &location {
                    self.places.insert(origin.clone(), location.clone());
                }
                match self.before.get(origin) {
                    Some((good @ Item::Good(object), _)) => {
                        object.put(&mut self.resources, true);
                        let message =
                            format!("{origin} is broken; its last good version stays in force");
                        self.diagnostics.push(kept(origin, message, location));
                        good.clone()
                    }
                    _ => {
                        let broken = Arc::new(Broken {
                            location,
                            ..Broken::clone(broken)
                        });
                        broken.put(&mut self.resources);
                        Item::Broken(broken)
                    }
                }
            }
        };
        entry.insert((item, self.file.clone()));
    }

    fn duplicate(&mut self, origin: &Origin, first: Option<Location>, at: Option<Location>) {
        let first = first.map_or_else(String::new, |l| format!(", first at {l}"));
        let message = format!("{origin} is defined twice with different content{first}");
        let finding = Diagnostic::error(Code::DuplicateObject, message)
            .with_effect("the first definition is in force")
            .with_hint("remove one of them, or rename it")
            .at(at)
            .of(origin.clone(), "");
        self.diagnostics.push(finding);
    }

    /// While a part of a file cannot be read, all that the file provided before and does not now
    /// stays in force: it may be in that part. If nothing is missing, the part is something new of
    /// which nothing is known, and the waypoint is told so.
    fn unreadable_parts(&mut self, state: &mut FileState) {
        let mut parts: Vec<(Arc<str>, Location)> = Vec::new();
        let is_damaged = |s: &FileState| s.documents.iter().any(|d| d.parsed.is_damaged);
        if let Some(reason) = &state.unreadable {
            parts.push((reason.clone(), self.start()));
        }
        for document in &state.documents {
            let unreadable = document.parsed.unreadable.iter();
            parts.extend(unreadable.map(|(r, l)| (r.clone(), moved(l, document.lines_before))));
        }
        if parts.is_empty() && !is_damaged(state) {
            state.has_unknown_scope = false;
            return;
        }
        let kept = self.keep_missing();
        if parts.is_empty() {
            return;
        }
        state.has_unknown_scope |= kept == 0;
        if state.has_unknown_scope {
            let parts = parts.into_iter().map(|(reason, at)| (reason, Some(at)));
            self.resources.unreadable.extend(parts);
        }
    }

    /// Keeps in force what the file provided before and no file provides now; says how many.
    fn keep_missing(&mut self) -> usize {
        let is_missing = |(origin, (_, file)): &(&Origin, &(Item, Arc<str>))| {
            file == self.file && !self.now.contains_key(*origin)
        };
        let missing = self.before.iter().filter(is_missing);
        let mut missing: Vec<_> = missing
            .map(|(o, (item, _))| (o.clone(), item.clone()))
            .collect();
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
            self.now.insert(origin, (item, self.file.clone()));
        }
        count
    }

    fn start(&self) -> Location {
        Location {
            file: self.file.clone(),
            line: 1,
            column: 1,
        }
    }
}

fn kept(origin: &Origin, message: String, location: Option<Location>) -> Diagnostic {
    Diagnostic::warning(Code::KeptLastGood, message)
        .with_hint("mend it, or delete it to take it out of force")
        .at(location)
        .of(origin.clone(), "")
}

/// Where an object of a document stands in the file.
fn location_of(item: &Item, lines_before: u32) -> Option<Location> {
    match item {
        Item::Good(object) => object.place().locate(""),
        Item::Broken(broken) => {
            let location = broken.location.as_ref();
            location.map(|l| moved(l, lines_before))
        }
    }
}
