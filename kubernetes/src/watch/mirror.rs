//! What one collection has, told by paths and fingerprints: what a list or an event changes of it. Keeps no
//! text, and never withdraws anything but what was deleted or is missing from a whole list.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Change;
use super::reduce::Reduced;

/// What is known of a collection. Fingerprints are keyed by a secret of the process, so that nobody can make
/// two texts that look the same.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    known: FxHashMap<Arc<str>, u64>,
    key: RandomState,
}

impl Mirror {
    /// What was there earlier, by paths and texts.
    pub fn knowing<'t>(objects: impl Iterator<Item = (&'t Arc<str>, &'t str)>) -> Self {
        let mut mirror = Self::default();
        for (path, text) in objects {
            let print = mirror.key.hash_one(text);
            mirror.known.insert(path.clone(), print);
        }
        mirror
    }

    /// Objects there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes a whole list: what is not in it is gone.
    pub fn replace(&mut self, listed: Vec<Reduced>) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.known);
        self.known.reserve(listed.len());
        let mut changes = Vec::new();
        for object in listed {
            let print = self.key.hash_one(&*object.text);
            let old = before.remove(&object.path);
            if old != Some(print) {
                changes.push(Change::put(object.path.clone(), object.text));
            }
            self.known.insert(object.path, print);
        }
        changes.extend(before.into_keys().map(Change::gone));
        changes
    }

    /// Takes one object, new or changed. Nothing, if it says what it said before.
    pub fn put(&mut self, object: Reduced) -> Option<Change> {
        let print = self.key.hash_one(&*object.text);
        let old = self.known.insert(object.path.clone(), print);
        (old != Some(print)).then(|| Change::put(object.path, object.text))
    }

    /// Takes one object away.
    pub fn delete(&mut self, path: &Arc<str>) -> Option<Change> {
        let known = self.known.remove(path);
        known.map(|_| Change::gone(path.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        List(BTreeMap<u8, u8>),
        Put(u8, u8),
        Delete(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::btree_map(0..6_u8, 0..3_u8, 0..6).prop_map(Step::List),
            (0..6_u8, 0..3_u8).prop_map(|(path, text)| Step::Put(path, text)),
            (0..6_u8).prop_map(Step::Delete),
        ]
    }

    fn object(path: u8, text: u8) -> Reduced {
        Reduced {
            path: path.to_string().into(),
            text: text.to_string().into(),
        }
    }

    proptest! {
        /// Whatever comes, who applies the changes has what a plain map would have, and is told of
        /// nothing that does not change it.
        #[test]
        fn changes_applied_are_the_collection(steps in prop::collection::vec(step(), 0..40)) {
            let mut mirror = Mirror::default();
            let mut naive: BTreeMap<u8, u8> = BTreeMap::new();
            let mut told: BTreeMap<String, String> = BTreeMap::new();
            for step in steps {
                let changes: Vec<Change> = match step {
                    Step::List(all) => {
                        let listed = all.iter().map(|(path, text)| object(*path, *text)).collect();
                        naive = all;
                        mirror.replace(listed)
                    }
                    Step::Put(path, text) => {
                        naive.insert(path, text);
                        mirror.put(object(path, text)).into_iter().collect()
                    }
                    Step::Delete(path) => {
                        naive.remove(&path);
                        let path: Arc<str> = path.to_string().into();
                        mirror.delete(&path).into_iter().collect()
                    }
                };
                for change in changes {
                    let before = match &change.text {
                        Some(text) => told.insert(change.path.to_string(), text.to_string()),
                        None => told.remove(&*change.path),
                    };
                    prop_assert!(before.as_deref() != change.text.as_deref(), "no news: {change:?}");
                }
                let all = naive.iter().map(|(path, text)| (path.to_string(), text.to_string()));
                prop_assert_eq!(&told, &all.collect::<BTreeMap<_, _>>());
                prop_assert_eq!(mirror.len(), naive.len());
            }
        }
    }
}
