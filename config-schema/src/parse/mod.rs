//! Text to typed resources, document by document. Strict, and never ends at the first error; keeps
//! nothing from one document to the next. What stays in force when a document is broken is decided
//! in `store`.

mod catalog;
mod de;
mod fault;
mod kube;
mod mesh;
mod names;
mod node;
mod object;
mod path;
mod read;
mod salvage;
mod scalar;
mod split;
mod subject;
mod tree;

use std::sync::Arc;

use crate::diagnostics::{Diagnostic, Location};
use crate::origin::Origin;
use crate::resources::{AnyObject, Broken};

pub(crate) use names::Names;
pub(crate) use split::{Document, documents};

/// What one document says. Lines count from the start of the document; see [`Parsed::moved`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    /// The objects, in the order of the text.
    pub items: Vec<Item>,
    /// Findings.
    pub diagnostics: Vec<Diagnostic>,
    /// Parts whose kind or name cannot be told: why, and where.
    pub unreadable: Vec<(Arc<str>, Location)>,
    /// Kinds that are not read, each once, with its first place.
    pub kinds_not_read: Vec<(Box<str>, Location)>,
    /// The text is no YAML: whatever else was in it is unknown.
    pub is_damaged: bool,
}

impl Parsed {
    /// Without memory to spare: a store keeps it for as long as the document stays.
    pub fn shrunk(mut self) -> Self {
        self.items.shrink_to_fit();
        self.diagnostics.shrink_to_fit();
        self.unreadable.shrink_to_fit();
        self.kinds_not_read.shrink_to_fit();
        self
    }
}

/// One object of a document.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// As written.
    Good(AnyObject),
    /// Wrong in some way that is among the diagnostics.
    Broken(Arc<Broken>),
}

impl Item {
    /// Kind, namespace and name.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Good(object) => object.origin(),
            Self::Broken(broken) => &broken.origin,
        }
    }
}

/// Parses one document of a file.
pub(crate) fn parse(document: &Document<'_>, file: &Arc<str>, names: &mut Names) -> Parsed {
    let mut reader = object::Reader::new(document, file.clone(), names);
    match tree::build(document.text) {
        Ok(None) => {}
        Ok(Some(root)) => reader.object(&root, None),
        Err(error) => reader.damaged(&error),
    }
    reader.finish()
}

/// A place of a document as a place of the file.
pub(crate) fn moved(location: &Location, lines_before: u32) -> Location {
    Location {
        line: location.line.saturating_add(lines_before),
        ..location.clone()
    }
}
