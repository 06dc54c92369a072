//! Paths inside an object (`spec.rules[0].backendRefs[1].weight`): building them without
//! allocation while walking a tree, writing them, and finding their node again.

use std::fmt;

use super::node::{Entry, Mark, Node, Value};

/// A path as a chain of steps on the stack; written out only when something has to be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl Path<'_> {
    /// The object itself.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// The path of a key of this map.
    pub fn key<'s>(&'s self, key: &'s str) -> Path<'s> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    /// The path of an item of this list.
    pub fn index(&self, index: usize) -> Path<'_> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// Whether this is a key of the outermost map.
    pub fn is_key_of_root(&self, key: &str) -> bool {
        matches!(self.step, Step::Key(k) if k == key) && self.parent.is_some_and(Path::is_root)
    }

    /// Whether this is `metadata.managedFields`, which is larger than most objects.
    pub fn is_managed_fields(&self) -> bool {
        matches!(self.step, Step::Key("managedFields"))
            && self.parent.is_some_and(|p| p.is_key_of_root("metadata"))
    }

    fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let is_first = self.parent.is_none_or(Path::is_root);
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            // A label such as `istio.io/use-waypoint` would be unreadable between dots.
            Step::Key(key) if key.contains(['.', '/', '[', ']', ' ']) => write!(f, "[{key}]"),
            Step::Key(key) if is_first => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// Visits every node below and including `root`, parents first, with its path and the place to
/// point at. A visitor that answers `false` keeps the walk out of that node's children.
pub(crate) fn walk(root: &Node<'_>, visit: &mut impl FnMut(&Path<'_>, &Node<'_>, Mark) -> bool) {
    walk_below(&Path::ROOT, root, root.at, visit);
}

fn walk_below(
    path: &Path<'_>,
    node: &Node<'_>,
    at: Mark,
    visit: &mut impl FnMut(&Path<'_>, &Node<'_>, Mark) -> bool,
) {
    if !visit(path, node, at) {
        return;
    }
    match &node.value {
        Value::Scalar(..) => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk_below(&path.index(index), item, item.at, visit);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                walk_below(&path.key(&entry.key), &entry.value, entry.at(), visit);
            }
        }
    }
}

/// Where a written path stands, or its nearest ancestor that exists. For paths made of plain keys
/// and numbers, which is all that conversions complain about.
pub(crate) fn find(root: &Node<'_>, path: &str) -> Mark {
    let mut node = root;
    let mut at = root.at;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        match part.strip_suffix(']') {
            Some(index) => {
                let index = index.parse::<usize>().unwrap_or(usize::MAX);
                let Some(item) = node.items().get(index) else {
                    return at;
                };
                (node, at) = (item, item.at);
            }
            None => {
                let Some(entry) = node.entry(part) else {
                    return at;
                };
                (node, at) = (&entry.value, Entry::at(entry));
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_kubernetes_writes_them() {
        let spec = Path::ROOT.key("spec");
        let rules = spec.key("rules");
        let rule = rules.index(2);
        assert_eq!(rule.key("from").to_string(), "spec.rules[2].from");
        let metadata = Path::ROOT.key("metadata");
        let labels = metadata.key("labels");
        assert_eq!(
            labels.key("istio.io/use-waypoint").to_string(),
            "metadata.labels[istio.io/use-waypoint]"
        );
        assert_eq!(Path::ROOT.to_string(), "");
    }
}
