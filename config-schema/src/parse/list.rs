//! Cuts a `List` as `kubectl get -o yaml` prints it into its items, so that a change of one is not a
//! change of all. The cut is by lines; that it is the right one shows when the pieces are parsed: an
//! item that is not one map by itself (a text or an alias that reaches across the cut) sends the list
//! back to be read as a whole. No line at column 1 is inside a block scalar of an item (YAML 1.2.2,
//! 8.1.1.1), and a cut inside quotes or brackets leaves them open.

use super::node::{Entry, Node, Value};
use super::split::Document;

/// A list and its items.
#[derive(Debug)]
pub(crate) struct CutList<'t> {
    /// The list without its items; empty lines stand for them, so that the rest keeps its place.
    pub frame: String,
    /// Each item with the `- ` before it.
    pub items: Vec<Document<'t>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Before,
    Items,
    After,
}

/// The items of a document that looks like such a list. `None` for every line that `kubectl` would
/// not have written: what is not understood here is read as a whole, never left out.
pub(crate) fn cut_list<'t>(document: &Document<'t>) -> Option<CutList<'t>> {
    let text = document.text;
    if has_other_breaks(text) {
        return None;
    }
    let (mut part, mut end) = (Part::Before, 0);
    let mut frame = String::new();
    let mut starts: Vec<(usize, usize)> = Vec::new();
    let mut items_end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = end;
        end += line.len();
        let is_items = line.trim_end() == "items:";
        let is_nothing = line.trim().is_empty() || line.starts_with('#');
        match part {
            Part::Before if is_items => part = Part::Items,
            Part::After if is_items => return None,
            Part::Items if line.starts_with("- ") => starts.push((start, number)),
            Part::Items if is_nothing => {}
            // Before the first `- ` it would belong to no item.
            Part::Items if line.starts_with(' ') && !starts.is_empty() => {}
            _ if !is_nothing && !is_around_items(line) => return None,
            Part::Items => part = Part::After,
            Part::Before | Part::After => {}
        }
        if part == Part::Items && !is_items {
            frame.push('\n');
            items_end = end;
        } else {
            frame.push_str(line);
        }
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start);
    let items = starts.iter().zip(ends.chain([items_end]));
    let items: Option<Vec<_>> = items
        .map(|((start, line), end)| {
            let line = u32::try_from(*line).unwrap_or(u32::MAX);
            Some(Document {
                text: text.get(*start..end)?,
                lines_before: document.lines_before.saturating_add(line),
            })
        })
        .collect();
    let items = items.filter(|items| !items.is_empty())?;
    Some(CutList { frame, items })
}

/// Whether lines may end otherwise than with LF or CR LF: at a lone CR in YAML (YAML 1.2.2, 5.4), at
/// others in YAML 1.1.
fn has_other_breaks(text: &str) -> bool {
    let lone_cr = text.match_indices('\r').any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        !rest.starts_with('\n')
    });
    lone_cr || text.contains(['\u{85}', '\u{2028}', '\u{2029}'])
}

/// A line of a `List` before or after its items: a key that it has, or a part of its `metadata`.
fn is_around_items(line: &str) -> bool {
    let is_start = line.trim_end() == "---";
    let keys = ["apiVersion: ", "kind: ", "metadata:", " "];
    is_start || keys.iter().any(|key| line.starts_with(key))
}

/// Whether this is a `List` with its items taken out: a block map whose `items` stand where the cut
/// was made, and not a text in which such lines occur.
pub(super) fn is_frame(root: &Node<'_>, text: &str) -> bool {
    let entries = root.entries();
    let count = |key: &str| entries.iter().filter(|e| e.key == key).count();
    // A list with a fault outside of its items is one whose items are not to be trusted.
    let is_faultless = entries.iter().all(|e| {
        ["apiVersion", "kind", "metadata", "items"].contains(&&*e.key) && count(&e.key) == 1
    });
    let is_block = entries.first().is_some_and(|e| e.key_at == root.at)
        && entries.iter().all(|e| e.key_at.column == 1);
    let items_line = text.lines().position(|line| line.trim_end() == "items:");
    let is_cut = |items: &Entry<'_>| {
        let line = usize::try_from(items.key_at.line).ok();
        items.value.is_null() && line == items_line.map(|line| line + 1)
    };
    is_block
        && is_faultless
        && root.get("kind").and_then(Node::text) == Some("List")
        && root.entry("items").is_some_and(is_cut)
}

/// The item, if a piece is a list of one map.
pub(super) fn only_item<'n, 't>(root: &'n Node<'t>) -> Option<&'n Node<'t>> {
    match (&root.value, root.items()) {
        (Value::List(_), [only]) if matches!(only.value, Value::Map(_)) => Some(only),
        _ => None,
    }
}
