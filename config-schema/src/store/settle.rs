//! Which version of an object is in force, from what was known of it before and what the files say
//! now. One rule: a version is replaced only by a configuration in which every place that is known
//! to define the object can be read and all of them agree; and it is gone only when none of them
//! defines it any more, or when they define one that was made anew. Pure; findings are made in `assemble`.

use std::sync::Arc;

use super::contest::{Defined, joined};
use crate::parse::Item;

/// Why an object counts as broken that was seen only while the waypoint refused everything.
const NEVER_SETTLED: &str = "it was never in force by itself";

/// Files that define an object, and how many times each does. Nearly always once in one, which takes no
/// memory but the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Once, in this file.
    Once(Arc<str>),
    /// Anything else; sorted.
    Counted(Arc<[(Arc<str>, usize)]>),
}

impl Places {
    fn of(files: Vec<(Arc<str>, usize)>) -> Self {
        match &files[..] {
            [(file, 1)] => Self::Once(file.clone()),
            _ => Self::Counted(files.into()),
        }
    }

    /// How many times a file does.
    pub fn count(&self, file: &Arc<str>) -> usize {
        self.iter()
            .find(|(known, _)| *known == file)
            .map_or(0, |(_, count)| count)
    }

    /// Says how many times a file does, from how many it did.
    pub fn set(&mut self, file: &Arc<str>, count: impl FnOnce(usize) -> usize) {
        let of_known = |(file, count): (&Arc<str>, usize)| (file.clone(), count);
        let mut files: Vec<(Arc<str>, usize)> = self.iter().map(of_known).collect();
        match files.binary_search_by(|(known, _)| known.cmp(file)) {
            Ok(at) => {
                if let Some((_, known)) = files.get_mut(at) {
                    *known = count(*known);
                }
            }
            Err(at) => files.insert(at, (file.clone(), count(0))),
        }
        *self = Self::of(files);
    }

    /// Without files of some kind.
    fn without(&self, is_out: impl Fn(&Arc<str>) -> bool) -> Self {
        let left = self.iter().filter(|(file, _)| !is_out(file));
        Self::of(left.map(|(file, count)| (file.clone(), count)).collect())
    }

    fn iter(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let (once, counted) = match self {
            Self::Once(file) => (Some((file, 1)), &[][..]),
            Self::Counted(files) => (None, &files[..]),
        };
        let counted = counted.iter().map(|(file, count)| (file, *count));
        once.into_iter().chain(counted)
    }
}

/// What is known of an object from the updates before.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The last version that was not in doubt; broken, if there never was one.
    pub item: Item,
    /// Where it was defined, while any of that may still be true.
    pub places: Places,
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
        // What was deleted and made anew between two updates is as if there had been one between: the dead one's last
        // good version is not its own.
        (Some(before), Some(now)) if !is_hidden && now.is_another_than(before) => {
            Some(as_said(now))
        }
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
        places = places.without(is_deleted);
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
fn union(a: &Places, b: &Places) -> Places {
    let mut all = a.clone();
    for (file, count) in b.iter() {
        all.set(file, |known| known.max(count));
    }
    all
}
