//! Holds the pages under docs/ to the code: every name that a user meets is explained, every number is
//! the one in force, and every example says what the program says. Judges no prose.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod examples;
mod links;
mod names;
mod tables;

use std::fs;
use std::path::PathBuf;

use cairn_conformance::workspace;

/// A file of the repository.
fn text(path: &str) -> String {
    fs::read_to_string(workspace::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every page of text for users.
fn pages() -> Vec<PathBuf> {
    let root = workspace::root();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.extend(["README.md", "deploy/README.md", "ARCHITECTURE.md"].map(|page| root.join(page)));
    pages.sort();
    pages
}

/// Asserts that a page has every name in backticks, perhaps among other words.
fn assert_has(page: &str, names: &[String]) {
    assert!(!names.is_empty(), "{page}: nothing to look for");
    let content = text(page);
    let has = |name: &str| content.contains(&format!("`{name}`"));
    let missing: Vec<_> = names.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "{page} does not mention {missing:?}");
}

/// What stands between two marks, every time.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    let pieces = text.split(before).skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once(after)?.0))
        .collect()
}

/// The lines of a struct or enum of the code.
fn body<'t>(code: &'t str, head: &str) -> Vec<&'t str> {
    let found = between(code, head, "\n}");
    let body = found.first().unwrap_or_else(|| panic!("{head} is gone"));
    let lines = body.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(['/', '#']))
        .collect()
}
