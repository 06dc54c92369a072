//! What belongs together: objects and Services that are linked, by whatever number of steps.

use std::collections::{BTreeMap, BTreeSet};

use crate::origin::{Kind, ObjectKey};

/// A policy, or a Service it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Policy(Kind, ObjectKey),
    Service(ObjectKey),
}

/// The nodes of these links, each with all that it is linked with.
pub(super) fn together(links: &BTreeSet<(Node, Node)>) -> Vec<BTreeSet<Node>> {
    let mut neighbours: BTreeMap<&Node, Vec<&Node>> = BTreeMap::new();
    for (one, other) in links {
        neighbours.entry(one).or_default().push(other);
        neighbours.entry(other).or_default().push(one);
    }
    let mut seen: BTreeSet<&Node> = BTreeSet::new();
    let mut groups = Vec::new();
    for start in neighbours.keys().copied() {
        let mut group = BTreeSet::new();
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            if seen.insert(node) {
                group.insert(node.clone());
                open.extend(neighbours.get(node).into_iter().flatten());
            }
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_by_several_steps_is_one_group() {
        let service = |name: &str| Node::Service(ObjectKey::new("shop", name));
        let policy =
            |name: &str| Node::Policy(Kind::AuthorizationPolicy, ObjectKey::new("shop", name));
        let links = BTreeSet::from([
            (policy("p"), service("a")),
            (policy("q"), service("a")),
            (policy("q"), service("b")),
            (policy("r"), service("c")),
        ]);
        let found = together(&links);
        let sizes: Vec<usize> = found.iter().map(BTreeSet::len).collect();
        assert_eq!(sizes, [4, 2]);
        assert!(
            found
                .iter()
                .any(|g| g.contains(&policy("p")) && g.contains(&service("b")))
        );
    }
}
