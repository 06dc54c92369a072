//! Rows that are written by hand, golden/fields.yaml: of fields that no golden case shows, because what they
//! do is seen over time or sockets alone, or because nothing is done with them.

use std::collections::BTreeSet;
use std::fs;

use cairn_conformance::{golden, workspace};
use serde::Deserialize;

use super::evidence::Evidence;
use super::kinds::Table;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Works,
    Rejected,
    Warned,
    /// It has no meaning to a waypoint, and nothing is said of it.
    NotForUs,
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    rows: Vec<Row>,
}

/// One row, of a field or, with `.**` at its end, of all that is below one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The first kind of the table.
    pub kind: String,
    pub fields: Vec<String>,
    pub state: State,
    /// `file.rs::function`, below a folder of tests, that shows it.
    pub test: Option<String>,
    /// For the reader.
    pub why: Option<String>,
}

/// All of them.
pub struct Written {
    rows: Vec<Row>,
}

impl Written {
    /// Reads and checks them: a row names fields that there are, and that no case shows to be otherwise; and a
    /// test that there is, or why it needs none because nothing is done.
    pub fn read(tables: &[Table], evidence: &Evidence) -> Self {
        let text = fs::read_to_string(golden::root().join("fields.yaml")).unwrap();
        let File { rows } = serde_saphyr::from_str(&text).unwrap();
        let mut wrong = BTreeSet::new();
        for row in &rows {
            let table = tables.iter().position(|t| row.is_of(t));
            let Some(at) = table else {
                wrong.insert(format!("there is no table of {}", row.kind));
                continue;
            };
            for pattern in &row.fields {
                let mut of_row = tables[at]
                    .fields
                    .iter()
                    .filter(|field| fits(pattern, field));
                let shown = |field: &String| {
                    let shown = evidence.of(at, field);
                    shown.works.is_some() || shown.rejected.is_some() || shown.warned.is_some()
                };
                match of_row.clone().count() {
                    0 => {
                        wrong.insert(format!("{}: no field is {pattern}", row.kind));
                    }
                    _ if of_row.all(shown) => {
                        wrong.insert(format!("{}: cases show all of {pattern}", row.kind));
                    }
                    _ => {}
                }
            }
            match (&row.test, &row.why) {
                // That nothing is done may have a reason; that something is needs a test.
                (None, _) if row.state != State::NotForUs => {
                    wrong.insert(format!("{}: {:?} without a test", row.kind, row.fields));
                }
                (None, None) => {
                    wrong.insert(format!("{}: neither test nor why", row.kind));
                }
                (Some(test), _) if !exists(test) => {
                    wrong.insert(format!("{}: there is no test {test}", row.kind));
                }
                _ => {}
            }
        }
        assert!(wrong.is_empty(), "golden/fields.yaml: {wrong:#?}");
        Self { rows }
    }

    /// The row of a field, and its pattern: the one that says most of it.
    pub fn of(&self, table: &Table, field: &str) -> Option<(&str, &Row)> {
        let rows = self.rows.iter().filter(|row| row.is_of(table));
        let fitting = rows.flat_map(|row| {
            let patterns = row.fields.iter().filter(|pattern| fits(pattern, field));
            patterns.map(move |pattern| (pattern.as_str(), row))
        });
        fitting.max_by_key(|(pattern, _)| pattern.len())
    }
}

impl Row {
    /// `NetworkPolicy` is Calico's here; that of Kubernetes is `NetworkPolicy.networking.k8s.io`.
    fn is_of(&self, table: &Table) -> bool {
        match self.kind.split_once('.') {
            Some((kind, group)) => table.kinds.contains(&kind) && table.group == group,
            None => table.kinds.contains(&self.kind.as_str()) && table.group != "networking.k8s.io",
        }
    }
}

fn fits(pattern: &str, field: &str) -> bool {
    match pattern.strip_suffix("**") {
        Some(before) => field.starts_with(before),
        None => pattern == field,
    }
}

/// Whether a function of tests is there.
fn exists(test: &str) -> bool {
    let (file, function) = test.split_once("::").unwrap_or((test, ""));
    let text = fs::read_to_string(workspace::root().join(file)).unwrap_or_default();
    text.contains(&format!("fn {function}("))
}
