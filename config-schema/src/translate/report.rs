//! What becomes of each part of what is translated, and whether what belongs together is written.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::Translation;
use super::ground::Ground;
use crate::diagnostics::Location;
use crate::origin::{Kind, ObjectKey, Origin};

/// What becomes of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What is written says the same.
    Replaced,
    /// What is written allows less.
    Narrower,
    /// What would be written allows more: written only if that was asked for.
    Wider,
    /// Nothing is written for it: it stays.
    NotTranslated,
}

impl Outcome {
    /// As in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
            Self::NotTranslated => "not translated",
        }
    }
}

/// One part of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The object.
    pub object: Origin,
    /// Path inside it; empty for the whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What becomes of it.
    pub outcome: Outcome,
    /// In one sentence: by what it is replaced, or why it is not.
    pub why: String,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// What is found out about objects that are written together or not at all.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The objects it is about, with the paths of their parts.
    pub sources: Vec<(Origin, Vec<String>)>,
    /// What is to be written.
    pub objects: Vec<Value>,
    found: Vec<(Origin, String, Outcome, String)>,
}

impl Draft {
    /// Of these objects, with the paths of their parts; one without parts is one itself.
    pub fn of(mut sources: Vec<(Origin, Vec<String>)>) -> Self {
        for (_, paths) in sources.iter_mut().filter(|(_, paths)| paths.is_empty()) {
            paths.push(String::new());
        }
        Self {
            sources,
            ..Self::default()
        }
    }

    /// Notes something of a part; the same is noted once.
    pub fn note(
        &mut self,
        object: &Origin,
        path: impl Into<String>,
        outcome: Outcome,
        why: impl Into<String>,
    ) {
        let found = (object.clone(), path.into(), outcome, why.into());
        if !self.found.contains(&found) {
            self.found.push(found);
        }
    }

    /// Notes something of all objects.
    pub fn note_of_all(&mut self, outcome: Outcome, why: &str) {
        let all: Vec<Origin> = self.sources.iter().map(|(o, _)| o.clone()).collect();
        for origin in all {
            self.note(&origin, "", outcome, why);
        }
    }

    /// Whether something was noted of a part, or of something in it.
    pub fn has_note(&self, object: &Origin, part: &str) -> bool {
        let mut found = self.found.iter();
        found.any(|(o, path, _, _)| o == object && is_within(path, part))
    }

    /// Whether nothing was noted that forbids to write it.
    pub fn is_whole(&self) -> bool {
        self.worst() == Outcome::Replaced
    }

    /// The worst that was noted.
    fn worst(&self) -> Outcome {
        let outcomes = self.found.iter().map(|(_, _, outcome, _)| *outcome);
        outcomes.max().unwrap_or(Outcome::Replaced)
    }
}

/// Everything that is written, and the report.
pub(super) struct Writing<'g, 'a> {
    ground: &'g Ground<'a>,
    wider: bool,
    out: Translation,
    taken: BTreeSet<(&'static str, ObjectKey)>,
}

impl<'g, 'a> Writing<'g, 'a> {
    pub fn new(ground: &'g Ground<'a>, wider: bool) -> Self {
        Self {
            ground,
            wider,
            out: Translation::default(),
            taken: ground.names(),
        }
    }

    /// A name for a new object that no other object of its kind has.
    pub fn fresh_name(&mut self, kind: Kind, namespace: &str, base: &str) -> String {
        super::names::fresh(&mut self.taken, kind.bare(), namespace, base)
    }

    /// Something that holds of all that is written, told once.
    pub fn remark(&mut self, text: &str) {
        if !self.out.notes.iter().any(|there| there == text) {
            self.out.notes.push(text.to_owned());
        }
    }

    /// How many objects are written.
    pub fn written(&self) -> usize {
        self.out.objects.len()
    }

    /// One part that is not translated, of an object that belongs to nothing else.
    pub fn leave(&mut self, object: &Origin, path: &str, why: impl Into<String>) {
        self.tell(object, path, Outcome::NotTranslated, why.into());
    }

    /// Whether something that was noted of a draft forbids to write it.
    pub fn forbids(&self, draft: &Draft) -> bool {
        match draft.worst() {
            Outcome::NotTranslated => true,
            Outcome::Wider => !self.wider,
            Outcome::Narrower | Outcome::Replaced => false,
        }
    }

    /// Writes a draft, unless something of it forbids that.
    pub fn take(&mut self, draft: Draft) {
        let worst = draft.worst();
        let forbidden = self.forbids(&draft);
        for (object, path, outcome, why) in &draft.found {
            self.tell(object, path, *outcome, why.clone());
        }
        let by = draft
            .objects
            .iter()
            .map(name_of)
            .collect::<Vec<_>>()
            .join(", ");
        for (origin, paths) in &draft.sources {
            if forbidden {
                let blocks = |(o, _, outcome, _): &&(Origin, String, Outcome, String)| {
                    o == origin && (*outcome == Outcome::NotTranslated)
                };
                if !draft.found.iter().any(|found| blocks(&found)) {
                    let why = reason_to_leave(&draft, worst);
                    self.tell(origin, "", Outcome::NotTranslated, why);
                }
                continue;
            }
            for path in paths.iter().filter(|path| !draft.has_note(origin, path)) {
                self.tell(origin, path, Outcome::Replaced, format!("by {by}"));
            }
            self.out.replaced.push(origin.clone());
        }
        if !forbidden {
            self.out.objects.extend(draft.objects);
        }
    }

    fn tell(&mut self, object: &Origin, path: &str, outcome: Outcome, why: String) {
        let location = self.ground.locate(object, path);
        self.out.parts.push(Part {
            object: object.clone(),
            path: path.to_owned(),
            outcome,
            why,
            location,
        });
    }

    /// Everything, in the order of the objects.
    pub fn finish(mut self) -> Translation {
        self.out.parts.sort_by(|a, b| {
            let key = |part: &Part| {
                let at = part
                    .location
                    .as_ref()
                    .map(|l| (l.file.clone(), l.line, l.column));
                (
                    at,
                    part.object.kind,
                    part.object.key.clone(),
                    part.path.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        self.out
    }
}

/// Whether a path is that of a part, or of something in it.
fn is_within(path: &str, part: &str) -> bool {
    let rest = path.strip_prefix(part);
    rest.is_some_and(|rest| rest.is_empty() || part.is_empty() || rest.starts_with(['.', '[']))
}

/// Why an object that could be written by itself is not.
fn reason_to_leave(draft: &Draft, worst: Outcome) -> String {
    let cause = draft
        .found
        .iter()
        .find(|(_, _, outcome, _)| *outcome == worst);
    let cause = cause.map_or_else(String::new, |(object, path, _, _)| match path.is_empty() {
        true => object.to_string(),
        false => format!("{object} {path}"),
    });
    match worst {
        Outcome::Wider => format!(
            "nothing is written: {cause} would allow more; --allow-wider writes it all the same"
        ),
        _ => format!("nothing is written: it belongs together with {cause}, which stays"),
    }
}

/// `Kind/namespace/name` of an object that is written.
fn name_of(object: &Value) -> String {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let parts = [
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    ];
    parts.join("/")
}
