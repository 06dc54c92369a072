//! A change of files whose objects are written once and can be read, before and after: what is in force is changed
//! where it changed, and not put together again from all files. Whatever is not so plain is `assemble`'s.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::settle::{Known, Places};
use super::{FileState, Store, Update};
use crate::diagnostics::Diagnostic;
use crate::origin::Origin;
use crate::parse::Item;
use crate::resources::{AnyObject, Resources};

/// What was put in force last, if every file could be read.
#[derive(Debug)]
pub(super) struct Settled {
    pub resources: Arc<Resources>,
    pub diagnostics: Vec<Diagnostic>,
    /// Those of the findings that no file makes by itself: contested objects, and versions that are kept.
    pub of_several: Vec<Diagnostic>,
}

/// What a change takes away and brings, while all of it is plain.
#[derive(Default)]
pub(super) struct Patch {
    files: FxHashSet<Arc<str>>,
    gone: Vec<Origin>,
    new: Vec<(Arc<str>, AnyObject)>,
    /// Objects of `new`.
    named: FxHashSet<Origin>,
    /// A file has findings, or had some.
    has_findings: bool,
}

impl Patch {
    /// Takes a file's state before the change. `None`: it is not plain.
    pub fn without(
        mut self,
        path: &Arc<str>,
        old: Option<&FileState>,
        store: &Store,
    ) -> Option<Self> {
        // Twice in one change: the second would have to be judged by the first.
        if !self.files.insert(path.clone()) {
            return None;
        }
        let Some(old) = old else { return Some(self) };
        self.has_findings |= old.has_findings();
        for object in old.plain()? {
            let origin = object.origin();
            let known = store.known.get(origin)?;
            let is_here_alone = matches!(&known.places, Places::Once(file) if file == path);
            if !is_here_alone || !matches!(known.item, Item::Good(_)) {
                return None;
            }
            self.gone.push(origin.clone());
        }
        Some(self)
    }

    /// Takes its state after. `None`: it is not plain.
    pub fn with(mut self, path: &Arc<str>, new: &FileState, store: &Store) -> Option<Self> {
        self.has_findings |= new.has_findings();
        for object in new.plain()? {
            let origin = object.origin();
            let is_elsewhere = store
                .known
                .get(origin)
                .is_some_and(|known| !matches!(&known.places, Places::Once(file) if file == path));
            if is_elsewhere || !self.named.insert(origin.clone()) {
                return None;
            }
            self.new.push((path.clone(), object.clone()));
        }
        Some(self)
    }
}

impl FileState {
    /// Its objects, if each can be read and there is nothing else.
    fn plain(&self) -> Option<Vec<&AnyObject>> {
        if self.unreadable.is_some() || self.has_unknown_scope {
            return None;
        }
        let mut objects = Vec::with_capacity(self.documents.len());
        for document in &self.documents {
            let is_plain = document.said.more().is_none_or(|more| {
                !more.is_damaged && more.unreadable.is_empty() && more.kinds_not_read.is_empty()
            });
            if !is_plain {
                return None;
            }
            for item in document.said.items() {
                match item {
                    Item::Good(object) => objects.push(object),
                    Item::Broken(_) => return None,
                }
            }
        }
        Some(objects)
    }

    fn has_findings(&self) -> bool {
        let mut documents = self.documents.iter();
        documents.any(|d| d.said.more().is_some_and(|m| !m.diagnostics.is_empty()))
    }
}

impl Store {
    /// Changes what is in force. `None`: it was not settled.
    pub(super) fn patched(
        &mut self,
        patch: Patch,
        changed: bool,
    ) -> Option<Update<Arc<Resources>>> {
        let mut settled = self.settled.take()?;
        let resources = Arc::make_mut(&mut settled.resources);
        for origin in &patch.gone {
            if let Some(Known {
                item: Item::Good(object),
                ..
            }) = self.known.remove(origin)
            {
                object.take_out(resources);
            }
        }
        for (path, object) in patch.new {
            object.put(resources, false);
            let known = Known {
                places: Places::Once(path),
                item: Item::Good(object.clone()),
            };
            self.known.insert(object.origin().clone(), known);
        }
        if patch.has_findings {
            let of_files = self.files.values().flat_map(FileState::findings);
            settled.diagnostics = of_files.chain(settled.of_several.iter().cloned()).collect();
        }
        let update = Update {
            resources: settled.resources.clone(),
            diagnostics: settled.diagnostics.clone(),
            changed,
        };
        self.settled = Some(settled);
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::SourceFile;

    /// What may stand in a file, of few objects, so that they meet.
    fn text() -> impl Strategy<Value = String> {
        let name = || (0..3_u8).prop_map(|n| format!("n{n}"));
        let pod = |extra: &'static str| {
            move |(name, ip): (String, u8)| {
                format!(
                    "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}}, {extra}\
                     spec: {{containers: [{{name: c}}]}}, status: {{podIP: 10.0.0.{ip}}}}}"
                )
            }
        };
        let policy = |(name, action): (String, bool)| {
            let action = if action { "DENY" } else { "ALLOWED" };
            format!(
                "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                 metadata: {{name: {name}, namespace: shop}}, spec: {{action: {action}}}}}"
            )
        };
        prop_oneof![
            8 => (name(), 0..3_u8).prop_map(pod("")),
            // A finding, and read all the same.
            2 => (name(), 0..3_u8).prop_map(pod("stray: 1, ")),
            // Good or broken.
            3 => (name(), any::<bool>()).prop_map(policy),
            1 => Just("{apiVersion: v1, kind: Secret, metadata: {name: n0}}".to_owned()),
            1 => Just("{apiVersion: v1, kind: Pod, metadata: {}}".to_owned()),
            1 => Just("a: [".to_owned()),
            1 => Just(String::new()),
        ]
    }

    /// In place of a text: the file can not be read.
    const UNREADABLE: &str = "can not be read";

    /// Texts by file; none: the file is gone.
    type Change = Vec<(u8, Option<Vec<String>>)>;

    fn change() -> impl Strategy<Value = Change> {
        let texts = prop_oneof![
            6 => prop::collection::vec(text(), 1..2),
            1 => prop::collection::vec(text(), 2..4),
            1 => Just(vec![UNREADABLE.to_owned()]),
        ];
        prop::collection::vec((0..4_u8, prop::option::weighted(0.8, texts)), 0..4)
    }

    fn take(store: &mut Store, change: &Change) -> (String, Vec<String>) {
        let path = |file: &u8| Arc::from(format!("f{file}").as_str());
        let files: Vec<SourceFile<'_>> = change
            .iter()
            .filter_map(|(file, texts)| {
                let text = texts.as_ref()?.join("\n---\n");
                Some(SourceFile {
                    path: path(file),
                    content: match &*text {
                        UNREADABLE => Err(UNREADABLE.into()),
                        _ => Ok(text.into_bytes().into()),
                    },
                })
            })
            .collect();
        let gone = change.iter().filter(|(_, texts)| texts.is_none());
        let gone: Vec<Arc<str>> = gone.map(|(file, _)| path(file)).collect();
        let update = store.change(&files, &gone);
        let mut found: Vec<String> = update
            .diagnostics
            .iter()
            .map(|d| format!("{d:?}"))
            .collect();
        found.sort();
        (format!("{:#?} {}", update.resources, update.changed), found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever comes, in whatever order: a store that changes what it has in place says the same as one that
        /// puts everything together each time.
        #[test]
        fn a_change_in_place_is_what_all_files_say(changes in prop::collection::vec(change(), 1..12)) {
            let (mut patched, mut whole) = (Store::default(), Store::default());
            for change in &changes {
                whole.settled = None;
                prop_assert_eq!(take(&mut patched, change), take(&mut whole, change));
            }
        }
    }

    /// Otherwise the property would hold by itself.
    #[test]
    fn one_pod_of_many_is_changed_in_place() {
        let pod = |name: &str, ip: &str| {
            let pod = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}}, \
                 spec: {{containers: [{{name: c}}]}}, status: {{podIP: {ip}}}}}"
            );
            SourceFile {
                path: format!("kubernetes:Pod/shop/{name}").as_str().into(),
                content: Ok(pod.into_bytes().into()),
            }
        };
        let mut store = Store::default();
        let first = store.change(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], &[]);
        let before = Arc::as_ptr(&first.resources);
        drop(first);
        let second = store.change(&[pod("a", "10.0.0.3")], &["kubernetes:Pod/shop/b".into()]);
        assert_eq!(Arc::as_ptr(&second.resources), before, "the same, changed");
        let pods: Vec<_> = second.resources.pods.keys().map(|k| &*k.name).collect();
        assert_eq!(pods, ["a"]);
        drop(second);
        let policy = SourceFile {
            path: "kubernetes:AuthorizationPolicy/shop/p".into(),
            content: Ok(
                b"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                metadata: {name: p, namespace: shop}, spec: {}}"
                    .as_slice()
                    .into(),
            ),
        };
        let second = store.change(&[policy], &[]);
        assert_eq!(Arc::as_ptr(&second.resources), before, "whatever its kind");
        assert_eq!(second.resources.authorization_policies.len(), 1);
        // Whoever still looks at what was in force before keeps it.
        let third = store.change(&[pod("c", "10.0.0.4")], &[]);
        assert_eq!(
            (second.resources.pods.len(), third.resources.pods.len()),
            (1, 2)
        );
    }
}
