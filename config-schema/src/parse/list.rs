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

/// The items of a document that looks like such a list.
pub(crate) fn cut_list<'t>(document: &Document<'t>) -> Option<CutList<'t>> {
    let text = document.text;
    let (mut part, mut end) = (Part::Before, 0);
    let mut frame = String::new();
    let mut starts: Vec<(usize, usize)> = Vec::new();
    let mut items_end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = end;
        end += line.len();
        let is_item = line.starts_with("- ");
        let is_items = line.trim_end() == "items:";
        match part {
            // A directive would not reach the pieces.
            Part::Before if is_item || line.starts_with('%') => return None,
            Part::After if is_item || is_items => return None,
            Part::Before if is_items => part = Part::Items,
            Part::Items if is_item => starts.push((start, number)),
            Part::Items if line.starts_with([' ', '#', '\n', '\r']) => {}
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

/// Whether this is a `List` with its items taken out: a block map whose `items` stand where the cut
/// was made, and not a text in which such lines occur.
pub(super) fn is_frame(root: &Node<'_>, text: &str) -> bool {
    let entries = root.entries();
    let once = |key: &str| entries.iter().filter(|e| e.key == key).count() == 1;
    let is_block = entries.first().is_some_and(|e| e.key_at == root.at)
        && entries.iter().all(|e| e.key_at.column == 1);
    let items_line = text.lines().position(|line| line.trim_end() == "items:");
    let is_cut = |items: &Entry<'_>| {
        let line = usize::try_from(items.key_at.line).ok();
        items.value.is_null() && line == items_line.map(|line| line + 1)
    };
    is_block
        && once("kind")
        && once("items")
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
