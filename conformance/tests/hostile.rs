//! Holds hostile.md to the code: every test and case that it names exists, and no dependency is older than
//! what it asks for. That the tests are good it can not tell.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;

use cairn_conformance::workspace;

fn page() -> String {
    fs::read_to_string(workspace::root().join("conformance/hostile.md")).expect("hostile.md")
}

/// The cells of the rows of every table with so many columns, heads left out.
fn rows(page: &str, first: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let cells: Vec<String> = line
            .split(" | ")
            .map(|c| c.trim_matches(['|', ' ']).to_owned())
            .collect();
        match cells.first().map(String::as_str) {
            Some(head) if head == first => inside = true,
            _ if !line.starts_with('|') => inside = false,
            Some(cell) if cell.starts_with("---") => {}
            _ if inside => rows.push(cells),
            _ => {}
        }
    }
    assert!(!rows.is_empty(), "no table of {first}");
    rows
}

/// What stands in backticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = workspace::root();
    let mut missing = Vec::new();
    for row in rows(&page(), "record") {
        let [record, _, tests] = &row[..] else {
            panic!("{row:?} has not three cells")
        };
        let mut count = 0;
        for name in named(tests) {
            count += 1;
            let exists = match name.split_once("::") {
                Some((file, test)) => fs::read_to_string(root.join(file)).is_ok_and(|code| {
                    let test = format!("fn {test}(");
                    let before = code.split(&test).next().filter(|_| code.contains(&test));
                    let attribute = |before: &str| before.rsplit("\n\n").next().map(str::to_owned);
                    before.and_then(attribute).is_some_and(|lines| {
                        lines.contains("#[test]")
                            || lines.contains("::test")
                            || code.contains("proptest!")
                    })
                }),
                None => root.join(name).join("requests.yaml").exists(),
            };
            if !exists {
                missing.push(format!("{record}: {name}"));
            }
        }
        assert!(count > 0, "{record} has no test");
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_record_stands_there_once_in_the_tables_of_classes() {
    let mut seen = BTreeSet::new();
    for row in rows(&page(), "record") {
        let records = row.first().expect("a cell");
        for record in records.split(", ").filter(|r| *r != "no record") {
            assert!(seen.insert(record.to_owned()), "{record} twice");
        }
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

fn version(text: &str) -> Vec<u64> {
    let text = text.split(['+', '-']).next().unwrap_or_default();
    text.split('.').map(|n| n.parse().expect(text)).collect()
}

#[test]
fn no_dependency_is_older_than_its_last_advisory() {
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).expect("Cargo.lock");
    for row in rows(&page(), "crate") {
        let [name, least, _] = &row[..] else {
            panic!("{row:?} has not three cells")
        };
        let mark = format!("name = \"{name}\"\nversion = \"");
        for found in lock.split(&mark).skip(1) {
            let found = found.split('"').next().expect("a version");
            assert!(
                version(found) >= version(least),
                "{name} {found} is older than {least}"
            );
        }
    }
}
