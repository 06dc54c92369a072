//! Puts together what is in force from what the documents say now and what was known before, and
//! tells what is wrong. Which version of an object counts is decided in `settle`.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::contest::{Defined, dry_run, place, pod_ips};
use super::patch::Settled;
use super::settle::{Decided, Decision, Known, Places, decide, remember};
use super::{FileState, Store, Update};
use crate::diagnostics::{Code, Diagnostic, Location, Severity};
use crate::origin::{Kind, ObjectKey, Origin};
use crate::parse::{Item, moved};
use crate::resources::{Broken, Resources};

/// The work of one update.
struct Assembly {
    files: FxHashSet<Arc<str>>,
    before: FxHashMap<Origin, Known>,
    now: FxHashMap<Origin, Defined>,
    /// Files of which a part, or all, can not be read, and how many objects each may hide that it
    /// had before.
    damaged: FxHashMap<Arc<str>, usize>,
    resources: Resources,
    diagnostics: Vec<Diagnostic>,
    /// Those that no file makes by itself, once more.
    of_several: Vec<Diagnostic>,
}

impl Store {
    /// What is in force by these files.
    pub(super) fn assemble(&mut self, order: &[Arc<str>]) -> Assembled {
        let mut assembly = Assembly {
            files: order.iter().cloned().collect(),
            now: FxHashMap::with_capacity_and_hasher(self.known.len(), Default::default()),
            before: std::mem::take(&mut self.known),
            damaged: FxHashMap::default(),
            resources: Resources::default(),
            diagnostics: Vec::new(),
            of_several: Vec::new(),
        };
        for path in order {
            if let Some(state) = self.files.get(path) {
                assembly.file(path, state);
            }
        }
        let decisions = assembly.decide();
        for path in order {
            if let Some(state) = self.files.get_mut(path) {
                assembly.unreadable_parts(path, state);
            }
        }
        self.known = assembly.remember(decisions);
        Assembled {
            is_settled: assembly.damaged.is_empty() && assembly.resources.unreadable.is_empty(),
            resources: assembly.resources,
            diagnostics: assembly.diagnostics,
            of_several: assembly.of_several,
        }
    }
}

/// What is in force.
pub(super) struct Assembled {
    resources: Resources,
    diagnostics: Vec<Diagnostic>,
    of_several: Vec<Diagnostic>,
    /// Every file could be read.
    is_settled: bool,
}

impl Assembled {
    pub fn update(self, changed: bool) -> Update {
        Update {
            resources: self.resources,
            diagnostics: self.diagnostics,
            changed,
        }
    }

    /// The same, and what the next change may change in place.
    pub fn shared(self, changed: bool) -> (Update<Arc<Resources>>, Option<Settled>) {
        let update = Update {
            resources: Arc::new(self.resources),
            diagnostics: self.diagnostics,
            changed,
        };
        let settled = self.is_settled.then(|| Settled {
            resources: update.resources.clone(),
            diagnostics: update.diagnostics.clone(),
            of_several: self.of_several,
        });
        (update, settled)
    }
}

impl FileState {
    /// What is wrong with its documents by themselves.
    pub(super) fn findings(&self) -> Vec<Diagnostic> {
        let (mut findings, mut kinds) = (Vec::new(), FxHashSet::default());
        for document in &self.documents {
            let Some(more) = document.said.more() else {
                continue;
            };
            let lines_before = document.lines_before;
            for finding in &more.diagnostics {
                let mut finding = finding.clone();
                finding.location = finding.location.map(|l| moved(&l, lines_before));
                findings.push(finding);
            }
            for (kind, location) in &more.kinds_not_read {
                if kinds.insert(kind) {
                    let message = format!("{kind} is not read by this version");
                    let finding = Diagnostic::new(Severity::Info, Code::UnknownKind, message)
                        .at(Some(moved(location, lines_before)));
                    findings.push(finding);
                }
            }
        }
        findings
    }
}

impl Assembly {
    /// Everything the documents of a file say.
    fn file(&mut self, path: &Arc<str>, state: &FileState) {
        self.diagnostics.extend(state.findings());
        let mut is_damaged = state.unreadable.is_some();
        for document in &state.documents {
            let lines_before = document.lines_before;
            if let Some(more) = document.said.more() {
                is_damaged |= more.is_damaged || !more.unreadable.is_empty();
                for (kind, location) in &more.kinds_not_read {
                    if kind.starts_with("PeerAuthentication (security.istio.io/") {
                        let place = &mut self.resources.peer_authentication;
                        place.get_or_insert_with(|| moved(location, lines_before));
                    }
                }
            }
            for item in document.said.items() {
                self.item(item, lines_before, path);
            }
        }
        if is_damaged {
            self.damaged.insert(path.clone(), 0);
        }
    }

    /// One object of a document.
    fn item(&mut self, item: &Item, lines_before: u32, path: &Arc<str>) {
        let item = match item {
            Item::Good(_) => item.clone(),
            Item::Broken(broken) => Item::Broken(Arc::new(Broken {
                location: broken.location.as_ref().map(|l| moved(l, lines_before)),
                ..Broken::clone(broken)
            })),
        };
        let origin = item.origin().clone();
        let mut defined = match self.now.entry(origin) {
            Entry::Vacant(entry) => {
                entry.insert(Defined::new(item, Places::Once(path.clone())));
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        let first = place(&defined.get().item);
        let Some(contest) = defined.get_mut().add(&item, path) else {
            return;
        };
        let origin = defined.key();
        let effect = match self.before.get(origin).map(|known| &known.item) {
            Some(Item::Good(_)) => {
                "neither takes effect by itself: the last good version stays in force"
            }
            _ => "neither is in force: the object counts as one that can not be read",
        };
        let first = first.map(|at| format!(", first at {at}"));
        let message = format!("{origin} is {contest}{}", first.unwrap_or_default());
        let finding = Diagnostic::error(Code::DuplicateObject, message)
            .with_effect(effect)
            .with_hint("remove one of them, or rename it")
            .at(place(&item))
            .of(origin.clone(), "");
        self.of_several.push(finding.clone());
        self.diagnostics.push(finding);
    }

    /// Puts in force what is to be, and tells what is kept and why.
    fn decide(&mut self) -> FxHashMap<Origin, Decided> {
        let gone = self.before.keys().filter(|o| !self.now.contains_key(*o));
        let origins: Vec<Origin> = self.now.keys().chain(gone).cloned().collect();
        let mut decisions = FxHashMap::with_capacity_and_hasher(origins.len(), Default::default());
        let mut findings = Vec::new();
        for origin in origins {
            let (before, now) = (self.before.get(&origin), self.now.get(&origin));
            let hidden_in = before.map_or_else(Vec::new, |before| {
                before.hidden_in(now, |file| self.damaged.contains_key(file))
            });
            for file in &hidden_in {
                let count = self.damaged.entry(file.clone()).or_default();
                *count += 1;
            }
            let decision = decide(before, now, !hidden_in.is_empty());
            if let Some(decision) = &decision {
                match &decision.item {
                    Item::Good(object) => object.put(&mut self.resources, decision.is_kept),
                    Item::Broken(broken) => broken.put(&mut self.resources),
                }
                if decision.is_kept {
                    // A kept Pod's new addresses are nobody's whom one could expect there.
                    let said = now.map(|now| pod_ips(&now.item)).unwrap_or_default();
                    let known = pod_ips(&decision.item);
                    let doubtful = said.iter().filter(|ip| !known.contains(ip));
                    self.resources.doubtful_pod_ips.extend(doubtful);
                    if now.is_some_and(|now| dry_run(&now.item)) {
                        self.resources.kept_to_be_tried.insert(origin.clone());
                    }
                    findings.push(kept(decision, now, hidden_in.first()));
                }
            }
            let is_hidden = !hidden_in.is_empty();
            decisions.insert(
                origin,
                Decided {
                    decision,
                    is_hidden,
                },
            );
        }
        findings.sort_by(|a, b| by_object(a).cmp(&by_object(b)));
        self.of_several.extend(findings.iter().cloned());
        self.diagnostics.extend(findings);
        decisions
    }

    /// While a part of a file cannot be read, all that the file had before and does not show now
    /// may be in that part. If nothing is missing, the part is something new of which nothing is
    /// known, and the waypoint is told so; but a file that was read before and can not be opened
    /// now is no news.
    fn unreadable_parts(&mut self, path: &Arc<str>, state: &mut FileState) {
        let Some(hidden) = self.damaged.get(path) else {
            state.has_unknown_scope = false;
            return;
        };
        let mut parts: Vec<(Arc<str>, Location)> = Vec::new();
        if let Some(reason) = &state.unreadable {
            let message = format!("cannot read {path}: {reason}");
            parts.push((message.into(), start(path)));
        }
        for document in &state.documents {
            let more = document.said.more();
            let unreadable = more.map_or(&[][..], |more| &more.unreadable);
            let part = |reason: &str, at| {
                let message = format!("a document could not be identified: {reason}");
                (message.into(), moved(at, document.lines_before))
            };
            parts.extend(unreadable.iter().map(|(reason, at)| part(reason, at)));
        }
        if parts.is_empty() {
            return;
        }
        let is_known = state.unreadable.is_some() && state.was_read;
        state.has_unknown_scope |= *hidden == 0 && !is_known;
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

    /// What the next update is to know.
    fn remember(&self, mut decisions: FxHashMap<Origin, Decided>) -> FxHashMap<Origin, Known> {
        let all_is_refused = !self.resources.unreadable.is_empty();
        let mut known = FxHashMap::with_capacity_and_hasher(self.now.len(), Default::default());
        let mut note = |origin: &Origin, now: Option<&Defined>| {
            let decided = decisions.remove(origin).unwrap_or_default();
            let before = self.before.get(origin);
            let is_deleted = |file: &Arc<str>| !self.files.contains(file);
            if let Some(one) = remember(before, now, decided, all_is_refused, is_deleted) {
                known.insert(origin.clone(), one);
            }
        };
        for (origin, now) in &self.now {
            note(origin, Some(now));
        }
        for origin in self.before.keys().filter(|o| !self.now.contains_key(*o)) {
            note(origin, None);
        }
        known
    }
}

/// That something else is in force than the files say, and why.
fn kept(decision: &Decision, now: Option<&Defined>, hidden_in: Option<&Arc<str>>) -> Diagnostic {
    let origin = decision.item.origin();
    let stays = match decision.item {
        Item::Good(_) => "stays in force",
        Item::Broken(_) => "stays as it was",
    };
    let seen = now.and_then(|now| place(&now.item));
    let message = match (hidden_in, now) {
        (Some(file), _) => {
            let why = format!("it was in {file}, part of which cannot be read now");
            let seen = seen.as_ref();
            let seen = seen.map(|at| format!("; what {at} says does not replace it"));
            format!("{origin} {stays}: {why}{}", seen.unwrap_or_default())
        }
        (
            None,
            Some(Defined {
                contest: Some(contest),
                ..
            }),
        ) => {
            format!("{origin} {stays} as it was: it is {contest}")
        }
        (None, _) => format!("{origin} is broken; its last good version {stays}"),
    };
    Diagnostic::warning(Code::KeptLastGood, message)
        .with_hint("mend it, or delete it to take it out of force")
        .at(hidden_in.map(start).or(seen))
        .of(origin.clone(), "")
}

fn by_object(finding: &Diagnostic) -> Option<(Kind, &ObjectKey)> {
    finding.object.as_ref().map(|o| (o.kind, &o.key))
}

fn start(file: &Arc<str>) -> Location {
    Location {
        file: file.clone(),
        line: 1,
        column: 1,
    }
}
