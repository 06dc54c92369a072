//! One name, two definitions that say different things: nobody can know which is meant, so neither
//! is taken. What was in force before stays; without that the object is a broken one. The order of
//! files and documents decides nothing but which place a finding names first.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assemble::{Assembly, kept, location_of};
use super::{FileState, InForce};
use crate::diagnostics::{Code, Diagnostic, Location};
use crate::origin::Origin;
use crate::parse::Item;
use crate::resources::{AnyObject, Broken, TargetRef};

/// Why an object with several definitions counts as broken.
const REASON: &str = "it is defined twice with different content";

/// The first definition of an object, when it is not what is in force.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub item: Item,
    pub at: Option<Location>,
    pub file: Arc<str>,
}

impl Assembly<'_> {
    /// A further definition of an object that has one already.
    pub(super) fn defined_again(&mut self, item: &Item, lines_before: u32) {
        let origin = item.origin();
        let Some(in_force) = self.now.get(origin) else {
            return;
        };
        let first = match (self.firsts.get(origin), &in_force.item) {
            (Some(first), _) => first.clone(),
            (None, Item::Broken(_)) => return, // the firsts of those are noted
            (None, good @ Item::Good(object)) => Definition {
                item: good.clone(),
                at: object.place().locate(""),
                file: in_force.file.clone(),
            },
        };
        if let (Item::Good(a), Item::Good(b)) = (&first.item, item)
            && a.says_the_same_as(b)
        {
            return;
        }
        let decided = self.decided(origin, &first, &in_force.item, item);
        let effect = match &decided {
            Item::Good(object) => {
                object.put(&mut self.resources, true);
                "neither takes effect by itself: the last good version stays in force"
            }
            Item::Broken(broken) => {
                broken.put(&mut self.resources);
                "neither is in force: the object counts as one that can not be read"
            }
        };
        let place = first.at.as_ref().map(|at| format!(", first at {at}"));
        let message = format!("{origin} is defined twice with different content");
        let message = message + &place.unwrap_or_default();
        let finding = Diagnostic::error(Code::DuplicateObject, message)
            .with_effect(effect)
            .with_hint("remove one of them, or rename it")
            .at(location_of(item, lines_before))
            .of(origin.clone(), "");
        self.diagnostics.push(finding);
        let files = self.contested.entry(origin.clone()).or_default();
        files.extend([first.file.clone(), self.file.clone()]);
        let file = first.file.clone();
        self.firsts.insert(origin.clone(), first);
        let item = decided;
        self.now.insert(origin.clone(), InForce { item, file });
    }

    /// What takes the place of two definitions.
    fn decided(&self, origin: &Origin, first: &Definition, there: &Item, again: &Item) -> Item {
        if let Some(good) = self.last_good(origin) {
            return Item::Good(good.clone());
        }
        // `there` is the first definition, or what more than one were put together to already.
        let targets = match (targets(there), targets(again)) {
            (Some(mut all), Some(more)) => {
                all.extend(more);
                all.sort();
                all.dedup();
                Some(all)
            }
            _ => None,
        };
        Item::Broken(Arc::new(Broken {
            origin: origin.clone(),
            location: first.at.clone(),
            reason: REASON.into(),
            targets,
        }))
    }

    /// While a file that took part in a contest can not be read whole, the contest goes on: that the
    /// other definition is the only one to be seen does not make it the one that is meant. Says how
    /// many objects that concerns.
    pub(super) fn keep_contested(&mut self, state: &FileState) -> usize {
        if self.contested_before.is_empty() {
            return 0;
        }
        let documents = state.documents.iter();
        let here: BTreeSet<_> = documents
            .flat_map(|d| d.parsed.items.iter().map(|i| key(i.origin())))
            .collect();
        let goes_on = |(origin, files): &(&Origin, &BTreeSet<Arc<str>>)| {
            files.contains(self.file)
                && !here.contains(&key(origin))
                && !self.contested.contains_key(*origin)
        };
        let contested = self.contested_before.iter().filter(goes_on);
        let mut contested: Vec<_> = contested.map(|(o, f)| (o.clone(), f.clone())).collect();
        contested.sort_by(|(a, _), (b, _)| key(a).cmp(&key(b)));
        let count = contested.len();
        for (origin, files) in contested {
            let Some(before) = self.before.get(&origin).cloned() else {
                continue;
            };
            match &before.item {
                Item::Good(object) => object.put(&mut self.resources, true),
                Item::Broken(broken) => broken.put(&mut self.resources),
            }
            let message = format!(
                "{origin} stays as it was: it was defined twice with different content, and {}, \
                 part of which cannot be read now, had one definition",
                self.file
            );
            let finding = kept(&origin, message, Some(self.start()));
            self.diagnostics.push(finding);
            self.contested.insert(origin.clone(), files);
            self.now.insert(origin, before);
        }
        count
    }
}

/// What an object is aimed at; `None`: perhaps at anything.
fn targets(item: &Item) -> Option<Vec<TargetRef>> {
    match item {
        Item::Broken(broken) => broken.targets.clone(),
        Item::Good(AnyObject::AuthorizationPolicy(policy)) => {
            let spec = &policy.spec;
            let all = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            Some(all.cloned().collect())
        }
        Item::Good(AnyObject::RequestAuthentication(authentication)) => {
            let spec = &authentication.spec;
            let all = spec.target_refs.iter().flatten().chain(&spec.target_ref);
            Some(all.cloned().collect())
        }
        Item::Good(AnyObject::HTTPRoute(route)) => {
            let parents = route.spec.parent_refs.iter().flatten();
            Some(parents.map(TargetRef::from).collect())
        }
        Item::Good(_) => None,
    }
}

fn key(origin: &Origin) -> (crate::origin::Kind, &crate::origin::ObjectKey) {
    (origin.kind, &origin.key)
}
