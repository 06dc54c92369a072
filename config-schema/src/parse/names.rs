//! One copy of each string that many objects share: namespaces, label keys, node names.

use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Longer strings are hardly ever shared.
const SHARED_BYTES_MAX: usize = 128;

/// The shared strings.
#[derive(Debug, Default)]
pub(crate) struct Names(FxHashSet<Arc<str>>);

impl Names {
    /// The shared copy of a string.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > SHARED_BYTES_MAX {
            return Arc::from(text);
        }
        if let Some(shared) = self.0.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = Arc::from(text);
        self.0.insert(shared.clone());
        shared
    }

    /// Forgets strings that nobody else holds.
    pub fn sweep(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}
