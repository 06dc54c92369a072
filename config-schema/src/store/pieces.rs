//! The pieces of a file, each parsed by itself and only when its text is new: documents, and the items
//! of a `List`, which may be thousands in one document. Says nothing of what is in force.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::Store;
use crate::parse::{CutList, Document, Item, Parsed, Role, cut_list, documents, parse};

/// What one piece says.
#[derive(Debug)]
pub(super) struct Cached {
    fingerprint: Fingerprint,
    pub lines_before: u32,
    pub said: Said,
}

/// What a piece says, in little memory: nearly always one object and nothing else.
#[derive(Debug)]
pub(super) enum Said {
    One(Item),
    More(Box<Parsed>),
}

impl From<Parsed> for Said {
    fn from(mut parsed: Parsed) -> Self {
        let is_more = parsed.is_damaged
            || !parsed.diagnostics.is_empty()
            || !parsed.unreadable.is_empty()
            || !parsed.kinds_not_read.is_empty();
        match (parsed.items.len(), is_more) {
            (1, false) => match parsed.items.pop() {
                Some(item) => Self::One(item),
                None => Self::More(Box::new(parsed)),
            },
            _ => Self::More(Box::new(parsed.shrunk())),
        }
    }
}

impl Said {
    /// The objects, in the order of the text.
    pub fn items(&self) -> &[Item] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::More(parsed) => &parsed.items,
        }
    }

    fn items_mut(&mut self) -> &mut [Item] {
        match self {
            Self::One(item) => std::slice::from_mut(item),
            Self::More(parsed) => &mut parsed.items,
        }
    }

    /// All of it, if there is more than an object.
    pub fn more(&self) -> Option<&Parsed> {
        match self {
            Self::One(_) => None,
            Self::More(parsed) => Some(parsed),
        }
    }
}

/// Two hashes of different construction and the length: texts that agree in all three are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint(u64, u64, u32, Role);

impl Fingerprint {
    fn of(document: &Document<'_>, role: Role) -> Self {
        let bytes = document.text.as_bytes();
        let mut sip = DefaultHasher::new();
        sip.write(bytes);
        let mut fx = FxHasher::default();
        fx.write(bytes);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self(sip.finish(), fx.finish(), len, role)
    }
}

/// A piece of the text as it is now.
type Piece<'t> = (Document<'t>, Fingerprint);

impl Store {
    /// What a text says, piece by piece, and whether that is anything else than `old`.
    pub(super) fn pieces(
        &mut self,
        text: &str,
        path: &Arc<str>,
        old: Box<[Cached]>,
    ) -> (Box<[Cached]>, bool) {
        let documents = documents(text);
        let lists = lists(&documents, &old);
        let wholes = documents.iter().zip(&lists);
        let now: Vec<Vec<Piece<'_>>> = wholes.map(|(d, list)| pieces_of(d, list)).collect();
        let is_as_before = |(old, (document, fingerprint)): (&Cached, &Piece<'_>)| {
            old.lines_before == document.lines_before && old.fingerprint == *fingerprint
        };
        let count: usize = now.iter().map(Vec::len).sum();
        if old.len() == count && old.iter().zip(now.iter().flatten()).all(is_as_before) {
            return (old, false);
        }
        let old = old.into_iter().map(|c| (c.fingerprint, c));
        let mut known: FxHashMap<_, _> = old.collect();
        let mut found = Vec::with_capacity(count);
        for (document, pieces) in documents.iter().zip(now) {
            let start = found.len();
            for (piece, fingerprint) in pieces {
                match self.piece(&piece, fingerprint, path, known.remove(&fingerprint)) {
                    Some(cached) => found.push(cached),
                    // Some piece of the list is none by itself, so that only the whole is to be
                    // trusted.
                    None => {
                        found.truncate(start);
                        let whole = Fingerprint::of(document, Role::Document);
                        found.extend(self.piece(document, whole, path, None));
                        break;
                    }
                }
            }
        }
        (found.into(), true)
    }

    /// What a piece says: known from before, or parsed. `None`: it does not play its role.
    fn piece(
        &mut self,
        document: &Document<'_>,
        fingerprint: Fingerprint,
        path: &Arc<str>,
        known: Option<Cached>,
    ) -> Option<Cached> {
        let is_known = known.is_some();
        let mut cached = match known {
            Some(cached) => cached,
            None => {
                let parsed = parse(document, fingerprint.3, path, &mut self.names)?;
                self.documents_parsed += 1;
                Cached {
                    fingerprint,
                    lines_before: 0,
                    said: parsed.into(),
                }
            }
        };
        if is_known && cached.lines_before == document.lines_before {
            return Some(cached);
        }
        cached.lines_before = document.lines_before;
        for item in cached.said.items_mut() {
            let Item::Good(object) = item else { continue };
            object.set_lines_before(document.lines_before);
            // A list that can not be cut is one piece: of its objects most are what they were.
            if let Some(known) = self.known.get(object.origin())
                && let Item::Good(old) = &known.item
                && old == object
            {
                *object = old.clone();
            }
        }
        Some(cached)
    }
}

/// The documents that are lists to be cut. One that was tried before, and is known as a whole, is not.
fn lists<'t>(documents: &[Document<'t>], old: &[Cached]) -> Vec<Option<CutList<'t>>> {
    let known: FxHashSet<Fingerprint> = old.iter().map(|c| c.fingerprint).collect();
    let is_known = |d| known.contains(&Fingerprint::of(d, Role::Document));
    let list = |d| cut_list(d).filter(|_| !is_known(d));
    documents.iter().map(list).collect()
}

fn pieces_of<'t>(document: &Document<'t>, list: &'t Option<CutList<'t>>) -> Vec<Piece<'t>> {
    let piece = |document: &Document<'t>, role| (*document, Fingerprint::of(document, role));
    let Some(list) = list else {
        return vec![piece(document, Role::Document)];
    };
    let frame = Document {
        text: &list.frame,
        lines_before: document.lines_before,
    };
    let items = list.items.iter().map(|item| piece(item, Role::Item));
    std::iter::once(piece(&frame, Role::Frame))
        .chain(items)
        .collect()
}
