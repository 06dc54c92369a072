//! Reads a typed value from a tree and reports everything that is wrong with it, not only the
//! first error: a node at fault is reported, then treated as absent, and the value is read again.

use serde::de::DeserializeOwned;

use super::de::{De, Pass, address};
use super::fault::Fault;
use super::node::{Mark, Node};
use super::path::Path;
use crate::limits::DIAGNOSTICS_PER_OBJECT_MAX;

/// Reads `T` from a node. `None`: a value in it is wrong, and at least one fault was added. Unknown
/// fields are faults too, and whether they break the object is for the caller to say.
/// `skipped` keys of the node itself are not looked at.
pub(super) fn read<T: DeserializeOwned>(
    node: &Node<'_>,
    at: Mark,
    path: &Path<'_>,
    skipped: &'static [&'static str],
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let mut pass = Pass {
        skipped,
        outermost: address(node),
        ..Pass::default()
    };
    let value = loop {
        let result = T::deserialize(De {
            node,
            at,
            path,
            pass: &pass,
        });
        let (fault, culprit) = match result {
            Ok(value) => break Some(value),
            Err(error) => error.into_parts(),
        };
        faults.extend(fault);
        let culprit = culprit.unwrap_or_else(|| address(node));
        let is_new = pass.poisoned.insert(culprit);
        if culprit == address(node) || !is_new || pass.poisoned.len() > DIAGNOSTICS_PER_OBJECT_MAX {
            break None;
        }
    };
    faults.extend(pass.unknown.into_inner().into_values());
    value.filter(|_| pass.poisoned.is_empty())
}
