//! What is in force across reloads: which documents changed, what a broken one leaves in force.
//! Given all files each time, or those that changed; never reads one itself.

mod assemble;
mod contest;
mod patch;
mod pieces;
mod settle;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::diagnostics::Diagnostic;
use crate::limits::FILE_BYTES_MAX;
use crate::origin::Origin;
use crate::parse::Names;
use crate::resources::Resources;
use patch::{Patch, Settled};
use pieces::Cached;
use settle::Known;

/// One file as it is now.
#[derive(Clone, Debug)]
pub struct SourceFile<'t> {
    /// Path as given by the user; names the file in diagnostics and across updates.
    pub path: Arc<str>,
    /// Its bytes, or why they could not be read.
    pub content: Result<Cow<'t, [u8]>, Arc<str>>,
}

/// The outcome of [`Store::update`] and [`Store::change`].
#[derive(Clone, Debug, Default)]
pub struct Update<R = Resources> {
    /// Every object in force. Objects that did not change are the same `Arc`s as before. After a change the store
    /// shares them, and the next changes them in place if nobody else holds them any more.
    pub resources: R,
    /// Everything found in the files as they are now, but what is in `resources.unreadable`: that
    /// resolving tells, with its effect.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether any file differs from the update before.
    pub changed: bool,
}

/// Holds what is in force across reloads.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<str>, FileState>,
    /// What is known of each object from the updates before.
    known: FxHashMap<Origin, Known>,
    /// What the last change left in force, to be changed in place by the next.
    settled: Option<Settled>,
    names: Names,
    documents_parsed: u64,
}

/// What is kept of one file: what its documents say, not their text.
#[derive(Debug, Default)]
struct FileState {
    documents: Box<[Cached]>,
    /// Why the file as a whole could not be read; then there are no documents.
    unreadable: Option<Arc<str>>,
    /// The file was read at some time, so that what it provided last is known, be it nothing.
    was_read: bool,
    /// Part of the file is unreadable and replaces nothing that was in force, so that nothing is
    /// known of what it should do.
    has_unknown_scope: bool,
}

impl Store {
    /// Takes the files that are there now, all of them. A file that is not among them is gone, and
    /// so are its objects.
    pub fn update(&mut self, files: &[SourceFile<'_>]) -> Update {
        self.settled = None;
        let mut before = std::mem::take(&mut self.files);
        let mut order: Vec<Arc<str>> = Vec::with_capacity(files.len());
        let mut changed = false;
        for file in files {
            if self.files.contains_key(&file.path) {
                continue;
            }
            let old = before.remove(&file.path);
            let (state, is_new) = self.file(file, old);
            changed |= is_new;
            self.files.insert(file.path.clone(), state);
            order.push(file.path.clone());
        }
        changed |= !before.is_empty();
        self.names.sweep();
        self.assemble(&order).update(changed)
    }

    /// Takes files that are new or may differ, and the paths of those that are gone; every other file
    /// is as it was. For sources that know what changed, of which each object is a file.
    pub fn change(
        &mut self,
        files: &[SourceFile<'_>],
        gone: &[Arc<str>],
    ) -> Update<Arc<Resources>> {
        let mut changed = false;
        let mut patch = self.settled.is_some().then(Patch::default);
        for path in gone {
            let old = self.files.remove(path);
            patch = patch.and_then(|patch| patch.without(path, old.as_ref(), self));
            changed |= old.is_some();
        }
        for file in files {
            let path = &file.path;
            let old = self.files.remove(path);
            patch = patch.and_then(|patch| patch.without(path, old.as_ref(), self));
            let (state, is_new) = self.file(file, old);
            patch = patch.and_then(|patch| patch.with(path, &state, self));
            changed |= is_new;
            self.files.insert(path.clone(), state);
        }
        if changed {
            self.names.sweep();
        }
        if let Some(update) = patch.and_then(|patch| self.patched(patch, changed)) {
            return update;
        }
        // Before all is put together anew, so that there are not two of it.
        self.settled = None;
        let order: Vec<Arc<str>> = self.files.keys().cloned().collect();
        let (update, settled) = self.assemble(&order).shared(changed);
        self.settled = settled;
        update
    }

    /// Documents and items of lists parsed since the store was made: those whose text was not seen
    /// before.
    pub fn documents_parsed(&self) -> u64 {
        self.documents_parsed
    }

    /// The state of a file, and whether it differs from the one before.
    fn file(&mut self, file: &SourceFile<'_>, old: Option<FileState>) -> (FileState, bool) {
        let content = match &file.content {
            Err(reason) => Err(reason.clone()),
            Ok(bytes) if bytes.len() as u64 > FILE_BYTES_MAX => {
                Err(format!("the file is larger than {FILE_BYTES_MAX} bytes").into())
            }
            Ok(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text),
                Err(error) => {
                    let at = error.valid_up_to();
                    Err(format!("the file is not UTF-8: see byte {at}").into())
                }
            },
        };
        let has_unknown_scope = old.as_ref().is_some_and(|o| o.has_unknown_scope);
        let text = match content {
            Ok(text) => text,
            Err(reason) => {
                let old = old.as_ref();
                let is_known = old.is_some_and(|o| o.unreadable.as_ref() == Some(&reason));
                let state = FileState {
                    unreadable: Some(reason),
                    was_read: old.is_some_and(|o| o.was_read),
                    has_unknown_scope,
                    ..FileState::default()
                };
                return (state, !is_known);
            }
        };
        let was_unreadable = old.as_ref().is_none_or(|o| o.unreadable.is_some());
        let old = old.map_or_else(Box::default, |o| o.documents);
        let (documents, changed) = self.pieces(text, &file.path, old);
        let state = FileState {
            documents,
            unreadable: None,
            was_read: true,
            has_unknown_scope,
        };
        (state, changed || was_unreadable)
    }
}
