//! Text to typed resources, document by document. Strict, and never ends at the first error; keeps
//! nothing from one document to the next. What stays in force when a document is broken is decided
//! in `store`.

mod ca_bundle;
mod calico;
mod catalog;
mod cilium;
mod de;
mod fault;
mod json;
mod kube;
mod kube_pods;
mod list;
mod mesh;
mod mesh_providers;
mod metadata;
mod names;
mod node;
mod object;
mod path;
mod pods;
mod read;
mod salvage;
mod scalar;
mod selection;
mod service_entry;
mod split;
mod subject;
mod tree;

use std::sync::Arc;

use crate::diagnostics::{Diagnostic, Location};
use crate::origin::Origin;
use crate::resources::{AnyObject, Broken};

pub use catalog::{KindRead, kinds_read};
pub use mesh::mesh_fields;
pub use mesh_providers::other_providers;
pub use pods::{NodePod, node_pods};

pub(crate) use list::{CutList, cut_list};
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

    /// Whether both are known to be objects of their own, one made after the other was deleted.
    pub fn is_another_than(&self, other: &Self) -> bool {
        matches!((self.uid(), other.uid()), (Some(one), Some(other)) if one != other)
    }

    fn uid(&self) -> Option<u64> {
        match self {
            Self::Good(object) => object.uid(),
            Self::Broken(broken) => broken.uid,
        }
    }
}

/// What a text is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// A whole document.
    Document,
    /// A `List` without its items.
    Frame,
    /// One item of a `List`.
    Item,
}

/// Parses one document of a file, or a piece of a list. `None`: it is no such piece.
pub(crate) fn parse(
    document: &Document<'_>,
    role: Role,
    file: &Arc<str>,
    names: &mut Names,
) -> Option<Parsed> {
    let is_whole = role == Role::Document;
    if is_whole && let Some(parsed) = parse_json(document, file, names) {
        return Some(parsed);
    }
    parse_yaml(document, role, file, names)
}

/// Parses a document that is a Pod or an EndpointSlice as the API server has it, with nothing wrong: those change
/// all the time. Anything else is for [`parse_yaml`], which knows the places of what it finds.
fn parse_json(document: &Document<'_>, file: &Arc<str>, names: &mut Names) -> Option<Parsed> {
    // A tree of another kind would be built in vain.
    let is_named = |kind: &str| document.text.contains(kind);
    if !is_named(r#""kind":"Pod""#) && !is_named(r#""kind":"EndpointSlice""#) {
        return None;
    }
    let root = json::build(document.text)?;
    let kind = root.get("kind").and_then(node::Node::text)?;
    if !matches!(kind, "Pod" | "EndpointSlice") {
        return None;
    }
    let mut reader = object::Reader::new(document, file.clone(), names);
    reader.object(&root, None);
    let parsed = reader.finish();
    let is_plain = matches!(
        &parsed.items[..],
        [Item::Good(AnyObject::Pod(_) | AnyObject::EndpointSlice(_))]
    );
    let is_all = parsed.diagnostics.is_empty()
        && parsed.unreadable.is_empty()
        && parsed.kinds_not_read.is_empty()
        && !parsed.is_damaged;
    (is_plain && is_all).then_some(parsed)
}

fn parse_yaml(
    document: &Document<'_>,
    role: Role,
    file: &Arc<str>,
    names: &mut Names,
) -> Option<Parsed> {
    let mut reader = object::Reader::new(document, file.clone(), names);
    match (tree::build(document.text), role) {
        (Ok(None), Role::Document) => {}
        (Ok(Some(root)), Role::Document) => reader.object(&root, None),
        (Err(error), Role::Document) => reader.damaged(&error),
        (Ok(Some(root)), Role::Frame) if list::is_frame(&root, document.text) => {
            reader.object(&root, None);
        }
        (Ok(Some(root)), Role::Item) => reader.object(list::only_item(&root)?, None),
        (_, Role::Frame | Role::Item) => return None,
    }
    Some(reader.finish())
}

/// A place of a document as a place of the file.
pub(crate) fn moved(location: &Location, lines_before: u32) -> Location {
    Location {
        line: location.line.saturating_add(lines_before),
        ..location.clone()
    }
}
