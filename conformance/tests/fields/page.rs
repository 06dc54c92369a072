//! The page: a table for each kind, a row for each field.

use super::evidence::Evidence;
use super::kinds::Table;
use super::written::{State, Written};

const HEAD: &str = "# Every field

Written by `make fields` from the types that the parser reads objects into, from the golden cases and from `conformance/golden/fields.yaml`; do not edit. A field that is not here is unknown: an error at its place.

* **works**: in the case named, the snapshot (what the waypoint goes by) is another one without the field, or the object is an error without it; or the test named shows it.
* **rejected**: an error at its place, and a safe outcome: [configuration.md](configuration.md) says which.
* **warned**: it has no effect, which is said at its place.
* **not for a waypoint**: others obey it, and nothing is said.

Where a field works and some of its values do not, both cases are named. `[]` is any item of a list, `*` any key. Cases are folders and files of `conformance/golden/`. What labels and annotations mean is in [configuration.md](configuration.md). `specs[]` of Cilium's policies has the fields of `spec`.
";

/// Fields that have no row.
pub fn without_row(tables: &[Table], evidence: &Evidence, written: &Written) -> Vec<String> {
    let rows = all(tables, evidence, written);
    let rowless = rows.filter(|(_, _, row)| row.is_none());
    rowless
        .map(|(table, field, _)| format!("{} {field}", tables[table].kinds[0]))
        .collect()
}

/// The whole page.
pub fn page(tables: &[Table], evidence: &Evidence, written: &Written) -> String {
    let mut page = HEAD.to_owned();
    let (mut of, mut last) = (None, String::new());
    for (at, field, row) in all(tables, evidence, written) {
        let row = row.unwrap();
        if of != Some(at) {
            of = Some(at);
            last.clear();
            page.push_str(&heading(&tables[at]));
        }
        let name = match row.pattern.and_then(|pattern| pattern.strip_suffix("**")) {
            Some(all) => format!("`{}` and all below", all.trim_end_matches(['.', '[', ']'])),
            None => format!("`{field}`"),
        };
        // One row for all that is below a field.
        let line = format!("| {name} | {} | {} |\n", row.state, row.by);
        if row.pattern.is_none() || !page[page.rfind("\n## ").unwrap_or(0)..].contains(&line) {
            page.push_str(&line);
        }
    }
    page
}

fn heading(table: &Table) -> String {
    let group = match table.group {
        "" => String::new(),
        group => format!(" ({group})"),
    };
    let kinds = table.kinds.join(", ");
    format!("\n## {kinds}{group}\n\n| field | | shown by |\n|---|---|---|\n")
}

/// State and proof.
struct Line<'w> {
    state: &'static str,
    by: String,
    /// Of the row that was written by hand.
    pattern: Option<&'w str>,
}

/// Every field with its table and row.
fn all<'a>(
    tables: &'a [Table],
    evidence: &'a Evidence,
    written: &'a Written,
) -> impl Iterator<Item = (usize, &'a String, Option<Line<'a>>)> {
    tables.iter().enumerate().flat_map(move |(at, table)| {
        let fields = table.fields.iter();
        fields.map(move |field| (at, field, line(at, table, field, evidence, written)))
    })
}

fn line<'w>(
    at: usize,
    table: &Table,
    field: &str,
    evidence: &Evidence,
    written: &'w Written,
) -> Option<Line<'w>> {
    let shown = evidence.of(at, field);
    let case = |name: &String| format!("`{name}`");
    let line = |state, by| {
        Some(Line {
            state,
            by,
            pattern: None,
        })
    };
    // What is below a field that is never honoured is not, either.
    if let Some((state, above)) = not_honoured_above(at, field, evidence) {
        return line(state, case(&above));
    }
    match (&shown.works, &shown.rejected, &shown.warned) {
        (Some(works), Some(rejected), _) => {
            return line(
                "works",
                format!(
                    "{}; some values are rejected: {}",
                    case(works),
                    case(rejected)
                ),
            );
        }
        (Some(works), None, Some(warned)) => {
            return line(
                "works",
                format!("{}; with a warning: {}", case(works), case(warned)),
            );
        }
        (Some(works), None, None) => return line("works", case(works)),
        (None, Some(rejected), _) => return line("rejected", case(rejected)),
        (None, None, Some(warned)) => return line("warned", case(warned)),
        (None, None, None) => {}
    }
    if let Some(required) = &shown.required
        && is_part_of_what_works(at, field, evidence)
    {
        return line("works", format!("{}, an error without it", case(required)));
    }
    let (pattern, row) = written.of(table, field)?;
    let state = match row.state {
        State::Works => "works",
        State::Rejected => "rejected",
        State::Warned => "warned",
        State::NotForUs => "not for a waypoint",
    };
    let test = row.test.as_ref().map(|test| format!("`{test}`"));
    let parts: Vec<String> = test.into_iter().chain(row.why.clone()).collect();
    Some(Line {
        state,
        by: parts.join("; "),
        pattern: Some(pattern),
    })
}

/// Whether all that it is a part of works, or must be there, too.
fn is_part_of_what_works(at: usize, field: &str, evidence: &Evidence) -> bool {
    let above = field
        .rsplit_once('.')
        .map_or("", |(above, _)| above.trim_end_matches(".*"));
    if !above.contains('.') {
        return true;
    }
    let shown = evidence.of(at, above.trim_end_matches("[]"));
    shown.works.is_some() || shown.required.is_some() && is_part_of_what_works(at, above, evidence)
}

/// The state of the nearest field above that no case shows to work, and the case that shows that it does not.
fn not_honoured_above(
    at: usize,
    field: &str,
    evidence: &Evidence,
) -> Option<(&'static str, String)> {
    let mut above = field;
    while let Some((shorter, _)) = above.rsplit_once('.') {
        above = shorter.trim_end_matches("[]");
        let shown = evidence.of(at, above);
        match (shown.works, shown.rejected, shown.warned) {
            (None, Some(rejected), _) => return Some(("rejected", rejected)),
            (None, None, Some(warned)) => return Some(("warned", warned)),
            _ => above = shorter,
        }
    }
    None
}
