//! The tree of a document: every key and value with its line and column. Built from the events of
//! the YAML parser under limits; knows nothing of Kubernetes.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use crate::diagnostics::Code;

/// Line and column, both from 1. Lines count from the start of the document's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub line: u32,
    pub column: u32,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    pub at: Mark,
    pub value: Value<'t>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value<'t> {
    Scalar(Cow<'t, str>, Style),
    List(Vec<Node<'t>>),
    Map(Vec<Entry<'t>>),
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: may be a number, a truth value or null.
    Plain,
    /// In quotes, folded, or tagged `!!str`: a string.
    Quoted,
    /// After `|`: a string whose lines are lines of the file.
    Literal,
}

/// One key of a map with its value. A key that comes twice keeps both entries, so that
/// [`duplicates`] finds the second.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'t> {
    pub key: Cow<'t, str>,
    pub key_at: Mark,
    pub value: Node<'t>,
}

impl Entry<'_> {
    /// Where to point at when something is wrong here: a scalar value itself, else the key.
    pub fn at(&self) -> Mark {
        match &self.value.value {
            Value::Scalar(_, Style::Quoted) => self.value.at,
            Value::Scalar(text, _) if !text.is_empty() && text != "~" => self.value.at,
            _ => self.key_at,
        }
    }
}

impl<'t> Node<'t> {
    /// The entries, if this is a map.
    pub fn entries(&self) -> &[Entry<'t>] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items, if this is a list.
    pub fn items(&self) -> &[Node<'t>] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entry of a key, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry<'t>> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node<'t>> {
        self.entry(key).map(|e| &e.value)
    }

    /// The text of a scalar, whatever its type.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Whether this is a plain `null`, `~` or nothing.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(text, Style::Plain) => {
                super::scalar::resolve(text) == super::scalar::Plain::Null
            }
            _ => false,
        }
    }
}

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeError {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
    pub at: Mark,
}

/// A key that comes a second time in one map: its path, where, and where it came first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub path: String,
    pub at: Mark,
    pub first: Mark,
}

/// Every key that comes twice anywhere below a node, in order of the text.
pub(crate) fn duplicates(root: &Node<'_>) -> Vec<Duplicate> {
    let mut found = Vec::new();
    super::path::walk(root, &mut |path, node, _| {
        let entries = node.entries();
        let mut seen: FxHashMap<&str, Mark> = FxHashMap::default();
        for (index, entry) in entries.iter().enumerate() {
            // Nearly every map is small: compare directly, and hash only in large ones.
            let first = if entries.len() > 16 {
                seen.insert(&entry.key, entry.key_at)
            } else {
                let earlier = entries.get(..index).unwrap_or_default();
                let same = earlier.iter().find(|e| e.key == entry.key);
                same.map(|e| e.key_at)
            };
            if let Some(first) = first {
                found.push(Duplicate {
                    path: path.key(&entry.key).to_string(),
                    at: entry.key_at,
                    first,
                });
            }
        }
        true
    });
    found
}
