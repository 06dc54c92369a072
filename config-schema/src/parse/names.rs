//! One copy of what many objects share: namespaces, label keys, node names, and whole sets of labels, which the
//! Pods of a Deployment have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Longer strings are hardly ever shared.
const SHARED_BYTES_MAX: usize = 128;

/// Labels or annotations.
pub(crate) type Texts = BTreeMap<Arc<str>, Arc<str>>;

/// What is shared.
#[derive(Debug, Default)]
pub(crate) struct Names {
    strings: FxHashSet<Arc<str>>,
    texts: FxHashSet<Arc<Texts>>,
}

impl Names {
    /// The shared copy of a string.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > SHARED_BYTES_MAX {
            return Arc::from(text);
        }
        if let Some(shared) = self.strings.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = Arc::from(text);
        self.strings.insert(shared.clone());
        shared
    }

    /// The shared copy of labels or annotations.
    pub fn share_texts(&mut self, texts: Texts) -> Arc<Texts> {
        if let Some(shared) = self.texts.get(&texts) {
            return shared.clone();
        }
        let shared = Arc::new(texts);
        self.texts.insert(shared.clone());
        shared
    }

    /// Forgets what nobody else holds.
    pub fn sweep(&mut self) {
        self.texts.retain(|texts| Arc::strong_count(texts) > 1);
        self.strings.retain(|name| Arc::strong_count(name) > 1);
    }
}
