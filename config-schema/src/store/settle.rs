//! Which version of an object is in force, from what was known of it before and what the files say
//! now. One rule: a version is replaced only by a configuration in which every place that is known
//! to define the object can be read and all of them agree; and it is gone only when none of them
//! defines it any more. Pure; findings are made in `assemble`.

use std::sync::Arc;

use super::contest::{Defined, joined};
use crate::parse::Item;

/// Why an object counts as broken that was seen only while the waypoint refused everything.
const NEVER_SETTLED: &str = "it was never in force by itself";

/// Files that define an object, and how many times each does; sorted. Nearly always one, of which a map would
/// take five times the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(Arc<str>, usize)>);

impl Places {
    /// Once, in this file.
    pub fn once(file: Arc<str>) -> Self {
        Self(vec![(file, 1)])
    }

    /// How many times a file does.
    pub fn count(&self, file: &Arc<str>) -> usize {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(file)).ok();
        at.and_then(|at| self.0.get(at))
            .map_or(0, |(_, count)| *count)
    }

    /// Says how many times a file does, from how many it did.
    pub fn set(&mut self, file: &Arc<str>, count: impl FnOnce(usize) -> usize) {
        match self.0.binary_search_by(|(known, _)| known.cmp(file)) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = count(*known);
                }
            }
            Err(at) => self.0.insert(at, (file.clone(), count(0))),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.0.iter().map(|(file, count)| (file, *count))
    }
}

/// What is known of an object from the updates before.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The last version that was not in doubt; broken, if there never was one.
    pub item: Item,
    /// Where it was defined, while any of that may still be true.
    pub places: Arc<Places>,
}

/// What is put in force.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub item: Item,
    /// It is not what the files say now.
    pub is_kept: bool,
}

/// What becomes of an object; nothing, if it is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Decided {
    pub decision: Option<Decision>,
    /// A definition of it may be in a part of a file that can not be read.
    pub is_hidden: bool,
}

impl Known {
    /// The files of which a part can not be read and that show fewer definitions of the object than
    /// they had: these may be in that part.
    pub fn hidden_in(
        &self,
        now: Option<&Defined>,
        is_damaged: impl Fn(&Arc<str>) -> bool,
    ) -> Vec<Arc<str>> {
        let count = |file: &Arc<str>| now.map_or(0, |now| now.places.count(file));
        let hidden = self
            .places
            .iter()
            .filter(|(file, had)| is_damaged(file) && count(file) < *had);
        hidden.map(|(file, _)| file.clone()).collect()
    }
}

/// What takes effect. `None`: the object is gone.
pub(super) fn decide(
    before: Option<&Known>,
    now: Option<&Defined>,
    is_hidden: bool,
) -> Option<Decision> {
    let as_said = |item: &Item| Decision {
        item: item.clone(),
        is_kept: false,
    };
    let as_before = |item: &Item| Decision {
        item: item.clone(),
        is_kept: true,
    };
    let before = before.map(|known| &known.item);
    match (before, now.map(|now| &now.item)) {
        (None, now) => now.map(as_said),
        (Some(before), None) => is_hidden.then(|| as_before(before)),
        (Some(Item::Good(before)), Some(Item::Good(now)))
            if is_hidden && before.says_the_same_as(now) =>
        {
            Some(as_said(&Item::Good(now.clone())))
        }
        (Some(_), Some(now @ Item::Good(_))) if !is_hidden => Some(as_said(now)),
        (Some(before @ Item::Good(_)), Some(_)) => Some(as_before(before)),
        (Some(before @ Item::Broken(broken)), Some(now)) if is_hidden => {
            let joined = joined(before, now, broken.reason.clone());
            Some(as_before(&Item::Broken(Arc::new(joined))))
        }
        (Some(Item::Broken(_)), Some(now)) => Some(as_said(now)),
    }
}

/// What is known of an object after this update. While something of unknown scope is there, all is
/// refused: whatever is seen meanwhile was never in force by itself and settles nothing.
pub(super) fn remember(
    before: Option<&Known>,
    now: Option<&Defined>,
    Decided {
        decision,
        is_hidden,
    }: Decided,
    all_is_refused: bool,
    is_deleted: impl Fn(&Arc<str>) -> bool,
) -> Option<Known> {
    let mut places = match (before, now) {
        (Some(before), Some(now)) if is_hidden || all_is_refused => {
            union(&before.places, &now.places)
        }
        (_, Some(now)) => now.places.clone(),
        (Some(before), None) => before.places.clone(),
        (None, None) => return None,
    };
    if places.iter().any(|(file, _)| is_deleted(file)) {
        Arc::make_mut(&mut places)
            .0
            .retain(|(file, _)| !is_deleted(file));
    }
    let item = match (before, decision) {
        (Some(before), _) if all_is_refused => before.item.clone(),
        (None, Some(Decision { item, .. })) if all_is_refused => {
            Item::Broken(Arc::new(joined(&item, &item, NEVER_SETTLED.into())))
        }
        (_, decision) => decision?.item,
    };
    Some(Known { item, places })
}

/// The most that either knows of each file.
fn union(a: &Arc<Places>, b: &Arc<Places>) -> Arc<Places> {
    if a == b {
        return b.clone();
    }
    let mut all = a.clone();
    let places = Arc::make_mut(&mut all);
    for (file, count) in b.iter() {
        places.set(file, |known| known.max(count));
    }
    all
}
