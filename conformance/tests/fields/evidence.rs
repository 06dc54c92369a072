//! What golden cases and the inputs in golden/fields/ show of fields: a field works where the snapshot is
//! another one without it; it is rejected or warned of where a finding says so at its path.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::golden::format::Stage;
use cairn_conformance::golden::mesh::{Mesh, files};
use cairn_conformance::golden::{cases, root, stages};
use serde_json::Value;

use super::kinds::Table;

/// What is known of one field.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// A case in which the snapshot depends on it.
    pub works: Option<String>,
    /// A case in which an object is an error without it: it is as good as what it is a part of.
    pub required: Option<String>,
    /// A case in which its value is an error: a field that is never honoured may be refused so.
    bad: Option<String>,
    /// A case in which it is not honoured, which is an error.
    pub rejected: Option<String>,
    /// A case in which it is not honoured, which is said.
    pub warned: Option<String>,
}

impl Shown {
    /// Of several cases the first by its name, whichever thread was there first.
    fn add(&mut self, other: Self) {
        let first = |a: Option<String>, b: Option<String>| a.into_iter().chain(b).min();
        self.works = first(self.works.take(), other.works);
        self.required = first(self.required.take(), other.required);
        self.bad = first(self.bad.take(), other.bad);
        self.rejected = first(self.rejected.take(), other.rejected);
        self.warned = first(self.warned.take(), other.warned);
    }
}

/// By table and field.
pub struct Evidence(BTreeMap<(usize, String), Shown>);

/// A state of a case's configuration.
struct Setting {
    name: String,
    stage: Stage,
    /// File by file, object by object.
    files: Vec<(String, Vec<Value>)>,
    snapshot: String,
    findings: Vec<Diagnostic>,
}

impl Evidence {
    /// Looks at every case, in two threads: each field of each case is a configuration to resolve.
    pub fn gather(tables: &[Table]) -> Self {
        let mut settings = settings();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        let (next, all) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let look = || {
            while let Some(setting) = settings.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut found = all.lock().unwrap().clone();
                for (at, table) in tables.iter().enumerate() {
                    setting.show(at, table, &mut found);
                }
                let mut all = all.lock().unwrap();
                for (field, shown) in found {
                    all.entry(field).or_insert_with(Shown::default).add(shown);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(look);
            look();
        });
        Self(all.into_inner().unwrap())
    }

    /// What is known of a field.
    pub fn of(&self, table: usize, field: &str) -> Shown {
        let shown = self.0.get(&(table, field.to_owned()));
        let mut shown = shown.cloned().unwrap_or_default();
        if shown.works.is_none() && shown.required.is_none() && shown.warned.is_none() {
            shown.rejected = shown.rejected.or(shown.bad.take());
        }
        shown
    }
}

fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    for (name, case) in cases() {
        for stage in stages(&case).unwrap() {
            found.extend(Setting::new(name.clone(), &case, stage));
        }
    }
    // Inputs that are there for their fields alone.
    let folder = root().join("fields");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let text = std::fs::read_to_string(folder.join(&file)).unwrap();
        let gateway = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# --gateway "));
        let stage = format!("{{file: {file}, gateway: {}}}", gateway.unwrap_or("null"));
        let stage = serde_saphyr::from_str(&stage).unwrap();
        let setting = Setting::new(format!("fields/{file}"), &folder, stage);
        found.push(setting.unwrap_or_else(|| panic!("{file} is no YAML")));
    }
    found
}

/// The snapshot as text, without its findings, which are given beside.
fn resolve(stage: &Stage, files: &[(String, Vec<Value>)]) -> (String, Vec<Diagnostic>) {
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|(file, objects)| {
            let objects = objects.iter().map(|object| closed(object).to_string());
            (file.clone(), objects.collect::<Vec<_>>().join("\n---\n"))
        })
        .collect();
    let mut snapshot: Snapshot = Mesh::default().load_files(stage, &texts);
    let findings = std::mem::take(&mut snapshot.diagnostics);
    (format!("{snapshot:?}"), findings)
}

/// With the mesh configuration, a text in the text, as a part of the object.
fn opened(mut object: Value) -> Value {
    if let Some(text) = object.pointer("/data/mesh").and_then(Value::as_str)
        && let Ok(inner) = serde_saphyr::from_str::<Value>(text)
        && inner.is_object()
    {
        object["data"]["mesh"] = inner;
    }
    object
}

fn closed(object: &Value) -> Value {
    let mut object = object.clone();
    if object.pointer("/data/mesh").is_some_and(Value::is_object) {
        object["data"]["mesh"] = object["data"]["mesh"].to_string().into();
    }
    object
}

impl Setting {
    /// `None`: a text is no YAML, on purpose, and has no fields.
    fn new(name: String, case: &Path, stage: Stage) -> Option<Self> {
        let parsed: Option<Vec<_>> = files(case, &stage)
            .into_iter()
            .map(|(file, text)| {
                let objects = serde_saphyr::from_multiple::<Value>(&text).ok()?;
                Some((file, objects.into_iter().map(opened).collect()))
            })
            .collect();
        let files = parsed?;
        let (snapshot, findings) = resolve(&stage, &files);
        Some(Self {
            name,
            stage,
            files,
            snapshot,
            findings,
        })
    }

    fn show(&self, at: usize, table: &Table, found: &mut BTreeMap<(usize, String), Shown>) {
        let of_table = |object: &Value| {
            let text = |key: &str| object[key].as_str().unwrap_or_default();
            table.has(text("apiVersion"), text("kind"))
        };
        let mut objects = self.files.iter().flat_map(|(_, objects)| objects);
        if !objects.any(of_table) {
            return;
        }
        for field in &table.fields {
            let mut without = self.files.clone();
            let mut there = false;
            for object in without.iter_mut().flat_map(|(_, objects)| objects) {
                if of_table(object) {
                    there |= remove(object, field);
                }
            }
            if !there {
                continue;
            }
            let shown = found.entry((at, field.clone())).or_default();
            let not_honoured = [Code::Unsupported, Code::NotForWaypoint, Code::NotEnforced];
            if self.said(&[Code::BadValue], table, field) == Some(Severity::Error) {
                shown.bad.get_or_insert_with(|| self.name.clone());
                continue;
            }
            let of = match self.said(&not_honoured, table, field) {
                Some(Severity::Error) => &mut shown.rejected,
                Some(_) => &mut shown.warned,
                None if shown.works.as_ref().is_some_and(|name| *name <= self.name) => continue,
                None => {
                    let (snapshot, findings) = resolve(&self.stage, &without);
                    match snapshot == self.snapshot {
                        true => continue,
                        false if errors(&findings) > errors(&self.findings) => &mut shown.required,
                        false => &mut shown.works,
                    }
                }
            };
            of.get_or_insert_with(|| self.name.clone());
        }
    }

    /// The worst finding with one of these codes at a field.
    fn said(&self, codes: &[Code], table: &Table, field: &str) -> Option<Severity> {
        let of_field = self.findings.iter().filter(|finding| {
            let kind = finding.object.as_ref().map(|o| o.kind.bare());
            codes.contains(&finding.code)
                && kind.is_some_and(|kind| table.kinds.contains(&kind))
                && without_numbers(&finding.path) == field
        });
        of_field.map(|finding| finding.severity).max()
    }
}

fn errors(findings: &[Diagnostic]) -> usize {
    let of_objects = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    of_objects.count()
}

/// `spec.rules[3].name` as `spec.rules[].name`.
fn without_numbers(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        plain.push(c);
    }
    plain
}

/// Takes a field out of an object, in every item of the lists on its way. False: it was not there.
pub fn remove(object: &mut Value, field: &str) -> bool {
    let (first, rest) = field.split_once('.').unwrap_or((field, ""));
    let lists = first.matches("[]").count();
    let name = first.trim_end_matches("[]");
    if rest.is_empty() && lists == 0 {
        let Some(map) = object.as_object_mut() else {
            return false;
        };
        return match name {
            "*" => {
                let there = !map.is_empty();
                map.clear();
                there
            }
            name => map.remove(name).is_some_and(|value| !value.is_null()),
        };
    }
    let Some(map) = object.as_object_mut() else {
        return false;
    };
    let below: Vec<&mut Value> = match name {
        "*" => map.values_mut().collect(),
        name => map.get_mut(name).into_iter().collect(),
    };
    let mut there = false;
    for value in below {
        let mut items = vec![value];
        for _ in 0..lists {
            let inner = items.into_iter().filter_map(Value::as_array_mut).flatten();
            items = inner.collect();
        }
        for item in items {
            there |= remove(item, rest);
        }
    }
    there
}
