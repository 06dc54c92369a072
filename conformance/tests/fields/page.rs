//! The page: a table for each kind, a row for each field.

use std::fmt::Write;

use super::evidence::Evidence;
use super::kinds::Table;
use super::written::{State, Written};

const HEAD: &str = "# Every field

Written by `make fields` from the types that the parser reads objects into, from the golden cases and from `conformance/golden/fields.yaml`; do not edit. A field that is not here is unknown: an error at its place.

* **works**: in the case named, the snapshot (what the waypoint goes by) is another one without the field; or the test named shows it.
* **rejected**: an error at its place, and a safe outcome: [configuration.md](configuration.md) says which.
* **warned**: it has no effect, which is said at its place.
* **not for a waypoint**: others obey it, and nothing is said.

Where a field works and some of its values do not, both cases are named. `[]` is any item of a list, `*` any key. Cases are folders of `conformance/golden/`.
";

/// Fields that have no row.
pub fn without_row(tables: &[Table], evidence: &Evidence, written: &Written) -> Vec<String> {
    let mut missing = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let fields = table.fields.iter();
        let rowless = fields.filter(|field| row(at, table, field, evidence, written).is_none());
        missing.extend(rowless.map(|field| format!("{} {field}", table.kinds[0])));
    }
    missing
}

/// The whole page.
pub fn page(tables: &[Table], evidence: &Evidence, written: &Written) -> String {
    let mut page = HEAD.to_owned();
    for (at, table) in tables.iter().enumerate() {
        let group = match table.group {
            "" => String::new(),
            group => format!(" ({group})"),
        };
        write!(page, "\n## {}{group}\n\n", table.kinds.join(", ")).unwrap();
        page.push_str("| field | | shown by |\n|---|---|---|\n");
        for field in &table.fields {
            let (state, by) = row(at, table, field, evidence, written).unwrap();
            writeln!(page, "| `{field}` | {state} | {by} |").unwrap();
        }
    }
    page
}

/// State and proof.
fn row(
    at: usize,
    table: &Table,
    field: &str,
    evidence: &Evidence,
    written: &Written,
) -> Option<(&'static str, String)> {
    let shown = evidence.of(at, field);
    let case = |name: &String| format!("`{name}`");
    let not_honoured = shown.rejected.as_ref().map(|name| format!("; some values are rejected: `{name}`"));
    let not_honoured =
        not_honoured.or_else(|| shown.warned.as_ref().map(|name| format!("; with a warning: `{name}`")));
    match (&shown.works, &shown.rejected, &shown.warned) {
        (Some(works), _, _) => {
            return Some(("works", case(works) + &not_honoured.unwrap_or_default()));
        }
        (None, Some(rejected), _) => return Some(("rejected", case(rejected))),
        (None, None, Some(warned)) => return Some(("warned", case(warned))),
        (None, None, None) => {}
    }
    let row = written.of(table, field)?;
    let state = match row.state {
        State::Works => "works",
        State::Rejected => "rejected",
        State::Warned => "warned",
        State::NotForUs => "not for a waypoint",
    };
    let test = row.test.as_ref().map(|test| format!("`{test}`"));
    let parts: Vec<String> = test.into_iter().chain(row.why.clone()).collect();
    Some((state, parts.join("; ")))
}
