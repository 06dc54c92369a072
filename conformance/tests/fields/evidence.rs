//! What golden cases show of fields: a field works where the snapshot is another one without it; it is
//! rejected or warned of where a finding says so at its path.

use std::collections::BTreeMap;

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::snapshot::Snapshot;
use cairn_conformance::golden::format::Stage;
use cairn_conformance::golden::mesh::{Mesh, files};
use cairn_conformance::golden::{cases, stages};
use serde_json::Value;

use super::kinds::Table;

/// What is known of one field.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// A case in which the snapshot depends on it.
    pub works: Option<String>,
    /// A case in which it is not honoured, which is an error.
    pub rejected: Option<String>,
    /// A case in which it is not honoured, which is said.
    pub warned: Option<String>,
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
    /// Looks at every case.
    pub fn gather(tables: &[Table]) -> Self {
        let mut found = BTreeMap::new();
        for setting in settings() {
            for (at, table) in tables.iter().enumerate() {
                setting.show(at, table, &mut found);
            }
        }
        Self(found)
    }

    /// What is known of a field.
    pub fn of(&self, table: usize, field: &str) -> Shown {
        let shown = self.0.get(&(table, field.to_owned()));
        shown.cloned().unwrap_or_default()
    }
}

fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    for (name, case) in cases() {
        for stage in stages(&case).unwrap() {
            // Texts that are no YAML, on purpose, have no fields.
            let parsed: Option<Vec<_>> = files(&case, &stage)
                .into_iter()
                .map(|(file, text)| {
                    let objects = serde_saphyr::from_multiple::<Value>(&text).ok()?;
                    Some((file, objects))
                })
                .collect();
            let Some(files) = parsed else { continue };
            let (snapshot, findings) = resolve(&stage, &files);
            found.push(Setting {
                name: name.clone(),
                stage,
                files,
                snapshot,
                findings,
            });
        }
    }
    found
}

/// The snapshot as text, without its findings, which are given beside.
fn resolve(stage: &Stage, files: &[(String, Vec<Value>)]) -> (String, Vec<Diagnostic>) {
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|(file, objects)| {
            let objects = objects.iter().map(|o| serde_json::to_string(o).unwrap());
            (file.clone(), objects.collect::<Vec<_>>().join("\n---\n"))
        })
        .collect();
    let mut snapshot: Snapshot = Mesh::default().load_files(stage, &texts);
    let findings = std::mem::take(&mut snapshot.diagnostics);
    (format!("{snapshot:?}"), findings)
}

impl Setting {
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
            match self.said(table, field) {
                Some(Severity::Error) => shown.rejected.get_or_insert_with(|| self.name.clone()),
                Some(_) => shown.warned.get_or_insert_with(|| self.name.clone()),
                None if shown.works.is_some() => continue,
                None if resolve(&self.stage, &without).0 == self.snapshot => continue,
                None => shown.works.get_or_insert_with(|| self.name.clone()),
            };
        }
    }

    /// How bad it is that a field is not honoured. Bad values of fields that are honoured do not count.
    fn said(&self, table: &Table, field: &str) -> Option<Severity> {
        let codes = [Code::Unsupported, Code::NotForWaypoint, Code::NotEnforced];
        let of_field = self.findings.iter().filter(|finding| {
            let kind = finding.object.as_ref().map(|o| o.kind.bare());
            codes.contains(&finding.code)
                && kind.is_some_and(|kind| table.kinds.contains(&kind))
                && without_numbers(&finding.path) == field
        });
        of_field.map(|finding| finding.severity).max()
    }
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
